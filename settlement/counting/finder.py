"""Finding equal hashes without sorting.

Sorting keys costs more than all else that is done with them. `Finder` uses a table of slots
instead: every key writes its number to the slot that some bits of its hash name, then reads
the slot again. Who reads a number not its own has met another key, and compares all bits of
their hashes. Equal ones are found; the others play again among themselves, until each has kept
a slot or met its like.

None is missed: equal hashes name one slot. Either one of them holds it, and all others
meet that one, or none does, and all play again.
"""

import numpy as np

from settlement.scan.texts import Bools, Ints, Lanes

PARTITION_BITS = 8
"""The highest bits of keys that a finder is given at once hardly differ, and name no slot."""
_SLOT_BITS = 22
"""A table has at most so many slots, as a power of two."""
_SPARSE_BITS = 4
"""How much larger, as a power of two, a table is in which others are looked up."""


class Finder:
    """Finds equal hashes among keys; what it needs for that is used again and again.

    Args:
        position_bits: how many of a key's lower bits are not hash.
        room: so many keys it can be given; more after `make_room`.
    """

    def __init__(self, position_bits: int, room: int = 0) -> None:
        self._position_bits = np.uint64(position_bits)
        self._positions = np.uint64((1 << position_bits) - 1)
        self._most_bits = min(_SLOT_BITS, 64 - PARTITION_BITS - position_bits)
        self._marks: Bools = np.zeros(0, bool)
        self._have_room(room)

    def make_room(self, keys: int) -> None:
        """See that there is room for so many keys; what was in it before is gone."""
        if keys > len(self.keys):
            self._have_room(keys + keys // 8)

    def _have_room(self, room: int) -> None:
        kind = np.uint32 if room < 1 << 32 else np.uint64
        self._table = np.empty(1 << self._bits(room), kind)
        self._rows = np.arange(room, dtype=kind)
        self.keys: Lanes = np.empty(room, np.uint64)
        """Room for keys."""

    def _bits(self, count: int, sparse: int = 2) -> int:
        return min(self._most_bits, count.bit_length() + sparse)

    def _slots(self, keys: Lanes, bits: int) -> Ints:
        """Return the slots of keys; the bits that hardly differ make none."""
        shift = np.uint64(64 - PARTITION_BITS - bits)
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

    def like(self, keys: Lanes, others: Lanes) -> Lanes:
        """Return the others that share a slot with one of the keys: all that have its hash."""
        bits = self._bits(len(keys), _SPARSE_BITS)
        if len(self._marks) < 1 << bits:
            self._marks = np.zeros(1 << bits, bool)
        marked = self._slots(keys, bits)
        self._marks[marked] = True
        found = others[self._marks.take(self._slots(others, bits))]
        self._marks[marked] = False
        return found


def _distinct(keys: Lanes) -> Lanes:
    """Return keys in order, each once; `np.unique`, by a table of its own, takes far longer."""
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]
