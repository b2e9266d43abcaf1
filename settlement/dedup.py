"""Each request id once: which of the rows that may be one request is charged.

`counting.keys` finds rows whose ids have equal hashes. These suspects are read again, and
`Claims` decides about them by all bytes of their ids, so that a chance hit is acquitted.

Who wins is a rule of billing (README, Rules): of the rows of one id the earliest instant, then
the bytewise smallest account, interface and item. Rows equal to the winner are duplicates, the
others conflicts. Both are sets of rows, so neither the order of files nor the number of threads
can change them.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from settlement.counting.keys import Suspects
from settlement.counting.parallel import in_parallel
from settlement.scan.scratch import Scratch
from settlement.scan.texts import Bools, Ints, Lanes

_CLAIMS = 1 << 17
"""Suspects decided about at once."""
_CROWDED = 8
"""Claims of more rows for each group are thinned out."""
Order = Callable[[Ints], Ints]
_Place = tuple[int, int]
"""Where rows lie, and how many."""


@dataclass(frozen=True)
class Claim:
    """Suspects read again, all with ids of one number of lanes: parallel columns.

    Attributes:
        groups: rows of one id are of one group.
        ids: the real ids as lanes (`texts.lanes`).
        instants: nanoseconds since any fixed instant.
        cells: what each charged, as a number that tells account, interface and item.
    """

    groups: Ints
    ids: Lanes
    instants: Ints
    cells: Ints

    def only(self, rows: Ints) -> "Claim":
        """Return some of the rows."""
        return Claim(self.groups[rows], self.ids[rows], self.instants[rows], self.cells[rows])


class Claims:
    """Decides which row of each id is charged.

    Suspects may be many, so they too are put in a scratch file, in parts of groups near each
    other, and one part after another is decided. Threads may add at once.

    Args:
        suspects: how many there are, in how many groups.
        order: for each cell its place in the order of account, interface and item.
    """

    def __init__(self, suspects: Suspects, order: Order) -> None:
        self._order = order
        self._groups = suspects.groups
        self._parts = -(-len(suspects) // _CLAIMS)
        self._scratch = Scratch()
        self._written: dict[tuple[int, int], list[_Place]] = {}
        self._lost: list[tuple[Ints, Ints]] = []
        self._lock = threading.Lock()
        self.duplicates = self.conflicts = 0

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, claim: Claim) -> None:
        """Add suspects; all must be added before `lost`."""
        copies = np.zeros(len(claim.groups), np.int64)
        if len(claim.groups) > _CROWDED * np.count_nonzero(np.bincount(claim.groups)):
            claim, copies = self._thinned(claim)
        table = np.column_stack(
            [
                column.view(np.uint64)
                for column in (claim.groups, claim.instants, claim.cells, copies)
            ]
            + [claim.ids]
        )
        part = claim.groups * self._parts // max(self._groups, 1)
        order = np.argsort(part, kind="stable")
        table = table[order]
        bounds = np.searchsorted(part[order], np.arange(self._parts + 1)).tolist()
        for number, (begin, end) in enumerate(pairwise(bounds)):
            if begin < end:
                start = self._scratch.append(table[begin:end])
                with self._lock:
                    lots = self._written.setdefault((number, table.shape[1]), [])
                    lots.append((start, end - begin))

    def _thinned(self, claim: Claim) -> tuple[Claim, Ints]:
        """Return the best row of each id in a claim, and how many others are its copies.

        The others are lost, whoever wins in the end. Those that differ from the best one conflict
        for certain, for the winner is that one or a better one; its copies share its fate.
        """
        best, lost, conflict = self._judged(claim)
        kept = np.flatnonzero(~lost)
        copies = np.bincount(best[lost & ~conflict], minlength=len(best))[kept]
        with self._lock:
            self._lost.append(np.unique(claim.cells[lost], return_counts=True))
            self.conflicts += int(np.count_nonzero(conflict))
        return claim.only(kept), copies

    def lost(self, threads: int = 1) -> Iterator[tuple[Ints, Ints]]:
        """Yield cells of rows that are not charged, some at a time, and how many rows of each.

        A cell may come more than once.
        """
        yield from self._lost
        for cells, duplicates, conflicts in in_parallel(
            self._decide, self._written.items(), threads
        ):
            self.conflicts += conflicts
            self.duplicates += duplicates
            yield cells, np.ones(len(cells), np.int64)

    def _decide(self, part: tuple[tuple[int, int], list[_Place]], _: Any) -> tuple[Ints, int, int]:
        """Return the cells of a part's rows that are not charged; duplicates; conflicts."""
        (_, columns), places = part
        table = np.empty((sum(rows for _, rows in places), columns), np.uint64)
        done = 0
        for start, rows in places:
            self._scratch.read(start, table[done : done + rows])
            done += rows
        groups, instants, cells, copies = np.ascontiguousarray(table[:, :4].T).view(np.int64)
        _, lost, conflict = self._judged(Claim(groups, table[:, 4:], instants, cells))
        rows = copies + lost
        return cells[lost], int(rows[~conflict].sum()), int(rows[conflict].sum())

    def _judged(self, claim: Claim) -> tuple[Ints, Bools, Bools]:
        """Return for each row which one wins; whether it is lost; whether it conflicts."""
        merits = claim.instants, self._order(claim.cells)
        best = winners(claim.groups, claim.ids, merits)
        return best, best != np.arange(len(best)), _differs(merits, best)


def winners(groups: Ints, ids: Lanes, merits: tuple[Ints, ...]) -> Ints:
    """Return for each suspect which one is charged for its id.

    Args:
        groups: rows of one id are of one group, those of a group may have several ids.
        ids: the real ids as lanes.
        merits: what decides between rows of one id, the most important first; least wins.
    """
    number = same_ids(groups, ids)
    kept = _one_of_each(number)
    mixed = np.zeros(len(kept), bool)
    mixed[number[_differs(merits, kept[number])]] = True
    rows = np.flatnonzero(mixed[number])  # all rows of other ids are equal: any may be kept
    order = rows[np.lexsort((*(merit[rows] for merit in reversed(merits)), number[rows]))]
    best = order[np.flatnonzero(np.diff(number[order], prepend=-1))]
    kept[number[best]] = best
    return kept[number]


def _differs(merits: tuple[Ints, ...], rows: Ints) -> Bools:
    """Tell which rows differ in any merit from the row given for each."""
    found = np.zeros(len(rows), bool)
    for merit in merits:
        found |= merit != merit[rows]
    return found


def _one_of_each(number: Ints) -> Ints:
    """Return a row of each number; -1 for numbers of none."""
    rows = np.full(int(number.max(initial=-1)) + 1, -1)
    rows[number] = np.arange(len(number))
    return rows


def same_ids(groups: Ints, ids: Lanes) -> Ints:
    """Split groups of rows of equal hash into groups of equal ids: a number for each row."""
    number: Ints = groups - groups.min(initial=np.iinfo(np.int64).max)
    head = _one_of_each(number)
    mixed = np.zeros(len(head), bool)
    mixed[number[(ids != ids[head[number]]).any(axis=1)]] = True
    rows = np.flatnonzero(mixed[number])
    if rows.size:  # chance hits: told apart by sorting all bytes of their ids
        order = rows[np.lexsort((*ids[rows].T, number[rows]))]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(number[order]) != 0) | (ids[order[1:]] != ids[order[:-1]]).any(axis=1)
        number[order] = len(head) - 1 + np.cumsum(new)
    return number
