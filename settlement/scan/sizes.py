"""How many bytes the pages of a column come to, before anybody opens one.

A few kilobytes can open into gigabytes, and Arrow asks for as many bytes as a page's header
claims. So the headers are read here first, and pages too large for memory are refused in words.
They also tell how many rows may be decoded at once, however unevenly bytes are spread over rows,
and whether to keep a dictionary: with it, long words are not repeated, but Arrow adds all plain
values to it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from settlement.scan.footers import BYTE_ARRAY, Broken, Chunk
from settlement.scan.headers import DATA, DATA_V2, DICTIONARY, PARTS, PLAIN, Read, read_header
from settlement.scan.pages import CODECS
from settlement.scan.texts import FRAME, NotFramed, of_plain
from settlement.scan.thrift import Data

LARGEST = 192 << 20
"""Bytes that the largest pages of all columns of a row group may have together, opened."""
LARGEST_DICTIONARY = 64 << 20
"""Bytes that a dictionary may have: its words are held several times over."""
AT_ONCE = 64 << 20
"""Bytes of rows that are decoded at once, unless a single page has more."""
_MOST = {0: 1, 1: 24, 2: 1032, 6: 1 << 15, 7: 255}
"""So many bytes at most come of one, by codec: none, snappy, gzip, zstd, LZ4; of others any."""
_ANY = 1 << 30
_FEW = 16 << 20
"""Chunks that cannot come to more bytes are not looked into."""
_CODE = 8
"""Bytes of a row whose value is kept in a dictionary."""
_MANY = 1 << 20
"""A dictionary of more words, not all short, is not looked at word by word."""
_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class Values(NamedTuple):
    """The values of a page: how many, the page's bytes, and whether they are there themselves.

    Otherwise they are codes of a dictionary's words.
    """

    number: int
    size: int
    is_plain: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the pages of a chunk come to.

    Attributes:
        largest: bytes of the largest one, opened.
        total: bytes of all of them.
        dictionary: bytes of its dictionary; of those of several chunks, which become one.
        word: those of the dictionary's longest word, or more.
        values: those of each page.
    """

    largest: int
    total: int
    dictionary: int
    word: int
    values: list[Values]

    @classmethod
    def joined(cls, every: Sequence["Sizes"]) -> "Sizes":
        """Return what the chunks of one column of several row groups come to."""
        if len(every) == 1:
            return every[0]
        return cls(
            max(sizes.largest for sizes in every),
            sum(sizes.total for sizes in every),
            sum(sizes.dictionary for sizes in every),
            max(sizes.word for sizes in every),
            [page for sizes in every for page in sizes.values],
        )

    def is_coded(self, *, is_few: bool) -> bool:
        """Tell whether to keep the dictionary; ``is_few`` says that few values are expected."""
        if sum(page.size for page in self.values if page.is_plain) > AT_ONCE:
            return False
        return is_few or self.repeated > AT_ONCE

    @property
    def repeated(self) -> int:
        """The bytes of all words of the dictionary, each as often as it is there."""
        return self.word * sum(page.number for page in self.values if not page.is_plain)

    def decoded(self, *, is_coded: bool) -> list[tuple[int, int]]:
        """Return for each page how many values there are, and their bytes when decoded."""
        word = _CODE if is_coded else self.word
        return [(n, size if is_plain else n * word) for n, size, is_plain in self.values]


def stated(chunk: Chunk) -> Sizes:
    """Return what the footer says of a chunk."""
    return Sizes(0, chunk.raw_size, 0, 0, [Values(chunk.values, chunk.raw_size, True)])


def looked_up(read: Read, chunk: Chunk, *, is_few: bool, is_alone: bool) -> Sizes:
    """Look at the headers of a chunk's pages, unless it is alone and cannot be large.

    Raises:
        Broken: a page is damaged.
    """
    most = chunk.size * _MOST.get(chunk.codec, _ANY)
    if is_alone and most * (1 if is_few else chunk.values) <= _FEW:
        return Sizes(most, most, most, most, [Values(chunk.values, most, False)])
    pages = list(_pages(read, chunk))
    values = [
        Values(page.values, page.raw_size, page.encoding == PLAIN)
        for page in pages
        if page.kind != DICTIONARY
    ]
    word = max((page.raw_size for page in pages if page.kind == DICTIONARY), default=0)
    sizes = [page.raw_size for page in pages]
    found = Sizes(max(sizes, default=0), sum(sizes), word, word, values)
    if found.repeated <= AT_ONCE or (is_few and found.is_coded(is_few=True)):
        return found
    words = [_longest_word(read, chunk, page) for page in pages if page.kind == DICTIONARY]
    return replace(found, word=max(words, default=0))


def rows_at_once(columns: Iterable[list[tuple[int, int]]], page: int, at_most: int) -> int:
    """Return how many rows to decode at once, so that they fit, however bytes are spread.

    Args:
        columns: for each, the values of its pages and their bytes (`Sizes.decoded`).
        page: bytes of the largest page: rows may have as many at once.
        at_most: so many, whatever their bytes.
    """
    fits = max(AT_ONCE, page)
    known = [np.cumsum([(0, 0), *column], axis=0).T for column in columns if column]
    if sum(int(sizes[-1]) for _, sizes in known) <= fits:
        return at_most
    count, total = at_most, max(int(counts[-1]) for counts, _ in known)
    while count > 1:
        ends = np.arange(0, total + count, count)
        before = sum(np.interp(ends, counts, sizes) for counts, sizes in known)
        if np.diff(before).max() <= fits:
            break
        count //= 2
    return count


# ---------------------------------------------------------------- pages


class _Page(NamedTuple):
    kind: int
    values: int
    encoding: int
    start: int
    size: int
    raw_size: int


def _pages(read: Read, chunk: Chunk) -> Iterator[_Page]:
    """Yield the pages of a chunk until all its values are there, as Arrow does."""
    at, end, left = chunk.start, chunk.start + chunk.size, chunk.values
    while left > 0 and at < end:
        try:
            page = _page(*read_header(read, at, end))
        except _DAMAGED as damage:
            raise Broken("has a damaged page") from damage
        if min(page.values, page.size, page.raw_size) < 0 or page.size > end - page.start:
            raise Broken("has a damaged page")
        yield page
        left -= page.values if page.kind in {DATA, DATA_V2} else 0
        at = page.start + page.size


def _page(fields: dict[int, Any], start: int) -> _Page:
    kind = fields[1]
    if kind not in PARTS:  # of no values
        return _Page(kind, 0, PLAIN, start, fields[3], fields[2])
    part, encoding = PARTS[kind]
    about = fields[part]
    return _Page(kind, about[1], about[encoding], start, fields[3], fields[2])


def _longest_word(read: Read, chunk: Chunk, page: _Page) -> int:
    """Return the length of a dictionary's longest word, or more where it is not to be told."""
    if page.raw_size > LARGEST_DICTIONARY or page.values > page.raw_size:
        return page.raw_size
    if chunk.physical != BYTE_ARRAY:
        return -(-page.raw_size // max(page.values, 1))
    data = read(page.start, page.size)
    try:
        if name := CODECS.get(chunk.codec, ""):
            data = pa.Codec(name).decompress(data, page.raw_size).to_pybytes()
        return of_plain(np.frombuffer(data, np.uint8), page.values, None).longest
    except NotFramed:
        return _longest_by_steps(data, page.values) if page.values <= _MANY else page.raw_size
    except (OSError, ValueError, MemoryError):
        return page.raw_size  # damaged, which Arrow will say


def _longest_by_steps(data: Data, count: int) -> int:
    at = longest = 0
    for _ in range(count):
        size = int.from_bytes(data[at : at + FRAME], "little")
        longest, at = max(longest, size), at + FRAME + size
    return longest
