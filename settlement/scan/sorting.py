"""Sorting rows of many bits, of which few differ.

A row is some numbers of 64 bits, the first before the rest. `np.lexsort` sorts by each of them
in turn. Where rows are ids, most bits are the same in all of them (ten digits vary in 40 bits of
128), so the others are put together first, in their order: fewer numbers, sorted fewer times.
"""

from collections.abc import Iterator

import numpy as np

from settlement.scan.texts import Ints, Lanes

_BITS = 64


def order(keys: Lanes) -> Ints:
    """Return which row comes first, second and so on; equal rows stay in their order.

    ``keys`` has a row of numbers for each, at least one.
    """
    squeezed = list(_squeezed(keys))
    return np.lexsort(squeezed[::-1]) if squeezed else np.arange(len(keys))


def _squeezed(keys: Lanes) -> Iterator[Lanes]:
    """Yield numbers that sort as the keys do, as few as the bits that vary need."""
    packed, room = np.zeros(len(keys), np.uint64), _BITS
    for lane in keys.T:
        for start, width in _runs(_varying(lane)):
            some = lane >> np.uint64(start) & np.uint64((1 << width) - 1)
            if width > room:
                yield packed
                packed, room = np.zeros(len(keys), np.uint64), _BITS
            packed <<= np.uint64(width % _BITS)  # of 64 bits there is nothing before
            packed |= some
            room -= width
    if room < _BITS:
        yield packed


def _varying(lane: Lanes) -> int:
    """Return the bits that are not the same in all of some numbers."""
    if not lane.size:
        return 0
    return int(np.bitwise_or.reduce(lane)) ^ int(np.bitwise_and.reduce(lane))


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yield where bits in a row are set, the highest first: the lowest of them, and how many."""
    while bits:
        high = bits.bit_length()
        start = (~bits & (1 << high) - 1).bit_length()
        yield start, high - start
        bits &= (1 << start) - 1
