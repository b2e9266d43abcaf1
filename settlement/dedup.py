"""Each request id once: exact de-duplication of a month, in eight bytes a row.

A hundred million ids of 36 characters do not fit in memory, and need not. Each id is hashed
to 64 bits straight from Arrow's buffers, and all that is kept of a row is one 64-bit key:

    [ hash bits | position of the row in the log ]

Keys are split into 256 partitions by the top bits of the hash (which are then implied, so
that their place goes to further hash bits), and each partition is sorted. Neighbours with
equal hash bits are *suspects*: every true repetition is among them, with a few different ids
whose hashes happen to agree. Because a key still knows where its row lies, the suspects alone
are read again, and `Claims` decides about them by their real ids. So the result is exact
whatever the hash does; a bad hash only makes more suspects.

Who wins is a rule of billing (README, Rules): of the rows of one id the earliest instant,
then the bytewise smallest account, interface and item. Rows equal to the winner are
duplicates, the others conflicts. Both are sets of rows, so neither the order of files nor
the number of threads can change them.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UInts = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Hash = Callable[[pa.Array], UInts]

_PARTITIONS = 256
_PARTITION_BITS = 8
_CHUNK = 1 << 20
"""Keys are partitioned in chunks of about this many, so that few small arrays arise."""
_BLOCK = 1 << 15
"""Ids are hashed in blocks of this many: small enough for the processor's cache."""
_SEED = 20180101
_LAST_MIX = np.uint64(0x9E3779B97F4A7C15)


# ---------------------------------------------------------------- hashing


class _Multipliers:
    """Random odd 64-bit numbers from a fixed seed, as many as ever needed."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(_SEED)
        self._known = self._random.integers(0, 2**64, 64, np.uint64) | np.uint64(1)
        self._lock = threading.Lock()

    def first(self, count: int) -> UInts:
        with self._lock:
            while len(self._known) < count:
                more = self._random.integers(0, 2**64, len(self._known), np.uint64)
                self._known = np.concatenate([self._known, more | np.uint64(1)])
            return self._known[:count]


_MULTIPLIERS = _Multipliers()


def hash_ids(ids: pa.Array) -> UInts:
    """Hash ids to 64 bits by their bytes alone, whatever type they come in.

    Args:
        ids: binary, large binary or fixed-size binary. What a null hashes to means nothing.
    """
    if pa.types.is_fixed_size_binary(ids.type):
        width = ids.type.byte_width
        raw = _buffer(ids.buffers()[1])[ids.offset * width : (ids.offset + len(ids)) * width]
        return hash_rows(raw.reshape(len(ids), width))
    offsets = _offsets(ids)
    data = _buffer(ids.buffers()[2])
    widths = np.diff(offsets)
    if len(ids) and (widths == widths[0]).all():
        raw = data[offsets[0] : offsets[-1]]
        return hash_rows(raw.reshape(len(ids), int(widths[0])))
    hashes = np.empty(len(ids), np.uint64)
    by_width = np.argsort(widths, kind="stable")
    firsts = np.flatnonzero(np.diff(widths[by_width], prepend=-1))
    for rows in np.split(by_width, firsts[1:]) if len(ids) else ():
        width = int(widths[rows[0]])
        if width == 0:
            hashes[rows] = hash_rows(np.empty((len(rows), 0), np.uint8))
            continue
        windows = np.lib.stride_tricks.sliding_window_view(data, width)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            hashes[block] = hash_rows(windows[offsets[block]])
    return hashes


def _offsets(ids: pa.Array) -> Ints:
    wide = pa.types.is_large_binary(ids.type) or pa.types.is_large_string(ids.type)
    kind = np.int64 if wide else np.int32
    if not len(ids):
        return np.zeros(1, np.int64)
    every = np.frombuffer(ids.buffers()[1], kind)
    return every[ids.offset : ids.offset + len(ids) + 1].astype(np.int64)


def _buffer(buffer: pa.Buffer | None) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return np.frombuffer(buffer if buffer is not None else b"", np.uint8)


def hash_rows(rows: "np.ndarray[Any, np.dtype[np.uint8]]") -> UInts:
    """Hash each row of a matrix of bytes: lanes of 32 bits times random 64-bit numbers, summed.

    Two different ids of one width agree in a fixed bit with probability 1/2 over the choice
    of the numbers; the width takes part, so that ids of different widths differ as well.
    """
    count, width = rows.shape
    lanes, rest = divmod(width, 4)
    multipliers = _MULTIPLIERS.first(lanes + 2)
    hashes = np.full(count, int(multipliers[0]) * (width + 1) % 2**64, np.uint64)
    for start in range(0, count if width else 0, _BLOCK):
        block = rows[start : start + _BLOCK]
        part = hashes[start : start + _BLOCK]
        if lanes:
            whole = np.ascontiguousarray(block[:, : lanes * 4]).view(np.uint32)
            part += whole @ multipliers[2 : lanes + 2]
        if rest:
            last = np.zeros((len(block), 4), np.uint8)
            last[:, :rest] = block[:, lanes * 4 :]
            part += last.view(np.uint32)[:, 0] * multipliers[1]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _LAST_MIX
    hashes ^= hashes >> np.uint64(29)
    return hashes


# ---------------------------------------------------------------- keys


@dataclass(frozen=True)
class _Chunk:
    """Keys ordered by partition; partition p is ``keys[starts[p] : starts[p + 1]]``."""

    keys: UInts
    starts: Ints


class Keys:
    """The keys of all rows of a month that would be charged; threads may add at once.

    Args:
        rows: every position is below this.
        hashed: the hash to use; tests give one that collides.
    """

    def __init__(self, rows: int, hashed: Hash = hash_ids) -> None:
        self._hashed = hashed
        self._position_bits = np.uint64(max(rows - 1, 1).bit_length())
        if self._position_bits > 64 - _PARTITION_BITS - 16:
            raise OverflowError(f"{rows} rows are more than positions can tell apart")
        self._position_mask = (np.uint64(1) << self._position_bits) - np.uint64(1)
        self._lock = threading.Lock()
        self._waiting: list[tuple[UInts, Ints]] = []
        self._waiting_rows = 0
        self._chunks: list[_Chunk] = []

    def add(self, ids: pa.Array, positions: Ints) -> None:
        """Add rows: their ids (binary, no nulls) and where in the log they lie."""
        hashes = self._hashed(ids)
        with self._lock:
            self._waiting.append((hashes, positions))
            self._waiting_rows += len(positions)
            full = self._take_waiting() if self._waiting_rows >= _CHUNK else []
        self._partition(full)

    def _take_waiting(self) -> list[tuple[UInts, Ints]]:
        taken, self._waiting, self._waiting_rows = self._waiting, [], 0
        return taken

    def _partition(self, added: list[tuple[UInts, Ints]]) -> None:
        if not added:
            return
        hashes = np.concatenate([hashes for hashes, _ in added])
        positions = np.concatenate([positions for _, positions in added]).view(np.uint64)
        parts = (hashes >> np.uint64(64 - _PARTITION_BITS)).astype(np.uint8)
        hashes <<= np.uint64(_PARTITION_BITS)
        hashes &= ~self._position_mask
        hashes |= positions
        keys = hashes[np.argsort(parts, kind="stable")]
        starts = np.zeros(_PARTITIONS + 1, np.int64)
        np.cumsum(np.bincount(parts, minlength=_PARTITIONS), out=starts[1:])
        with self._lock:
            self._chunks.append(_Chunk(keys, starts))

    def suspects(self, threads: int = 1, at_most: int = 1 << 22) -> Iterator[Ints]:
        """Yield the positions of rows whose hash bits are not theirs alone, each lot sorted.

        All rows of one id are in the same lot. A lot has about ``at_most`` rows, unless one
        partition alone has more.
        """
        self._partition(self._take_waiting())
        lot: list[Ints] = []
        waiting = 0
        with ThreadPoolExecutor(threads) as pool:
            for found in pool.map(self._suspects_of, range(_PARTITIONS)):
                if waiting and waiting + len(found) > at_most:
                    yield np.sort(np.concatenate(lot))
                    lot, waiting = [], 0
                lot.append(found)
                waiting += len(found)
        if waiting:
            yield np.sort(np.concatenate(lot))

    def _suspects_of(self, partition: int) -> Ints:
        parts = [
            chunk.keys[chunk.starts[partition] : chunk.starts[partition + 1]]
            for chunk in self._chunks
        ]
        keys = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
        keys.sort()
        equal = (keys[1:] ^ keys[:-1]) <= self._position_mask
        suspect = np.zeros(len(keys), bool)
        suspect[1:] = equal
        suspect[:-1] |= equal
        return (keys[suspect] & self._position_mask).astype(np.int64)


# ---------------------------------------------------------------- claims


@dataclass(frozen=True)
class Candidates:
    """Rows that may share their ids: parallel columns.

    Attributes:
        ids: large binary, no nulls.
        instants: nanoseconds since any fixed instant.
        accounts: numbers of accounts; `Claims` is told how their texts are ordered.
        pairs: numbers of (interface, item), ordered as their texts are, by bytes.
        calls: how many equal rows each stands for.
    """

    ids: pa.Array
    instants: Ints
    accounts: Ints
    pairs: Ints
    calls: Ints

    def __len__(self) -> int:
        return len(self.calls)

    def take(self, rows: Ints) -> "Candidates":
        """Return some rows."""
        return Candidates(
            self.ids.take(pa.array(rows)),
            self.instants[rows],
            self.accounts[rows],
            self.pairs[rows],
            self.calls[rows],
        )


def together(lots: list[Candidates]) -> Candidates:
    """Return several lots of candidates as one."""
    return Candidates(
        pa.concat_arrays([lot.ids for lot in lots]),
        np.concatenate([lot.instants for lot in lots]),
        np.concatenate([lot.accounts for lot in lots]),
        np.concatenate([lot.pairs for lot in lots]),
        np.concatenate([lot.calls for lot in lots]),
    )


@dataclass(frozen=True)
class Verdict:
    """What is not charged: ``calls`` fewer for each ``accounts`` and ``pairs``."""

    accounts: Ints
    pairs: Ints
    calls: Ints


class Claims:
    """Decides which row of each id is charged, as candidates come in.

    It keeps one row per id, the best so far, and how many rows equal it. That suffices: of
    three rows the best is the best of the third and the best of the first two.

    Args:
        ranks: for each account number its place among all account ids, by bytes.
    """

    def __init__(self, ranks: Ints) -> None:
        self._ranks = ranks
        self._best: list[Candidates] = []
        self._waiting: list[Candidates] = []
        self._waiting_rows = 0
        self.conflicts = 0
        self.duplicates = 0
        self._lost: list[Verdict] = []

    def add(self, candidates: Candidates) -> None:
        """Add candidates; all rows of an id must be added before `close`."""
        self._waiting.append(candidates)
        self._waiting_rows += len(candidates)
        if self._waiting_rows >= max(_CHUNK, *(2 * len(best) for best in self._best), 0):
            self._decide()

    def close(self) -> list[Verdict]:
        """Return what is not charged: losers, and the equals of each winner but one."""
        self._decide()
        for best in self._best:
            again = best.calls - 1
            self.duplicates += int(again.sum())
            rows = np.flatnonzero(again)
            self._lost.append(Verdict(best.accounts[rows], best.pairs[rows], again[rows]))
        self._best = []
        return self._lost

    def _decide(self) -> None:
        """Keep the best row of each id, and count the others as lost."""
        lots = self._best + self._waiting
        if not lots:
            return
        rows = together(lots)
        order, first, new_id = self._ranked(rows)
        leaders = np.flatnonzero(first)
        calls = np.add.reduceat(rows.calls[order], leaders) if len(leaders) else rows.calls
        wins = new_id[leaders]
        lost, won = order[leaders[~wins]], order[leaders[wins]]
        self.conflicts += int(calls[~wins].sum())
        self._lost.append(Verdict(rows.accounts[lost], rows.pairs[lost], calls[~wins]))
        best = rows.take(won)
        self._best = [Candidates(best.ids, best.instants, best.accounts, best.pairs, calls[wins])]
        self._waiting, self._waiting_rows = [], 0

    def _ranked(self, rows: Candidates) -> tuple[Ints, Bools, Bools]:
        """Order rows by id and then best first; mark where a row, and where an id, is new."""
        ids = pc.dictionary_encode(rows.ids).indices.to_numpy(zero_copy_only=False)
        columns = (ids, rows.instants, self._ranks[rows.accounts], rows.pairs)
        order = np.lexsort(columns[::-1])
        first = np.zeros(len(order), bool)
        first[:1] = True
        new_id = first.copy()
        for number, column in enumerate(columns):
            ranked = column[order]
            first[1:] |= ranked[1:] != ranked[:-1]
            if number == 0:
                new_id |= first
        return order, first, new_id
