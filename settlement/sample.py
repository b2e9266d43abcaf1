"""Make a call log to try the settlement on: realistic, and known to the last row.

Every call is a pure function of its number: who called what, when, and whether it failed are read
off the bits of a mixed 64-bit number. A re-delivered call is therefore not carried along but simply
asked for again, so files can be made in any order, on any number of threads, in the memory of a
few row groups, and come out the same. Because each row is made *as* something (a call, its
re-delivery, a retry, …), the summary tells which bucket every row must land in.

    python -m settlement.sample --shipped data/logs     the two sample months of this repository
    python -m settlement.sample --demo data/demo/logs   20 million calls that reach every tier
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import pairwise
from math import gcd
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from settlement.errors import CannotWrite, SettlementError, WrongUsage
from settlement.month import Month

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

BILLING_ZONE = ZoneInfo("Asia/Shanghai")
ROW_GROUP = 1 << 20
LARGEST_LOG = 1 << 31
MOST_ACCOUNTS = 10**8
FIRST_ACCOUNT = 100_000_000  # account number 42 is written 0100000042
SECOND = 1_000_000  # in the unit of the timestamps, microseconds

# Eight equally likely ways to call an item: the interface, and the item the log names (or None).
_USES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "face-detection": (("DetectFace", None),) * 8,
    "facial-landmarks": (("AnalyzeFace", None),) * 8,
    "face-comparison": (("CompareFace", None),) * 8,
    "face-verification": (
        *(("VerifyFace", None),) * 5,
        ("CreatePerson", None),
        ("CreateFace", None),
        ("CreateFace", "face-verification"),
    ),
    "face-search": (
        *(("SearchFaces", None),) * 5,
        ("CreatePerson", "face-search"),
        *(("CreateFace", "face-search"),) * 2,
    ),
    "multi-face-search": (
        *(("SearchMultiFaces", None),) * 6,
        ("CreatePerson", "multi-face-search"),
        ("CreateFace", "multi-face-search"),
    ),
    "static-liveness": (("DetectLiveFace", None),) * 8,
}
_POPULARITY = (4, 1, 4, 3, 2, 1, 1)  # of the items above, in sixteenths of the calls
_UNKNOWN_INTERFACE = "SearchPersons"
_INTERFACES = [*dict.fromkeys(use for uses in _USES.values() for use, _ in uses)]
_INTERFACES.append(_UNKNOWN_INTERFACE)
_ITEMS = list(_USES)
_NO_ITEM = -1
_NO_ACCOUNT = -1
_WAYS = np.array(  # [item, way] → codes of interface and named item
    [
        [
            [_INTERFACES.index(use), _ITEMS.index(named) if named else _NO_ITEM]
            for use, named in uses
        ]
        for uses in _USES.values()
    ],
    np.int8,
)

_HOURS = (14, 9, 6, 5, 5, 8, 16, 34, 60, 82, 90, 86, 66, 70, 88, 90, 86, 80, 78, 80, 76, 62, 42, 24)
_WEEKDAYS = (100, 103, 104, 102, 98, 72, 64)  # Monday first
_FAILURE_CODES = np.array([400, 429, 500, 504], np.int32)
_FAILED_OF_65536 = 1311  # 2 %

# What a row is made as. Malformed kinds follow, one for each reason.
_CALL, _REDELIVERY, _RETRY, _CONFLICT, _STRAY, _MALFORMED = range(6)
REASONS = (
    "missing_timestamp",
    "missing_request_id",
    "missing_account_id",
    "unknown_interface",
    "wrong_item",
    "missing_status",
)
BUCKETS = (
    "billed",
    "duplicate",
    "conflict",
    "outside_month",
    "unbillable_status",
    *(f"rejected.{reason}" for reason in REASONS),
)

# What random bits are drawn for.
_TIME, _FATE, _ACCOUNT, _TASTE, _HIGH, _LOW = range(_PURPOSES := 6)

_ID_GROUPS = 8  # of four hexadecimal digits
_HEX = np.frombuffer("".join(f"{value:04x}" for value in range(65_536)).encode(), np.uint32)
_UUID = np.dtype(
    {
        "names": [*(f"group{i}" for i in range(_ID_GROUPS)), *(f"hyphen{i}" for i in range(4))],
        "formats": ["u4"] * _ID_GROUPS + ["u1"] * 4,
        "offsets": [0, 4, 9, 14, 19, 24, 28, 32, 8, 13, 18, 23],
        "itemsize": 36,
    }
)


@dataclass(frozen=True)
class Quota:
    """Calls of one item that one account is to be charged, no more and no fewer.

    ``account`` is its number (42 is written 0100000042) and should lie above the number of Zipf
    accounts. A call of a quota that fails is always retried with success under its id.
    """

    account: int
    item: str
    calls: int


@dataclass(frozen=True)
class SampleSummary:
    """What was written.

    ``buckets`` tells what counting these files alone for their month must find, by the price
    book of the billing document (status 0 is charged); only buckets with rows are in it.
    """

    folder: Path
    month: Month
    files: int
    rows: int
    size: int
    buckets: Mapping[str, int]


@dataclass(frozen=True)
class _Rows:
    """Rows to write: which call, what the row is made as, and when the call was born (µs)."""

    number: Ints
    kind: Codes
    born: Ints


_NO_ROWS = _Rows(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.int64))


@dataclass(frozen=True)
class _Extras:
    """Rows beside the calls, and when each is delivered (µs), ascending."""

    rows: _Rows
    delivered: Ints


@dataclass(frozen=True)
class _File:
    """A file that was written: its bytes, and its rows by bucket."""

    size: int
    buckets: Counter[str]


@dataclass(frozen=True)
class _Plan:
    """Everything a call's columns are computed from.

    Calls are numbered from 0 in order of time; ``first_call[h]`` is the number of the first call
    of hour ``h`` of the month, which begins at ``starts[h]`` (µs). Rows that are no call of the
    month (strays, malformed ones) have numbers from ``calls`` on.
    """

    calls: int
    accounts: int
    quotas: tuple[Quota, ...]
    keys: Bits
    starts: Ints
    first_call: Ints
    days: tuple[tuple[date, int], ...]
    compact: bool

    def draw(self, purpose: int, numbers: Ints) -> Bits:
        """Return 64 random bits per number: the finaliser of the SplitMix64 generator."""
        bits = numbers.astype(np.uint64)
        bits *= np.uint64(0x9E3779B97F4A7C15)
        bits += self.keys[purpose]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits ^= bits >> np.uint64(shift)
            bits *= np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        return bits

    def born(self, numbers: Ints) -> Ints:
        """Return the instant of calls of the month, in whole numbers so that all machines agree."""
        hour = np.searchsorted(self.first_call, numbers, side="right") - 1
        length = self.starts[hour + 1] - self.starts[hour]
        share = self.first_call[hour + 1] - self.first_call[hour]
        within = (numbers - self.first_call[hour]) * length // share
        jitter = (self.draw(_TIME, numbers) >> np.uint64(44)).astype(np.int64)
        return np.asarray(self.starts[hour] + within + (length // share * jitter >> 20))

    def quota(self, numbers: Ints) -> Ints:
        """Return which quota each call belongs to; ``len(quotas)`` says none.

        Multiplying by a number that shares no divisor with the number of calls shuffles them, so
        a quota is a range of the shuffled numbers: exact, and spread over the month.
        """
        if not self.quotas:
            return np.zeros(len(numbers), np.int64)
        step = int(self.calls * 0.236)
        while gcd(step, self.calls) != 1:
            step += 1
        ends = np.cumsum([quota.calls for quota in self.quotas])
        found = np.searchsorted(ends, numbers * step % self.calls, side="right")
        return np.asarray(np.where(numbers < self.calls, found, len(self.quotas)))


def write_sample(
    out: Path,
    month: Month,
    accounts: int,
    calls: int,
    seed: int,
    *,
    zone: ZoneInfo = BILLING_ZONE,
    quotas: Sequence[Quota] = (),
    days_per_file: int = 1,
    compact: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SampleSummary:
    """Write the call log of a month, one file per day, to ``out/month=YYYY-MM/``.

    The files hold ``calls`` calls of ``accounts`` accounts (their shares fall as 1, 1/2, 1/3, …)
    with the rhythm of days and weeks in ``zone``. 2 % fail, and half of those are retried with
    success under the same id; 0.5 % are delivered again, seconds to days later; a few ids come
    with another account or time; a few rows belong to the neighbouring months; one row in 20 000
    is malformed. Columns: the README of the data explains them.

    Args:
        out: the folder of the log; made where it is missing.
        month: the month of the calls.
        accounts: how many accounts the calls are spread over.
        calls: how many calls were made, beside re-deliveries, retries and the other extra rows.
        seed: the same arguments and seed give the same files, whatever the number of threads.
        zone: the billing zone.
        quotas: calls with a given account and item, a part of ``calls``.
        days_per_file: days in one file.
        compact: ids ordered by time (UUID version 7) and delta encodings, for a log that is kept
            in a repository; else random ids (version 4), the harder case.
        threads: at most so many; by default one per core, up to four.
        progress: told the number of rows of each file written, on the calling thread.

    Raises:
        WrongUsage: a number is out of bounds.
        CannotWrite: the month's folder is there already, or the file system refused.
    """
    _check_numbers(accounts, calls, seed, quotas)
    plan = _plan(month, accounts, calls, seed, zone=zone, quotas=quotas, compact=compact)
    folder, draft = out / f"month={month}", out / f".month={month}"
    if folder.exists():
        raise CannotWrite(
            "there is a log already", where=str(folder), cure="remove it or choose another folder"
        )
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        files = _write_files(draft, plan, days_per_file, threads, progress)
        draft.rename(folder)
    except OSError as error:
        raise CannotWrite(
            error.strerror or str(error), where=str(folder), cure="check the path and free space"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    counted = sum((file.buckets for file in files), Counter[str]())
    return SampleSummary(
        folder=folder,
        month=month,
        files=len(files),
        rows=counted.total(),
        size=sum(file.size for file in files),
        buckets={bucket: counted[bucket] for bucket in BUCKETS if counted[bucket]},
    )


def write_shipped(out: Path) -> list[SampleSummary]:
    """Write the two months this repository ships: the document's rules at work on small numbers.

    0100000042 is charged 10 001 face comparisons in January, one above the free band (28.80), and
    10 000 in February, the last free one. 0100000050 leaves after January and 0100000060 comes in
    February, both in the second tier. Twelve small accounts stay in the free band.
    """
    months = {
        "2026-01": [Quota(42, "face-comparison", 10_001), Quota(50, "face-search", 10_800)],
        "2026-02": [Quota(42, "face-comparison", 10_000), Quota(60, "face-verification", 11_200)],
    }
    return [
        write_sample(
            out, Month.parse(month), 12, 24_000, 5, quotas=quotas, days_per_file=11, compact=True
        )
        for month, quotas in months.items()
    ]


def write_demo(
    out: Path, *, calls: int = 20_000_000, progress: Callable[[int], None] | None = None
) -> SampleSummary:
    """Write a log of 2026-03 in which, at its full size, the third and fourth tier are reached.

    0100009001 makes 76 % of the calls, all face detections (15 200 000: the fourth tier), and
    0100009002 16 %, all face comparisons (3 200 000: the third); 1000 accounts share the rest.
    """
    quotas = [
        Quota(9001, "face-detection", calls * 76 // 100),
        Quota(9002, "face-comparison", calls * 16 // 100),
    ]
    month = Month.parse("2026-03")
    return write_sample(out, month, 1000, calls, 2026, quotas=quotas, progress=progress)


def _check_numbers(accounts: int, calls: int, seed: int, quotas: Sequence[Quota]) -> None:
    """Refuse numbers that no log can be made with."""
    for what, number, low, high in (
        ("accounts", accounts, 1, MOST_ACCOUNTS),
        ("calls", calls, 1, LARGEST_LOG),
        ("seed", seed, 0, 2**63),
    ):
        if not low <= number <= high:
            raise WrongUsage(f"{number} {what}", cure=f"give a number from {low} to {high}")
    if sum(quota.calls for quota in quotas) > calls:
        raise WrongUsage("the quotas are larger than the log", cure="give more calls")


def _plan(
    month: Month,
    accounts: int,
    calls: int,
    seed: int,
    *,
    zone: ZoneInfo,
    quotas: Sequence[Quota],
    compact: bool,
) -> _Plan:
    """Spread the calls over the hours of the month by the rhythm of the day and the week."""
    period = month.period(zone)
    starts = [*range(period.start, period.end, 3600), period.end]
    weights = [0]
    days: dict[date, int] = {}
    for hour, (start, end) in enumerate(pairwise(starts)):
        local = datetime.fromtimestamp(start, zone)
        days.setdefault(local.date(), hour)
        rhythm = _HOURS[local.hour] * _WEEKDAYS[local.weekday()]
        weights.append(weights[-1] + rhythm * (end - start))
    keys = np.random.SeedSequence([seed, month.year, month.number])
    return _Plan(
        calls=calls,
        accounts=accounts,
        quotas=tuple(quotas),
        keys=keys.generate_state(_PURPOSES, np.uint64).astype(np.uint64),
        starts=np.array(starts, np.int64) * SECOND,
        first_call=np.array([weight * calls // weights[-1] for weight in weights], np.int64),
        days=tuple(days.items()),
        compact=compact,
    )


def _write_files(
    draft: Path,
    plan: _Plan,
    days_per_file: int,
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> list[_File]:
    """Write all files of the month to the draft, several at a time."""
    write = partial(_write_file, plan, _extras(plan))
    firsts = plan.days[::days_per_file]
    hours = [hour for _, hour in firsts] + [len(plan.starts) - 1]
    files = []
    with ThreadPoolExecutor(max_workers=threads or min(os.cpu_count() or 1, 4)) as pool:
        futures = [
            pool.submit(write, draft / f"{first}.parquet", span)
            for (first, _), span in zip(firsts, pairwise(hours), strict=True)
        ]
        try:
            for future in as_completed(futures):
                files.append(future.result())
                if progress:
                    progress(files[-1].buckets.total())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return files


def _write_file(plan: _Plan, extras: _Extras, path: Path, hours: tuple[int, int]) -> _File:
    """Write the rows that are delivered in some hours to one file."""
    buckets: Counter[str] = Counter()
    delta = {"request_id": "DELTA_BYTE_ARRAY", "timestamp": "DELTA_BINARY_PACKED"}
    with pq.ParquetWriter(
        path,
        _table(plan, _NO_ROWS).schema,
        compression="zstd",
        compression_level=19 if plan.compact else 1,
        use_dictionary=["account_id", "interface", "status_code", "item"],
        column_encoding=delta if plan.compact else None,
        write_page_checksum=True,
        store_schema=False,  # or readers would see our dictionaries instead of plain text
    ) as writer:
        for first, end in _row_groups(plan, hours):
            rows = _rows(plan, extras, first, end)
            writer.write_table(_table(plan, rows), row_group_size=2 * ROW_GROUP)
            buckets += _buckets(plan, rows)
    return _File(path.stat().st_size, buckets)


def _row_groups(plan: _Plan, hours: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cut the calls of some hours into even ranges of at most a row group."""
    first, end = (int(plan.first_call[hour]) for hour in hours)
    parts = max(1, -(-(end - first) // ROW_GROUP))
    cuts = [first + (end - first) * part // parts for part in range(parts + 1)]
    return pairwise(cuts)


def _edge(plan: _Plan, number: int) -> int:
    """Return when the delivery window that begins with a call begins; all time is covered once."""
    if 0 < number < plan.calls:
        return int(plan.born(np.array([number]))[0])
    limits = np.iinfo(np.int64)
    return int(limits.min if number == 0 else limits.max)


def _extras(plan: _Plan) -> _Extras:
    """Make all rows that are not a call where it belongs, in the order of their delivery.

    They are few, so they are held for the whole month; retries are not, as they come at once.
    """
    rng = np.random.default_rng(plan.keys)
    start, end = int(plan.starts[0]), int(plan.starts[-1])

    again = rng.integers(0, plan.calls, plan.calls // 200)
    born = plan.born(again)
    delay = np.minimum(rng.lognormal(np.log(120), 3.0, len(again)), 4 * 86_400) * SECOND
    parts = [(again, np.full(len(again), _REDELIVERY), born, born + delay.astype(np.int64))]

    twice = _conflicting_calls(plan, rng)
    born = plan.born(twice)
    parts.append((twice, np.full(len(twice), _CONFLICT), born, born + 60 * SECOND))

    strays = -(-plan.calls // 50_000)
    number = plan.calls + np.arange(2 * strays)
    late = start - 1 - rng.integers(0, 2 * 86_400 * SECOND, strays)
    early = end + rng.integers(0, 1800 * SECOND, strays)
    delivered = np.r_[start + rng.integers(0, 3 * 86_400 * SECOND, strays), np.full(strays, end)]
    parts.append((number, np.full(2 * strays, _STRAY), np.r_[late, early], delivered))

    malformed = plan.calls // 20_000
    number = plan.calls + 2 * strays + np.arange(malformed)
    born = rng.integers(start, end, malformed)
    reason = (np.arange(malformed) + rng.integers(len(REASONS))) % len(REASONS)
    parts.append((number, _MALFORMED + reason, born, born))

    numbers, kinds, births, deliveries = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.argsort(deliveries, kind="stable")
    rows = _Rows(numbers[order], kinds[order].astype(np.int8), births[order])
    return _Extras(rows, deliveries[order])


def _conflicting_calls(plan: _Plan, rng: np.random.Generator) -> Ints:
    """Choose the few calls that are delivered once more with other columns.

    They succeeded, belong to no quota, and are not of the month's last hours, so the conflicting
    row, which is later, lies in the month too.
    """
    wanted = -(-plan.calls // 50_000)
    numbers = rng.integers(0, max(1, plan.calls * 99 // 100), (wanted, 64))
    flat = numbers.ravel()
    suits = (plan.quota(flat) == len(plan.quotas)) & ~_failed(plan.draw(_FATE, flat))
    suits = suits.reshape(numbers.shape)
    chosen = np.take_along_axis(numbers, suits.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.unique(chosen[suits.any(axis=1)])


def _rows(plan: _Plan, extras: _Extras, first: int, end: int) -> _Rows:
    """Return the calls of a range with their retries and the extra rows, as they are delivered."""
    calls = np.arange(first, end, dtype=np.int64)
    born = plan.born(calls)
    fate = plan.draw(_FATE, calls)
    always = plan.quota(calls) < len(plan.quotas)
    retried = np.flatnonzero(_failed(fate) & (always | ((fate >> np.uint64(18)) % 2 == 1)))
    span = slice(*np.searchsorted(extras.delivered, [_edge(plan, first), _edge(plan, end)]))
    number = np.r_[calls[retried], extras.rows.number[span]]
    kind = np.r_[np.full(len(retried), _RETRY, np.int8), extras.rows.kind[span]]
    births = np.r_[born[retried], extras.rows.born[span]]
    when = np.r_[born[retried] + _lag(fate[retried]), extras.delivered[span]]
    order = np.argsort(when, kind="stable")
    place = np.searchsorted(born, when[order])
    return _Rows(
        np.insert(calls, place, number[order]),
        np.insert(np.full(len(calls), _CALL, np.int8), place, kind[order]),
        np.insert(born, place, births[order]),
    )


def _failed(fate: Bits) -> Bools:
    """Tell which calls failed."""
    return np.asarray(fate % np.uint64(65_536) < _FAILED_OF_65536)


def _lag(fate: Bits) -> Ints:
    """Return how much later a retry or a conflicting row is than the call (0.2 s to 8.6 s)."""
    return 200_000 + 8 * (fate >> np.uint64(44)).astype(np.int64)


def _status(rows: _Rows, fate: Bits) -> npt.NDArray[np.int32]:
    """Return the status codes: failures are calls and re-deliveries of failed calls."""
    failed = _failed(fate) & (rows.kind <= _REDELIVERY)
    return np.where(failed, _FAILURE_CODES[fate >> np.uint64(16) & np.uint64(3)], np.int32(0))


def _buckets(plan: _Plan, rows: _Rows) -> Counter[str]:
    """Count the rows by the bucket they must land in."""
    failed = _status(rows, plan.draw(_FATE, rows.number)) != 0
    kinds = np.bincount(rows.kind[~failed], minlength=_MALFORMED + len(REASONS)).tolist()
    billed = kinds[_CALL] + kinds[_RETRY]
    others = kinds[_REDELIVERY], kinds[_CONFLICT], kinds[_STRAY], int(failed.sum())
    return Counter(dict(zip(BUCKETS, (billed, *others, *kinds[_MALFORMED:]), strict=True)))


def _table(plan: _Plan, rows: _Rows) -> pa.Table:
    """Compute the columns of rows."""
    fate = plan.draw(_FATE, rows.number)
    account, item = _who(plan, rows, fate)
    interface, named = _use(rows, fate, item)
    later = (rows.kind == _RETRY) | (rows.kind == _CONFLICT)
    at = np.where(later, np.minimum(rows.born + _lag(fate), plan.starts[-1] - 1), rows.born)
    timestamp = pa.array(at, pa.timestamp("us", "UTC"), mask=_is(rows, "missing_timestamp"))
    return pa.table(
        {
            "request_id": _ids(plan, rows),
            "account_id": _accounts(account),
            "interface": pa.DictionaryArray.from_arrays(pa.array(interface), _INTERFACES),
            "timestamp": timestamp,
            "status_code": pa.array(_status(rows, fate), mask=_is(rows, "missing_status")),
            "item": pa.DictionaryArray.from_arrays(pa.array(named, mask=named == _NO_ITEM), _ITEMS),
        }
    )


def _is(rows: _Rows, reason: str) -> Bools:
    """Tell which rows are malformed for a reason."""
    return np.asarray(rows.kind == _MALFORMED + REASONS.index(reason))


def _who(plan: _Plan, rows: _Rows, fate: Bits) -> tuple[Ints, Ints]:
    """Return the numbers of the accounts that call, and the codes of the items they call.

    The share of account n is the logarithm of (n + 1) / n: nearly 1/n, and a closed form. Three
    calls in four are of the account's favourite item.
    """
    even = (plan.draw(_ACCOUNT, rows.number) >> np.uint64(11)) * 2.0**-53
    account = np.exp(even * np.log(plan.accounts + 1)).astype(np.int64)
    account = np.minimum(account, plan.accounts)
    loyal = fate >> np.uint64(32) & np.uint64(3) != 0
    slot = np.where(loyal, plan.draw(_TASTE, account), fate >> np.uint64(24)) & np.uint64(15)
    item = np.repeat(np.arange(len(_ITEMS)), _POPULARITY)[slot]
    if plan.quotas:
        quota = plan.quota(rows.number)
        for code, wanted in enumerate(plan.quotas):
            account[quota == code] = wanted.account
            item[quota == code] = _ITEMS.index(wanted.item)
    account = np.where(rows.kind == _CONFLICT, account % plan.accounts + 1, account)
    return np.where(_is(rows, "missing_account_id"), _NO_ACCOUNT, account), item


def _use(rows: _Rows, fate: Bits, item: Ints) -> tuple[Codes, Codes]:
    """Return the codes of the interfaces that were called and of the items that the log names."""
    way = fate >> np.uint64(40) & np.uint64(7)
    interface, named = _WAYS[item, way].T.copy()
    interface[_is(rows, "unknown_interface")] = _INTERFACES.index(_UNKNOWN_INTERFACE)
    wrong = _is(rows, "wrong_item")
    interface[wrong] = _INTERFACES.index("CreateFace")
    named[wrong] = _ITEMS.index("static-liveness")
    return interface, named


def _accounts(numbers: Ints) -> pa.DictionaryArray:
    """Write account numbers as ten digits, each number once; no account is empty text."""
    coded = pa.array(numbers).dictionary_encode()
    digits = pc.add(coded.dictionary, FIRST_ACCOUNT).cast(pa.string())
    known = pc.not_equal(coded.dictionary, _NO_ACCOUNT)
    text = pc.if_else(known, pc.utf8_lpad(digits, 10, "0"), "")
    return pa.DictionaryArray.from_arrays(coded.indices, text)


def _ids(plan: _Plan, rows: _Rows) -> pa.Array:
    """Write the request ids as UUIDs of version 4, or 7 (time first) where the log is compact.

    The text is laid down in groups of four digits for all rows at once: a loop would take minutes.
    """
    high, low = plan.draw(_HIGH, rows.number), plan.draw(_LOW, rows.number)
    version = np.uint64(0x4000)
    if plan.compact:
        version = np.uint64(0x7000)
        high &= np.uint64(0xFFFF)
        high |= (rows.born // 1000).astype(np.uint64) << np.uint64(16)
    high = high & ~np.uint64(0xF000) | version
    low = low & ~np.uint64(3 << 62) | np.uint64(1 << 63)
    text = np.empty(len(high), _UUID)
    for group in range(_ID_GROUPS):
        lane, shift = (high, low)[group // 4], np.uint64(48 - group % 4 * 16)
        text[f"group{group}"] = _HEX[lane >> shift & np.uint64(0xFFFF)]
    for hyphen in range(4):
        text[f"hyphen{hyphen}"] = ord("-")
    ends = np.arange(len(text) + 1, dtype=np.int32) * np.int32(_UUID.itemsize)
    ids = pa.StringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(text))
    missing = _is(rows, "missing_request_id")
    return pc.if_else(missing, pa.scalar(None, pa.string()), ids) if missing.any() else ids


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the shipped months or the demonstration log."""
    parser = argparse.ArgumentParser(prog="python -m settlement.sample", description=main.__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--shipped", metavar="DIR", type=Path, help="the two months shipped here")
    which.add_argument("--demo", metavar="DIR", type=Path, help="20 million calls, every tier")
    chosen = parser.parse_args(arguments)
    try:
        made = write_shipped(chosen.shipped) if chosen.shipped else [write_demo(chosen.demo)]
    except SettlementError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    for summary in made:
        print(f"{summary.folder}: {summary.rows} rows, {summary.size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
