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
        self._lock = threading.Lock()
        self.duplicates = self.conflicts = 0

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, claim: Claim) -> None:
        """Add suspects; all must be added before `lost`."""
        table = np.column_stack(
            [column.view(np.uint64) for column in (claim.groups, claim.instants, claim.cells)]
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

    def lost(self, threads: int = 1) -> Iterator[Ints]:
        """Yield the cells of all rows that are not charged, some at a time."""
        for cells, conflicts in in_parallel(self._decide, self._written.items(), threads):
            self.conflicts += conflicts
            self.duplicates += len(cells) - conflicts
            yield cells

    def _decide(self, part: tuple[tuple[int, int], list[_Place]], _: Any) -> tuple[Ints, int]:
        """Return the cells of a part's rows that are not charged; how many conflict with who is."""
        (_, columns), places = part
        table = np.empty((sum(rows for _, rows in places), columns), np.uint64)
        done = 0
        for start, rows in places:
            self._scratch.read(start, table[done : done + rows])
            done += rows
        groups, instants, cells = np.ascontiguousarray(table[:, :3].T).view(np.int64)
        lost, conflict = losers(groups, table[:, 3:], (instants, self._order(cells)))
        return cells[lost], int(conflict.sum())


def losers(groups: Ints, ids: Lanes, merits: tuple[Ints, ...]) -> tuple[Bools, Bools]:
    """Tell which suspects are not charged, and which of these differ from who is.

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
    lost = np.ones(len(number), bool)
    lost[kept[kept >= 0]] = False
    return lost, _differs(merits, kept[number])


def _one_of_each(number: Ints) -> Ints:
    """Return a row of each number; -1 for numbers of none."""
    rows = np.full(int(number.max(initial=-1)) + 1, -1)
    rows[number] = np.arange(len(number))
    return rows


def _differs(merits: tuple[Ints, ...], rows: Ints) -> Bools:
    """Tell which rows differ in any merit from the row given for each."""
    differs = np.zeros(len(rows), bool)
    for merit in merits:
        differs |= merit != merit[rows]
    return differs


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
