"""The second look: rows whose ids may be equal, and what of them was charged too much.

`keys.Keys` tells which rows share their hash. Here these *suspects* are looked at again, each
with its real id and its instant: read from the log, or found in the memo. Then
`dedup.Claims` says who of them is charged, and the others' charges are taken off.
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from settlement.calls import RECALLED, recall
from settlement.counting.keys import Suspects, joined
from settlement.counting.memos import Memos
from settlement.counting.parallel import in_parallel
from settlement.counting.plan import Known, Plan, Question, Task
from settlement.counting.reading import Reading
from settlement.dedup import Claim, Claims
from settlement.scan import cache
from settlement.scan.cache import Memo
from settlement.scan.rows import Unread
from settlement.scan.texts import Bools, Ints, Lanes

_SIFTED = 1 << 23
"""Suspects sifted at once: all rests are read for each lot, and sorting it takes memory."""


@dataclass(frozen=True)
class _Again:
    """Suspects of one row group: which they are, their positions, ascending, and their groups."""

    task: Task
    places: Ints
    positions: Ints
    groups: Ints

    @property
    def rows(self) -> Ints:
        """Which rows of the file they are."""
        return self.task.rows(self.positions)


_Announced = tuple[_Again, Unread]


class Repetitions:
    """Finds what was charged twice, and takes it off.

    Args:
        question, plan: what is asked, and how rows were given positions.
        reading: what came of the first look.
        memo: what is known of the rows of entries that were compared.
        memos: where to put what is read again of files with entries, if a memo is written.

    Attributes:
        duplicates, conflicts: how many rows are not charged, equal to the one that is or not.
    """

    def __init__(
        self,
        question: Question,
        plan: Plan,
        reading: Reading,
        memo: Memo | None = None,
        memos: Memos | None = None,
    ) -> None:
        self._question, self._plan, self._reading = question, plan, reading
        self._memo, self._memos = memo, memos
        self.duplicates = self.conflicts = 0

    def take_off(self) -> None:
        """Take off what rows of equal request ids charged too much; ids must count once."""
        for suspects in self._suspects():
            with closing(Claims(suspects, self._order)) as claims:
                wanted = np.ones(len(suspects), bool)
                if self._plan.known:
                    wanted = self._unknown(suspects, claims)
                again = self._again(suspects, wanted)
                work = chain([None], map(self._announced, again))
                for _ in in_parallel(partial(self._work, claims), work, self._question.threads):
                    pass
                for cells, calls in claims.lost(self._question.threads):
                    self._reading.tally.take_off(cells, calls)
            self.duplicates += claims.duplicates
            self.conflicts += claims.conflicts

    def _suspects(self) -> Iterator[Suspects]:
        """Yield the suspects, in as few lots as can be: the log is read again for each.

        Where rows are very many, most suspects met by chance; the rests of their hashes, where
        they are kept, acquit these beforehand.
        """
        keys, threads = self._reading.keys, self._question.threads
        assert keys is not None
        if self._reading.keeps_rests and not self._plan.known:
            return joined(map(self._sifted, keys.suspects(threads, _SIFTED)))
        return keys.suspects(threads)

    def _sifted(self, suspects: Suspects) -> Suspects:
        """Return those that share the whole hash with another of their group."""
        assert self._reading.notes is not None
        suspected = _Suspected(suspects)
        suspected.rests = self._reading.notes.rests(suspects.positions)
        suspected.acquit()
        return suspects.only(suspected.is_open)

    def _order(self, cells: Ints) -> Ints:
        """Order cells by account, then by pair; of equal place are only equal cells."""
        return self._question.rules.renumbered(cells, self._reading.order.ranks)

    def _again(self, suspects: Suspects, wanted: Bools) -> Iterator[_Again]:
        """Yield the row groups that have suspects that are wanted."""
        places = np.flatnonzero(wanted)
        positions, tasks = suspects.positions[places], self._plan.tasks
        starts = [task.position for task in tasks]
        firsts = np.searchsorted(positions, [*starts, np.iinfo(np.int64).max]).tolist()
        for task, begin, end in zip(tasks, firsts[:-1], firsts[1:], strict=True):
            if begin < end:
                own = places[begin:end]
                yield _Again(task, own, positions[begin:end], suspects.group(own))

    def _announced(self, again: _Again) -> _Announced:
        """Have a row group fetched: the first look did without its instants, or was long ago."""
        unread = Unread(self._question.log, again.task.file, again.task.group)
        unread.fetch(RECALLED)
        return again, unread

    def _work(self, claims: Claims, announced: _Announced | None, stop: threading.Event) -> None:
        """Recall suspects, or meanwhile get ready what the claims will need of the first look."""
        if announced is None:
            self._reading.conclude()
        else:
            self._recall(claims, *announced, stop)

    def _recall(self, claims: Claims, again: _Again, unread: Unread, stop: threading.Event) -> None:
        """Claim suspects after reading them again."""
        asked, task, rows = self._question, again.task, again.rows
        notes = None if task.entry is None else task.entry.notes(rows)
        if notes is None:
            assert self._reading.notes is not None
            cells = self._reading.notes.of(again.positions)
        else:
            assert self._reading.numbers is not None
            numbers = self._reading.numbers.of(task.file.name)
            cells = asked.rules.renumbered(cache.cells(notes), numbers)
        for some in recall(unread, rows, asked.clock):
            if stop.is_set():
                break
            which = some.which
            claims.add(Claim(again.groups[which], some.ids, some.instants, cells[which]))
            if self._memos is not None and notes is not None and which.size:
                self._memos.add(task.file.name, rows[which], notes[which], some)

    # ------------------------------------------------------------ what was digested

    def _unknown(self, suspects: Suspects, claims: Claims) -> Bools:
        """Claim what the memo knows; tell which suspects must be read from the log all the same.

        That is every other one, unless no row of its group has the same rest of the hash. Who
        writes a memo reads these too: what it knows need never be looked up again.
        """
        suspected = _Suspected(suspects)
        threads = self._question.threads
        for _ in in_parallel(
            partial(self._claim_known, suspected, claims), self._plan.known, threads
        ):
            pass
        if self._memos is None:
            again = self._again(suspects, suspected.is_open)
            for _ in in_parallel(partial(self._fill_rests, suspected), again, threads):
                pass
            suspected.acquit()
        return suspected.is_open

    def _claim_known(
        self, suspected: "_Suspected", claims: Claims, known: Known, stop: threading.Event
    ) -> None:
        """Claim those rows of a file that the memo knows."""
        if self._memo is None or not known.compared:
            return
        assert self._reading.numbers is not None
        numbers = self._reading.numbers.of(known.file.name)
        for table in self._memo.tables(known.entry):
            if stop.is_set():
                break
            rows, places = suspected.find(table.rows + known.position)
            notes = table.notes[rows]
            suspected.is_open[places] = False
            suspected.rests[places] = cache.rests(notes)
            cells = self._question.rules.renumbered(cache.cells(notes), numbers)
            groups = suspected.suspects.group(places)
            claims.add(Claim(groups, table.ids[rows], table.instants[rows], cells))

    def _fill_rests(self, suspected: "_Suspected", again: _Again, _: threading.Event) -> None:
        """Look up the rests of the hashes of suspects that the memo does not know."""
        if again.task.entry is None:
            assert self._reading.notes is not None
            rests = self._reading.notes.rests(again.positions)
        else:
            rests = cache.rests(again.task.entry.notes(again.rows))
        suspected.rests[again.places] = rests


class _Suspected:
    """What is known of suspects before they are read again.

    Attributes:
        is_open: which ones are not claimed yet.
        rests: the lower halves of their hashes.
    """

    def __init__(self, suspects: Suspects) -> None:
        self.suspects = suspects
        self._positions = suspects.positions
        self.is_open: Bools = np.ones(len(suspects), bool)
        self.rests: Lanes = np.zeros(len(suspects), np.uint64)

    def find(self, positions: Ints) -> tuple[Ints, Ints]:
        """Return which of some positions are suspects', and which suspects they are."""
        places = np.searchsorted(self._positions, positions)
        places[places == len(self._positions)] = 0
        rows = np.flatnonzero(self._positions[places] == positions)
        return rows, places[rows]

    def acquit(self) -> None:
        """Close those whose hash differs, in its lower half, from all others of their group."""
        whole = self.suspects.group(slice(None)).view(np.uint64)
        rows = None
        if not self.is_open.all():  # others may be alike, but must be of groups with open ones
            groups = whole.view(np.int64)
            rows = np.flatnonzero(np.bincount(groups, self.is_open)[groups])
            whole = whole[rows]
        whole <<= np.uint64(32)
        whole |= self.rests if rows is None else self.rests[rows]
        order = np.argsort(whole)
        whole = whole[order]
        alone = np.ones(len(whole), bool)
        alone[1:] = whole[1:] != whole[:-1]
        alone[:-1] &= alone[1:]
        alone = order[alone]
        self.is_open[alone if rows is None else rows[alone]] = False
