"""Finding equal hashes without sorting.

Sorting keys costs more than all else that is done with them. `Finder` uses a table of slots
instead: every key writes its number to the slot that some bits of its hash name, then reads
the slot again. Who reads a number not its own has met another key, and compares all bits of
their hashes. Equal ones are found; the others play again among themselves, until each has kept
a slot or met its like.

None is missed: equal hashes name one slot. Either one of them holds it, and all others
meet that one, or none does, and all play again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from settlement.scan.texts import Bools, Ints, Lanes

PARTITION_BITS = 8
"""The highest bits of keys that a finder is given at once hardly differ, and name no slot."""
_SLOT_BITS = 22
"""A table has at most so many slots, as a power of two."""
_SPARSE_BITS = 6
"""How much larger, as a power of two, a table is in which others are looked up."""


class Finder:
    """Finds equal hashes among keys; what it needs for that is used again and again.

    Args:
        position_bits: how many of a key's lower bits are not hash.
    """

    def __init__(self, position_bits: int) -> None:
        self._position_bits = np.uint64(position_bits)
        self._positions = np.uint64((1 << position_bits) - 1)
        self._most_bits = min(_SLOT_BITS, 64 - PARTITION_BITS - position_bits)
        self._marks: Bools = np.zeros(0, bool)
        self._room: Lanes = np.empty(0, np.uint64)
        self._table = self._rows = np.empty(0, np.uint32)

    def room(self, keys: int) -> Lanes:
        """Return room for so many keys; what was returned before is used again."""
        if keys > len(self._room):
            self._room = np.empty(keys + keys // 8, np.uint64)
        return self._room[:keys]

    def _make_ready(self, keys: int) -> None:
        """See that there are slots, and numbers, for so many keys."""
        if keys > len(self._rows):
            room = keys + keys // 8
            kind = np.uint32 if room < 1 << 32 else np.uint64
            self._table = np.empty(1 << self._bits(room), kind)
            self._rows = np.arange(room, dtype=kind)

    def _bits(self, count: int, sparse: int = 2) -> int:
        return min(self._most_bits, count.bit_length() + sparse)

    def _slots(self, keys: Lanes, bits: int, partitions: int = 1) -> Ints:
        """Return the slots of keys, those of each of so many partitions near to each other."""
        shift = np.uint64(64 - PARTITION_BITS + (partitions - 1).bit_length() - bits)
        return ((keys >> shift) & np.uint64((1 << bits) - 1)).view(np.int64)

    def groups(self, keys: Lanes) -> tuple[Ints, Ints]:
        """Return the positions of all keys not alone in their hash, and their groups from 0.

        A key given twice is one row, and is not alone.
        """
        found = _distinct(keys[self._met(keys)])
        heads = np.diff(found >> self._position_bits, prepend=np.uint64(0)) != 0
        heads[:1] = True
        return (found & self._positions).view(np.int64), np.cumsum(heads) - 1

    def _met(self, keys: Lanes) -> Lanes:
        """Return rows that met their like in a slot, and those that they met there."""
        self._make_ready(len(keys))
        rows = self._rows[: len(keys)]
        slots = self._slots(keys, self._bits(len(keys)))
        met = [rows[:0]]
        while rows.size:
            self._table[slots] = rows
            holders = self._table.take(slots)
            lost = np.flatnonzero(holders != rows)
            rows, holders = rows[lost], holders[lost]
            alike = (keys[rows] ^ keys[holders]) >> self._position_bits == 0
            met += [rows[alike], holders[alike]]
            rows, slots = rows[~alike], slots[lost][~alike]
        return np.concatenate(met)

    @contextmanager
    def like(self, keys: Lanes, partitions: int) -> Iterator[Callable[[Lanes], Lanes]]:
        """Have what picks, from others of so many partitions, those that share a slot with a key.

        They are all that have a key's hash, and some more.
        """
        bits = self._bits(len(keys), _SPARSE_BITS)
        if len(self._marks) < 1 << bits:
            self._marks = np.zeros(1 << bits, bool)
        marked = self._slots(keys, bits, partitions)

        def pick(others: Lanes) -> Lanes:
            return others.take(
                np.flatnonzero(self._marks.take(self._slots(others, bits, partitions)))
            )

        self._marks[marked] = True
        try:
            yield pick
        finally:
            self._marks[marked] = False


def _distinct(keys: Lanes) -> Lanes:
    """Return keys in order, each once; `np.unique`, by a table of its own, takes far longer."""
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]
