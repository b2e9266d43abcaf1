"""One row group of the call log, sorted into buckets.

Every row lands in exactly one bucket, and the order of the tests decides which (README,
Rules). Work per row is done on small integers: texts come as Arrow dictionaries, each
distinct text is looked at once, and tables indexed by its code carry the answer to all rows
that have it. Only the columns that a price book version asks for are read, and a timestamp
only where the footer leaves its month open.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settlement.logfiles import (
    CallLog,
    LogFile,
    RowGroup,
    columns,
    is_text,
    needed,
    read_stamps,
    reading,
)
from settlement.prices import Version
from settlement.stamps import Clock, Stamps

Ints = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.int32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
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
_REASONS = pa.array([name.removeprefix("rejected.") for name in BUCKETS], pa.large_string())


# ---------------------------------------------------------------- rules as tables


class Rules:
    """A price book version as tables of small integers.

    ``pairs`` are all (interface, item) that a call can count toward, ordered by the bytes of
    their texts; a pair's number is its place. ``outcome[i, n]`` is the bucket of a call whose
    interface has number i and whose named item has number n, and ``pair[i, n]`` its pair.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self.columns = needed(version)
        interfaces = sorted({name for item in version.items for name in item.interfaces})
        items = [item.code for item in version.items]
        self._unbilled, self._unknown = len(interfaces), len(interfaces) + 1
        self.unsaid, self._other = len(items), len(items) + 1
        self._interfaces = {name: number for number, name in enumerate(interfaces)}
        self._interfaces |= dict.fromkeys(version.unbilled_interfaces, self._unbilled)
        self._items = {code: number for number, code in enumerate(items)} | {"": self.unsaid}
        bearing = {
            (i, n): version.bearing(interface, named)
            for i, interface in enumerate(interfaces)
            for n, named in enumerate([*items, None])
        }
        self.pairs = sorted(
            {(interfaces[i], item) for (i, _), item in bearing.items() if item},
            key=lambda pair: (pair[0].encode(), pair[1].encode()),
        )
        shape = len(interfaces) + 2, len(items) + 2
        self.outcome: Small = np.full(shape, NUMBER["rejected.wrong_item"], np.int8)
        self.pair: Codes = np.zeros(shape, np.int32)
        for (i, n), item in bearing.items():
            if item:
                self.outcome[i, n] = CHARGED
                self.pair[i, n] = self.pairs.index((interfaces[i], item))
        self.outcome[self._unbilled] = NUMBER["unbilled_interface"]
        self.outcome[self._unknown] = NUMBER["rejected.unknown_interface"]

    def interfaces(self, column: "Coded") -> Codes:
        """Return the number of each row's interface."""
        return column.mapped(
            [self._interfaces.get(text, self._unknown) for text in column.texts], self._unknown
        )

    def items(self, column: "Coded") -> Codes:
        """Return the number of each row's named item."""
        return column.mapped(
            [self._items.get(text, self._other) for text in column.texts], self.unsaid
        )

    def statuses(self, column: "Coded") -> Codes:
        """Return the bucket that each row's status leads to."""
        billable, missing = self.version.billable_status or (), NUMBER["rejected.missing_status"]
        other = NUMBER["unbillable_status"]
        return column.mapped(
            [CHARGED if text in billable else other if text else missing for text in column.texts],
            missing,
        )


# ---------------------------------------------------------------- columns


@dataclass(frozen=True)
class Coded:
    """A column of text as codes: ``values[codes[row]]``; a null has code -1."""

    codes: Codes
    values: pa.Array

    @property
    def texts(self) -> list[str]:
        """The distinct texts; some may occur in no row."""
        return self.values.to_pylist()  # type: ignore[no-any-return]

    def mapped(self, numbers: Sequence[int], null: int) -> Codes:
        """Return for each row the number that its text is mapped to."""
        return np.array([*numbers, null], np.int32)[self.codes]

    def compact(self) -> "Coded":
        """Return the same column with only the texts that occur; there must be no nulls."""
        used, codes = np.unique(self.codes, return_inverse=True)
        return Coded(codes.astype(np.int32), self.values.take(pa.array(used)))

    @cached_property
    def missing(self) -> Bools | None:
        """The rows whose text is null or empty; None where there are none."""
        empty = pc.index(self.values, pa.scalar("", self.values.type)).as_py()
        missing: Bools = (self.codes == -1) | (self.codes == (-1 if empty < 0 else empty))
        return missing if missing.any() else None

    def cells(self, rows: Ints) -> pa.Array:
        """Return some rows as text."""
        codes = self.codes[rows]
        taken = self.values.take(pa.array(codes, mask=codes < 0))
        return taken.cast(pa.large_string())

    @classmethod
    def of(cls, column: pa.Array) -> "Coded":
        """Code a column of text or of integers (as their decimal text).

        Raises `UnicodeDecodeError` or Arrow's errors where the text is not UTF-8.
        """
        if pa.types.is_null(column.type):
            return cls(np.full(len(column), -1, np.int32), pa.array([], pa.string()))
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        values = column.dictionary
        if not is_text(values.type):
            values = values.cast(pa.string())
        _check_utf8(values)
        codes = column.indices
        if codes.null_count:
            codes = codes.fill_null(-1)
        return cls(codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), values)


def _check_utf8(texts: pa.Array) -> None:
    """Raise Arrow's error unless texts are UTF-8; plain ASCII is seen at a glance."""
    buffers = texts.buffers()
    if len(buffers) == 3 and (
        pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)
    ):
        data = np.frombuffer(buffers[2] if buffers[2] is not None else b"", np.uint8)
        if not len(data) or data.max() < 0x80:
            return
    texts.validate(full=True)


@dataclass(frozen=True)
class Ids:
    """The request ids of some rows: as written, and as bytes."""

    written: pa.Array

    @cached_property
    def raw(self) -> pa.Array:
        """The ids as large binary or fixed-size binary."""
        if pa.types.is_fixed_size_binary(self.written.type):
            return self.written
        return self.written.cast(pa.large_binary())

    @cached_property
    def missing(self) -> Bools | None:
        """The rows whose id is null or empty; None where there are none."""
        if pa.types.is_fixed_size_binary(self.raw.type):
            empty = self.raw.type.byte_width == 0 and len(self.raw) > 0
            if not empty and not self.raw.null_count:
                return None
            missing = self.raw.is_null().to_numpy(zero_copy_only=False)
            return np.ones(len(self.raw), bool) if empty else missing
        lengths = pc.fill_null(pc.binary_length(self.raw), 0).to_numpy(zero_copy_only=False)
        missing = lengths == 0
        return missing if missing.any() else None

    def cells(self, rows: Ints) -> pa.Array:
        """Return some rows as text, bytes as lower-case hex."""
        taken = self.written.take(pa.array(rows))
        if is_text(taken.type):
            return taken.cast(pa.large_string())
        if pa.types.is_null(taken.type):
            return pa.nulls(len(taken), pa.large_string())
        return pa.array(
            [None if cell is None else cell.hex() for cell in taken.to_pylist()], pa.large_string()
        )

    @classmethod
    def of(cls, column: pa.Array) -> "Ids":
        """Take ids of any physical form; raises Arrow's errors where text is not UTF-8."""
        if pa.types.is_dictionary(column.type):
            if is_text(column.type.value_type):
                _check_utf8(column.dictionary)
            return cls(column.dictionary_decode())
        if is_text(column.type):
            _check_utf8(column)
        return cls(column)


# ---------------------------------------------------------------- buckets


@dataclass(frozen=True)
class Batch:
    """Some rows of a row group, classified.

    Attributes:
        first_row: where in the file the first one lies.
        counts: how many rows are in each of `BUCKETS`.
        charged: the rows that stand all tests, from 0 within the batch.
        accounts: all rows' accounts.
        pairs: all rows' (interface, item), meaningful for charged ones.
        ids: all rows' request ids; None where they are not read.
        rejects: the rejected rows as the table of rejects, or None.
    """

    first_row: int
    counts: Ints
    charged: Ints
    accounts: Coded
    pairs: Codes
    ids: Ids | None
    rejects: pa.Table | None


def classify(
    log: CallLog, file: LogFile, group: RowGroup, rules: Rules, clock: Clock
) -> Iterator[Batch]:
    """Sort the rows of a row group into buckets.

    Raises:
        BadInput: the file is damaged, text is not UTF-8, or a wall clock time never was.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """
    is_within = clock.includes(file.types["timestamp"], group.span)
    names = [name for name in rules.columns if name != "timestamp" or not is_within]
    late = _LateStamps(log, file, group, clock)
    for row, cells in columns(log, file, group, names):
        stamps = None if is_within else read_stamps(clock, file, cells["timestamp"])
        yield _classified(_Cells.of(file, row, cells), stamps, late, rules)


@dataclass(frozen=True)
class _Cells:
    """A batch of rows, its columns coded."""

    file: LogFile
    first_row: int
    rows: int
    accounts: Coded
    interfaces: Coded
    ids: Ids | None
    items: Coded | None
    statuses: Coded | None

    @classmethod
    def of(cls, file: LogFile, first_row: int, cells: Mapping[str, pa.Array]) -> "_Cells":
        def coded(name: str) -> Coded | None:
            if name not in cells:
                return None
            with reading(f"{file.name}, column {name!r}"):
                return Coded.of(cells[name])

        accounts, interfaces = coded("account_id"), coded("interface")
        assert accounts is not None
        assert interfaces is not None
        ids = None
        if "request_id" in cells:
            with reading(f"{file.name}, column 'request_id'"):
                ids = Ids.of(cells["request_id"])
        rows = len(accounts.codes)
        status = coded("status_code")
        return cls(file, first_row, rows, accounts, interfaces, ids, coded("item"), status)

    def numbers(self, rules: Rules) -> tuple[Codes, Codes | int]:
        """Return the numbers of each row's interface and named item."""
        named = rules.unsaid if self.items is None else rules.items(self.items)
        return rules.interfaces(self.interfaces), named


def _classified(cells: _Cells, stamps: Stamps | None, late: "_LateStamps", rules: Rules) -> Batch:
    """Put each row where the first test that it fails says: the last test is made first."""
    interface, named = cells.numbers(rules)
    bucket = np.zeros(cells.rows, np.int8)
    if cells.statuses is not None:
        bucket[:] = rules.statuses(cells.statuses)
    outcome = rules.outcome[interface, named]
    np.copyto(bucket, outcome, where=outcome != CHARGED)
    if cells.accounts.missing is not None:
        bucket[cells.accounts.missing] = NUMBER["rejected.missing_account_id"]
    if cells.ids is not None and cells.ids.missing is not None:
        bucket[cells.ids.missing] = NUMBER["rejected.missing_request_id"]
    if stamps is not None:
        bucket[~stamps.inside] = NUMBER["outside_month"]
        bucket[stamps.missing] = NUMBER["rejected.missing_timestamp"]
    counts = np.bincount(bucket, minlength=len(BUCKETS))
    rejects = None
    if counts[_REJECTED].any():
        rows = np.flatnonzero(_REJECTED[bucket])
        if stamps is None:
            stamps = late.at(cells.first_row, cells.rows)
        rejects = _rejects(cells, stamps, bucket, rows)
    return Batch(
        cells.first_row,
        counts,
        np.flatnonzero(bucket == CHARGED),
        cells.accounts,
        rules.pair[interface, named],
        cells.ids,
        rejects,
    )


@dataclass(frozen=True)
class _LateStamps:
    """The timestamps of a row group that need not be decoded, until a row is rejected."""

    log: CallLog
    file: LogFile
    group: RowGroup
    clock: Clock

    @cached_property
    def _column(self) -> pa.Array:
        parts = columns(self.log, self.file, self.group, ["timestamp"])
        return pa.concat_arrays([cells["timestamp"] for _, cells in parts])

    def at(self, row: int, count: int) -> Stamps:
        """Return the timestamps of some rows, counted in the file."""
        return self.clock.read(self._column.slice(row - self.group.first_row, count))


def _rejects(cells: _Cells, stamps: Stamps, bucket: Small, rows: Ints) -> pa.Table:
    """Return rejected rows with their reasons and raw cells."""
    text = pa.large_string()
    nothing = pa.nulls(len(rows), text)
    return pa.table(
        {
            "file": pa.repeat(pa.scalar(cells.file.name, text), len(rows)),
            "row": pa.array(rows + cells.first_row),
            "reason": _REASONS.take(pa.array(bucket[rows])),
            "request_id": nothing if cells.ids is None else cells.ids.cells(rows),
            "account_id": cells.accounts.cells(rows),
            "interface": cells.interfaces.cells(rows),
            "timestamp": stamps.cells(rows),
            "status_code": nothing if cells.statuses is None else cells.statuses.cells(rows),
            "item": nothing if cells.items is None else cells.items.cells(rows),
        }
    )


# ---------------------------------------------------------------- second looks


@dataclass(frozen=True)
class Recalled:
    """Some charged rows of a row group, read again in full.

    ``instants`` are nanoseconds since the month began, ``accounts`` codes of their own.
    """

    ids: pa.Array
    instants: Ints
    accounts: Coded
    pairs: Codes


def recall(
    log: CallLog, file: LogFile, group: RowGroup, rows: Ints, rules: Rules, clock: Clock
) -> Iterator[Recalled]:
    """Read rows of a row group again, with all that decides between rows of one request id.

    ``rows`` are rows of the file that `classify` called charged, ascending, in this row group.
    """
    names = ["request_id", "account_id", "interface", "timestamp", "item"]
    for first, cells in columns(log, file, group, names):
        count = len(cells["account_id"])
        wanted = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + count)] - first
        if not len(wanted):
            continue
        take = pa.array(wanted)
        few = _Cells.of(file, first, {name: column.take(take) for name, column in cells.items()})
        stamps = read_stamps(clock, file, cells["timestamp"].take(take))
        assert few.ids is not None
        yield Recalled(
            few.ids.raw.cast(pa.large_binary()),
            stamps.since(clock.period.start, np.arange(len(wanted))),
            few.accounts.compact(),
            rules.pair[few.numbers(rules)],
        )
