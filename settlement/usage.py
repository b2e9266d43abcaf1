"""The seam between the call log and everything after it: `count`.

One narrow call: a log, a month and the rules in force go in; usage, the number of rows in
every bucket, the rejected rows and the files that had a part come out. Whoever counts by
other means, on a cluster say, replaces this function and nothing else.

Row groups are the tasks. Each is decoded and classified (`calls`) and added to the tally as if
every request were new; its rows leave a key each with `dedup`, and a note of what they charged.
When all are through, rows whose keys agree are read again, and what they charged too much is
taken off. Keys and notes, twelve bytes a row, are in scratch files, so memory holds one number
per account and priced interface, and a few row groups, however long the log is.

Files that were digested before (`digest`) are not read: an entry of the cache brings the same
counts, calls, keys and notes. Of the rows whose keys agree, those that were looked at when the
month so far was counted (`remember`) are in the memos of its entries. Others are read from the
log, unless the other halves of their hashes show that their ids differ.
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import tables
from settlement.calls import BUCKETS, CHARGED, NUMBER, Batch, Recalled, Rules, classify, recall
from settlement.dedup import Claim, Claims, Keys, Suspects
from settlement.month import Period
from settlement.prices import Version
from settlement.scan import cache
from settlement.scan.cache import Damaged, Entry, Memo, Writer
from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.logfiles import CallLog, InputFile, LogFile, RowGroup, check, check_unchanged
from settlement.scan.memory import keep_freed
from settlement.scan.names import Names
from settlement.scan.pages import Part, Piece
from settlement.scan.scratch import Scratch
from settlement.scan.stamps import Clock
from settlement.scan.texts import Bools, Codes, Ints, Lanes, of_arrow
from settlement.tables import ROWS

Progress = Callable[[int, int], None]
_T = TypeVar("_T")
_R = TypeVar("_R")

KEPT_REJECTS = 1_000_000
_FIRST_REJECTS = 10
_ONE = np.int64(1)
_CELLS = (1 << 32) - 1
"""Entries have room for numbers up to this."""


@dataclass(frozen=True)
class Counted:
    """What the call log says about one month.

    Attributes:
        usage: calls per account, item and interface (`tables.USAGE`).
        rows: how many rows were read, and in which bucket they are, in the order of `ROWS`.
        rejects: the rejected rows (`tables.REJECTS`); the first ten alone where they are
            more than were to be kept.
        inputs: the files with at least one row in the month, by name.
        skipped: names passed over for their first letter (``_`` or ``.``).
    """

    usage: pd.DataFrame
    rows: dict[str, int]
    rejects: pd.DataFrame
    inputs: tuple[InputFile, ...]
    skipped: int

    @property
    def rejected(self) -> int:
        """How many rows were rejected, kept or not."""
        return sum(rows for name, rows in self.rows.items() if name.startswith("rejected."))


def count(
    log: CallLog,
    period: Period,
    version: Version,
    *,
    naive_zone: ZoneInfo | None = None,
    threads: int | None = None,
    keep_rejects: int = KEPT_REJECTS,
    progress: Progress | None = None,
    hashed: Hash = hash_rows,
    entries: Mapping[str, Entry] | None = None,
) -> Counted:
    """Count the calls of a month that are charged, each request once (README, Rules).

    Args:
        log: the call log, as `logfiles.find` found it.
        period: the month's instants, in the billing zone.
        version: the rules in force.
        naive_zone: what timestamps without a zone mean; without it they are refused.
        threads: how many work at once; one per core if left out. It never changes the result.
        keep_rejects: keep at most so many rejected rows; beyond, only the first ten.
        progress: called with the rows and bytes done so far.
        hashed: the hash of request ids; none changes the result. It is that of the entries.
        entries: what files came to before, by their names; none changes the result. One that
            turns out damaged is not used.

    Raises:
        BadInput: a file is damaged, changed meanwhile, or its columns are not what they must be.
        MissingInput: a file is gone.
        CannotRead: the operating system refused to read.
        CannotWrite: there is no room for temporary files (`scratch`).
    """
    keep_freed()
    rules, clock = Rules(version), Clock(period, naive_zone)
    check(log.files, rules.columns, naive_zone)
    threads = threads or os.cpu_count() or 1
    usable = dict(entries or {})
    while True:
        counting = _Counting(log, rules, clock, keep_rejects, progress, hashed, usable)
        try:
            with closing(counting):
                counting.read(threads)
                counting.settle_repetitions(threads)
        except Damaged:  # however far it went: begin again without those that are
            sound = {name: entry for name, entry in usable.items() if entry.is_sound()}
            usable = sound if len(sound) < len(usable) else {}
            continue
        check_unchanged(log)
        return counting.result()


def digest(
    log: CallLog,
    period: Period,
    version: Version,
    writer: Writer,
    *,
    naive_zone: ZoneInfo | None = None,
    threads: int | None = None,
    hashed: Hash = hash_rows,
) -> dict[str, Any] | None:
    """Count a log of one file as `count` does, and write the pieces of its entry.

    Returns what `cache.Entry` needs to know of them, or None where it has no room for so many
    rejected rows or accounts. Raises what `count` raises.
    """
    rules, clock = Rules(version), Clock(period, naive_zone)
    check(log.files, rules.columns, naive_zone)
    with closing(
        _Counting(log, rules, clock, KEPT_REJECTS, None, hashed, digesting=True)
    ) as counting:
        counting.read(threads or os.cpu_count() or 1)
        check_unchanged(log)
        return counting.write(writer)


def remember(
    log: CallLog,
    period: Period,
    version: Version,
    entries: Mapping[str, Entry],
    *,
    naive_zone: ZoneInfo | None = None,
    threads: int | None = None,
    hashed: Hash = hash_rows,
) -> None:
    """Count what entries tell, and write down in their memos which rows were looked at twice.

    Raises what `count` raises, and `cache.Damaged`.
    """
    rules, clock = Rules(version), Clock(period, naive_zone)
    if not rules.version.deduplicate:
        return
    threads = threads or os.cpu_count() or 1
    with closing(_Memos()) as memos:
        with closing(_Counting(log, rules, clock, 0, None, hashed, entries, memos)) as counting:
            counting.read(threads)
            counting.settle_repetitions(threads)
        check_unchanged(log)
        memos.write(entries)


@dataclass(frozen=True)
class _Task:
    """A row group, and the position of its first row among all that are counted."""

    file: LogFile
    group: RowGroup
    position: int
    entry: Entry | None = None


@dataclass(frozen=True)
class _Known:
    """A file with an entry, and the position of its first row."""

    file: LogFile
    entry: Entry
    position: int


class _Counting:
    """One count under way: what threads share, and the locks that guard it."""

    def __init__(
        self,
        log: CallLog,
        rules: Rules,
        clock: Clock,
        keep_rejects: int,
        progress: Progress | None,
        hashed: Hash,
        entries: Mapping[str, Entry] | None = None,
        memos: "_Memos | None" = None,
        *,
        digesting: bool = False,
    ) -> None:
        self.log, self.rules, self.clock, self._hashed = log, rules, clock, hashed
        self._progress = progress
        self._lock = threading.Lock()
        self._done_rows = self._done_bytes = 0
        self._counts = np.zeros(len(BUCKETS), np.int64)
        self._duplicates = self._conflicts = 0
        self._touched: set[str] = set()
        self._rejects = _Rejects(keep_rejects)
        self.names = Names()
        self.tally = _Tally(rules)
        self.tasks: list[_Task] = []
        self.known: list[_Known] = []
        self._memos = memos
        self._numbers = _Numbers() if entries else None
        self._keeps_rests = bool(entries) or digesting
        position = self._plan(entries or {}, digesting)
        self._keys = Keys(position) if rules.version.deduplicate else None
        self._notes = _Notes() if rules.version.deduplicate else None

    def _plan(self, entries: Mapping[str, Entry], digesting: bool) -> int:
        """List what is to be done; return how many positions rows are given."""
        position = 0
        for file in self.log.files:
            entry = entries.get(file.name)
            first = position
            for group in file.groups:
                if self.clock.excludes(file.types["timestamp"], group.span):
                    if not entry:
                        self._counts[NUMBER["outside_month"]] += group.rows
                        self._advance(group)
                elif group.rows:
                    at = first + group.first_row if entry or digesting else position
                    self.tasks.append(_Task(file, group, at, entry))
                    position += group.rows
            if entry or digesting:  # an entry's positions are rows of its file
                position = first + file.rows
            if entry:
                self.known.append(_Known(file, entry, first))
        return position

    def close(self) -> None:
        """Give the disk space of scratch files back."""
        for scratch in (self._keys, self._notes, self._numbers):
            if scratch is not None:
                scratch.close()

    def _advance(self, group: RowGroup) -> None:
        self._done_rows += group.rows
        self._done_bytes += group.size
        if self._progress is not None:
            self._progress(self._done_rows, self._done_bytes)

    def read(self, threads: int) -> None:
        """Take in every row group that may have calls of the month, or the file's entry."""
        work: list[_Task | _Known] = [*self.known, *(task for task in self.tasks if not task.entry)]
        for groups in _in_parallel(self._read, work, threads):
            for group in groups:
                self._advance(group)

    def _read(self, work: "_Task | _Known", stop: threading.Event) -> tuple[RowGroup, ...]:
        if isinstance(work, _Known):
            self._take_over(work)
            return work.file.groups
        return (self._read_group(work, stop),)

    def _take_over(self, known: _Known) -> None:
        """Add what an entry holds, its accounts under the numbers that they have here."""
        entry = known.entry
        accounts = entry.accounts()
        part = Part(of_arrow(accounts), None)
        numbers = self.names.numbers([Piece(len(accounts), lambda _rows: part)], len(accounts))
        cells, calls = entry.tally()
        self.tally.add(self._translated(cells, numbers), len(self.names), calls)
        if self._numbers and self._keys:
            self._numbers.add(known.file.name, numbers)
            for keys in entry.key_blocks():
                self._keys.take_over(keys, entry.position_bits, known.position)
        self._add_counts(known.file, entry.counts, entry.rejects())

    def _translated(self, cells: Ints, numbers: Codes) -> Ints:
        """Return an entry's cells as cells of this count."""
        charges = self.rules.charges
        return numbers[cells // charges].astype(np.int64) * charges + cells % charges

    def _add_counts(self, file: LogFile, counts: Ints, rejects: pa.Table | None) -> None:
        with self._lock:
            self._counts += counts
            if rejects is not None:
                self._rejects.add(rejects)
            if counts.sum() > counts[_NOT_OF_THE_MONTH].sum():
                self._touched.add(file.name)

    def _read_group(self, task: _Task, stop: threading.Event) -> RowGroup:
        batches = classify(
            self.log, task.file, task.group, self.rules, self.clock, self.names, self._hashed
        )
        for batch in batches:
            if stop.is_set():
                break
            self._charge(task, batch)
            self._add_counts(task.file, batch.counts, batch.rejects)
        return task.group

    def _charge(self, task: _Task, batch: Batch) -> None:
        if not len(batch.charged):
            return
        self.tally.add(batch.cells, len(self.names))
        if self._keys is not None and self._notes is not None and batch.hashes is not None:
            position = task.position + batch.first_row - task.group.first_row
            self._keys.add(batch.hashes, batch.charged + position)
            self._notes.add(position, batch.cells, self._rests(batch))

    def _rests(self, batch: Batch) -> Any:
        """Return the lower halves of hashes by row, where they are wanted."""
        if self._keeps_rests and batch.hashes is not None:
            rests = np.zeros(len(batch.cells), np.uint32)
            rests[batch.charged] = batch.hashes.astype(np.uint32)
            return rests
        return None

    def settle_repetitions(self, threads: int) -> None:
        """Take off what rows of equal request ids charged too much."""
        if self._keys is None:
            return
        ranks, charges = self._ranks, self.rules.charges

        def order(cells: Ints) -> Ints:
            """Order cells by account, then by pair; of equal place are only equal cells."""
            return ranks[cells // charges] * charges + cells % charges

        for suspects in self._keys.suspects(threads):
            with closing(Claims(suspects, order)) as claims:
                again = self._again(suspects)
                if self.known:
                    again = self._unknown(again, claims, threads)
                for _ in _in_parallel(partial(self._recall, claims), again, threads):
                    pass
                for cells in claims.lost():
                    self.tally.take_off(cells)
            self._duplicates += claims.duplicates
            self._conflicts += claims.conflicts

    @cached_property
    def _ranks(self) -> Ints:
        """The order of all accounts; they must have been read."""
        return self.names.ranks()

    def _again(self, suspects: Suspects) -> Iterator[tuple[_Task, Ints, Ints]]:
        """Yield the row groups that have suspects, with their positions and groups."""
        positions = suspects.positions
        starts = [task.position for task in self.tasks]
        firsts = np.searchsorted(positions, [*starts, np.iinfo(np.int64).max]).tolist()
        for task, begin, end in zip(self.tasks, firsts[:-1], firsts[1:], strict=True):
            if begin < end:
                yield task, positions[begin:end], suspects.group(slice(begin, end))

    def _unknown(
        self, again: Iterator[tuple[_Task, Ints, Ints]], claims: Claims, threads: int
    ) -> Iterator[tuple[_Task, Ints, Ints]]:
        """Claim what memos know; yield what must be read from the log all the same.

        That is every other row, unless no row of its group has the same rest of the hash. Who
        writes memos reads these too: what a memo knows need never be looked up again.
        """
        looked = list(_in_parallel(partial(self._look_up, claims), again, threads))
        if not looked:
            return
        groups = np.concatenate([groups for _, _, groups, _, _ in looked])
        rests = np.concatenate([rests for _, _, _, rests, _ in looked])
        is_open = np.concatenate([is_open for _, _, _, _, is_open in looked])
        rows = np.flatnonzero(np.bincount(groups, is_open)[groups])  # of groups with such rows
        _, number, alike = np.unique(
            groups[rows].view(np.uint64) << np.uint64(32) | rests[rows],
            return_inverse=True,
            return_counts=True,
        )
        wanted = np.zeros(len(groups), bool)
        wanted[rows] = (alike > 1)[number] if self._memos is None else True
        wanted &= is_open
        end = 0
        for task, positions, groups, _, _ in looked:
            begin, end = end, end + len(positions)
            which = np.flatnonzero(wanted[begin:end])
            if which.size:
                yield task, positions[which], groups[which]

    def _look_up(
        self, claims: Claims, again: tuple[_Task, Ints, Ints], stop: threading.Event
    ) -> tuple[_Task, Ints, Ints, Lanes, Bools]:
        """Claim the rows that a memo knows; return all, their rests, and which it does not."""
        task, positions, groups = again
        assert self._notes is not None
        is_open = np.ones(len(positions), bool)
        if task.entry is None:
            return task, positions, groups, self._notes.rests(positions), is_open
        rests = np.empty(len(positions), np.uint64)
        rows = self._rows(task, positions)
        memo = task.entry.memo
        for table in memo.tables(task.group.number) if memo else ():
            if stop.is_set():
                break
            places = np.searchsorted(table[:, 0], rows.view(np.uint64))
            places[places == len(table)] = 0
            which = np.flatnonzero(table[places, 0] == rows.view(np.uint64))
            found = table[places[which]]
            rests[which] = cache.rests(found[:, 1])
            is_open[which] = False
            cells = self._translated(cache.cells(found[:, 1]), self._numbers_of(task))
            instants = np.ascontiguousarray(found[:, 2]).view(np.int64)
            claims.add(Claim(groups[which], found[:, Memo.COLUMNS :], instants, cells))
        rests[is_open] = cache.rests(task.entry.notes(rows[is_open]))
        return task, positions, groups, rests, is_open

    def _numbers_of(self, task: _Task) -> Codes:
        assert self._numbers is not None
        return self._numbers.of(task.file.name)

    @staticmethod
    def _rows(task: _Task, positions: Ints) -> Ints:
        return positions - task.position + task.group.first_row

    def _recall(
        self, claims: Claims, again: tuple[_Task, Ints, Ints], stop: threading.Event
    ) -> None:
        task, positions, groups = again
        assert self._notes is not None
        rows = self._rows(task, positions)
        notes = None if task.entry is None else task.entry.notes(rows)
        if notes is None:
            cells = self._notes.of(positions)
        else:
            cells = self._translated(cache.cells(notes), self._numbers_of(task))
        for some in recall(self.log, task.file, task.group, rows, self.clock):
            if stop.is_set():
                break
            which = some.which
            claims.add(Claim(groups[which], some.ids, some.instants, cells[which]))
            if self._memos is not None and notes is not None and which.size:
                self._memos.add(task.file, task.group, rows[which], notes[which], some)

    def write(self, writer: Writer) -> dict[str, Any] | None:
        """Write the pieces of an entry: what was read of the log's one file."""
        rejects = self._rejects.table()
        cells = len(self.names) * self.rules.charges
        if self._rejects.seen > KEPT_REJECTS or max(cells, self.log.rows) > _CELLS:
            return None
        accounts = pa.table({"account": self.names.texts()})
        about: dict[str, Any] = {
            "counts": self._counts.tolist(),
            "rejects": None if rejects is None else writer.add(cache.as_ipc(rejects)),
            "accounts": writer.add(cache.as_ipc(accounts)),
            "tally": writer.add(np.concatenate(self.tally.charged()).astype(np.uint32)),
            "position_bits": 0,
            "keys": [],
            "notes": [],
        }
        if self._keys is not None and self._notes is not None:
            about["position_bits"] = self._keys.position_bits
            about["keys"] = [writer.add(keys) for keys in self._keys.blocks()]
            for first, notes in self._notes.all():
                for begin in range(0, len(notes), cache.NOTES):
                    piece = writer.add(notes[begin : begin + cache.NOTES])
                    about["notes"].append([first + begin, piece])
        return about

    def result(self) -> Counted:
        """Return what was counted; every row must be in one bucket."""
        buckets = dict(zip(BUCKETS, self._counts.tolist(), strict=True))
        repeated = self._duplicates + self._conflicts
        buckets["billed"] = buckets.pop(BUCKETS[CHARGED]) - repeated
        buckets |= {"duplicate": self._duplicates, "conflict": self._conflicts}
        read = self.log.rows
        if sum(buckets.values()) != read or min(buckets.values()) < 0:
            raise AssertionError(f"{read} rows were read, but the buckets are {buckets}")
        usage = self.tally.usage(self.names, self._ranks)
        if int(usage["calls"].sum()) != buckets["billed"]:
            raise AssertionError("usage does not add up to the calls billed")
        touched = (file for file in self.log.files if file.name in self._touched)
        return Counted(
            usage,
            {name: {"read": read, **buckets}[name] for name in ROWS},
            self._rejects.frame(),
            tuple(InputFile.of(file) for file in touched),
            self.log.skipped,
        )


_NOT_OF_THE_MONTH = [NUMBER["outside_month"], NUMBER["rejected.missing_timestamp"]]


def _in_parallel(
    work: Callable[[_T, threading.Event], _R], tasks: Iterable[_T], threads: int
) -> Iterator[_R]:
    """Yield the results of tasks as they are done, few of them waiting at any time.

    When a task fails, or whoever takes the results stops (an exception, Ctrl-C), running
    tasks are told to stop and no other begins.
    """
    stop = threading.Event()
    running: set[Future[_R]] = set()
    pool = ThreadPoolExecutor(threads)
    try:
        for task in tasks:
            if len(running) >= 2 * threads:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            running.add(pool.submit(work, task, stop))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


class _Notes:
    """What each row charged, in a scratch file until some are asked for."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._cells: dict[int, _Noted] = {}
        self._rests: dict[int, _Noted] = {}

    def close(self) -> None:
        self._scratch.close()

    def add(self, position: int, cells: Codes | Ints, rests: Any = None) -> None:
        """Note the cells of rows from a position on, and the rests of their hashes if kept."""
        self._cells[position] = self._scratch.append(cells), len(cells), cells.dtype
        if rests is not None:
            self._rests[position] = self._scratch.append(rests), len(rests), rests.dtype

    def of(self, positions: Ints) -> Ints:
        """Return the cells of rows at ascending positions; all must have been noted."""
        return self._picked(self._cells, positions).view(np.int64)

    def rests(self, positions: Ints) -> Lanes:
        """Return the rests of hashes of rows at ascending positions."""
        return self._picked(self._rests, positions)

    def all(self) -> Iterator[tuple[int, Lanes]]:
        """Yield all notes as a cache holds them, from the first position on."""
        for first in self._firsts:
            yield first, cache.note(self._read(self._rests[first]), self._read(self._cells[first]))

    def _picked(self, blocks: "dict[int, _Noted]", positions: Ints) -> Lanes:
        found = np.empty(len(positions), np.uint64)
        end = len(positions)
        while end:
            first = self._firsts[bisect_right(self._firsts, positions[end - 1]) - 1]
            begin = int(np.searchsorted(positions[:end], first))
            found[begin:end] = self._read(blocks[first])[positions[begin:end] - first]
            end = begin
        return found

    def _read(self, noted: "_Noted") -> Any:
        start, count, kind = noted
        values = np.empty(count, kind)
        self._scratch.read(start, values)
        return values

    @cached_property
    def _firsts(self) -> list[int]:
        return sorted(self._cells)


_Noted = tuple[int, int, np.dtype[Any]]
"""Where values lie, how many, and of which type."""


class _Numbers:
    """For each file with an entry, its accounts' numbers in this count."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._places: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        self._scratch.close()

    def add(self, file: str, numbers: Codes) -> None:
        self._places[file] = self._scratch.append(numbers), len(numbers)

    def of(self, file: str) -> Codes:
        start, count = self._places[file]
        numbers = np.empty(count, np.int32)
        self._scratch.read(start, numbers)
        return numbers


class _Memos:
    """Rows of digested files that were read again, on their way into memos."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._tables: dict[str, list[tuple[int, int, int, int]]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        self._scratch.close()

    def add(self, file: LogFile, group: RowGroup, rows: Ints, notes: Lanes, some: Recalled) -> None:
        """Add rows of a row group that were read again."""
        table = np.column_stack([rows.view(np.uint64), notes, some.instants.view(np.uint64)])
        table = np.ascontiguousarray(np.column_stack([table, some.ids]))
        place = group.number, self._scratch.append(table), *table.shape
        with self._lock:
            self._tables.setdefault(file.name, []).append(place)

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Write a memo for each entry with such rows, what it knew already among them."""
        for file, places in self._tables.items():
            entry = entries[file]
            tables: dict[int, list[Lanes]] = {}
            for group, start, rows, columns in places:
                table = np.empty((rows, columns), np.uint64)
                self._scratch.read(start, table)
                tables.setdefault(group, []).append(table)
            if entry.memo:
                for group in entry.memo.groups:
                    tables.setdefault(group, []).extend(entry.memo.tables(group))
            entry.write_memo({group: _by_width(own) for group, own in tables.items()})


def _by_width(tables: list[Lanes]) -> Iterator[Lanes]:
    """Join tables of equal columns, each sorted by its first."""
    for columns in sorted({table.shape[1] for table in tables}):
        joined = np.concatenate([table for table in tables if table.shape[1] == columns])
        yield joined[np.argsort(joined[:, 0])]


class _Tally:
    """Calls per account number and pair: ``calls[account * charges + charge]``.

    Rows that charge nothing have charge 0, so that all rows can be added at once.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._calls = np.zeros(0, np.int64)
        self._lock = threading.Lock()

    def add(self, cells: Codes | Ints, accounts: int, calls: Ints | np.int64 = _ONE) -> None:
        """Add calls to cells, which may repeat; accounts have numbers below ``accounts``."""
        with self._lock:
            need = accounts * self._rules.charges
            if need > len(self._calls):
                grown = np.zeros(max(need, 2 * len(self._calls)), np.int64)
                grown[: len(self._calls)] = self._calls
                self._calls = grown
            np.add.at(self._calls, cells, calls)

    def take_off(self, cells: Ints) -> None:
        """Take calls off again."""
        np.subtract.at(self._calls, cells, _ONE)

    def charged(self) -> tuple[Ints, Ints]:
        """Return the cells that are charged, ascending, and how many calls each."""
        used = np.flatnonzero(self._calls)
        used = used[used % self._rules.charges != 0]
        return used, self._calls[used]

    def usage(self, names: Names, ranks: Ints) -> pd.DataFrame:
        """Return the calls as `tables.USAGE`."""
        pairs = self._rules.pairs
        charges = self._rules.charges
        used, calls = self.charged()
        # the order of pairs is by interface; the table's is by item first
        by_item = sorted(range(len(pairs)), key=lambda n: (pairs[n][1].encode(), n))
        place = np.argsort([-1, *by_item])
        accounts, charge = used // charges, used % charges
        order = np.argsort(ranks[accounts] * charges + place[charge], kind="stable")
        accounts, charge = pa.array(accounts[order]), charge[order]
        pair = pa.array(charge - 1)
        return tables.frame(
            tables.USAGE,
            {
                "account_id": names.texts().take(accounts),
                "item": pa.array([item for _, item in pairs], pa.large_string()).take(pair),
                "interface": pa.array([name for name, _ in pairs], pa.large_string()).take(pair),
                "calls": calls[order],
            },
        )


class _Rejects:
    """Rejected rows: all while they are few, then the first ten."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.seen = 0
        self._kept: list[pa.Table] = []
        self._kept_rows = 0

    def add(self, rejects: pa.Table) -> None:
        """Add rows; the same rows are kept whatever order they come in."""
        self.seen += len(rejects)
        self._kept.append(rejects)
        self._kept_rows += len(rejects)
        if self.seen > self._keep and self._kept_rows > _FIRST_REJECTS:
            self._kept = [self._sorted().slice(0, _FIRST_REJECTS)]
            self._kept_rows = _FIRST_REJECTS

    def _sorted(self) -> pa.Table:
        kept = pa.concat_tables(self._kept)
        order = pc.sort_indices(kept, sort_keys=[("file", "ascending"), ("row", "ascending")])
        return kept.take(order)

    def table(self) -> pa.Table | None:
        """Return the rows as they came, by file and row; None where there are none."""
        return self._sorted() if self._kept else None

    def frame(self) -> pd.DataFrame:
        """Return the rows as `tables.REJECTS`."""
        kept = self.table()
        if kept is None:
            return tables.empty(tables.REJECTS)
        columns = {name: kept[name] for name in tables.REJECTS.names}
        return tables.frame(tables.REJECTS, columns | {"row": kept["row"].to_numpy()})
