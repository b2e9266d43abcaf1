"""Each request id once: exact de-duplication of a month, in flat memory and without sorting.

A hundred million ids of 36 characters do not fit in memory, and need not. Each id is hashed to
64 bits where it lies in its page, and all that is kept of a row is one 64-bit key:

    [ hash bits | position of the row in the log ]

`Keys` takes them in by the block, orders each block by the keys' first byte (which costs a
fifth of sorting them) and writes it to a scratch file, so that memory does not grow with the
rows. When all are in, it takes one of the 256 partitions after another. `Finder` looks for
equal hashes in a partition with a table: every row writes its number to the slot that some bits
of its hash name, then reads the slot again. Who reads a number not its own has met another
row, and compares all bits of their hashes. Equal ones are *suspects*; rows with other hashes
play again among themselves, until each has kept a slot or met its like.

No repetition is missed: rows of one id have one hash, hence one partition and one slot. Either
one of them holds the slot, and all others meet it, or none does, and all play again.

Hardly anything else is suspected, and it does not matter if it is: a key still knows where its
row lies, so suspects are read again, and `Claims` decides about them by all bytes of their ids.
The hash may be as bad as it likes; it costs time, never truth.

Who wins is a rule of billing (README, Rules): of the rows of one id the earliest instant, then
the bytewise smallest account, interface and item. Rows equal to the winner are duplicates, the
others conflicts. Both are sets of rows, so neither the order of files nor the number of threads
can change them.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from settlement.scan.scratch import Scratch
from settlement.scan.texts import Bools, Ints, Lanes

PARTITIONS = 256
_PARTITION_BITS = 8
_BLOCK = 1 << 18
"""Keys ordered at a time: small enough for the processor's cache."""
_JOINED = 16
"""So many blocks are handed on as one: fewer, longer reads for whoever takes them over."""
_SLOT_BITS = 22
"""A Finder's table has at most so many slots, as a power of two."""
_LOT = 1 << 24
"""Suspects whose positions are held in memory at once."""
_CLAIMS = 1 << 20
"""Suspects decided about at once."""
_ALL = (1 << 64) - 1
Order = Callable[[Ints], Ints]
_FIRSTS = np.arange(PARTITIONS, dtype=np.uint64) << np.uint64(64 - _PARTITION_BITS)


# ---------------------------------------------------------------- keys


@dataclass(frozen=True)
class _Block:
    """Keys in a scratch file; partition p is from ``bounds[p]`` to ``bounds[p + 1]``."""

    start: int
    bounds: Ints


class _Filling:
    """A thread's keys until they fill a block."""

    def __init__(self) -> None:
        self.keys: Lanes = np.empty(_BLOCK, np.uint64)
        self.used = 0


@dataclass(frozen=True)
class Suspects:
    """Rows whose hashes are not theirs alone: packed positions and groups, ascending.

    Rows of one group share their hash; ``groups`` is how many groups there are.
    """

    packed: Lanes
    groups: int
    group_bits: int

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def positions(self) -> Ints:
        """Where in the log the rows lie, ascending."""
        return (self.packed >> np.uint64(self.group_bits)).view(np.int64)

    def group(self, rows: slice) -> Ints:
        """Return the groups of some of the rows."""
        return (self.packed[rows] & np.uint64((1 << self.group_bits) - 1)).view(np.int64)


class Keys:
    """The keys of all rows of a month that would be charged; threads may add at once.

    Args:
        rows: every position is below this.
    """

    def __init__(self, rows: int) -> None:
        self._bits = max(rows - 1, 1).bit_length()
        if self._bits > 64 - _PARTITION_BITS - 16:
            raise OverflowError(f"{rows} rows are more than positions can tell apart")
        self._hash_bits = np.uint64(_ALL << self._bits & _ALL)
        self._scratch = Scratch()
        self._filling: dict[int, _Filling] = {}
        self._blocks: list[_Block] = []

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, hashes: Lanes, positions: Ints) -> None:
        """Add rows: hashes of their ids, and where in the log they lie."""
        filling = self._filling.setdefault(threading.get_ident(), _Filling())
        done = 0
        while done < len(hashes):
            count = min(len(filling.keys) - filling.used, len(hashes) - done)
            room = filling.keys[filling.used : filling.used + count]
            np.bitwise_and(hashes[done : done + count], self._hash_bits, out=room)
            np.bitwise_or(room, positions[done : done + count].view(np.uint64), out=room)
            filling.used += count
            done += count
            if filling.used == len(filling.keys):
                self._write(filling)

    def _write(self, filling: _Filling) -> None:
        """Order keys by their first byte and write them."""
        keys, filling.used = filling.keys[: filling.used], 0
        first = keys.view(np.uint8)[7::8]
        self._append(keys.take(np.argsort(first, kind="stable")))  # of bytes: a radix sort

    def _append(self, ordered: Lanes) -> None:
        bounds = np.append(np.searchsorted(ordered, _FIRSTS), len(ordered))
        self._blocks.append(_Block(self._scratch.append(ordered), bounds))

    @property
    def position_bits(self) -> int:
        """How many lower bits of a key are a position."""
        return self._bits

    def blocks(self) -> Iterator[Lanes]:
        """Yield all keys, many at a time, ordered by their first byte; none is added after."""
        self._flush()
        for begin in range(0, len(self._blocks), _JOINED):
            some = self._blocks[begin : begin + _JOINED]
            keys = np.empty(sum(int(block.bounds[-1]) for block in some), np.uint64)
            done = 0
            for number in range(PARTITIONS):
                done += self._read(some, number, keys[done:])
            yield keys

    def take_over(self, block: Lanes, position_bits: int, first: int) -> None:
        """Add a block of other keys, whose positions are taken to begin at ``first``.

        They must have had no more position bits than these: what is left of their hashes then
        is what these would have kept.
        """
        own = np.uint64((1 << position_bits) - 1)
        keys = (block & self._hash_bits) | ((block & own) + np.uint64(first))
        if len(keys) >= _BLOCK // 4:
            self._append(keys)
        else:  # many small ones would be read bit by bit
            self.add(keys, (keys & ~self._hash_bits).view(np.int64))

    def _flush(self) -> None:
        for filling in self._filling.values():
            self._write(filling)
        self._filling.clear()

    def suspects(self, threads: int = 1, at_most: int = _LOT) -> Iterator[Suspects]:
        """Yield the rows whose hashes are not theirs alone, all rows of an id in one lot.

        All rows must have been added. A lot has at most ``at_most`` rows, unless one
        partition alone has more.
        """
        self._flush()
        most = int(self._sizes.max(initial=0))
        if most < 2 and not self._sizes.any():
            return
        lot: list[tuple[Ints, Ints]] = []
        waiting = 0
        for found in self._groups(threads, most):
            if waiting and waiting + len(found[0]) > at_most:
                yield self._packed(lot)
                lot, waiting = [], 0
            lot.append(found)
            waiting += len(found[0])
        if waiting:
            yield self._packed(lot)

    @property
    def _sizes(self) -> Ints:
        """How many keys each partition has."""
        sizes = np.zeros(PARTITIONS, np.int64)
        for block in self._blocks:
            sizes += np.diff(block.bounds)
        return sizes

    def _groups(self, threads: int, most: int) -> Iterator[tuple[Ints, Ints]]:
        """Yield the suspects of each partition: their positions, and their groups from 0."""
        finders = [Finder(self._bits, most) for _ in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, PARTITIONS, threads):
                numbers = range(first, min(first + threads, PARTITIONS))
                yield from pool.map(self._groups_of, numbers, finders)

    def _groups_of(self, number: int, finder: "Finder") -> tuple[Ints, Ints]:
        return finder.groups(finder.keys[: self._read(self._blocks, number, finder.keys)])

    def _read(self, blocks: list[_Block], number: int, out: Lanes) -> int:
        """Read a partition of blocks; return how many keys it has."""
        done = 0
        for block in blocks:
            begin, end = block.bounds[number : number + 2].tolist()
            self._scratch.read(block.start + 8 * begin, out[done : done + end - begin])
            done += end - begin
        return done

    def _packed(self, lot: list[tuple[Ints, Ints]]) -> Suspects:
        bits = 64 - self._bits
        shifted = np.cumsum([0] + [int(groups.max(initial=-1)) + 1 for _, groups in lot])
        if shifted[-1] >= 1 << bits:
            raise OverflowError("more suspects than can be told apart")
        packed = np.concatenate(
            [
                positions.view(np.uint64) << np.uint64(bits) | (groups + first).view(np.uint64)
                for (positions, groups), first in zip(lot, shifted.tolist(), strict=False)
            ]
        )
        packed.sort()
        return Suspects(packed, int(shifted[-1]), bits)


class Finder:
    """Finds equal hashes among keys; what it needs for that is used again and again.

    Args:
        position_bits: how many of a key's lower bits are not hash.
        most: it is never given more keys.
    """

    def __init__(self, position_bits: int, most: int) -> None:
        self._position_bits = np.uint64(position_bits)
        self._positions = np.uint64((1 << position_bits) - 1)
        bits = min(_SLOT_BITS, 64 - _PARTITION_BITS - position_bits, most.bit_length() + 2)
        # the byte that made the partition is alike for all: slots come from the bits below
        self._shift = np.uint64(64 - _PARTITION_BITS - bits)
        self._slots = np.uint64((1 << bits) - 1)
        self._table = np.empty(1 << bits, np.uint32 if most < 1 << 32 else np.uint64)
        self._rows = np.arange(most, dtype=self._table.dtype)
        self.keys: Lanes = np.empty(most, np.uint64)
        """Room for as many keys."""

    def groups(self, keys: Lanes) -> tuple[Ints, Ints]:
        """Return the positions of all keys not alone in their hash, and their groups from 0."""
        followers, leaders = self._met(keys)
        heads, numbers = np.unique(leaders, return_inverse=True)
        rows = np.concatenate([followers, heads])
        groups = np.concatenate([numbers, np.arange(len(heads))])
        return (keys[rows] & self._positions).view(np.int64), groups

    def _met(self, keys: Lanes) -> tuple[Ints, Ints]:
        """Return rows that met their like in a slot, and the row that they met there."""
        rows = self._rows[: len(keys)]
        slots = ((keys >> self._shift) & self._slots).view(np.int64)
        followers, leaders = [rows[:0]], [rows[:0]]
        while rows.size:
            self._table[slots] = rows
            holders = self._table.take(slots)
            lost = np.flatnonzero(holders != rows)
            rows, holders = rows[lost], holders[lost]
            alike = (keys[rows] ^ keys[holders]) >> self._position_bits == 0
            followers.append(rows[alike])
            leaders.append(holders[alike])
            rows, slots = rows[~alike], slots[lost][~alike]
        return np.concatenate(followers), np.concatenate(leaders)


# ---------------------------------------------------------------- claims


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
        self._written: dict[tuple[int, int], list[tuple[int, int]]] = {}
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

    def lost(self) -> Iterator[Ints]:
        """Yield the cells of all rows that are not charged."""
        for (_, columns), lots in self._written.items():
            table = np.empty((sum(rows for _, rows in lots), columns), np.uint64)
            done = 0
            for start, rows in lots:
                self._scratch.read(start, table[done : done + rows])
                done += rows
            groups, instants, cells = np.ascontiguousarray(table[:, :3].T).view(np.int64)
            lost, conflict = losers(groups, table[:, 3:], (instants, self._order(cells)))
            self.conflicts += int(conflict.sum())
            self.duplicates += int((lost & ~conflict).sum())
            yield cells[lost]


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
