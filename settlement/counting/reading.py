"""The first look at a month: every row put in its bucket, as if every request were new.

Row groups are read (`calls`), or what an entry of the cache says of a file is taken over. Either
way there come of it rows by bucket, calls by account, and, where ids count once, a key and a
note of every row charged, from which `repetitions` finds what was charged too often.
"""

import threading
from collections.abc import Callable
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from settlement.calls import BUCKETS, NUMBER, Batch, classify, fetch
from settlement.counting.keys import Keys
from settlement.counting.notes import Notes, Numbers
from settlement.counting.parallel import in_parallel
from settlement.counting.plan import Known, Plan, Question, Task
from settlement.counting.rejects import Rejects
from settlement.counting.tally import Tally
from settlement.scan.logfiles import LogFile, RowGroup
from settlement.scan.names import Names, Order
from settlement.scan.pages import Part, Piece
from settlement.scan.rows import Unread
from settlement.scan.texts import Codes, Ints, of_arrow

Progress = Callable[[int, int], None]
_Announced = tuple[Task, Unread]
_NOT_OF_THE_MONTH = [NUMBER["outside_month"], NUMBER["rejected.missing_timestamp"]]


class Reading:
    """What has been read so far: what threads share, and the lock that guards it.

    Args:
        question: what is asked.
        plan: what is to be read.
        keep_rejects: keep at most so many rejected rows.
        progress: called with the rows and bytes done so far.
        keeps_rests: whether notes have the lower halves of hashes too.

    Attributes:
        counts: how many rows are in each of `BUCKETS`.
        touched: names of files with at least one row in the month.
        names, tally, rejects: accounts, their calls, and the rejected rows.
        keys, notes: of charged rows, where ids count once; else None.
        numbers: of accounts of entries, where there are entries.
    """

    def __init__(
        self,
        question: Question,
        plan: Plan,
        *,
        keep_rejects: int,
        progress: Progress | None = None,
        keeps_rests: bool = False,
    ) -> None:
        self._question, self._plan, self._progress = question, plan, progress
        self.keeps_rests = keeps_rests
        self._lock = threading.Lock()
        self._done_rows = self._done_bytes = 0
        self.counts = np.zeros(len(BUCKETS), np.int64)
        self.touched: set[str] = set()
        self.names = Names()
        self.tally = Tally(question.rules)
        self.rejects = Rejects(keep_rejects)
        once = question.rules.version.deduplicate
        self.keys = Keys(plan.positions) if once else None
        self.notes = Notes() if once else None
        self.numbers = Numbers() if plan.known else None

    def close(self) -> None:
        """Give the disk space of scratch files back."""
        for scratch in (self.keys, self.notes, self.numbers):
            if scratch is not None:
                scratch.close()

    def conclude(self) -> None:
        """Do what is left once all is read: others can read suspects again meanwhile."""
        self.tally.flush()
        _ = self.order

    @cached_property
    def order(self) -> Order:
        """The order of all accounts by their bytes; all must have been read."""
        return self.names.order()

    def run(self) -> None:
        """Take in every row group that may have calls of the month, or the file's entry."""
        for group in self._plan.outside:
            self.counts[NUMBER["outside_month"]] += group.rows
            self._advance(group)
        tasks = (task for task in self._plan.tasks if not task.entry)
        work = chain[_Announced | Known](self._plan.known, map(self._announced, tasks))
        for groups in in_parallel(self._take, work, self._question.threads):
            for group in groups:
                self._advance(group)

    def _announced(self, task: Task) -> _Announced:
        """Have a row group fetched while those before it are counted."""
        asked = self._question
        unread = Unread(asked.log, task.file, task.group)
        fetch(unread, asked.rules, asked.clock)
        return task, unread

    def _advance(self, group: RowGroup) -> None:
        self._done_rows += group.rows
        self._done_bytes += group.size
        if self._progress is not None:
            self._progress(self._done_rows, self._done_bytes)

    def _take(self, work: _Announced | Known, stop: threading.Event) -> tuple[RowGroup, ...]:
        if isinstance(work, Known):
            self._take_over(work)
            return work.file.groups
        task, unread = work
        self._read(task, unread, stop)
        return (task.group,)

    def _add_counts(self, file: LogFile, counts: Ints, rejects: pa.Table | None) -> None:
        with self._lock:
            self.counts += counts
            if rejects is not None:
                self.rejects.add(rejects)
            if counts.sum() > counts[_NOT_OF_THE_MONTH].sum():
                self.touched.add(file.name)

    # ------------------------------------------------------------ row groups

    def _read(self, task: Task, unread: Unread, stop: threading.Event) -> None:
        asked = self._question
        for batch in classify(unread, asked.rules, asked.clock, self.names, asked.hashed):
            if stop.is_set():
                break
            self._charge(task, batch)
            self._add_counts(task.file, batch.counts, batch.rejects)

    def _charge(self, task: Task, batch: Batch) -> None:
        if not len(batch.charged):
            return
        self.tally.add(batch.cells, len(self.names))
        if self.keys is not None and self.notes is not None and batch.hashes is not None:
            position = task.position + batch.first_row - task.group.first_row
            self.keys.add(batch.hashes, batch.charged + position)
            self.notes.add(position, batch.cells, self._rests(batch))

    def _rests(self, batch: Batch) -> Any:
        """Return the lower halves of hashes by row, where they are wanted."""
        if self.keeps_rests and batch.hashes is not None:
            rests = np.zeros(len(batch.cells), np.uint32)
            rests[batch.charged] = batch.hashes.astype(np.uint32)
            return rests
        return None

    # ------------------------------------------------------------ entries

    def numbered(self, accounts: pa.Array) -> Codes:
        """Return the numbers here of accounts, given as text."""
        part = Part(of_arrow(accounts), None)
        return self.names.numbers([Piece(len(accounts), lambda _rows: part)], len(accounts))

    def _take_over(self, known: Known) -> None:
        """Add what an entry holds, its accounts under the numbers that they have here."""
        entry = known.entry
        numbers = self.numbered(entry.accounts())
        cells, calls = entry.tally()
        cells = self._question.rules.renumbered(cells, numbers)
        self.tally.add_calls(cells, len(self.names), calls)
        if self.numbers is not None and self.keys is not None:
            self.numbers.add(known.file.name, numbers)
            bits, first = entry.position_bits, known.position
            for keys in entry.key_blocks():
                self.keys.take_over(keys, bits, first, compared=known.compared)
            if entry.keys:
                self.keys.borrow(entry.keys, bits, first, compared=known.compared)
        self._add_counts(known.file, entry.counts, entry.rejects())
