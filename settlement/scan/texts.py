"""Many byte strings at once, as matrices that numpy can hash and compare.

A byte string is *framed*: its length in four bytes, then its bytes. Parquet's plain pages hold
variable-length values in just this form, so where all values of a page are equally long the
page itself, looked at as a matrix, is what is worked on; nothing is copied. Values of different
lengths are gathered into a matrix for each number of 8-byte *lanes* they fill, behind each of
them zeros. As the length stands in front, equal rows are equal strings, and strings that fill
different numbers of lanes are different.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Lanes = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.int32]]
Shorts = np.ndarray[Any, np.dtype[np.uint16]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

LANE = 8
FRAME = 4
"""Bytes of the length in front of each string."""
_HIGH_BITS = 0x8080808080808080
_LAST = np.array([(1 << 8 * used) - 1 for used in range(LANE + 1)], np.uint64)
"""What of a last lane belongs to a string, by how many of its bytes do."""


class NotFramed(ValueError):
    """Bytes that are not the framed values they should be, or too odd to tell quickly."""


class Lot(NamedTuple):
    """Strings of one matrix: ``rows`` says which of all strings they are, in ascending order.

    ``matrix`` has a row of bytes for each: framed, with or without zeros behind.
    """

    rows: slice | Ints
    matrix: Bytes


class Mixed(NamedTuple):
    """Strings of different lengths below 256, framed, where they lie in a page."""

    data: Bytes
    starts: Ints
    widths: Shorts

    def by_lanes(self) -> Iterator[Lot]:
        """Gather them into a matrix for each number of lanes."""
        return _by_lanes(self.data, self.starts, self.widths, is_framed=True)

    def padded(self) -> Lot | None:
        """Gather them into one matrix; None where that would be zeros for the greater part."""
        count, used = len(self.starts), int(self.widths.sum()) + FRAME * len(self.starts)
        low = int(self.widths.min(initial=255)) + FRAME
        high = int(self.widths.max(initial=0)) + FRAME
        if count * high > 2 * used:
            return None
        needed = -(-high // LANE)
        matrix = _windows(self.data, self.starts, needed * LANE)
        columns = matrix.view(np.uint64)
        for lane in range(low // LANE, needed):
            own = np.clip(np.arange(1 << 8) + FRAME - lane * LANE, 0, LANE)
            columns[:, lane] &= _LAST.take(own).take(self.widths)
        return Lot(slice(0, count), matrix)


class Texts:
    """Some strings.

    Args:
        total: how many they are.
        strings: the lots that hold each of them once; or where they are to be gathered from.
    """

    def __init__(self, total: int, strings: list[Lot] | Mixed) -> None:
        self.total = total
        self._strings = strings

    @cached_property
    def lots(self) -> list[Lot]:
        """Lots that hold each string once, in no more lanes than it fills."""
        own = self._strings
        return list(own.by_lanes()) if isinstance(own, Mixed) else own

    def to_hash(self) -> list[Lot]:
        """Return lots that hold each string once, as few as can be.

        Rows may have more zeros behind than they need: equal strings of two pages have equal
        hashes, but may differ as lots.
        """
        padded = self._strings.padded() if isinstance(self._strings, Mixed) else None
        return self.lots if padded is None else [padded]

    @property
    def longest(self) -> int:
        """The bytes of the longest string and its frame, or up to a lane more."""
        own = self._strings
        if isinstance(own, Mixed):
            return int(own.widths.max(initial=0)) + FRAME
        return max((lot.matrix.shape[1] for lot in own), default=0)

    def empty(self) -> Bools | None:
        """Mark the strings of length 0; None where there are none."""
        if isinstance(self._strings, Mixed):
            none = self._strings.widths == 0
            return none if none.any() else None
        marks = None
        for rows, matrix in self._strings:
            if matrix.shape[1] > LANE:
                continue
            none = np.ascontiguousarray(matrix[:, :FRAME]).view(np.uint32)[:, 0] == 0
            if none.any():
                marks = np.zeros(self.total, bool) if marks is None else marks
                marks[rows] = none
        return marks


def lanes(matrix: Bytes) -> Lanes:
    """Return a lot's rows as numbers of 64 bits, in place where they lie suitably."""
    count, size = matrix.shape
    if size % LANE == 0 and matrix.flags.c_contiguous and matrix.ctypes.data % LANE == 0:
        return matrix.view(np.uint64)
    filled = np.zeros((count, -(-size // LANE)), np.uint64)
    filled.view(np.uint8)[:, :size] = matrix
    return filled


# ---------------------------------------------------------------- from Parquet


def of_plain(
    data: Bytes,
    count: int,
    width: int | None,
    wanted: Ints | None = None,
    ends: Sequence[tuple[int, int]] = (),
) -> Texts:
    """Return the strings of a plain page, or of some that were joined.

    Args:
        data: the page's values; they must fill it exactly.
        count: how many they are.
        width: how long each is where lengths are not written; None where they are.
        wanted: which are asked for, ascending; all if left out.
        ends: where pages end that were joined: behind so many values, and so many bytes.

    Raises:
        NotFramed: the bytes are not so many values, or lengths are too mixed to be sure.
    """
    chosen = slice(0, count) if wanted is None else wanted
    total = count if wanted is None else len(wanted)
    if width is not None:
        if data.size != count * width or not _end_at(ends, width):
            raise NotFramed
        values = data.reshape(count, width)[chosen]
        return Texts(total, [Lot(slice(0, total), _framed(values))])
    if count == 0:
        if data.size:
            raise NotFramed
        return Texts(0, [])
    stride, rest = divmod(data.size, count)
    if not rest and stride >= FRAME:
        matrix = data.reshape(count, stride)
        if (matrix[:, :FRAME].view(np.uint32) == stride - FRAME).all():
            if not _end_at(ends, stride):
                raise NotFramed
            return Texts(total, [Lot(slice(0, total), matrix[chosen])])
    starts, widths = heads(data, count)
    if any(starts[values] != size for values, size in ends if values < count):
        raise NotFramed
    return Texts(total, Mixed(data, starts[chosen], widths[chosen]))


def _end_at(ends: Sequence[tuple[int, int]], stride: int) -> bool:
    return all(size == values * stride for values, size in ends)


def _framed(values: Bytes) -> Bytes:
    count, width = values.shape
    matrix = np.empty((count, FRAME + width), np.uint8)
    matrix[:, :FRAME] = np.frombuffer(width.to_bytes(FRAME, "little"), np.uint8)
    matrix[:, FRAME:] = values
    return matrix


def heads(data: Bytes, count: int) -> tuple[Ints, Shorts]:
    """Return where each framed value of a plain page begins, and how long it is (below 256).

    Where values begin is guessed, quickly, then proved link by link: the first begins where the
    page does, each ends where the next begins, and the last where the page ends. What is
    guessed from is that text holds no zeros, and a length below 256 three of them, of which
    exactly two are an aligned pair. Pairs are looked for by twos, as there are few.

    Raises:
        NotFramed: the guess was wrong; there may be zeros in values, or longer ones.
    """
    odd = data.ctypes.data % 2
    pairs = data[odd : odd + (data.size - odd) // 2 * 2].view(np.uint16)
    is_none = np.zeros(pairs.size + pairs.size % 2, bool)
    np.equal(pairs, 0, out=is_none[: pairs.size])
    found = np.flatnonzero(is_none.view(np.uint16) != 0)
    if len(found) != count:
        raise NotFramed
    found *= 2
    found += ~is_none.take(found)  # the pair, if not the first of two
    found *= 2
    found += odd - 1  # the byte before it: the length's first or, where it is zero, the second
    found -= data.take(found, mode="clip") == 0
    if found[0] != 0:
        raise NotFramed
    widths = data.take(found).astype(np.uint16)
    if not (np.diff(found, append=data.size) == widths + np.uint16(FRAME)).all():
        raise NotFramed
    if data.take(found + (FRAME - 1)).any():
        raise NotFramed
    return found, widths


def check_utf8(data: Bytes, longest: int) -> None:
    """Raise `NotFramed` unless all values of a plain page are surely UTF-8.

    ASCII is seen at a glance, eight bytes at a time. Beyond it the page is decoded as a whole:
    a length below 128 is ASCII itself, so that no character reaches over it.
    """
    head = data.size // LANE * LANE
    top = int(np.bitwise_or.reduce(data[:head].view(np.uint64), initial=np.uint64(0)))
    top |= int.from_bytes(data[head:].tobytes(), "little")
    if not top & _HIGH_BITS:
        return
    if longest >= 128:
        raise NotFramed
    try:
        str(data.data, "utf-8")
    except UnicodeDecodeError as error:
        raise NotFramed from error


# ---------------------------------------------------------------- from Arrow and to it


def of_arrow(array: pa.Array) -> Texts:
    """Return the strings of an array of text or binary of any width; a null is the empty one."""
    count = len(array)
    if pa.types.is_fixed_size_binary(array.type) and not array.null_count:
        width = array.type.byte_width
        data = _buffer(array.buffers()[1])[array.offset * width : (array.offset + count) * width]
        return Texts(count, [Lot(slice(0, count), _framed(data.reshape(count, width)))])
    array = array.cast(pa.large_binary())
    if array.null_count:
        array = array.fill_null(b"")
    if not count:
        return Texts(0, [])
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset :][: count + 1]
    data, widths = _buffer(array.buffers()[2]), np.diff(offsets)
    if (widths == widths[0]).all():
        own = data[offsets[0] : offsets[-1]]
        return Texts(count, [Lot(slice(0, count), _framed(own.reshape(count, int(widths[0]))))])
    return Texts(count, list(_by_lanes(data, offsets[:-1], widths, is_framed=False)))


def to_arrow(ids: Lanes) -> pa.Array:
    """Return strings that are lanes as an array of large binary."""
    matrix = np.ascontiguousarray(ids).view(np.uint8)
    widths = np.ascontiguousarray(matrix[:, :FRAME]).view(np.uint32)[:, 0].astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)])
    values = matrix[:, FRAME:]
    if (widths == widths[:1]).all():
        values = values[:, : int(widths.max(initial=0))]
    else:
        values = values[np.arange(values.shape[1]) < widths[:, None]]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values.tobytes())]
    return pa.Array.from_buffers(pa.large_binary(), len(widths), buffers)


def _buffer(buffer: pa.Buffer | None) -> Bytes:
    return np.frombuffer(buffer if buffer is not None else b"", np.uint8)


# ---------------------------------------------------------------- of many widths


def _by_lanes(
    data: Bytes, starts: Ints, widths: Ints | Shorts, *, is_framed: bool
) -> Iterator[Lot]:
    """Gather values into a matrix for each number of lanes; their lengths may lead them."""
    needed = (widths + widths.dtype.type(FRAME + LANE - 1)) // LANE
    for count in np.flatnonzero(np.bincount(needed)).tolist():
        rows = np.flatnonzero(needed == count)
        size, own = count * LANE, widths.take(rows)
        if is_framed:
            matrix = _windows(data, starts.take(rows), size)
        else:
            matrix = np.empty((len(rows), size), np.uint8)
            matrix[:, :FRAME] = own.astype(np.uint32)[:, None].view(np.uint8)
            matrix[:, FRAME:] = _windows(data, starts.take(rows), size - FRAME)
        last = matrix.view(np.uint64)[:, -1]
        last &= _LAST.take(own + FRAME - (size - LANE))
        yield Lot(rows, matrix)


def _windows(data: Bytes, starts: Ints, size: int) -> Bytes:
    """Return so many bytes from each start on, as far as there are data."""
    out = np.zeros((len(starts), size), np.uint8)
    whole = int(np.searchsorted(starts, data.size - size, side="right")) if size else 0
    if whole:
        windows = np.ndarray((data.size - size + 1,), f"V{size}", data, 0, (1,))
        out[:whole] = windows[starts[:whole]].view(np.uint8).reshape(whole, size)
    for row, start in enumerate(starts[whole:].tolist(), whole):
        rest = data[start : start + size]
        out[row, : len(rest)] = rest
    return out
