"""Dictionary indices: the codes of many pages, unpacked at once.

A page of codes says in one byte of how many bits each is, and then has runs: of one code again
and again, or of codes packed bit by bit, eight in as many bytes as each has bits. Arrow's writer
puts some 20 000 rows on a page. To unpack so few takes longer to begin than to do, and threads
that begin something new all the time wait for each other. So the packed codes of a whole column
are put side by side first, those of one number of bits together, and unpacked in one go.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from settlement.scan.texts import Bytes, Codes
from settlement.scan.thrift import varint

_MOST_BITS = 24
"""Codes of more bits might not lie within four bytes."""
_PACK = 8
"""Codes are packed by so many."""


class NotIndices(ValueError):
    """Bytes that are not so many codes, or in so many different runs that a loop would be slow."""


class _Run(NamedTuple):
    """Codes in a row: packed bytes, or one code again and again."""

    size: int
    packed: Bytes | None
    code: int = 0


class _Packed(NamedTuple):
    """Packed bytes, and the codes among all that they are of."""

    data: Bytes
    begin: int
    end: int


def decode(pages: Iterable[tuple[Bytes, int]]) -> Codes:
    """Return the codes of pages one after another: each page's bytes, and how many it has.

    Raises:
        NotIndices: see there.
    """
    every = list(pages)
    out: Codes = np.zeros(sum(values for _, values in every), np.int32)
    by_width: dict[int, list[_Packed]] = {}
    at = 0
    for data, values in every:
        if not data.size or data[0] > _MOST_BITS:
            raise NotIndices
        width = int(data[0])
        for run in _runs(data, width, values) if width else ():
            if run.packed is None:
                out[at : at + run.size] = run.code
            else:
                by_width.setdefault(width, []).append(_Packed(run.packed, at, at + run.size))
            at += run.size
        at += 0 if width else values
    for width, packed in by_width.items():
        _unpack_into(out, packed, width)
    return out


def _runs(data: Bytes, width: int, values: int) -> Iterator[_Run]:
    """Yield the runs of a page, those alike in a row as one."""
    view, at, done, budget = data.data, 1, 0, 64 + values // 256
    try:
        while done < values:
            budget -= 1
            head, body = varint(view, at)
            if not budget or head < 2:
                raise NotIndices
            if head & 1:
                size = (head >> 1) * width
                alike = _alike(data[at:], 1 + size, head) if body == at + 1 else 1
                packed = data[at : at + alike * (body - at + size)]
                packed = packed.reshape(alike, -1)[:, body - at :]
                packed = packed[:, : packed.shape[1] // width * width]
                at += alike * (body - at + size)
                count = min(alike * (head >> 1) * _PACK, values - done)
                if packed.size // width * _PACK < count:
                    raise NotIndices
                yield _Run(count, packed)
            else:
                count = head >> 1
                at = body + (width + 7) // 8
                if count > values - done or at > data.size:
                    raise NotIndices
                yield _Run(count, None, int.from_bytes(view[body:at], "little"))
            done += count
    except (IndexError, ValueError) as broken:
        raise NotIndices from broken


def _alike(data: Bytes, size: int, head: int) -> int:
    """Return how many whole runs in a row begin with the same byte; at least one."""
    same = data[: data.size // size * size : size] == head
    return max(1, int(same.size if same.all() else same.argmin()))


def _unpack_into(out: Codes, packed: list[_Packed], width: int) -> None:
    """Unpack codes of one width to where they belong."""
    room = np.zeros(sum(each.data.size for each in packed) + 4, np.uint8)
    at = 0
    for data, _, _ in packed:
        room[at : at + data.size].reshape(data.shape)[...] = data
        at += data.size
    codes, at = unpack(room, at // width, width), 0
    for data, begin, end in packed:
        out[begin:end] = codes[at : at + end - begin]
        at += data.size // width * _PACK


def unpack(room: Bytes, packs: int, width: int) -> Codes:
    """Unpack codes of ``width`` bits, least significant bit first, 8 in ``width`` bytes.

    Four more bytes must stand behind so many packs.
    """
    out = np.empty((packs, _PACK), np.uint32)
    for place in range(_PACK):
        byte, shift = divmod(place * width, 8)
        words: Any = np.ndarray((packs,), np.uint32, room, byte, (width,))
        np.right_shift(words, np.uint32(shift), out=out[:, place])
    out &= np.uint32((1 << width) - 1)
    return out.reshape(-1).view(np.int32)
