"""Rows of the call log, their columns read one by one, by the quick way or the general one.

The quick way (`pages`) looks at pages of a local file in place; it takes row groups of ordinary
size whole. Where it finds a column unusual, that column of that row group is read by Arrow
instead. Very small and very large row groups, and those of remote files, are read by Arrow from
the start, in batches. Either way the same strings come out, so whoever asks need not know which
it was; and it is Arrow alone that refuses.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa

from settlement.errors import BadInput
from settlement.scan import texts
from settlement.scan.arrays import integers, strings, to_numpy
from settlement.scan.boundary import reading
from settlement.scan.decoding import columns, read_stamps
from settlement.scan.footers import Broken, Chunk
from settlement.scan.hashing import Hash, hash_rows, hash_texts
from settlement.scan.headers import Unusual
from settlement.scan.kinds import is_binary, is_text, plain_type
from settlement.scan.logfiles import CallLog, LogFile, RowGroup
from settlement.scan.names import Names, Overlong
from settlement.scan.pages import LARGE, Pages, Part, Piece, Room
from settlement.scan.stamps import Clock, Stamps, since
from settlement.scan.texts import Bools, Bytes, Codes, Ints, Lanes, Texts, lanes

QUICK_ROWS = range(1 << 13, (1 << 22) + 1)
"""Row groups of so many rows are read the quick way: it costs a little to begin, and memory."""
_LONG = 256
"""Nor are those read so where a column has more bytes a row: their pages would be unusual."""
_MOST = 512 << 20
"""Bytes that strings of a dictionary may come to where they must be told one by one."""
_FEW = 1 << 10
"""Integers within so narrow a range are coded without looking for the distinct ones."""
_INT32 = 1 << 31
_T = TypeVar("_T")


# ---------------------------------------------------------------- columns of few texts


@dataclass(frozen=True)
class Coded:
    """A column of text as codes: ``values[codes[row]]``; a null has code -1."""

    codes: Codes
    values: pa.Array

    @property
    def texts(self) -> list[str]:
        """The distinct texts; some may occur in no row."""
        return self.values.to_pylist()  # type: ignore[no-any-return]

    def mapped(self, numbers: Sequence[int], null: int) -> Codes:
        """Return for each row the number that its text is mapped to."""
        return np.array([*numbers, null], np.int32).take(self.codes, mode="wrap")

    def cells(self, rows: Ints) -> pa.Array:
        """Return some rows as text."""
        codes = self.codes[rows]
        return self.values.take(integers(codes, codes >= 0)).cast(pa.large_string())

    @classmethod
    def on_pages(cls, pages: Pages) -> "Coded":
        """Code a column of text as its pages do; raises `Unusual` or `UnicodeDecodeError`."""
        codes, words = pages.coded()
        return cls(codes, strings([word.decode() for word in words]))

    @classmethod
    def of(cls, column: pa.Array) -> "Coded":
        """Code a column of text or of integers (as their decimal text).

        Raises `UnicodeDecodeError` or Arrow's errors where the text is not UTF-8.
        """
        if pa.types.is_null(column.type):
            return cls(np.full(len(column), -1, np.int32), strings([]))
        if pa.types.is_integer(column.type) and not column.null_count:
            narrow = cls._of_narrow_integers(column)
            if narrow is not None:
                return narrow
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        values = column.dictionary
        if not is_text(values.type):
            values = values.cast(pa.string())
        _check_utf8(values)
        return cls(to_numpy(column.indices, -1).astype(np.int32, copy=False), values)

    @classmethod
    def _of_narrow_integers(cls, column: pa.Array) -> "Coded | None":
        if not len(column):
            return None
        found = to_numpy(column)
        low, high = int(found.min()), int(found.max())
        if high - low >= _FEW or low < -_INT32 or high >= _INT32:
            return None
        values = strings([str(number) for number in range(low, high + 1)])
        return cls(found.astype(np.int32, copy=False) - np.int32(low), values)


def _check_utf8(texts: pa.Array) -> None:
    """Raise Arrow's error unless texts are UTF-8; plain ASCII is seen at a glance."""
    buffers = texts.buffers()
    if len(buffers) == 3 and (
        pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)
    ):
        data = np.frombuffer(buffers[2] if buffers[2] is not None else b"", np.uint8)
        if not len(data) or data.max() < 0x80:
            return
    texts.validate(full=True)


# ---------------------------------------------------------------- rows


class _Own(threading.local):
    """What each thread has of its own: room for chunks and pages."""

    def __init__(self) -> None:
        self.room = Room()


_OWN = _Own()


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a row group.

    Attributes:
        first: where in the file the first one lies.
        count: how many they are.
    """

    log: CallLog
    file: LogFile
    group: RowGroup
    first: int
    count: int
    _arrow: dict[str, pa.Array] = field(default_factory=dict, repr=False)
    _chunks: Mapping[str, Chunk] | None = None

    def arrow(self, name: str) -> pa.Array | None:
        """Return a column as Arrow reads it; None where the file lacks it."""
        if name not in self._arrow and name in self.file.types:
            parts = [cells[name] for _, cells in columns(self.log, self.file, self.group, [name])]
            column = parts[0] if len(parts) == 1 else _joined(parts)
            self._arrow[name] = column.slice(self.first - self.group.first_row, self.count)
        return self._arrow.get(name)

    def coded(self, name: str) -> Coded | None:
        """Return a column as codes of a few texts; None where the file lacks it."""
        if name not in self.file.types:
            return None
        if self._chunks is not None and name not in self._arrow and is_text(self._plain_type(name)):
            try:
                return self._on_pages(name, Coded.on_pages)
            except Unusual:
                pass
        with reading(self._where(name)):
            return Coded.of(self.arrow(name))

    def accounts(self, names: Names) -> Codes:
        """Return the number of each row's account."""
        try:
            return self._strings("account_id", lambda pieces: names.numbers(pieces, self.count))
        except Overlong as error:
            raise Overlong(error.what, where=self._where("account_id"), cure=error.cure) from error

    def hashes(self, hashed: Hash = hash_rows) -> tuple[Lanes, Bools | None]:
        """Return the hash of each row's request id, and which ids are null or empty, if any."""
        return self._strings("request_id", lambda pieces: _hashes(pieces, self.count, hashed))

    def ids(self, rows: Ints) -> list[tuple[Ints, Lanes]]:
        """Return the request ids of some rows, ascending from 0, as lanes.

        Each pair is of ids of one number of lanes: which of ``rows`` they are of, and they.
        """
        return self._strings(
            "request_id", lambda pieces: _picked(pieces, rows, self._where("request_id"))
        )

    def cells(self, name: str, rows: Ints) -> pa.Array:
        """Return some rows of a column as text, ascending from 0; bytes as lower-case hex.

        Only the pages that hold some of them are read, unless Arrow has read the column.
        """
        if name not in self.file.types:
            return pa.nulls(len(rows), pa.large_string())
        plain = self._plain_type(name)
        where = self._where(name)
        taken = self._quickly(
            name, lambda pieces: _joined_lanes(_picked(pieces, rows, where), len(rows))
        )
        with reading(where):
            if taken is None:
                column = self.arrow(name)
                assert column is not None
                taken = column.take(integers(rows))
            if not is_binary(plain):
                taken = (
                    taken.cast(pa.large_string()) if pa.types.is_large_binary(taken.type) else taken
                )
                return Coded.of(taken).cells(np.arange(len(rows)))
            if pa.types.is_dictionary(taken.type):
                taken = taken.dictionary_decode()
            return strings([None if cell is None else cell.hex() for cell in taken.to_pylist()])

    def stamps(self, clock: Clock) -> Stamps:
        """Read the timestamps."""
        return read_stamps(clock, self.file, self.arrow("timestamp"))

    def instants(self, clock: Clock, rows: Ints) -> Ints:
        """Return the nanoseconds since the month began of some rows in it, ascending from 0."""
        kind, start = self.file.types["timestamp"], clock.period.start
        is_exact = pa.types.is_timestamp(kind) and kind.tz is not None
        if self._chunks is not None and is_exact and "timestamp" not in self._arrow:
            try:
                values = self._on_pages("timestamp", lambda pages: pages.integers(rows))
                return since(values, kind.unit, start)
            except Unusual:
                pass
        return self.stamps(clock).since(start, rows)

    def _where(self, name: str) -> str:
        return f"{self.file.name}, {self.file.column(name)}"

    def _plain_type(self, name: str) -> pa.DataType:
        return plain_type(self.file.types[name])

    def _strings(self, name: str, use: Callable[[Iterable[Piece]], _T]) -> _T:
        """Hand a column's strings over, page by page; from the beginning where that fails."""
        found = self._quickly(name, use)
        if found is not None:
            return found
        with reading(self._where(name)):
            return use(map(_arrow_piece, self._parts(name)))

    def _parts(self, name: str) -> Iterator[pa.Array]:
        """Yield a column as Arrow reads it, in parts of which each fits in memory."""
        if name in self._arrow or self._chunks is None:
            yield self.arrow(name)
            return
        for _, cells in columns(self.log, self.file, self.group, [name]):
            if len(cells[name]) == self.count:
                self._arrow[name] = cells[name]
            yield cells[name]

    def _quickly(self, name: str, use: Callable[[Iterable[Piece]], _T]) -> _T | None:
        """Hand a column's strings over page by page; None where that fails."""
        plain = self._plain_type(name)
        if self._chunks is None or name in self._arrow or not (is_text(plain) or is_binary(plain)):
            return None
        try:
            return self._on_pages(name, lambda pages: use(pages.texts(is_text=is_text(plain))))
        except Unusual:
            return None

    def _on_pages(self, name: str, use: Callable[[Pages], _T]) -> _T:
        """Hand a column's pages over; raises `Unusual` for whatever is wrong with them."""
        assert self._chunks is not None
        chunk = self._chunks.get(name)
        if chunk is None or chunk.values != self.count:
            raise Unusual
        try:
            descriptor = os.open(self.file.path, os.O_RDONLY)
            try:
                return use(Pages(descriptor, chunk, _OWN.room))
            finally:
                os.close(descriptor)
        except (OSError, UnicodeDecodeError) as error:
            raise Unusual from error


@dataclass(frozen=True)
class Unread:
    """A row group, or some small ones in a row, about to be read; it is kept no longer than that.

    Its methods raise (and so do those of what they yield), unless they say otherwise:
        BadInput: the file is damaged, or text is not UTF-8.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """

    log: CallLog
    file: LogFile
    group: RowGroup

    def rows(self, names: Sequence[str]) -> Iterator[Rows]:
        """Yield its rows, in one lot or several; ``names`` are columns to be read."""
        group, chunks = self.group, self._chunks
        most = min(LARGE, group.rows * _LONG)
        if chunks and all(chunks[name].raw_size <= most for name in names if name in chunks):
            yield Rows(self.log, self.file, group, group.first_row, group.rows, {}, chunks)
            return
        for first, cells in columns(self.log, self.file, group, names):
            count = len(next(iter(cells.values())))
            yield Rows(self.log, self.file, group, first, count, dict(cells))

    def fetch(self, names: Iterable[str]) -> None:
        """Ask the system to have columns in memory soon, where that is a help.

        It changes nothing else, nor raises: what fails here fails again when they are read.
        """
        wanted = [self._chunks[name] for name in names if name in self._chunks]
        if not wanted or not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError, OverflowError):
            descriptor = os.open(self.file.path, os.O_RDONLY)
            try:
                for chunk in wanted:
                    size = min(chunk.size, LARGE)
                    os.posix_fadvise(descriptor, chunk.start, size, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)

    @cached_property
    def _chunks(self) -> dict[str, Chunk]:
        """The chunks of its columns, where they may be read the quick way.

        There are none if the footer is damaged after all.
        """
        file, group = self.file, self.group
        if not self.log.is_local or group.count > 1 or group.rows not in QUICK_ROWS:
            return {}
        own = {file.names[name]: name for name in file.types}
        try:
            found = file.footer.chunks(group.number, own)
        except Broken:
            return {}
        return {own[name]: chunk for name, chunk in found.items()}


def _joined(parts: list[pa.Array]) -> pa.Array:
    joined = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined


def _arrow_piece(column: pa.Array) -> Piece:
    """Return a whole column of strings as one piece."""
    if pa.types.is_integer(column.type):
        column = column.dictionary_encode()
    values, codes = column, None
    if pa.types.is_dictionary(column.type):
        values, codes = column.dictionary, to_numpy(column.indices.cast(pa.int32()), -1)
    if pa.types.is_integer(values.type):
        values = values.cast(pa.large_string())
    if is_text(values.type):
        _check_utf8(values)

    def read_rows(wanted: Ints | None) -> Part:
        if wanted is None:
            return Part(texts.of_arrow(values), codes)
        if codes is None:
            return Part(texts.of_arrow(values.take(integers(wanted))), None)
        return Part(texts.of_arrow(values), codes[wanted])

    return Piece(len(column), read_rows)


def _hashes(pieces: Iterable[Piece], rows: int, hashed: Hash) -> tuple[Lanes, Bools | None]:
    hashes: Lanes = np.empty(rows, np.uint64)
    missing = np.zeros(rows, bool)
    at, words, table, empty = 0, None, hashes, missing
    for count, read_piece in pieces:
        here = slice(at, at + count)
        some, codes = read_piece(None)
        if codes is None:
            hashes[here] = hash_texts(some, hashed)
            lacking = some.empty()
            if lacking is not None:
                missing[here] = lacking
        else:
            if some is not words:
                words = some
                table = np.append(hash_texts(some, hashed), np.uint64(0))
                empty = np.append(_all_marks(some), True)
            np.take(table, codes, out=hashes[here], mode="wrap")  # -1 is the last: a null
            np.take(empty, codes, out=missing[here], mode="wrap")
        at += count
    return hashes, missing if missing.any() else None


def _all_marks(some: Texts) -> Bools:
    marks = some.empty()
    return np.zeros(some.total, bool) if marks is None else marks


def _picked(pieces: Iterable[Piece], rows: Ints, where: str) -> list[tuple[Ints, Lanes]]:
    """Return some rows' strings by their number of lanes; pieces without any are not read.

    Raises `BadInput` where words of a dictionary are too long to be repeated.
    """
    found: dict[int, list[tuple[Ints, Lanes]]] = {}
    at = 0
    for count, read_piece in pieces:
        begin, end = np.searchsorted(rows, (at, at + count)).tolist()
        if begin < end:
            some, codes = read_piece(rows[begin:end] - at)
            if codes is not None:
                _check_room(some, len(rows), where)
            for which, matrix in some.lots if codes is None else _coded(some, codes):
                places = which if isinstance(which, np.ndarray) else np.arange(end - begin)
                ids = lanes(matrix)
                found.setdefault(ids.shape[1], []).append((places + begin, ids))
        at += count
    return [
        (np.concatenate([w for w, _ in parts]), np.concatenate([i for _, i in parts]))
        for parts in found.values()
    ]


def _check_room(words: Texts, rows: int, where: str) -> None:
    longest = words.longest
    if rows * longest > _MOST:
        raise BadInput(
            f"has values of up to {longest} bytes that {rows} rows have again or in vain, "
            "too much for memory",
            where=where,
            cure="have it delivered with shorter ones, or in smaller row groups",
        )


def _joined_lanes(picked: list[tuple[Ints, Lanes]], count: int) -> pa.Array:
    """Return strings that are lanes as one array of large binary, in their order."""
    places = np.empty(count, np.int64)
    places[np.concatenate([which for which, _ in picked])] = np.arange(count)
    arrays = [texts.to_arrow(ids) for _, ids in picked]
    return pa.concat_arrays(arrays).take(integers(places))


def _coded(words: Texts, codes: Codes) -> Iterator[tuple[Ints, Bytes]]:
    """Yield which of some codes stand for words of a lot, and these words."""
    for own, matrix in words.lots:
        if isinstance(own, slice):
            yield np.arange(len(codes)), matrix[codes]
            continue
        places = np.minimum(np.searchsorted(own, codes), len(own) - 1)
        which = np.flatnonzero(own[places] == codes)
        yield which, matrix[places[which]]
