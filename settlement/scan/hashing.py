"""A hash of many byte strings at once.

Eight bytes at a time: the upper half of a number is folded into the lower, the number is
multiplied by an odd random one that belongs to its place, and the products are summed modulo
2**64. The upper bits are the best. For random multipliers two different strings rarely agree
in them (multilinear hashing); the multipliers are the same in every run, as hashes may outlive
one. Nothing may rest on it but speed: whoever finds equal hashes must look at the strings.
"""

import functools
from collections.abc import Callable

import numpy as np

from settlement.scan.texts import LANE, Bytes, Lanes, Texts

Hash = Callable[[Bytes], Lanes]
_STEP = 20_480
_STEP_LANES = 1 << 17
"""So many rows, or lanes, are hashed at a time: what is in hand stays in the second cache.
They are the rows of a page: more, shorter steps would have threads wait for each other."""
_KEPT = 1 << 13
"""So many factors are kept: those of longer strings are drawn anew for each lot."""
_SEED = 20180101
_HALF = np.uint64(32)


def _factors(count: int) -> Lanes:
    """Return random odd numbers from a fixed seed; fewer of them are the first of more."""
    return _few_factors()[:count] if count <= _KEPT else _drawn(count)


@functools.cache
def _few_factors() -> Lanes:
    return _drawn(_KEPT)


def _drawn(count: int) -> Lanes:
    random = np.random.Generator(np.random.PCG64(_SEED))
    return random.integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)


def hash_rows(matrix: Bytes) -> Lanes:
    """Hash the rows of a lot (`texts.Lot`) to 64 bits; zeros behind a row change nothing."""
    count, size = matrix.shape
    width = -(-size // LANE)
    in_place = size % LANE == 0 and matrix.flags.c_contiguous and matrix.ctypes.data % LANE == 0
    hashes = np.empty(count, np.uint64)
    step = max(1, min(_STEP, _STEP_LANES // max(width, 1)))
    filled = np.zeros((min(step, count), width), np.uint64)
    mixed = np.empty_like(filled)
    factors = _factors(width)
    for start in range(0, count, step):
        part = matrix[start : start + step]
        row, mix = filled[: len(part)], mixed[: len(part)]
        if in_place:
            row = part.view(np.uint64)
        else:
            row.view(np.uint8)[:, :size] = part
        np.right_shift(row, _HALF, out=mix)
        np.bitwise_xor(mix, row, out=mix)
        np.matmul(mix, factors, out=hashes[start : start + step])
    return hashes


def hash_texts(texts: Texts, hashed: Hash = hash_rows) -> Lanes:
    """Return the hashes of strings, in their order."""
    hashes = np.empty(texts.total, np.uint64)
    for rows, matrix in texts.to_hash():
        hashes[rows] = hashed(matrix)
    return hashes
