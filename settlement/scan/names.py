"""Accounts, numbered as they come: many are looked up at once.

Every row group brings a dictionary of accounts, or pages full of them, and a Python dictionary
would be asked for each one by one. Here a whole page is looked up with a few calls of numpy: hash
the ids, take what a table holds in the slots that the hashes name, compare all bytes. Whatever
is not found is learnt, under a lock. Numbers depend on who comes first, so nothing that is
published may depend on them but through `Names.order`.
"""

import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settlement.errors import BadInput
from settlement.scan import sorting
from settlement.scan.arrays import integers, to_numpy
from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.pages import Piece
from settlement.scan.texts import FRAME, LANE, Bytes, Codes, Ints, Lanes, Texts, lanes, to_arrow

NULL, EMPTY = 0, 1
"""Numbers that stand for no account: the cell is null, or empty."""
_STEP = 1 << 17
"""So many are looked up at a time, for memory; shorter steps make threads wait for each other."""
_STEP_LANES = 1 << 20
"""And so many lanes, where ids are long."""
_LONG_LANES = 32
LONGEST = 128 << 20
"""Bytes that all accounts of more than 256 bytes may have together: they stay in memory."""
_SORTED_LANES = 4
"""Accounts of so many lanes at most are sorted as numbers; longer ones by Arrow."""


class Overlong(BadInput):
    """Account ids so long that they do not fit in memory."""


class Order(NamedTuple):
    """All accounts in a row: their numbers, each number's place among them, and their texts."""

    numbers: Ints
    ranks: Ints
    texts: pa.Array


class Names:
    """Texts and their numbers; safe to use from many threads, which read without a lock.

    Args:
        hashed: the hash to use; tests give one that collides.
    """

    def __init__(self, hashed: Hash = hash_rows) -> None:
        self._hashed = hashed
        self._lock = threading.Lock()
        empty = np.zeros((1, FRAME), np.uint8)
        self._tables = {1: _Table(1, 16)}
        self._tables[1].learn(lanes(empty), hashed(empty), EMPTY)
        self._count = EMPTY + 1
        self._long = 0

    def __len__(self) -> int:
        with self._lock:  # whoever was given a number, even one just learnt, finds it counted
            return self._count

    def numbers(self, pieces: Iterable[Piece], rows: int) -> Codes:
        """Return the number of the account of each of so many rows."""
        found = np.empty(rows, np.int32)
        at, words, table = 0, None, np.empty(0, np.int32)
        for count, read in pieces:
            texts, codes = read(None)
            out = found[at : at + count]
            if codes is None:
                self._look_up(texts, out)
            else:
                if texts is not words:
                    words, table = texts, np.full(texts.total + 1, NULL, np.int32)
                    self._look_up(texts, table[:-1])
                np.take(table, codes, out=out, mode="wrap")  # -1 is the last: a null
            at += count
        return found

    def _look_up(self, texts: Texts, out: Codes) -> None:
        for rows, matrix in texts.lots:
            numbers = np.empty(len(matrix), np.int32)
            step = min(_STEP, 1 + _STEP_LANES * LANE // matrix.shape[1])
            for start in range(0, len(matrix), step):
                some = matrix[start : start + step]
                numbers[start : start + step] = self._of(some, len(matrix) - start)
            out[rows] = numbers

    def _of(self, matrix: Bytes, to_come: int) -> Codes:
        ids = lanes(matrix)
        hashes = self._hashed(ids.view(np.uint8))
        table = self._tables.get(ids.shape[1])
        numbers = np.full(len(ids), -1, np.int32) if table is None else table.find(ids, hashes)
        lost = np.flatnonzero(numbers < 0)
        if lost.size:
            numbers[lost] = self._learn(ids[lost], hashes[lost], to_come)
        return numbers

    def _learn(self, ids: Lanes, hashes: Lanes, to_come: int) -> Codes:
        """Give numbers to texts, those apart that another thread has learnt meanwhile.

        Where they find no room, room is made for all texts of the lot that may be as new, unless
        these are long.
        """
        width = ids.shape[1]
        to_come = len(ids) if width > _LONG_LANES else to_come
        with self._lock:
            if width > _LONG_LANES:
                self._check_room(ids.nbytes)
            table = self._tables.setdefault(width, _Table(width, 16))
            if table.used + len(ids) > table.room:
                table = table.grown(2 * table.used + to_come)
            numbers, new = table.learn(ids, hashes, self._count)
            self._tables[width] = table
            self._count += new
            self._long += new * width * LANE if width > _LONG_LANES else 0
        return numbers

    def _check_room(self, size: int) -> None:
        if self._long + size > LONGEST:
            raise Overlong(
                f"has account ids of over {_LONG_LANES * LANE} bytes that come to "
                f"{LONGEST >> 20} MiB, too much for memory",
                where="the call log",
                cure="give the column that holds account ids (--column)",
            )

    def texts(self) -> pa.Array:
        """Return the account of each number as large text, null and empty ones among them."""
        return self._texts(np.arange(self._count))

    def _texts(self, numbers: Ints) -> pa.Array:
        parts, places = [pa.nulls(1, pa.large_binary())], np.empty(self._count, np.int64)
        own = [np.array([NULL], np.int32)]
        for table in self._tables.values():
            own.append(table.numbers)
            parts.append(table.texts())
        places[np.concatenate(own)] = np.arange(self._count)
        return pa.concat_arrays(parts).take(integers(places[numbers])).cast(pa.large_string())

    def order(self) -> "Order":
        """Order all accounts by their UTF-8 bytes."""
        widest = max(self._tables)
        if widest > _SORTED_LANES:
            numbers = to_numpy(pc.sort_indices(self.texts().cast(pa.large_binary()))).view(np.int64)
        else:
            tables = self._tables.values()
            own = np.concatenate([np.array([NULL], np.int32), *(t.numbers for t in tables)])
            keys = [np.zeros((1, widest), np.uint64), *(t.keys(widest) for t in tables)]
            numbers = own[sorting.order(np.concatenate(keys))].astype(np.int64)
        ranks = np.empty(len(numbers), np.int64)
        ranks[numbers] = np.arange(len(numbers))
        return Order(numbers, ranks, self._texts(numbers))


class _Table:
    """Texts of one number of lanes by their hashes, with open addressing.

    A slot holds a place, a place the lanes of a text and its number, side by side, so that a
    look-up touches memory twice; place 0 is nobody's. Who learns claims a free slot first, by a
    number below 0, which readers take for nobody's place. The place is written last, and what is
    not yet written looks like no text there can be, so a reader without the lock finds a text
    or misses it, but never a wrong one.
    """

    def __init__(self, width: int, room: int) -> None:
        self.room, self.used = room, 1
        bits = (room * 4).bit_length()
        self._shift, self._last = np.uint64(64 - bits), (1 << bits) - 1
        self._slots = np.zeros(1 << bits, np.int32)
        self._hashes = np.zeros(room + 1, np.uint64)
        self._held = np.zeros((room + 1, width + 1), np.uint64)  # not touched until it is used
        if width == 1:  # of whose texts the empty one looks like that
            self._held[:] = np.iinfo(np.uint64).max

    def find(self, ids: Lanes, hashes: Lanes) -> Codes:
        """Return the numbers of texts, -1 for each that is not here."""
        slots = (hashes >> self._shift).view(np.int64)
        numbers, others = self._probe(ids, slots)
        rows, slots = others, slots[others]
        while rows.size:  # another text is in the slot: look at the next
            slots = (slots + 1) & self._last
            numbers[rows], others = self._probe(ids[rows], slots)
            rows, slots = rows[others], slots[others]
        return numbers

    def _probe(self, ids: Lanes, slots: Ints) -> tuple[Codes, Ints]:
        """Return the numbers found in slots, and which slots hold another text."""
        places = self._slots.take(slots)
        held = self._held.take(places, axis=0, mode="clip")
        alike = places > 0
        for lane in range(ids.shape[1]):
            alike &= held[:, lane] == ids[:, lane]
        numbers = held[:, -1].astype(np.int32)
        numbers[~alike] = -1
        return numbers, np.flatnonzero((places > 0) & ~alike)

    def learn(self, ids: Lanes, hashes: Lanes, first: int) -> tuple[Codes, int]:
        """Add those of some texts that are not here; there must be room for all of them.

        New ones are numbered from ``first`` on. Returns the numbers of all, and how many are new.
        """
        numbers, before = np.empty(len(ids), np.int32), self.used
        rows, slots = np.arange(len(ids)), (hashes >> self._shift).view(np.int64)
        while rows.size:
            winners = self._claim(slots)
            new = rows[winners]
            begin, end = self.used, self.used + len(new)
            self._hashes[begin:end] = hashes[new]
            self._held[begin:end, -1] = np.arange(first + begin - before, first + end - before)
            self._held[begin:end, :-1] = ids[new]
            self.used = end
            self._slots[slots[winners]] = np.arange(begin, end, dtype=np.int32)
            numbers[rows], others = self._probe(ids[rows], slots)
            rows, slots = rows[others], (slots[others] + 1) & self._last
        return numbers, self.used - before

    def _claim(self, slots: Ints) -> Ints:
        """Return which of some texts may have the slot that they want: it is free, and no other's.

        All write their names into free slots; the last to write is still there, whoever it is.
        """
        free = np.flatnonzero(self._slots.take(slots) <= 0)
        wanted, claims = slots[free], np.arange(-len(free), 0, dtype=np.int32)
        self._slots[wanted] = claims
        winners: Ints = free[self._slots.take(wanted) == claims]
        return winners

    def grown(self, room: int) -> "_Table":
        """Return the same texts, in the same places, in a table with more room."""
        bigger = _Table(self._held.shape[1] - 1, room)
        bigger.used = self.used
        bigger._held[: self.used] = self._held[: self.used]
        bigger._hashes[: self.used] = self._hashes[: self.used]
        places = np.arange(1, self.used, dtype=np.int32)
        slots = (self._hashes[1 : self.used] >> bigger._shift).view(np.int64)
        bigger._slots[slots] = places  # all slots are free yet: the last to write has it
        winners = np.flatnonzero(bigger._slots.take(slots) == places)
        while winners.size < places.size:
            left = np.ones(len(places), bool)
            left[winners] = False
            places, slots = places[left], (slots[left] + 1) & bigger._last
            winners = bigger._claim(slots)
            bigger._slots[slots[winners]] = places[winners]
        return bigger

    @property
    def numbers(self) -> Codes:
        """The numbers of all texts, in the order of their places."""
        return self._held[1 : self.used, -1].astype(np.int32)

    def keys(self, width: int) -> Lanes:
        """Return numbers that sort as all texts do, so many for each, the first before the rest.

        They are a text's bytes, zeros behind it, and its length, for texts that end in zeros.
        """
        matrix = np.ascontiguousarray(self._held[1 : self.used, :-1]).view(np.uint8)
        cells = np.zeros((len(matrix), width * LANE), np.uint8)
        cells[:, : matrix.shape[1] - FRAME] = matrix[:, FRAME:]
        cells[:, -FRAME:] = matrix[:, FRAME - 1 :: -1]
        return cells.view(np.uint64).byteswap()

    def texts(self) -> pa.Array:
        """Return all texts in the order of their places, as large binary."""
        return to_arrow(self._held[1 : self.used, :-1])
