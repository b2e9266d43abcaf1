"""The seam between the call log and everything after it: `count`.

One narrow call: a log, a month and the rules in force go in; usage, the number of rows in
every bucket, the rejected rows and the files that had a part come out. Whoever counts by
other means, on a cluster say, replaces this function and nothing else.

Row groups are the tasks. Each is decoded and classified (`calls`) and added to the tally as if
every request were new; its rows leave a key each with `dedup`, and a note of what they charged.
When all are through, rows whose keys agree are read again, and what they charged too much is
taken off. Keys and notes, twelve bytes a row, are in scratch files, so memory holds one number
per account and priced interface, and a few row groups, however long the log is.
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
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
from settlement.calls import BUCKETS, CHARGED, NUMBER, Batch, Rules, classify, recall
from settlement.dedup import Claim, Claims, Keys, Suspects
from settlement.hashing import Hash, hash_rows
from settlement.logfiles import CallLog, InputFile, LogFile, RowGroup, check, check_unchanged
from settlement.memory import keep_freed
from settlement.month import Period
from settlement.names import Names
from settlement.prices import Version
from settlement.scratch import Scratch
from settlement.stamps import Clock
from settlement.texts import Codes, Ints

Progress = Callable[[int, int], None]
_T = TypeVar("_T")
_R = TypeVar("_R")

ROWS = (
    "read",
    "billed",
    "duplicate",
    "conflict",
    "outside_month",
    "unbilled_interface",
    "unbillable_status",
    "rejected.missing_timestamp",
    "rejected.missing_request_id",
    "rejected.missing_account_id",
    "rejected.unknown_interface",
    "rejected.wrong_item",
    "rejected.missing_status",
)
"""What is told of the rows, in the order in which a settlement lists it."""
KEPT_REJECTS = 1_000_000
_FIRST_REJECTS = 10
_ONE = np.int64(1)


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
        hashed: the hash of request ids; none changes the result.

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
    with closing(_Counting(log, rules, clock, keep_rejects, progress, hashed)) as counting:
        counting.read(threads)
        counting.settle_repetitions(threads)
    check_unchanged(log)
    return counting.result()


@dataclass(frozen=True)
class _Task:
    """A row group to decode, and the position of its first row among all that are decoded."""

    file: LogFile
    group: RowGroup
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
        position = 0
        for file in log.files:
            for group in file.groups:
                if clock.excludes(file.types["timestamp"], group.span):
                    self._counts[NUMBER["outside_month"]] += group.rows
                    self._advance(group)
                elif group.rows:
                    self.tasks.append(_Task(file, group, position))
                    position += group.rows
        self._keys = Keys(position) if rules.version.deduplicate else None
        self._notes = _Notes() if rules.version.deduplicate else None

    def close(self) -> None:
        """Give the disk space of scratch files back."""
        for scratch in (self._keys, self._notes):
            if scratch is not None:
                scratch.close()

    def _advance(self, group: RowGroup) -> None:
        self._done_rows += group.rows
        self._done_bytes += group.size
        if self._progress is not None:
            self._progress(self._done_rows, self._done_bytes)

    def read(self, threads: int) -> None:
        """Decode and classify every row group that may have calls of the month."""
        for group in _in_parallel(self._read_group, self.tasks, threads):
            self._advance(group)

    def _read_group(self, task: _Task, stop: threading.Event) -> RowGroup:
        batches = classify(
            self.log, task.file, task.group, self.rules, self.clock, self.names, self._hashed
        )
        for batch in batches:
            if stop.is_set():
                break
            self._charge(task, batch)
            with self._lock:
                self._counts += batch.counts
                if batch.rejects is not None:
                    self._rejects.add(batch.rejects)
                if batch.counts.sum() > batch.counts[_NOT_OF_THE_MONTH].sum():
                    self._touched.add(task.file.name)
        return task.group

    def _charge(self, task: _Task, batch: Batch) -> None:
        if not len(batch.charged):
            return
        self.tally.add(batch.cells, len(self.names))
        if self._keys is not None and self._notes is not None and batch.hashes is not None:
            position = task.position + batch.first_row - task.group.first_row
            self._keys.add(batch.hashes, batch.charged + position)
            self._notes.add(position, batch.cells)

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
                recalled = _in_parallel(
                    partial(self._recall, claims), self._again(suspects), threads
                )
                for _ in recalled:
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

    def _recall(
        self, claims: Claims, again: tuple[_Task, Ints, Ints], stop: threading.Event
    ) -> None:
        task, positions, groups = again
        assert self._notes is not None
        rows = positions - task.position + task.group.first_row
        cells = self._notes.of(positions)
        for some in recall(self.log, task.file, task.group, rows, self.clock):
            if stop.is_set():
                break
            which = some.which
            claims.add(Claim(groups[which], some.ids, some.instants, cells[which]))

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
        self._blocks: dict[int, tuple[int, int, np.dtype[Any]]] = {}

    def close(self) -> None:
        self._scratch.close()

    def add(self, position: int, cells: Codes | Ints) -> None:
        """Note the cells of rows from a position on."""
        self._blocks[position] = self._scratch.append(cells), len(cells), cells.dtype

    def of(self, positions: Ints) -> Ints:
        """Return the cells of rows at ascending positions; all must have been noted."""
        found = np.empty(len(positions), np.int64)
        end = len(positions)
        while end:
            first = self._firsts[bisect_right(self._firsts, positions[end - 1]) - 1]
            begin = int(np.searchsorted(positions[:end], first))
            start, count, kind = self._blocks[first]
            cells = np.empty(count, kind)
            self._scratch.read(start, cells)
            found[begin:end] = cells[positions[begin:end] - first]
            end = begin
        return found

    @cached_property
    def _firsts(self) -> list[int]:
        return sorted(self._blocks)


class _Tally:
    """Calls per account number and pair: ``calls[account * charges + charge]``.

    Rows that charge nothing have charge 0, so that all rows can be added at once.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._calls = np.zeros(0, np.int64)
        self._lock = threading.Lock()

    def add(self, cells: Codes | Ints, accounts: int) -> None:
        """Add a call for each row; all accounts have smaller numbers than ``accounts``."""
        with self._lock:
            need = accounts * self._rules.charges
            if need > len(self._calls):
                grown = np.zeros(max(need, 2 * len(self._calls)), np.int64)
                grown[: len(self._calls)] = self._calls
                self._calls = grown
            np.add.at(self._calls, cells, _ONE)

    def take_off(self, cells: Ints) -> None:
        """Take calls off again."""
        np.subtract.at(self._calls, cells, _ONE)

    def usage(self, names: Names, ranks: Ints) -> pd.DataFrame:
        """Return the calls as `tables.USAGE`."""
        pairs = self._rules.pairs
        charges = self._rules.charges
        used = np.flatnonzero(self._calls)
        used = used[used % charges != 0]
        # the order of pairs is by interface; the table's is by item first
        by_item = sorted(range(len(pairs)), key=lambda n: (pairs[n][1].encode(), n))
        place = np.argsort([-1, *by_item])
        accounts, charge = used // charges, used % charges
        order = np.argsort(ranks[accounts] * charges + place[charge], kind="stable")
        used, accounts, charge = used[order], pa.array(accounts[order]), charge[order]
        pair = pa.array(charge - 1)
        return tables.frame(
            tables.USAGE,
            {
                "account_id": names.texts().take(accounts),
                "item": pa.array([item for _, item in pairs], pa.large_string()).take(pair),
                "interface": pa.array([name for name, _ in pairs], pa.large_string()).take(pair),
                "calls": self._calls[used],
            },
        )


class _Rejects:
    """Rejected rows: all while they are few, then the first ten."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._seen = 0
        self._kept: list[pa.Table] = []
        self._kept_rows = 0

    def add(self, rejects: pa.Table) -> None:
        """Add rows; the same rows are kept whatever order they come in."""
        self._seen += len(rejects)
        self._kept.append(rejects)
        self._kept_rows += len(rejects)
        if self._seen > self._keep and self._kept_rows > _FIRST_REJECTS:
            self._kept = [self._sorted().slice(0, _FIRST_REJECTS)]
            self._kept_rows = _FIRST_REJECTS

    def _sorted(self) -> pa.Table:
        kept = pa.concat_tables(self._kept)
        order = pc.sort_indices(kept, sort_keys=[("file", "ascending"), ("row", "ascending")])
        return kept.take(order)

    def frame(self) -> pd.DataFrame:
        """Return the rows as `tables.REJECTS`."""
        if not self._kept:
            return tables.empty(tables.REJECTS)
        kept = self._sorted()
        columns = {name: kept[name] for name in tables.REJECTS.names}
        return tables.frame(tables.REJECTS, columns | {"row": kept["row"].to_numpy()})
