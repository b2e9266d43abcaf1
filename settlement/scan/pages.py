"""The pages of a Parquet column, opened with numpy where they are plain enough.

Most of the cost of reading ids is to decompress them. What a general reader does after that
(find every length, build offsets, copy every character) costs nearly as much again, and a count
does not need it: ids can be hashed where they lie. So this module finds the pages by their
headers, lets Arrow's codecs decompress, and looks at the values in place.

It knows the ordinary case alone: a flat column without nulls, plain or dictionary-coded.
Whatever else it meets, and whatever does not add up, a checksum too, raises `Unusual`, and the
caller has Arrow read that column instead. So nothing here needs to say what is wrong with a
file, and nothing guesses: every length and count is checked against another.
"""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from settlement.scan.footers import BYTE_ARRAY, FIXED_LENGTH, INT64, Chunk
from settlement.scan.headers import (
    DATA,
    DICTIONARY,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE_DICTIONARY,
    Header,
    Unusual,
    headers,
)
from settlement.scan.indices import NotIndices, decode
from settlement.scan.texts import Bytes, Codes, Ints, NotFramed, Texts, check_utf8, of_plain
from settlement.scan.thrift import varint

CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
LARGE = 192 << 20
"""Columns of row groups with more bytes are left to those who read them in parts."""
_TOGETHER = 4 << 20
"""So many bytes of pages at most are joined: they stay in the processor's last cache."""
_LEVELS = 16
"""One run of levels in front of a page's values takes no more bytes."""
_MOST_WORDS = 4096
"""A dictionary of more words is not looked at word by word."""


# ---------------------------------------------------------------- pages


class Buffer:
    """Memory asked for once and used again: its first touch is dear on virtual machines."""

    def __init__(self) -> None:
        self._bytes: Bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> memoryview:
        """Return so many bytes, whatever is in them; what was returned before is used again."""
        if self._bytes.size < size:
            self._bytes = np.empty(size + size // 4, np.uint8)
        return self._bytes.data[:size]


class Room:
    """Room for a chunk, and for pages of it that are joined; one at a time of each."""

    def __init__(self) -> None:
        self.chunk, self.pages = Buffer(), Buffer()


class Part(NamedTuple):
    """Consecutive rows' strings: themselves, or codes of theirs (-1 for a null)."""

    texts: Texts
    codes: Codes | None


class Piece(NamedTuple):
    """So many consecutive rows, and how to read them; unread pieces are not decompressed.

    ``read`` may be given which rows are wanted, ascending from 0.
    """

    rows: int
    read: Callable[[Ints | None], Part]


class Pages:
    """A column of a row group: read whole, its pages decompressed one at a time.

    Raises:
        Unusual: it is not of the ordinary kind; this may come late, after some of its pages.
        OSError: the file cannot be read.
    """

    def __init__(self, descriptor: int, chunk: Chunk, room: Room) -> None:
        if chunk.codec not in CODECS or chunk.size > LARGE:
            raise Unusual
        self._chunk, self._room = chunk, room.pages
        name = CODECS[chunk.codec]
        self._codec = None if name is None else pa.Codec(name)
        self._raw = _read(descriptor, chunk, room.chunk)
        found = headers(lambda at, size: self._raw[at : at + size], chunk.size)
        self._dictionary = found[0] if found and found[0].kind == DICTIONARY else None
        self._pages = found[1:] if self._dictionary else found
        if any(page.kind == DICTIONARY for page in self._pages):
            raise Unusual
        if sum(page.values for page in self._pages) != chunk.values:
            raise Unusual
        if sum(page.raw_size for page in found) > LARGE:
            raise Unusual
        if self._dictionary is not None and self._dictionary.values > self._dictionary.raw_size:
            raise Unusual

    def texts(self, *, is_text: bool) -> Iterator[Piece]:
        """Yield the column's strings by a page or some, codes by many; text must be UTF-8."""
        if self._chunk.physical not in (BYTE_ARRAY, FIXED_LENGTH):
            raise Unusual
        words = None
        if self._dictionary is not None:
            words = self._plain(self._open(self._dictionary), self._dictionary.values, is_text)
        for is_plain, some in groupby(self._pages, lambda page: page.encoding == PLAIN):
            if is_plain:
                for lot in _lots(some):
                    rows = sum(page.values for page in lot)
                    yield Piece(rows, partial(self._plain_part, lot, is_text))
            elif words is not None:
                coded = tuple(some)
                rows = sum(page.values for page in coded)
                yield Piece(rows, partial(self._coded_part, coded, words))
            else:
                raise Unusual

    def _plain_part(self, pages: Sequence[Header], is_text: bool, wanted: Ints | None) -> Part:
        if wanted is not None and len(pages) > 1:
            pages, wanted = _only_with(pages, wanted)
        data, ends = self._joined(pages)
        values = sum(page.values for page in pages)
        return Part(self._plain(data, values, is_text, wanted, ends), None)

    def _joined(self, pages: Sequence[Header]) -> tuple[Bytes, list[tuple[int, int]]]:
        """Return the values of pages one after another, and where each page of several ends."""
        if len(pages) == 1:
            return self._body(pages[0]), []
        room = np.frombuffer(self._room.of(sum(page.raw_size for page in pages)), np.uint8)
        values, size, ends = 0, 0, []
        for page in pages:
            body = self._body(page)
            room[size : size + body.size] = body
            values, size = values + page.values, size + body.size
            ends.append((values, size))
        return room[:size], ends

    def _coded_part(self, pages: Sequence[Header], words: Texts, wanted: Ints | None) -> Part:
        if wanted is None:
            return Part(words, self._codes(pages, words.total))
        pages, wanted = _only_with(pages, wanted)
        return Part(words, self._codes(pages, words.total)[wanted])

    def coded(self) -> tuple[Codes, list[bytes]]:
        """Return codes for all rows, and the few strings that they stand for."""
        if any(page.encoding == PLAIN for page in self._pages):
            raise Unusual
        words = self._words()
        return self._codes(self._pages, len(words)), words

    def integers(self, rows: Ints) -> Ints:
        """Return the integers of 64 bits of some rows, ascending from 0.

        Pages without any are not decompressed.
        """
        if self._chunk.physical != INT64:
            raise Unusual
        words = None
        if self._dictionary is not None:
            words = _integers(self._open(self._dictionary), self._dictionary.values)
        found, begin = np.empty(len(rows), np.int64), 0
        for is_plain, some in groupby(self._pages, lambda page: page.encoding == PLAIN):
            pages = list(some)
            end = begin + sum(page.values for page in pages)
            own = slice(*np.searchsorted(rows, (begin, end)).tolist())
            wanted, begin = rows[own] - begin, end
            if is_plain:
                found[own] = self._plain_integers(pages, wanted)
            elif words is not None:
                pages, wanted = _only_with(pages, wanted)
                found[own] = words[self._codes(pages, len(words))[wanted]]
            elif wanted.size:
                raise Unusual
        return found

    def _plain_integers(self, pages: Sequence[Header], rows: Ints) -> Ints:
        found = np.empty(len(rows), np.int64)
        for page, first, own in _pages_with(pages, rows):
            found[own] = _integers(self._body(page), page.values)[rows[own] - first]
        return found

    def _codes(self, pages: Sequence[Header], words: int) -> Codes:
        """Return the codes of some pages, of a dictionary of so many words."""
        if any(page.encoding not in (PLAIN_DICTIONARY, RLE_DICTIONARY) for page in pages):
            raise Unusual
        try:
            found = decode((self._body(page), page.values) for page in pages)
        except NotIndices as broken:
            raise Unusual from broken
        if found.size and int(found.max()) >= words:
            raise Unusual
        return found

    def _plain(
        self,
        data: Bytes,
        values: int,
        is_text: bool,
        wanted: Ints | None = None,
        ends: Sequence[tuple[int, int]] = (),
    ) -> Texts:
        try:
            found = of_plain(data, values, self._chunk.width, wanted, ends)
            if is_text and wanted is None:  # rows are wanted of what was read before
                check_utf8(data, found.longest)
        except NotFramed as broken:
            raise Unusual from broken
        return found

    def _words(self) -> list[bytes]:
        page = self._dictionary
        if page is None or page.values > _MOST_WORDS or self._chunk.physical != BYTE_ARRAY:
            raise Unusual
        data = self._open(page).tobytes()
        at, found = 0, []
        for _ in range(page.values):
            size = int.from_bytes(data[at : at + 4], "little")
            at += 4 + size
            found.append(data[at - size : at])
        if at != len(data):
            raise Unusual
        return found

    def _body(self, page: Header) -> Bytes:
        """Return a data page's values, decompressed, behind its levels."""
        data = self._open(page)
        if not self._chunk.is_nullable:
            return data
        if page.kind == DATA:
            size = int.from_bytes(data[:4].tobytes(), "little")
            levels, data = data[4 : 4 + size], data[4 + size :]
        else:
            start = page.start
            levels = np.frombuffer(self._raw[start : start + page.levels], np.uint8)
        if not _all_present(levels.tobytes(), page.values):
            raise Unusual
        return data

    def _open(self, page: Header) -> Bytes:
        raw = self._raw[page.start : page.start + page.size]
        if page.checksum is not None and zlib.crc32(raw) != page.checksum:
            raise Unusual
        raw, size = raw[page.levels :], page.raw_size - page.levels
        if self._codec is None or not page.compressed:
            if len(raw) != size:
                raise Unusual
            return np.frombuffer(raw, np.uint8)
        if size <= 0:
            raise Unusual
        try:
            data = np.frombuffer(self._codec.decompress(raw, size), np.uint8)
        except (OSError, ValueError, MemoryError) as broken:
            raise Unusual from broken
        if data.size != size:
            raise Unusual
        return data


def _lots(pages: Iterable[Header]) -> Iterator[list[Header]]:
    """Put pages of strings of many lengths together, in their order; all others are left alone.

    Where each string of a page begins is found in many short steps, which many pages can share.
    """
    lot: list[Header] = []
    size = 0
    for page in pages:
        alone = page.raw_size % max(page.values, 1) <= _LEVELS
        if lot and (alone or size + page.raw_size > _TOGETHER):
            yield lot
            lot, size = [], 0
        if alone:
            yield [page]
        else:
            lot.append(page)
            size += page.raw_size
    if lot:
        yield lot


def _only_with(pages: Sequence[Header], rows: Ints) -> tuple[list[Header], Ints]:
    """Return the pages that hold some of the rows, and which rows of these they are then."""
    found, own, values = [], [np.empty(0, np.int64)], 0
    for page, first, some in _pages_with(pages, rows):
        found.append(page)
        own.append(rows[some] - (first - values))
        values += page.values
    return found, np.concatenate(own)


def _pages_with(pages: Sequence[Header], rows: Ints) -> Iterator[tuple[Header, int, slice]]:
    """Yield the pages that hold some of the rows, ascending from 0; their first row; and which."""
    first = 0
    for page in pages:
        begin, end = np.searchsorted(rows, (first, first + page.values)).tolist()
        if begin < end:
            yield page, first, slice(begin, end)
        first += page.values


def _integers(data: Bytes, values: int) -> Ints:
    if data.size != 8 * values:
        raise Unusual
    return np.frombuffer(data, "<i8")


def _read(descriptor: int, chunk: Chunk, buffer: Buffer) -> memoryview:
    try:
        raw = buffer.of(chunk.size)
    except MemoryError as broken:
        raise Unusual from broken
    done = 0
    while done < chunk.size:
        got = os.preadv(descriptor, [raw[done:]], chunk.start + done)
        if got == 0:
            raise Unusual
        done += got
    return raw


def _all_present(levels: bytes, values: int) -> bool:
    """Tell whether levels of definition are one run that says that each value is there."""
    try:
        run, at = varint(memoryview(levels), 0)
    except (IndexError, ValueError):
        return values == 0 and not levels
    return run == values << 1 and levels[at:] == b"\x01"
