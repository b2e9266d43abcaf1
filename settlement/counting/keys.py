"""Which rows may have the same request id: the keys of a month, in flat memory.

A hundred million ids of 36 characters do not fit in memory, and need not. Each id is hashed to
64 bits where it lies in its page, and all that is kept of a row is one 64-bit key:

    [ hash bits | position of the row in the log ]

`Keys` takes them in by the block, orders each block by the keys' first byte (which costs a
fifth of sorting them) and puts it aside, in a scratch file where memory has no room for it, so
that memory does not grow with the rows. When all are in, it takes one of the 256 partitions
after another, or some of them while they are small, and a `Finder` finds equal hashes in it.
Rows of one id have one hash, hence one partition: no repetition is missed.

Hardly anything else is suspected, and it does not matter if it is: a key still knows where its
row lies, so suspects are looked at again, and `dedup` decides about them by their real ids. The
hash may be as bad as it likes; it costs time, never truth.

Rows that were compared with each other before, in an earlier count, need not be again. They
come by a door of their own (`take_over`, `borrow`), and are only searched for hashes of new
rows, which is far cheaper.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from settlement.counting.finder import PARTITION_BITS, Finder
from settlement.counting.parallel import in_parallel
from settlement.scan.scratch import Scratch
from settlement.scan.texts import Bools, Ints, Lanes

PARTITIONS = 1 << PARTITION_BITS
_BLOCK = 1 << 18
"""Keys ordered at a time: small enough for the processor's cache."""
_STEP = 1 << 16
"""Keys made at a time: what is in hand stays in the second cache."""
_JOINED = 16
"""So many blocks are handed on as one: fewer, longer reads for whoever takes them over."""
_LOT = 1 << 24
"""Suspects whose positions are held in memory at once."""
_TOGETHER = 1 << 18
"""So many keys of several partitions are searched at once: their table fits in the second cache."""
_PICKED = 16
"""Of so many keys that were compared, about one has to be searched again."""
_ROOM = 1 << 28
"""Bytes of keys that stay in memory: those of 30 million rows."""
_ALL = (1 << 64) - 1
_FIRSTS = np.arange(PARTITIONS, dtype=np.uint64) << np.uint64(64 - PARTITION_BITS)


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

    def group(self, rows: slice | Ints) -> Ints:
        """Return the groups of some of the rows."""
        return (self.packed[rows] & np.uint64((1 << self.group_bits) - 1)).view(np.int64)

    def only(self, rows: Bools) -> "Suspects":
        """Return some of the rows; groups keep their numbers."""
        return Suspects(self.packed[rows], self.groups, self.group_bits)


def is_crowded(rows: int) -> bool:
    """Tell whether more than one row in 200 would share a key's hash with another by chance.

    What positions take of a key, its hash loses: that becomes much beyond 200 million rows.
    """
    return rows * 200 > 1 << 64 - _position_bits(rows)


def joined(lots: Iterable[Suspects], at_most: int = _LOT) -> Iterator[Suspects]:
    """Put lots of suspects together, to at most so many; empty ones vanish."""
    waiting: list[Suspects] = []
    for lot in lots:
        if waiting and sum(map(len, waiting)) + len(lot) > at_most:
            yield _joined(waiting)
            waiting = []
        if len(lot):
            waiting.append(lot)
    if waiting:
        yield _joined(waiting)


def _joined(lots: Sequence[Suspects]) -> Suspects:
    """Number the groups of later lots after those of earlier ones."""
    bits = lots[0].group_bits
    firsts = np.cumsum([0] + [lot.groups for lot in lots], dtype=np.uint64)
    if int(firsts[-1]) >= 1 << bits:
        raise OverflowError("more suspects than can be told apart")
    shifted = [lot.packed + first for lot, first in zip(lots, firsts, strict=False)]
    return Suspects(np.sort(np.concatenate(shifted)), int(firsts[-1]), bits)


def _position_bits(rows: int) -> int:
    """Return how many bits the positions of so many rows need."""
    return max(rows - 1, 1).bit_length()


# ---------------------------------------------------------------- blocks on disk


@dataclass(frozen=True)
class _Block:
    """Keys in a scratch file; partition p is from ``bounds[p]`` to ``bounds[p + 1]``."""

    start: int
    bounds: Ints

    def size(self, partitions: range) -> int:
        """Return how many keys it has of some partitions."""
        return int(self.bounds[partitions.stop] - self.bounds[partitions.start])


class Source(Protocol):
    """Keys that lie elsewhere, by partition."""

    def sizes(self) -> Ints:
        """Return how many keys each partition has."""

    def read(self, partitions: range) -> Lanes:
        """Return the keys of partitions, one after another."""


@dataclass(frozen=True)
class _Moved:
    """How other keys become keys of this count: their positions are taken to begin at ``first``.

    They must have had no more position bits than these: what is left of their hashes then is
    what these would have kept.
    """

    hash_bits: np.uint64
    own_bits: np.uint64
    first: np.uint64

    def move(self, keys: Lanes, out: Lanes) -> None:
        """Write keys as they are here."""
        np.bitwise_and(keys, self.own_bits, out=out)
        out += self.first
        out |= keys & self.hash_bits


@dataclass(frozen=True)
class _Lent:
    """Keys that are read where they lie."""

    source: Source
    moved: _Moved

    def read(self, partitions: range, out: Lanes) -> int:
        """Read partitions; return how many keys they have."""
        keys = self.source.read(partitions)
        self.moved.move(keys, out[: len(keys)])
        return len(keys)

    def picked(self, partitions: range, pick: Callable[[Lanes], Lanes]) -> Lanes:
        """Return those keys of partitions that are picked, by bits that are hash here too."""
        keys = pick(self.source.read(partitions))
        self.moved.move(keys, out := np.empty_like(keys))
        return out


class _Filling:
    """A thread's keys until they fill a block."""

    def __init__(self) -> None:
        self.keys: Lanes = np.empty(_BLOCK, np.uint64)
        self.used = 0


class _Shelf:
    """Blocks of keys in a scratch file, each ordered by partition; threads may add at once.

    Keys of others that are ordered in a file already are left there, and `lent`.
    """

    def __init__(self, room: int = 0) -> None:
        self._scratch = Scratch(room)
        self._filling: dict[int, _Filling] = {}
        self.blocks: list[_Block] = []
        self.lent: list[_Lent] = []

    def close(self) -> None:
        self._scratch.close()

    def add(self, keys: Lanes) -> None:
        """Add keys in any order."""
        done = 0
        while done < len(keys):
            room = self.room(len(keys) - done)
            room[:] = keys[done : done + len(room)]
            done += len(room)

    def room(self, keys: int) -> Lanes:
        """Return room for at most so many keys: this thread fills it before it asks again."""
        filling = self._filling.setdefault(threading.get_ident(), _Filling())
        if filling.used == len(filling.keys):
            self._write(filling)
        begin = filling.used
        filling.used = min(len(filling.keys), begin + keys)
        return filling.keys[begin : filling.used]

    def _write(self, filling: _Filling) -> None:
        """Order keys by their first byte and write them."""
        keys, filling.used = filling.keys[: filling.used], 0
        self.append(keys.take(_by_partition(keys)))

    def append(self, ordered: Lanes) -> None:
        """Add keys that are ordered by their first byte."""
        self.blocks.append(_Block(self._scratch.append(ordered), _bounds(ordered)))

    def flush(self) -> None:
        """Write what is left; nothing is added after."""
        for filling in self._filling.values():
            self._write(filling)
        self._filling.clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written or lent."""
        return not self.blocks and not self.lent

    def sizes(self) -> Ints:
        """Return how many keys each partition has."""
        sizes = np.zeros(PARTITIONS, np.int64)
        for block in self.blocks:
            sizes += np.diff(block.bounds)
        for lent in self.lent:
            sizes += lent.source.sizes()
        return sizes

    def read(self, partitions: range, out: Lanes) -> int:
        """Read partitions of all keys; return how many they have."""
        done = self.read_blocks(self.blocks, partitions, out)
        for lent in self.lent:
            done += lent.read(partitions, out[done:])
        return done

    def picked(self, partitions: range, pick: Callable[[Lanes], Lanes]) -> Iterator[Lanes]:
        """Yield those keys of partitions that are picked, by bits of their hashes."""
        sizes = np.array([block.size(partitions) for block in self.blocks], np.int64)
        for some in _parts(sizes, _STEP):
            keys = np.empty(sizes[some.start : some.stop].sum(), np.uint64)
            self.read_blocks(self.blocks[some.start : some.stop], partitions, keys)
            yield pick(keys)
        for lent in self.lent:
            yield lent.picked(partitions, pick)

    def read_blocks(self, blocks: list[_Block], partitions: range, out: Lanes) -> int:
        """Read partitions of some blocks; return how many keys they have."""
        done = 0
        for block in blocks:
            begin, size = int(block.bounds[partitions.start]), block.size(partitions)
            self._scratch.read(block.start + 8 * begin, out[done : done + size])
            done += size
        return done


def _parts(sizes: Ints, at_most: int) -> Iterator[range]:
    """Put partitions next to each other together, to at most so many keys."""
    begin, keys = 0, 0
    for number, size in enumerate(sizes.tolist()):
        if keys and keys + size > at_most:
            yield range(begin, number)
            begin, keys = number, 0
        keys += size
    yield range(begin, len(sizes))


def _by_partition(keys: Lanes) -> Ints:
    return np.argsort(keys.view(np.uint8)[7::8], kind="stable")  # of bytes: a radix sort


def _bounds(ordered: Lanes) -> Ints:
    return np.append(np.searchsorted(ordered, _FIRSTS), len(ordered))


# ---------------------------------------------------------------- keys


class Keys:
    """The keys of all rows of a month that would be charged; threads may add at once.

    Args:
        rows: every position is below this.
    """

    def __init__(self, rows: int) -> None:
        self._bits = _position_bits(rows)
        if self._bits > 64 - PARTITION_BITS - 16:
            raise OverflowError(f"{rows} rows are more than positions can tell apart")
        self._hash_bits = np.uint64(_ALL << self._bits & _ALL)
        self._new, self._compared = _Shelf(_ROOM), _Shelf()

    def close(self) -> None:
        """Give the disk space back."""
        self._new.close()
        self._compared.close()

    def add(self, hashes: Lanes, positions: Ints) -> None:
        """Add rows: hashes of their ids, and where in the log they lie."""
        done = 0
        while done < len(hashes):
            room = self._new.room(min(len(hashes) - done, _STEP))
            some = slice(done, done + len(room))
            np.bitwise_and(hashes[some], self._hash_bits, out=room)
            room |= positions[some].view(np.uint64)
            done += len(room)

    def take_over(
        self, block: Lanes, position_bits: int, first: int, *, compared: bool = False
    ) -> None:
        """Add a block of other keys, whose positions are taken to begin at ``first``.

        They must have had no more position bits than these. All that are ``compared`` were so
        with each other.
        """
        keys = np.empty(len(block), np.uint64)
        self._moved(position_bits, first).move(block, keys)
        shelf = self._compared if compared else self._new
        if len(keys) >= _BLOCK // 4:
            shelf.append(keys)
        else:  # many small ones would be read bit by bit
            shelf.add(keys)

    def borrow(
        self, source: Source, position_bits: int, first: int, *, compared: bool = False
    ) -> None:
        """Add other keys as `take_over` does, but leave them where they lie."""
        shelf = self._compared if compared else self._new
        shelf.lent.append(_Lent(source, self._moved(position_bits, first)))

    def _moved(self, position_bits: int, first: int) -> _Moved:
        return _Moved(self._hash_bits, np.uint64((1 << position_bits) - 1), np.uint64(first))

    @property
    def position_bits(self) -> int:
        """How many lower bits of a key are a position."""
        return self._bits

    def count(self) -> int:
        """Return how many new keys there are; none is added after."""
        self._new.flush()
        return int(self._new.sizes().sum())

    def blocks(self) -> Iterator[Lanes]:
        """Yield all new keys, many at a time, ordered by their first byte; none is added after."""
        self._new.flush()
        for begin in range(0, len(self._new.blocks), _JOINED):
            some = self._new.blocks[begin : begin + _JOINED]
            keys = np.empty(sum(int(block.bounds[-1]) for block in some), np.uint64)
            done = 0
            for number in range(PARTITIONS):
                done += self._new.read_blocks(some, range(number, number + 1), keys[done:])
            yield keys

    def partitions(self) -> Iterator[Lanes]:
        """Yield all new keys by partition; none is added after."""
        self._new.flush()
        sizes = self._new.sizes()
        for number in range(PARTITIONS):
            keys = np.empty(sizes[number], np.uint64)
            self._new.read(range(number, number + 1), keys)
            yield keys

    # ------------------------------------------------------------ suspects

    def suspects(self, threads: int = 1, at_most: int = _LOT) -> Iterator[Suspects]:
        """Yield the rows whose hashes are not theirs alone, all rows of an id in one lot.

        All rows must have been added. A lot has at most ``at_most`` rows, unless one
        partition alone has more.
        """
        lot: list[tuple[Ints, Ints]] = []
        waiting = 0
        for found in self._groups(threads, min(at_most, _TOGETHER)):
            if waiting and waiting + len(found[0]) > at_most:
                yield self._packed(lot)
                lot, waiting = [], 0
            lot.append(found)
            waiting += len(found[0])
        if waiting:
            yield self._packed(lot)

    def _groups(self, threads: int, together: int) -> Iterator[tuple[Ints, Ints]]:
        """Yield the suspects of each partition: their positions, and their groups from 0.

        Partitions that have at most so many keys together are searched as one.
        """
        self._new.flush()
        self._compared.flush()
        new = self._new.sizes()
        sizes = new + self._compared.sizes() // _PICKED
        finders = SimpleQueue[Finder]()
        for _ in range(threads):
            finders.put(Finder(self._bits))

        def groups_of(partitions: range, _: threading.Event) -> tuple[Ints, Ints]:
            finder = finders.get()
            try:
                count = int(new[partitions.start : partitions.stop].sum())
                return self._groups_of(partitions, count, finder)
            finally:  # where this fails, too, whoever comes next would wait for ever
                finders.put(finder)

        yield from in_parallel(groups_of, _parts(sizes, together), threads)

    def _groups_of(self, partitions: range, new: int, finder: Finder) -> tuple[Ints, Ints]:
        """Look for equal hashes among new keys and those that may be like a new one."""
        keys = finder.room(new)
        self._new.read(partitions, keys)
        if new and not self._compared.is_empty:
            with finder.like(keys, len(partitions)) as pick:
                keys = np.concatenate([keys, *self._compared.picked(partitions, pick)])
        return finder.groups(keys)

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
