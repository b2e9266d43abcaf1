"""One row group of the call log, sorted into buckets.

Every row lands in exactly one bucket, and the order of the tests decides which (README,
Rules). Work per row is done on small integers: texts come as codes, each distinct text is
looked at once, and what its status, interface and item say together is a row's *kind*, a number
that tables turn into a bucket and into what is charged. Tests on other columns, few of whose
rows ever fail, overwrite it with kinds of their own. Only the columns that a price book version
asks for are read, and a timestamp only where the footer leaves its month open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from settlement.prices import Version
from settlement.scan.arrays import integers, strings
from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.logfiles import needed
from settlement.scan.names import EMPTY, Names
from settlement.scan.rows import Coded, Rows, Unread
from settlement.scan.stamps import Clock, Stamps
from settlement.scan.texts import Bools, Codes, Ints, Lanes

Small = np.ndarray[Any, np.dtype[np.int8]]

CHARGED = 0
BUCKETS = (
    "charged",
    "rejected.missing_timestamp",
    "outside_month",
    "rejected.missing_request_id",
    "rejected.missing_account_id",
    "unbilled_interface",
    "rejected.unknown_interface",
    "rejected.wrong_item",
    "rejected.missing_status",
    "unbillable_status",
)
"""Buckets by number, in the order of their tests; ``charged`` is what stands all of them."""
NUMBER = {name: number for number, name in enumerate(BUCKETS)}
_REJECTED = np.array([name.startswith("rejected.") for name in BUCKETS])
LACKING = [
    NUMBER[name]
    for name in (
        "rejected.missing_account_id",
        "rejected.missing_request_id",
        "outside_month",
        "rejected.missing_timestamp",
    )
]
"""The buckets of rows that lack more than a status, an interface or an item; last test first."""
RECALLED = ("request_id", "timestamp")
"""Columns of which some rows are read again."""
_FEW = ("interface", "item", "status_code")
"""Columns of few texts: they are read as codes."""
_BILLABLE, _MISSING, _UNBILLABLE = range(3)
_STATUSES = np.array([CHARGED, NUMBER["rejected.missing_status"], NUMBER["unbillable_status"]])
_REASONS = strings([name.removeprefix("rejected.") for name in BUCKETS])


# ---------------------------------------------------------------- rules as tables


class Rules:
    """A price book version as tables of small integers.

    ``pairs`` are all (interface, item) that a call can count toward, ordered by the bytes of
    their texts. What a row's texts say together is its kind; ``bucket[kind]`` is the bucket
    that it leads to, and ``charge[kind]`` is 0 where nothing is charged, else 1 more than the
    place of the pair. The last kinds, `LACKING`, are of rows that lack more than these texts.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self.columns = needed(version)
        self.pairs, named = version.bearings()
        self.charges = 1 + len(self.pairs)
        interfaces = sorted({interface for interface, _ in self.pairs})
        items = [item.code for item in version.items]
        self._unbilled, self._unknown = len(interfaces), len(interfaces) + 1
        self._unsaid, self._other = len(items), len(items) + 1
        self._interfaces = {name: number for number, name in enumerate(interfaces)}
        self._interfaces |= dict.fromkeys(version.unbilled_interfaces, self._unbilled)
        self._items = {code: number for number, code in enumerate(items)} | {"": self._unsaid}
        outcome = np.full((len(interfaces) + 2, len(items) + 2, 1), NUMBER["rejected.wrong_item"])
        pair = np.zeros(outcome.shape, np.int32)
        charge = {own: number for number, own in enumerate(self.pairs, 1)}
        for (interface, code), item in named.items():
            at = self._interfaces[interface], self._unsaid if code is None else self._items[code]
            outcome[at] = CHARGED
            pair[at] = charge[interface, item]
        outcome[self._unbilled] = NUMBER["unbilled_interface"]
        outcome[self._unknown] = NUMBER["rejected.unknown_interface"]
        bucket = np.where(outcome == CHARGED, _STATUSES, outcome)
        self._shape = bucket.shape
        self.lacking = bucket.size
        self.bucket: Small = np.append(bucket, LACKING).astype(np.int8)
        self.charge: Codes = np.zeros(len(self.bucket), np.int32)
        self.charge[: self.lacking] = np.where(bucket == CHARGED, pair, 0).ravel()

    def kinds(self, interfaces: Coded | None, items: Coded | None, statuses: Coded | None) -> Codes:
        """Return the kind of each row."""
        assert interfaces is not None
        _, item_count, status_count = self._shape
        step = item_count * status_count
        kinds = interfaces.mapped(
            [self._interfaces.get(text, self._unknown) * step for text in interfaces.texts],
            self._unknown * step,
        )
        if items is None:
            kinds += np.int32(self._unsaid * status_count)
        else:
            kinds += items.mapped(
                [self._items.get(text, self._other) * status_count for text in items.texts],
                self._unsaid * status_count,
            )
        if statuses is not None:
            kinds += statuses.mapped([self._status(text) for text in statuses.texts], _MISSING)
        return kinds

    def renumbered(self, cells: Ints, numbers: Codes | Ints) -> Ints:
        """Return cells (see `Batch`) of accounts that have other numbers: ``numbers[account]``."""
        return numbers[cells // self.charges].astype(np.int64) * self.charges + cells % self.charges

    def _status(self, text: str) -> int:
        if text in (self.version.billable_status or ()):
            return _BILLABLE
        return _UNBILLABLE if text else _MISSING


# ---------------------------------------------------------------- buckets


@dataclass(frozen=True)
class Batch:
    """Some rows of a row group, classified.

    Attributes:
        first_row: where in the file the first one lies.
        counts: how many rows are in each of `BUCKETS`.
        charged: the rows that stand all tests, from 0 within the batch.
        hashes: the hashes of the charged rows' request ids; None where ids are not read.
        cells: for all rows what they charge: the account's number times `Rules.charges`, plus
            the row's charge.
        rejects: the rejected rows as the table of rejects, or None.
    """

    first_row: int
    counts: Ints
    charged: Ints
    hashes: Lanes | None
    cells: Codes | Ints
    rejects: pa.Table | None


def classify(
    unread: Unread, rules: Rules, clock: Clock, names: Names, hashed: Hash = hash_rows
) -> Iterator[Batch]:
    """Sort the rows of a row group into buckets; their accounts are numbered by ``names``.

    Raises:
        BadInput: the file is damaged, text is not UTF-8, or a wall clock time never was.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """
    is_within = _is_within(unread, clock)
    for rows in unread.rows(rules.columns):
        yield _classified(rows, is_within, rules, clock, names, hashed)


def fetch(unread: Unread, rules: Rules, clock: Clock) -> None:
    """Have a row group that is to be classified fetched while others are."""
    spared = {"timestamp"} if _is_within(unread, clock) else set()
    unread.fetch(set(rules.columns) - spared)


def _is_within(unread: Unread, clock: Clock) -> bool:
    """Tell whether the footer says that all rows are of the month."""
    return clock.includes(unread.file.types["timestamp"], unread.group.span)


def _classified(
    rows: Rows, is_within: bool, rules: Rules, clock: Clock, names: Names, hashed: Hash
) -> Batch:
    """Put each row where the first test that it fails says: the last test is made first."""
    coded = {name: rows.coded(name) for name in _FEW if name in rules.columns}
    kinds = rules.kinds(coded["interface"], coded["item"], coded.get("status_code"))
    accounts = rows.accounts(names)
    hashes, no_id = rows.hashes(hashed) if "request_id" in rules.columns else (None, None)
    stamps = None if is_within else rows.stamps(clock)
    _mark(kinds, rules.lacking, accounts <= EMPTY, no_id, stamps)
    by_kind = np.bincount(kinds, minlength=len(rules.bucket))
    counts = np.zeros(len(BUCKETS), np.int64)
    np.add.at(counts, rules.bucket, by_kind)
    rejects = None
    if counts[_REJECTED].any():
        stamps = stamps or rows.stamps(clock)
        rejects = _rejects(rows, rules, rules.bucket[kinds], coded, stamps)
    charges = rules.charge.take(kinds)
    charged = np.flatnonzero(charges != 0)  # of booleans: it takes a third of the time
    if hashes is not None and len(charged) < len(hashes):
        hashes = hashes[charged]
    return Batch(rows.first, counts, charged, hashes, _cells(accounts, charges, rules), rejects)


def _mark(
    kinds: Codes, lacking: int, no_account: Bools, no_id: Bools | None, stamps: Stamps | None
) -> None:
    """Overwrite the kinds of rows that lack something, in the order of `LACKING`."""
    if no_account.any():
        kinds[no_account] = lacking
    if no_id is not None:
        kinds[no_id] = lacking + 1
    if stamps is not None:
        kinds[~stamps.inside] = lacking + 2
        kinds[stamps.missing] = lacking + 3


def _cells(accounts: Codes, charges: Codes, rules: Rules) -> Codes | Ints:
    """Return what each row charges as one number, in four bytes where that is enough."""
    most = int(accounts.max(initial=0))
    if (most + 1) * rules.charges > np.iinfo(np.int32).max:
        return accounts.astype(np.int64) * rules.charges + charges
    accounts *= np.int32(rules.charges)
    accounts += charges
    return accounts


def _rejects(
    rows: Rows, rules: Rules, bucket: Small, coded: Mapping[str, Coded | None], stamps: Stamps
) -> pa.Table:
    """Return rejected rows with their reasons and raw cells."""
    which = np.flatnonzero(_REJECTED[bucket])
    text = pa.large_string()

    def cells(name: str) -> pa.Array:
        if name in _FEW:
            column = coded.get(name)
            return pa.nulls(len(which), text) if column is None else column.cells(which)
        is_read = name in rules.columns
        return rows.cells(name, which) if is_read else pa.nulls(len(which), text)

    return pa.table(
        {
            "file": strings([rows.file.name]).take(integers(np.zeros(len(which), np.int32))),
            "row": integers(which + rows.first),
            "reason": _REASONS.take(integers(bucket[which])),
            "request_id": cells("request_id"),
            "account_id": cells("account_id"),
            "interface": cells("interface"),
            "timestamp": stamps.cells(which),
            "status_code": cells("status_code"),
            "item": cells("item"),
        }
    )


# ---------------------------------------------------------------- second looks


@dataclass(frozen=True)
class Recalled:
    """Some charged rows of a row group, read again for what decides between them.

    Attributes:
        which: which of the rows that were asked for.
        ids: their request ids, all of one number of lanes.
        instants: nanoseconds since the month began.
    """

    which: Ints
    ids: Lanes
    instants: Ints


def recall(unread: Unread, rows: Ints, clock: Clock) -> Iterator[Recalled]:
    """Read rows of a row group again: their request ids and their instants.

    ``rows`` are rows of the file that `classify` called charged, ascending, in this row group.
    """
    for some in unread.rows(RECALLED):
        begin, end = np.searchsorted(rows, (some.first, some.first + some.count)).tolist()
        if begin == end:
            continue
        wanted = rows[begin:end] - some.first
        instants = some.instants(clock, wanted)
        for which, ids in some.ids(wanted):
            yield Recalled(which + begin, ids, instants[which])
