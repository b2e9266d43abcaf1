"""The second look: rows whose ids may be equal, and what of them was charged too much.

`dedup.Keys` tells which rows share their hash. Here these *suspects* are looked at again, each
with its real id and its instant: read from the log, or found in the memo of an entry. Then
`dedup.Claims` says who of them is charged, and the others' charges are taken off.
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from settlement.calls import recall
from settlement.counting.memos import Memos
from settlement.counting.parallel import in_parallel
from settlement.counting.plan import Plan, Question, Task
from settlement.counting.reading import Reading
from settlement.dedup import Claim, Claims, Suspects
from settlement.scan import cache
from settlement.scan.cache import Memo
from settlement.scan.texts import Bools, Codes, Ints, Lanes


@dataclass(frozen=True)
class _Again:
    """Suspects of one row group: their positions, ascending, and their groups."""

    task: Task
    positions: Ints
    groups: Ints

    @property
    def rows(self) -> Ints:
        """Which rows of the file they are."""
        return self.task.rows(self.positions)

    def those(self, which: Ints) -> "_Again":
        """Return some of them."""
        return _Again(self.task, self.positions[which], self.groups[which])


@dataclass(frozen=True)
class _Looked:
    """Suspects after a look into their memo: the rests of their hashes, and who is still open."""

    again: _Again
    rests: Lanes
    is_open: Bools


class Repetitions:
    """Finds what was charged twice, and takes it off.

    Args:
        question, plan: what is asked, and how rows were given positions.
        reading: what came of the first look.
        memos: where to put what is read again of files with entries, if memos are written.

    Attributes:
        duplicates, conflicts: how many rows are not charged, equal to the one that is or not.
    """

    def __init__(
        self, question: Question, plan: Plan, reading: Reading, memos: Memos | None = None
    ) -> None:
        self._question, self._plan, self._reading, self._memos = question, plan, reading, memos
        self.duplicates = self.conflicts = 0

    def take_off(self) -> None:
        """Take off what rows of equal request ids charged too much; ids must count once."""
        assert self._reading.keys is not None
        for suspects in self._reading.keys.suspects(self._question.threads):
            with closing(Claims(suspects, self._order)) as claims:
                again = self._again(suspects)
                if self._plan.known:
                    again = self._unknown(again, claims)
                for _ in in_parallel(partial(self._recall, claims), again, self._question.threads):
                    pass
                for cells in claims.lost():
                    self._reading.tally.take_off(cells)
            self.duplicates += claims.duplicates
            self.conflicts += claims.conflicts

    def _order(self, cells: Ints) -> Ints:
        """Order cells by account, then by pair; of equal place are only equal cells."""
        return self._question.rules.renumbered(cells, self._reading.ranks)

    def _again(self, suspects: Suspects) -> Iterator[_Again]:
        """Yield the row groups that have suspects."""
        positions, tasks = suspects.positions, self._plan.tasks
        starts = [task.position for task in tasks]
        firsts = np.searchsorted(positions, [*starts, np.iinfo(np.int64).max]).tolist()
        for task, begin, end in zip(tasks, firsts[:-1], firsts[1:], strict=True):
            if begin < end:
                yield _Again(task, positions[begin:end], suspects.group(slice(begin, end)))

    def _recall(self, claims: Claims, again: _Again, stop: threading.Event) -> None:
        """Claim suspects after reading them again."""
        asked, task, rows = self._question, again.task, again.rows
        notes = None if task.entry is None else task.entry.notes(rows)
        if notes is None:
            assert self._reading.notes is not None
            cells = self._reading.notes.of(again.positions)
        else:
            cells = asked.rules.renumbered(cache.cells(notes), self._numbers(task))
        for some in recall(asked.log, task.file, task.group, rows, asked.clock):
            if stop.is_set():
                break
            which = some.which
            claims.add(Claim(again.groups[which], some.ids, some.instants, cells[which]))
            if self._memos is not None and notes is not None and which.size:
                self._memos.add(task.file, task.group, rows[which], notes[which], some)

    def _numbers(self, task: Task) -> Codes:
        """Return the numbers here of a file's entry's accounts."""
        assert self._reading.numbers is not None
        return self._reading.numbers.of(task.file.name)

    # ------------------------------------------------------------ what memos know

    def _unknown(self, again: Iterator[_Again], claims: Claims) -> Iterator[_Again]:
        """Claim what memos know; yield what must be read from the log all the same.

        That is every other row, unless no row of its group has the same rest of the hash. Who
        writes memos reads these too: what a memo knows need never be looked up again.
        """
        looked = list(in_parallel(partial(self._look_up, claims), again, self._question.threads))
        if not looked:
            return
        wanted = self._wanted(looked)
        end = 0
        for one in looked:
            begin, end = end, end + len(one.again.positions)
            which = np.flatnonzero(wanted[begin:end])
            if which.size:
                yield one.again.those(which)

    def _wanted(self, looked: list[_Looked]) -> Bools:
        """Tell which suspects are to be read, of all those that were looked up."""
        groups = np.concatenate([one.again.groups for one in looked])
        rests = np.concatenate([one.rests for one in looked])
        is_open = np.concatenate([one.is_open for one in looked])
        rows = np.flatnonzero(np.bincount(groups, is_open)[groups])  # of groups with such rows
        _, number, alike = np.unique(
            groups[rows].view(np.uint64) << np.uint64(32) | rests[rows],
            return_inverse=True,
            return_counts=True,
        )
        wanted: Bools = np.zeros(len(groups), bool)
        wanted[rows] = (alike > 1)[number] if self._memos is None else True
        wanted &= is_open
        return wanted

    def _look_up(self, claims: Claims, again: _Again, stop: threading.Event) -> _Looked:
        """Claim the rows that a memo knows; return all of them."""
        task, rows = again.task, again.rows
        is_open = np.ones(len(rows), bool)
        if task.entry is None:
            assert self._reading.notes is not None
            return _Looked(again, self._reading.notes.rests(again.positions), is_open)
        rests = np.empty(len(rows), np.uint64)
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
            claims.add(self._claim(task, again.groups[which], found))
        rests[is_open] = cache.rests(task.entry.notes(rows[is_open]))
        return _Looked(again, rests, is_open)

    def _claim(self, task: Task, groups: Ints, found: Lanes) -> Claim:
        """Return rows of a memo as claims."""
        cells = self._question.rules.renumbered(cache.cells(found[:, 1]), self._numbers(task))
        instants = np.ascontiguousarray(found[:, 2]).view(np.int64)
        return Claim(groups, found[:, Memo.COLUMNS :], instants, cells)
