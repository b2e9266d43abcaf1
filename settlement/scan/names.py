"""Accounts, numbered as they come: many are looked up at once.

Every row group brings a dictionary of accounts, or pages full of them, and a Python dictionary
would be asked for each one by one. Here a whole page is looked up with a few calls of numpy: hash
the ids, take what a table holds in the slots that the hashes name, compare all bytes. Whatever
is not found is learnt, under a lock. Numbers depend on who comes first, so nothing that is
published may depend on them but through `Names.ranks`.
"""

import threading
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.pages import Piece
from settlement.scan.texts import FRAME, Bytes, Codes, Ints, Lanes, Texts, lanes

NULL, EMPTY = 0, 1
"""Numbers that stand for no account: the cell is null, or empty."""
_STEP = 16_384
"""So many are looked up at a time: what is in hand stays in the processor's cache."""


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
        self._tables[1].put(lanes(empty), hashed(empty), np.array([EMPTY], np.int32))
        self._count = EMPTY + 1

    def __len__(self) -> int:
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
            for start in range(0, len(matrix), _STEP):
                numbers[start : start + _STEP] = self._of(matrix[start : start + _STEP])
            out[rows] = numbers

    def _of(self, matrix: Bytes) -> Codes:
        ids, hashes = lanes(matrix), self._hashed(matrix)
        table = self._tables.get(ids.shape[1])
        numbers = np.full(len(ids), -1, np.int32) if table is None else table.find(ids, hashes)
        lost = np.flatnonzero(numbers < 0)
        if lost.size:
            numbers[lost] = self._learn(ids[lost], hashes[lost])
        return numbers

    def _learn(self, ids: Lanes, hashes: Lanes) -> Codes:
        """Give numbers to texts, those apart that another thread has learnt meanwhile."""
        width = ids.shape[1]
        with self._lock:
            table = self._tables.setdefault(width, _Table(width, 16))
            numbers = table.find(ids, hashes)
            lost = np.flatnonzero(numbers < 0)
            order = lost[np.lexsort((*ids[lost].T, hashes[lost]))]
            new = np.ones(len(order), bool)
            new[1:] = (ids[order[1:]] != ids[order[:-1]]).any(axis=1)
            numbers[order] = self._count - 1 + np.cumsum(new)
            heads = order[new]
            if table.used + len(heads) > table.room:
                table = table.grown(2 * (table.used + len(heads)))
            table.put(ids[heads], hashes[heads], numbers[heads])
            self._tables[width] = table
            self._count += len(heads)
        return numbers

    def texts(self) -> pa.Array:
        """Return the account of each number as large text, null and empty ones among them."""
        parts = [pa.nulls(1, pa.large_binary())]
        numbers = [np.array([NULL], np.int32)]
        for table in self._tables.values():
            numbers.append(table.numbers)
            parts.append(table.texts())
        places = np.empty(self._count, np.int64)
        places[np.concatenate(numbers)] = np.arange(self._count)
        return pa.concat_arrays(parts).take(pa.array(places)).cast(pa.large_string())

    def ranks(self) -> Ints:
        """Return for each number the account's place among all, by UTF-8 bytes."""
        order = pc.sort_indices(self.texts().cast(pa.large_binary())).to_numpy()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


class _Table:
    """Texts of one number of lanes by their hashes, with open addressing.

    A slot holds a place, a place the lanes of a text and its number, side by side, so that a
    look-up touches memory twice; place 0 is nobody's. A slot is written last, and what is not
    yet written looks like no text there can be, so a reader without the lock finds a text or
    misses it, but never a wrong one.
    """

    def __init__(self, width: int, room: int) -> None:
        self.room, self.used = room, 1
        bits = (room * 4).bit_length()
        self._shift, self._last = np.uint64(64 - bits), (1 << bits) - 1
        self._slots = np.zeros(1 << bits, np.int32)
        self._hashes = np.zeros(room + 1, np.uint64)
        self._held = np.full((room + 1, width + 1), np.iinfo(np.uint64).max, np.uint64)

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
        held = self._held.take(places, axis=0)
        alike = places > 0
        for lane in range(ids.shape[1]):
            alike &= held[:, lane] == ids[:, lane]
        numbers = held[:, -1].astype(np.int32)
        numbers[~alike] = -1
        return numbers, np.flatnonzero((places > 0) & ~alike)

    def put(self, ids: Lanes, hashes: Lanes, numbers: Codes) -> None:
        """Add texts, all different and none here yet."""
        slots = (hashes >> self._shift).view(np.int64)
        places = np.arange(self.used, self.used + len(numbers), dtype=np.int32)
        self._hashes[places] = hashes
        self._held[places, -1] = numbers
        self._held[places, :-1] = ids
        self.used += len(numbers)
        while slots.size:
            free = np.flatnonzero(self._slots[slots] == 0)
            at, first = np.unique(slots[free], return_index=True)
            self._slots[at] = places[free[first]]
            left = np.ones(slots.size, bool)
            left[free[first]] = False
            slots, places = (slots[left] + 1) & self._last, places[left]

    def grown(self, room: int) -> "_Table":
        """Return the same texts in a table with more room."""
        bigger = _Table(self._held.shape[1] - 1, room)
        held = self._held[1 : self.used]
        bigger.put(held[:, :-1], self._hashes[1 : self.used], self.numbers)
        return bigger

    @property
    def numbers(self) -> Codes:
        """The numbers of all texts, in the order of their places."""
        return self._held[1 : self.used, -1].astype(np.int32)

    def texts(self) -> pa.Array:
        """Return all texts in the order of their places, as large binary."""
        matrix = np.ascontiguousarray(self._held[1 : self.used, :-1]).view(np.uint8)
        widths = np.ascontiguousarray(matrix[:, :FRAME]).view(np.uint32)[:, 0].astype(np.int64)
        own = np.arange(matrix.shape[1] - FRAME) < widths[:, None]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)])
        data = pa.py_buffer(matrix[:, FRAME:][own].tobytes())
        return pa.Array.from_buffers(
            pa.large_binary(), len(widths), [None, pa.py_buffer(offsets), data]
        )
