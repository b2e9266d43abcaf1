"""The headers of a Parquet chunk's pages, read without the pages between them.

A column of a row group is a *chunk*: a dictionary page, perhaps, then data pages, each behind a
small header in Thrift's compact protocol. How long a header is, it does not say: so some bytes
are read, and more where they end within it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from settlement.scan.thrift import Data, struct

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY = 0, 2, 8
Read = Callable[[int, int], Data]
"""Returns bytes: from where, and so many; fewer where they end."""
PARTS = {DATA: (5, 2), DICTIONARY: (7, 2), DATA_V2: (8, 4)}
"""By a page's kind, which fields of its header tell of its values and their encoding."""
_FIRST, _LONGEST = 1 << 10, 16 << 20
"""Bytes of a page's header that are read at first, and at most."""
_BROKEN = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What comes of taking a damaged structure for a sound one."""


class Unusual(Exception):
    """Not the ordinary kind of column: let Arrow read it."""


def read_header(read: Read, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a page's header, and where the page itself begins.

    Raises `IndexError` or `ValueError` where there is none before the end.
    """
    size = _FIRST
    while True:
        data = read(at, min(size, end - at))
        try:
            fields, length = struct(data, 0)
        except (IndexError, ValueError):
            if len(data) < size or size >= _LONGEST:
                raise
            size *= 16
        else:
            return fields, at + length


@dataclass(frozen=True)
class Header:
    """One page: its kind, how many values, how encoded, and where its body lies in the chunk.

    ``levels`` are the bytes of levels in front of the part that is compressed (in pages of
    version 2 alone).
    """

    kind: int
    values: int
    encoding: int
    start: int
    size: int
    raw_size: int
    checksum: int | None
    levels: int
    compressed: bool

    @classmethod
    def of(cls, fields: dict[int, Any], start: int) -> "Header":
        """Take what Parquet's structure says of a page whose body starts there.

        Raises `Unusual` for nulls, levels of repetition, or sizes that are none, and what
        `_BROKEN` lists for fields that are not there.
        """
        kind, raw_size, size = fields[1], fields[2], fields[3]
        about, encoded = PARTS[kind]
        part = fields[about]
        encoding, levels, compressed = part[encoded], 0, True
        if kind == DATA_V2:
            levels, compressed = part[5], part.get(7, True)
            if part[2] or part[6]:
                raise Unusual
        _check_numbers(size, raw_size, part[1], encoding, levels)
        checksum = fields[4] & 0xFFFFFFFF if 4 in fields else None
        return cls(kind, part[1], encoding, start, size, raw_size, checksum, levels, compressed)


def headers(read: Read, size: int) -> list[Header]:
    """Return the headers of a chunk of so many bytes, in order; its pages must fill it exactly.

    Raises `Unusual` for all others.
    """
    at, found = 0, []
    try:
        while at < size:
            fields, at = read_header(read, at, size)
            page = Header.of(fields, at)
            at += page.size
            if at > size:
                raise Unusual
            found.append(page)
    except _BROKEN as broken:
        raise Unusual from broken
    return found


def _check_numbers(*fields: object) -> None:
    """Raise `Unusual` unless fields are whole numbers from 0 on."""
    if not all(isinstance(field, int) and field >= 0 for field in fields):
        raise Unusual
