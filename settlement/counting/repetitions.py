"""The second look: rows whose ids may be equal, and what of them was charged too much.

`keys.Keys` tells which rows share their hash. Here these *suspects* are read again, each with
its real id and its instant. Then `dedup.Claims` says who of them is charged, and the others'
charges are taken off.

Of rows that were compared with each other before, a memo tells what they charged too much among
themselves. That is taken off first. Then only ids that also come in a new row matter, and of
these all rows are suspects: what the old ones charge too much without the new is put back, and
what all of them do is taken off instead.
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise

import numpy as np

from settlement.calls import RECALLED, recall
from settlement.counting.keys import Suspects, joined
from settlement.counting.parallel import in_parallel
from settlement.counting.plan import Plan, Question, Task
from settlement.counting.reading import Reading
from settlement.dedup import Claim, Claims
from settlement.scan import cache
from settlement.scan.cache import Lost
from settlement.scan.rows import Unread
from settlement.scan.texts import Bools, Ints, Lanes

_SIFTED = 1 << 23
"""Suspects sifted at once: all rests are read for each lot, and sorting it takes memory."""


@dataclass(frozen=True)
class _Again:
    """Suspects of one row group: which they are, their positions, ascending, and their groups."""

    task: Task
    places: slice
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
        keeps_lost: whether what is taken off is to be told by `lost`.

    Attributes:
        duplicates, conflicts: how many rows are not charged, equal to the one that is or not.
    """

    def __init__(
        self, question: Question, plan: Plan, reading: Reading, *, keeps_lost: bool = False
    ) -> None:
        self._question, self._plan, self._reading = question, plan, reading
        self._lost: list[tuple[Ints, Ints]] | None = [] if keeps_lost else None
        self.duplicates = self.conflicts = 0

    def take_off(self) -> None:
        """Take off what rows of equal request ids charged too much; ids must count once."""
        if self._plan.memo:
            known = self._plan.memo.lost()
            numbers = self._reading.numbered(known.accounts)
            self._take_off(self._question.rules.renumbered(known.cells, numbers), known.calls)
            self.duplicates, self.conflicts = known.duplicates, known.conflicts
        for suspects in self._suspects():
            with closing(Claims(suspects, self._order)) as claims:
                with closing(Claims(suspects, self._order)) as before:
                    self._look_again(suspects, claims, before)
                    self._settle(before, -1)
                self._settle(claims, 1)

    def lost(self) -> Lost:
        """Return all that was taken off, if it was to be kept."""
        parts = self._lost or []
        cells, where = np.unique(
            np.concatenate([np.empty(0, np.int64), *(cells for cells, _ in parts)]),
            return_inverse=True,
        )
        calls = np.zeros(len(cells), np.int64)
        np.add.at(calls, where, np.concatenate([calls[:0], *(calls for _, calls in parts)]))
        some = calls != 0
        accounts = self._reading.names.texts()
        return Lost(accounts, cells[some], calls[some], self.duplicates, self.conflicts)

    def _settle(self, claims: Claims, sign: int) -> None:
        """Take off what lost among claims, or put it back."""
        for cells, calls in claims.lost(self._question.threads):
            self._take_off(cells, sign * calls)
        self.duplicates += sign * claims.duplicates
        self.conflicts += sign * claims.conflicts

    def _take_off(self, cells: Ints, calls: Ints) -> None:
        self._reading.tally.take_off(cells, calls)
        if self._lost is not None:
            self._lost.append((cells, calls))

    def _look_again(self, suspects: Suspects, claims: Claims, before: Claims) -> None:
        """Read suspects again for the claims, and those that were compared for ``before`` too."""
        work = chain([None], map(self._announced, self._again(suspects)))
        for _ in in_parallel(partial(self._work, claims, before), work, self._question.threads):
            pass

    def _suspects(self) -> Iterator[Suspects]:
        """Yield the suspects, in as few lots as can be: the log is read again for each."""
        keys, threads = self._reading.keys, self._question.threads
        assert keys is not None
        if self._reading.keeps_rests:
            return joined(map(self._sifted, keys.suspects(threads, _SIFTED)))
        return keys.suspects(threads)

    def _sifted(self, suspects: Suspects) -> Suspects:
        """Return those that share the whole hash with another of their group, one of them new.

        Where rows are very many, most met by chance, and reading them again takes long; that of
        rows of entries does in any case.
        """
        if self._plan.memo:
            suspects = suspects.only(self._with_new(suspects))
        rests = np.empty(len(suspects), np.uint64)
        fill = partial(self._fill_rests, rests)
        for _ in in_parallel(fill, self._again(suspects), self._question.threads):
            pass
        return suspects.only(~_alone(suspects, rests))

    def _with_new(self, suspects: Suspects) -> Bools:
        """Tell which suspects are of a group with a row that was not compared with the others."""
        new = np.zeros(len(suspects), bool)
        for again in self._again(suspects):
            new[again.places] = not again.task.compared
        groups = suspects.group(slice(None))
        return np.bincount(groups, new, minlength=suspects.groups)[groups] > 0

    def _fill_rests(self, rests: Lanes, again: _Again, _: threading.Event) -> None:
        """Look up the rests of the hashes of suspects of a row group."""
        if again.task.entry is None:
            assert self._reading.notes is not None
            rests[again.places] = self._reading.notes.rests(again.positions)
        else:
            rests[again.places] = cache.rests(again.task.entry.notes(again.rows))

    def _order(self, cells: Ints) -> Ints:
        """Order cells by account, then by pair; of equal place are only equal cells."""
        return self._question.rules.renumbered(cells, self._reading.order.ranks)

    def _again(self, suspects: Suspects) -> Iterator[_Again]:
        """Yield the row groups that have suspects."""
        positions, tasks = suspects.positions, self._plan.tasks
        starts = [task.position for task in tasks]
        firsts = np.searchsorted(positions, [*starts, np.iinfo(np.int64).max]).tolist()
        for task, (begin, end) in zip(tasks, pairwise(firsts), strict=True):
            if begin < end:
                own = slice(begin, end)
                yield _Again(task, own, positions[own], suspects.group(own))

    def _announced(self, again: _Again) -> _Announced:
        """Have a row group fetched: the first look did without its instants, or was long ago."""
        unread = Unread(self._question.log, again.task.file, again.task.group)
        unread.fetch(RECALLED)
        return again, unread

    def _work(
        self,
        claims: Claims,
        before: Claims,
        announced: _Announced | None,
        stop: threading.Event,
    ) -> None:
        """Recall suspects, or meanwhile get ready what the claims will need of the first look."""
        if announced is None:
            self._reading.conclude()
            return
        again, unread = announced
        for claim in self._recalled(again, unread):
            if stop.is_set():
                break
            claims.add(claim)
            if again.task.compared:
                before.add(claim)

    def _recalled(self, again: _Again, unread: Unread) -> Iterator[Claim]:
        """Yield the claims of suspects of a row group after reading them again."""
        cells = self._cells(again)
        for some in recall(unread, again.rows, self._question.clock):
            which = some.which
            yield Claim(again.groups[which], some.ids, some.instants, cells[which])

    def _cells(self, again: _Again) -> Ints:
        """Return what suspects of a row group charged."""
        task = again.task
        if task.entry is None:
            assert self._reading.notes is not None
            return self._reading.notes.of(again.positions)
        assert self._reading.numbers is not None
        numbers = self._reading.numbers.of(task.file.name)
        cells = cache.cells(task.entry.notes(again.rows))
        return self._question.rules.renumbered(cells, numbers)


def _alone(suspects: Suspects, rests: Lanes) -> Bools:
    """Tell which suspects share the lower half of their hash with no other of their group."""
    whole = suspects.group(slice(None)).view(np.uint64)
    whole <<= np.uint64(32)
    whole |= rests
    order = np.argsort(whole)
    whole = whole[order]
    alone = np.ones(len(whole), bool)
    alone[1:] = whole[1:] != whole[:-1]
    alone[:-1] &= alone[1:]
    found = np.empty(len(whole), bool)
    found[order] = alone
    return found
