"""The seam between the call log and everything after it: `count`.

One narrow call: a log, a month and the rules in force go in; usage, the number of rows in
every bucket, the rejected rows and the files that had a part come out. Whoever counts by
other means, on a cluster say, replaces this function and nothing else.

Row groups are the tasks. Each is decoded, classified (`calls`) and added to the tally as if
every request were new; its ids leave a key each with `dedup`. When all are through, rows
whose keys agree are read again, and what they charged too much is taken off. So memory
holds eight bytes a row, one number per account and priced interface, and a few row groups.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import tables
from settlement.calls import (
    BUCKETS,
    CHARGED,
    NUMBER,
    Batch,
    Coded,
    Codes,
    Ints,
    Rules,
    classify,
    recall,
)
from settlement.dedup import Candidates, Claims, Keys
from settlement.logfiles import CallLog, InputFile, LogFile, RowGroup, check, check_unchanged
from settlement.month import Period
from settlement.prices import Version
from settlement.stamps import Clock

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

    Raises:
        BadInput: a file is damaged, changed meanwhile, or its columns are not what they must be.
        MissingInput: a file is gone.
        CannotRead: the operating system refused to read.
    """
    rules, clock = Rules(version), Clock(period, naive_zone)
    check(log.files, rules.columns, naive_zone)
    threads = threads or os.cpu_count() or 1
    counting = _Counting(log, rules, clock, keep_rejects, progress)
    counting.read(threads)
    if counting.keys is not None:
        counting.settle_repetitions(counting.keys, threads)
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
    ) -> None:
        self.log, self.rules, self.clock = log, rules, clock
        self._progress = progress
        self._lock = threading.Lock()
        self._done_rows = self._done_bytes = 0
        self._counts = np.zeros(len(BUCKETS), np.int64)
        self._duplicates = self._conflicts = 0
        self._touched: set[str] = set()
        self._rejects = _Rejects(keep_rejects)
        self.accounts = _Accounts()
        self.tally = _Tally(len(rules.pairs))
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
        self.keys = Keys(position) if rules.version.deduplicate else None

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
        for batch in classify(self.log, task.file, task.group, self.rules, self.clock):
            if stop.is_set():
                break
            numbers = self.accounts.numbers(batch.accounts)
            self._charge(task, batch, numbers)
            with self._lock:
                self._counts += batch.counts
                if batch.rejects is not None:
                    self._rejects.add(batch.rejects)
                if batch.counts.sum() > batch.counts[_NOT_OF_THE_MONTH].sum():
                    self._touched.add(task.file.name)
        return task.group

    def _charge(self, task: _Task, batch: Batch, numbers: Ints) -> None:
        rows = batch.charged
        everyone = len(rows) == len(batch.pairs)
        codes = batch.accounts.codes if everyone else batch.accounts.codes[rows]
        pairs = batch.pairs if everyone else batch.pairs[rows]
        self.tally.add_rows(codes, numbers, pairs)
        if self.keys is not None and batch.ids is not None and len(rows):
            ids = batch.ids.raw if everyone else batch.ids.raw.take(pa.array(rows))
            shift = task.position + batch.first_row - task.group.first_row
            self.keys.add(ids, rows + shift)

    def settle_repetitions(self, keys: Keys, threads: int) -> None:
        """Take off what rows of equal request ids charged too much."""
        starts = np.array([task.position for task in self.tasks], np.int64)
        ranks = self.accounts.ranks()
        for lot in keys.suspects(threads):
            claims = Claims(ranks)
            firsts = np.searchsorted(lot, np.append(starts, np.iinfo(np.int64).max))
            again = [
                (task, lot[firsts[n] : firsts[n + 1]])
                for n, task in enumerate(self.tasks)
                if firsts[n] < firsts[n + 1]
            ]
            for candidates in _in_parallel(self._recall, again, threads):
                for some in candidates:
                    claims.add(some)
            for lost in claims.close():
                self.tally.take_off(lost.accounts, lost.pairs, lost.calls)
            self._duplicates += claims.duplicates
            self._conflicts += claims.conflicts

    def _recall(self, again: tuple[_Task, Ints], stop: threading.Event) -> list[Candidates]:
        task, positions = again
        rows = positions - task.position + task.group.first_row
        found = []
        for some in recall(self.log, task.file, task.group, rows, self.rules, self.clock):
            if stop.is_set():
                break
            accounts = self.accounts.numbers(some.accounts)[some.accounts.codes]
            ones = np.ones(len(accounts), np.int64)
            found.append(
                Candidates(some.ids, some.instants, accounts, some.pairs.astype(np.int64), ones)
            )
        return found

    def result(self) -> Counted:
        """Return what was counted; every row must be in one bucket."""
        buckets = dict(zip(BUCKETS, self._counts.tolist(), strict=True))
        repeated = self._duplicates + self._conflicts
        buckets["billed"] = buckets.pop(BUCKETS[CHARGED]) - repeated
        buckets |= {"duplicate": self._duplicates, "conflict": self._conflicts}
        read = self.log.rows
        if sum(buckets.values()) != read or min(buckets.values()) < 0:
            raise AssertionError(f"{read} rows were read, but the buckets are {buckets}")
        usage = self.tally.usage(self.accounts, self.rules)
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


class _Accounts:
    """All accounts that occur, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, accounts: Coded) -> Ints:
        """Return the number of each code's account; codes are a row group's own."""
        texts = accounts.texts
        with self._lock:
            known = self._numbers
            found = list(map(known.get, texts))
            for place, number in enumerate(found):
                if number is None:
                    found[place] = known.setdefault(texts[place], len(known))
        return np.array(found, np.int64)

    @property
    def texts(self) -> pa.Array:
        """The account of each number."""
        return pa.array(list(self._numbers), pa.large_string())

    def ranks(self) -> Ints:
        """Return for each number the account's place among all, by UTF-8 bytes."""
        order = pc.sort_indices(self.texts.cast(pa.large_binary())).to_numpy()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


class _Tally:
    """Calls per (interface, item) and account number: for each pair that occurs, an array."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._calls: dict[int, Ints] = {}
        self._lock = threading.Lock()

    def add_rows(self, codes: Codes, numbers: Ints, pairs: Codes) -> None:
        """Add one call per row, whose account is ``numbers[codes]``."""
        present = np.flatnonzero(np.bincount(pairs, minlength=self._pairs))
        if not len(present):
            return
        place = np.zeros(self._pairs, np.int64)
        place[present] = np.arange(len(present)) * len(numbers)
        cells = np.bincount(place[pairs] + codes, minlength=len(present) * len(numbers))
        most = int(numbers.max())
        with self._lock:
            for pair, calls in zip(present.tolist(), np.split(cells, len(present)), strict=True):
                self._room(pair, most)[numbers] += calls

    def _room(self, pair: int, number: int) -> Ints:
        """Return a pair's array, long enough for an account number."""
        calls = self._calls.get(pair, np.zeros(0, np.int64))
        if number >= len(calls):
            grown = np.zeros(max(number + 1, 2 * len(calls), 1024), np.int64)
            grown[: len(calls)] = calls
            calls = self._calls[pair] = grown
        return calls

    def take_off(self, accounts: Ints, pairs: Ints, calls: Ints) -> None:
        """Take calls off again."""
        for pair in np.unique(pairs).tolist():
            own = pairs == pair
            np.subtract.at(self._calls[pair], accounts[own], calls[own])

    def usage(self, accounts: "_Accounts", rules: Rules) -> pd.DataFrame:
        """Return the calls as `tables.USAGE`."""
        items = [item for _, item in rules.pairs]
        by_item = sorted(self._calls, key=lambda pair: (items[pair].encode(), pair))
        found = [np.flatnonzero(self._calls[pair]) for pair in by_item]
        numbers = np.concatenate([np.zeros(0, np.int64), *found])
        pairs = np.repeat(np.array(by_item, np.int64), [len(own) for own in found])
        calls = [self._calls[pair][own] for pair, own in zip(by_item, found, strict=True)]
        order = np.argsort(accounts.ranks()[numbers], kind="stable")
        numbers, pairs = pa.array(numbers[order]), pa.array(pairs[order])
        return tables.frame(
            tables.USAGE,
            {
                "account_id": accounts.texts.take(numbers),
                "item": pa.array(items, pa.large_string()).take(pairs),
                "interface": pa.array([name for name, _ in rules.pairs]).take(pairs),
                "calls": np.concatenate([np.zeros(0, np.int64), *calls])[order],
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
