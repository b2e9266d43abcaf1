"""Ingesting: digesting the files that are new, so that a month's end has little left to do.

Each file of the log is digested once for every month that it touches and that is still to be
settled, the one under way among them, into the cache beside the book (`cache`). Then the month
so far is counted from its entries, and which rows had to be looked at twice is written down
too. A count takes what it finds, and counts the rest: with or without a cache, or with half of
one, it comes to the same.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from settlement.book import Book
from settlement.columns import mapping
from settlement.counting.digesting import digest, remember
from settlement.month import UNITS_PER_SECOND, Month, months_from, zone_named
from settlement.prices import PriceBook
from settlement.scan import finding, logfiles
from settlement.scan.cache import Cache, Digests, Key, write_memo
from settlement.scan.decoding import columns
from settlement.scan.logfiles import CallLog, LogFile, RowGroup
from settlement.scan.pieces import Damaged, Writer
from settlement.whatif import counting_of
from settlement.words import count_of

_DAY = 86_400


@dataclass(frozen=True)
class Digested:
    """A file digested for a month, and how many bytes its entry has.

    ``size`` is 0 where there is no entry; ``excess`` says then what the file has too much of.
    """

    month: Month
    file: str
    rows: int
    size: int
    excess: str | None = None


@dataclass(frozen=True)
class Ingested:
    """What an ingest did: entries that it made, found sound, and removed."""

    cache: Path
    digested: tuple[Digested, ...]
    kept: int
    removed: int

    def __str__(self) -> str:
        rows = sum(each.rows for each in self.digested)
        months = sorted({each.month for each in self.digested})
        files = count_of(len(self.digested), "file")
        what = f"digested {files}, {count_of(rows, 'row')}"
        if months:
            what += f" ({', '.join(map(str, months))})"
        left = [each.excess for each in self.digested if each.excess]
        if left:
            what += f", {len(left):,} of them not kept: {' or '.join(sorted(set(left)))}"
        return f"{what}; kept {self.kept:,}, removed {count_of(self.removed, 'entry', 'entries')}"


@dataclass(frozen=True)
class Intake:
    """What to ingest, into the cache of which book, by which rules.

    ``now`` is the instant taken for the present; ``month`` the only month asked for, settled or
    not; without one it is every month that is to come after the newest settled one.
    """

    logs: str
    book: Path
    prices: PriceBook
    now: datetime
    month: Month | None = None
    naive_timestamps: str | None = None
    threads: int | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def naive_zone(self) -> ZoneInfo | None:
        """The zone of timestamps that have none."""
        return zone_named(self.naive_timestamps) if self.naive_timestamps else None

    def key(self, month: Month, file: LogFile) -> Key:
        """Return what the entry of a file and a month depends on."""
        return key(file, month, self.prices, self.naive_zone)


def key(file: LogFile, month: Month, prices: PriceBook, naive_zone: ZoneInfo | None) -> Key:
    """Return what the entry of a file and a month depends on."""
    rules = counting_of(prices.version_for(month))
    return Key.of(file, month.period(prices.zone), naive_zone, rules)


def digests(
    book: Path, log: CallLog, month: Month, prices: PriceBook, naive_zone: ZoneInfo | None
) -> Digests:
    """Return what a count of a month may use."""
    keys = (key(file, month, prices, naive_zone) for file in log.files)
    return Cache(book).find(month, keys)


def ingest(intake: Intake) -> Ingested:
    """Digest what is new, and remove what is of no use any more.

    Raises:
        MissingInput, CannotRead, BadInput: the log is refused, as by a count; what was digested
            before stays.
        BookHeld: another ingest is under way.
        CannotWrite: there is no room; the book is untouched.
    """
    months = _months(intake)
    log = finding.find(intake.logs, mapping(intake.columns))
    wanted: dict[Month, list[LogFile]] = {month: [] for month in months}
    for file in log.files:
        for month in _touched(log, file, intake, months):
            wanted[month].append(file)
    cache = Cache(intake.book)
    kept, digested = 0, []
    with cache.held():
        removed = sum(
            cache.sweep(month, [intake.key(month, file) for file in wanted.get(month, ())])
            for month in cache.months()
            if intake.month in {None, month}
        )
        for month, files in wanted.items():
            known = cache.find(month, [intake.key(month, file) for file in files])
            sound = [name for name, entry in known.entries.items() if entry.is_sound()]
            new = [file for file in files if file.name not in sound]
            kept += len(sound)
            digested += [_digest(cache, log, file, month, intake) for file in new]
            version = intake.prices.version_for(month)
            if version.deduplicate and (new or not known.is_all_compared()):
                _remember(cache, log, files, month, intake)
    return Ingested(cache.folder, tuple(digested), kept, removed)


def _months(intake: Intake) -> tuple[Month, ...]:
    """Return the months that files may be digested for, none missing between them."""
    if intake.month:
        return (intake.month,)
    newest = Book.open(intake.book).newest_month
    first = newest.next if newest else min(each.effective_from for each in intake.prices.versions)
    last = Month.of(intake.now, intake.prices.zone)
    return months_from(first, last) if first <= last else ()


def _digest(cache: Cache, log: CallLog, file: LogFile, month: Month, intake: Intake) -> Digested:
    """Write the entry of a file."""
    key = intake.key(month, file)
    path = cache.path(month, key)
    cache.forget(month, key)  # what is damaged
    alone = CallLog(log.root, (file,), 0, log.filesystem)
    with Writer(path) as writer:
        about = digest(
            alone,
            key.period,
            intake.prices.version_for(month),
            writer,
            naive_zone=intake.naive_zone,
            threads=intake.threads,
        )
        if isinstance(about, str):
            return Digested(month, file.name, file.rows, 0, about)
        size = writer.commit(key.json, about)
    return Digested(month, file.name, file.rows, size)


def _remember(
    cache: Cache, log: CallLog, files: Sequence[LogFile], month: Month, intake: Intake
) -> None:
    """Count the month so far from its entries, for the rows that have to be looked at twice."""
    version = intake.prices.version_for(month)
    keys = [intake.key(month, file) for file in files]
    digests = cache.find(month, keys)
    if not digests.entries:
        return
    known = tuple(file for file in log.files if file.name in digests.entries)
    try:
        remember(
            CallLog(log.root, known, 0, log.filesystem),
            month.period(intake.prices.zone),
            version,
            digests,
            partial(write_memo, cache.memo_path(month, keys[0]), keys[0], digests),
            naive_zone=intake.naive_zone,
            threads=intake.threads,
        )
    except Damaged:
        return  # by now: a count will see it too


# ---------------------------------------------------------------- which months


def _touched(
    log: CallLog, file: LogFile, intake: Intake, months: Sequence[Month]
) -> Iterator[Month]:
    """Yield the months that a file surely touches, and those that it may by wall clock times."""
    if not months:
        return
    logfiles.check([file], ["timestamp"], intake.naive_zone)
    periods = [month.period(intake.prices.zone) for month in months]
    bounds = [*(period.start for period in periods), periods[-1].end]
    found: set[int] = set()
    for group in file.groups:
        if group.rows:
            found |= _touched_by(log, file, group, bounds)
    yield from (months[number] for number in sorted(found) if 0 <= number < len(months))


def _touched_by(log: CallLog, file: LogFile, group: RowGroup, bounds: list[int]) -> set[int]:
    """Return the numbers of the stretches between bounds that a row group touches."""
    kind, span = file.types["timestamp"], group.span
    if pa.types.is_timestamp(kind) and span.first is not None and span.last is not None:
        scale = UNITS_PER_SECOND[kind.unit]
        margin = _DAY * scale if kind.tz is None else 0
        low, high = (
            bisect_right(bounds, value, key=lambda bound: bound * scale) - 1
            for value in (span.first - margin, span.last + margin)
        )
        if 0 <= high - low <= 1:
            return {low, high}
    found: set[int] = set()
    for _, cells in columns(log, file, group, ["timestamp"]):
        found |= _read(cells["timestamp"], bounds)
    return found


def _read(column: pa.Array, bounds: list[int]) -> set[int]:
    if not pa.types.is_timestamp(column.type):
        return set()
    scale = UNITS_PER_SECOND[column.type.unit]
    values = column.cast(pa.int64()).drop_null().to_numpy()
    margin = _DAY * scale if column.type.tz is None else 0
    edges = np.array([bound * scale for bound in bounds], np.int64)
    shifted = [values] if not margin else [values - margin, values + margin]
    return {
        int(number) - 1
        for some in shifted
        for number in np.unique(np.searchsorted(edges, some, side="right"))
    }
