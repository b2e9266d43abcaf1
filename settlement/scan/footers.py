"""The footer of a Parquet file, read and checked here before Arrow sees any of it.

A footer says which columns a file has, where their pages lie, and between which bounds their
values are. Arrow believes it. Of a damaged one it may end the whole process without an
exception, or read a column as another and count something else, in silence. To read footers in
a process of their own would help against the first alone. So this module reads them itself:
Thrift's protocol is simple, a footer has a few kilobytes, and in return for the Python in
between Arrow need not read them at all where many files have one schema, which makes a log of
many files quicker to open, not slower.

What is checked is whatever is said twice. The schema's columns are those of every row group, by
path and by type; rows add up; as many values as rows; pages lie in the file, and none in two
columns; of statistics, which decide what need not be read, the old form and the new agree, and
nulls are as many as the histogram of levels counts. One flipped bit then contradicts something.
What a footer says only once and nothing else tells is not believed where it matters (`Stated`).

To Arrow go the schema alone (`Footer.without_groups`) or some row groups (`Footer.of_groups`):
however long a footer is, only what is being read of it is in memory as Arrow's objects.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from settlement.scan.thrift import list_head, struct, varint

MAGIC = b"PAR1"
PHYSICAL = (
    "BOOLEAN",
    "INT32",
    "INT64",
    "INT96",
    "FLOAT",
    "DOUBLE",
    "BYTE_ARRAY",
    "FIXED_LEN_BYTE_ARRAY",
)
INT32, INT64, BYTE_ARRAY, FIXED_LENGTH = 1, 2, 6, 7
LONGEST = 256 << 20
"""Bytes that a footer may have: a million chunks of columns fit."""
MOST_ROWS = (1 << 40) - 1
"""Rows that all files of a log may have: the place of each is told in 40 bits."""
_REQUIRED, _OPTIONAL, _REPEATED = range(3)
_UTF8, _OLD_DECIMAL, _MILLIS = 0, 5, 9
"""Old types: text, decimals, and timestamps of milliseconds; that of microseconds follows."""
_STRING, _DECIMAL, _TIMESTAMP = 1, 5, 8
"""New types."""
_DEEPEST = 100
_CODECS = 8
_MANY = 8
"""Of so many footers beginnings and ends are remembered."""
_SIGNATURE = 28
"""How many bytes a plain footer is longer when it is signed, as it is over encrypted columns."""


class Broken(ValueError):
    """A footer that no sound file has; says what is wrong with the file."""


class Encrypted(Broken):
    """The file, or some column of it, is encrypted."""


_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What comes of taking a damaged structure for a sound one."""


@contextmanager
def _breaking() -> Iterator[None]:
    """Say that a footer is broken where it is taken for what it is not."""
    try:
        yield
    except Broken:
        raise
    except _DAMAGED as damage:
        said = str(damage) if isinstance(damage, ValueError) else type(damage).__name__
        raise Broken(f"has a damaged footer ({said})") from damage


# ---------------------------------------------------------------- what is said


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column that holds values: its path from the root of the schema, and their type.

    ``width`` is the length of values of fixed length; ``is_flat`` says that it lies at the root
    and has one value a row, or a null; ``is_typed_twice`` that both the old and the new form of
    its type are there.
    """

    path: list[bytes]
    physical: int
    width: int | None
    is_flat: bool
    is_repeated: bool
    is_nullable: bool
    is_typed_twice: bool

    @property
    def name(self) -> str:
        """Its path as text, parted by points."""
        return b".".join(self.path).decode()


@dataclass(frozen=True, slots=True)
class Stated:
    """What a footer says of the values of a column of a row group; None where it does not.

    Attributes:
        low, high: the smallest and the largest, of a column of whole numbers.
        nulls: how many rows have none.
        bounds_agree: whether the bounds are said twice.
        nulls_agree: whether the nulls are.
        index: where the column's index lies, which says it all again: its start and size.
    """

    low: int | None = None
    high: int | None = None
    nulls: int | None = None
    bounds_agree: bool = False
    nulls_agree: bool = False
    index: tuple[int, int] | None = None

    @property
    def is_sure(self) -> bool:
        """Whether all that is said is said twice."""
        return self.bounds_agree and self.nulls_agree

    def joined(self, other: "Stated") -> "Stated":
        """Return what is said of both together: of either nothing, of both nothing."""
        nulls = None
        if self.nulls is not None and other.nulls is not None:
            nulls = self.nulls + other.nulls
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return Stated(nulls=nulls)
        return Stated(min(self.low, other.low), max(self.high, other.high), nulls)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A flat column of a row group: where its pages lie, and what is said of them.

    ``size`` are its bytes in the file, ``raw_size`` those that they stand for; ``width`` is the
    length of values of fixed length.
    """

    start: int
    size: int
    raw_size: int
    values: int
    codec: int
    physical: int
    width: int | None
    is_nullable: bool
    stated: Stated


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its rows, where in the footer it stands, what is said of its timestamps."""

    rows: int
    begin: int
    end: int
    stamps: Stated


@dataclass(frozen=True)
class Footer:
    """A checked footer.

    Attributes:
        raw: its bytes, without its length and the closing magic.
        rows: how many the file has.
        groups: its row groups.
        leaves: its columns that hold values, in their order.
    """

    raw: bytes = field(repr=False)
    rows: int
    groups: tuple[Group, ...]
    leaves: tuple[Leaf, ...]
    head: bytes = field(repr=False)
    tail: bytes = field(repr=False)

    @cached_property
    def by_name(self) -> dict[str, int]:
        """The number of each flat column, by its name; those that are there once."""
        names = [leaf.name for leaf in self.leaves]
        times = Counter(names)
        return {
            name: number
            for number, (name, leaf) in enumerate(zip(names, self.leaves, strict=True))
            if leaf.is_flat and times[name] == 1
        }

    def physical(self, name: str) -> str:
        """Return how the values of a flat column are stored."""
        return PHYSICAL[self.leaves[self.by_name[name]].physical]

    def chunks(self, group: int, names: Iterable[str]) -> dict[str, Chunk]:
        """Return flat columns of a row group, those that are there; raises `Broken`."""
        with _breaking():
            fields, _ = struct(self.raw, self.groups[group].begin)
            known = [(name, self.by_name[name]) for name in names if name in self.by_name]
            return {name: _chunk(fields[1][number], self.leaves[number]) for name, number in known}

    def without_groups(self) -> bytes:
        """Return a file without any rows that has the same schema."""
        return self._file((), b"")

    def of_groups(self, first: int, count: int = 1) -> bytes:
        """Return the end of a file with some row groups alone, their pages where they are here."""
        some = self.groups[first : first + count]
        return self._file(some, self.raw[some[0].begin : some[-1].end])

    def _file(self, groups: Sequence[Group], raw: bytes) -> bytes:
        rows, count = sum(group.rows for group in groups), len(groups)
        head = bytes([count << 4 | 12]) if count < 15 else b"\xfc" + _varint_bytes(count)
        footer = self.head + b"\x16" + _varint_bytes(rows << 1) + b"\x19" + head + raw + self.tail
        return MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---------------------------------------------------------------- reading


def read(raw: bytes, body: int, stamp: str = "timestamp") -> Footer:
    """Read a footer and check all that it says twice.

    Args:
        raw: its bytes, without its length and the closing magic.
        body: where in the file it begins; pages lie before.
        stamp: what the column of timestamps is called.

    Raises:
        Encrypted: some of the file is.
        Broken: it is damaged.
    """
    if len(raw) > LONGEST:
        raise Broken(f"has a footer of {len(raw)} bytes")
    with _breaking():
        return _read(raw, body, stamp)


def _read(raw: bytes, body: int, stamp: str) -> Footer:
    head, leaves = _HEADS.of(raw)
    zigzag, at = varint(raw, _field(raw, len(head), 0x16))
    size, kind, at = list_head(raw, _field(raw, at, 0x19))
    if kind != 12 and size:
        raise Broken("has a damaged footer (its row groups are none)")
    groups = tuple(_Reading(raw, body, leaves, stamp).groups(size, at))
    tail = _tail(raw[groups[-1].end if groups else at :])
    rows = sum(group.rows for group in groups)
    if zigzag != rows << 1:
        raise Broken("its footer's row count is not that of its row groups")
    if rows > MOST_ROWS:
        raise Broken(f"its footer says that it has {rows:,} rows")
    return Footer(raw, rows, groups, leaves, head, tail)


class _Heads:
    """The beginnings of footers seen lately, up to the schema's end: many files begin alike."""

    def __init__(self) -> None:
        self._seen: tuple[tuple[bytes, tuple[Leaf, ...]], ...] = ()

    def of(self, raw: bytes) -> tuple[bytes, tuple[Leaf, ...]]:
        """Return the beginning of a footer, and the columns that it tells of."""
        for head, leaves in self._seen:
            if raw.startswith(head):
                return head, leaves
        at = _field(raw, 0, 0x15)
        _, at = varint(raw, at)
        size, kind, at = list_head(raw, _field(raw, at, 0x19))
        elements = []
        for _ in range(size if kind == 12 else 0):
            element, at = struct(raw, at)
            elements.append(element)
        leaves = tuple(_leaves(elements))
        self._seen = ((raw[:at], leaves), *self._seen[: _MANY - 1])
        return raw[:at], leaves


_HEADS = _Heads()


@lru_cache(maxsize=_MANY)
def _tail(raw: bytes) -> bytes:
    """Check what stands behind the row groups."""
    fields, end = struct(raw, 0, number=4)
    if 8 in fields or len(raw) - end == _SIGNATURE:
        raise Encrypted("is encrypted")
    if end != len(raw):
        raise Broken("has a damaged footer (it does not end where it should)")
    return raw


def _field(raw: bytes, at: int, head: int) -> int:
    if raw[at] != head:
        raise Broken("has a damaged footer (a part of it is missing)")
    return at + 1


def _leaves(elements: list[dict[int, Any]]) -> Iterator[Leaf]:
    """Yield the columns that hold values; the elements must be one tree."""
    at = 1
    open_groups: list[tuple[int, list[bytes], bool, bool]] = [
        (elements[0][5], [], False, False)
    ]  # children left, path, repeated, nullable
    while open_groups:
        left, path, repeated, nullable = open_groups.pop()
        if not left:
            continue
        if left < 0 or len(open_groups) > _DEEPEST:
            raise Broken("has a damaged footer (its schema is no tree)")
        open_groups.append((left - 1, path, repeated, nullable))
        element = elements[at]
        at += 1
        repetition, name = element[3], element[4]
        if repetition not in {_REQUIRED, _OPTIONAL, _REPEATED}:
            raise Broken("has a damaged footer (a column is repeated in an unknown way)")
        name.decode()
        _check_type(element)
        own = [*path, name]
        is_repeated = repeated or repetition == _REPEATED
        is_nullable = nullable or repetition != _REQUIRED
        if element.get(5):
            open_groups.append((element[5], own, is_repeated, is_nullable))
            continue
        is_flat = not path and repetition != _REPEATED
        if not 0 <= element[1] < len(PHYSICAL):
            raise Broken("has a damaged footer (a column of an unknown type)")
        is_typed_twice = 6 in element and 10 in element
        width = element[2] if element[1] == FIXED_LENGTH else None
        if not (width is None or (isinstance(width, int) and width >= 0)):
            raise Broken("has a damaged footer (a column of an unknown width)")
        yield Leaf(own, element[1], width, is_flat, is_repeated, is_nullable, is_typed_twice)
    if at != len(elements):
        raise Broken("has a damaged footer (its schema is no tree)")


def _check_type(element: dict[int, Any]) -> None:
    """Refuse text, and timestamps of a unit, that the old type does not call so too.

    One bit can make of an old type a scale, which only decimals have, or the new type.
    """
    old, new = element.get(6), element.get(10, {})
    is_decimal = old == _OLD_DECIMAL or _DECIMAL in new
    if (7 in element or 8 in element) and not is_decimal:
        raise Broken(f"its footer gives column {element[4].decode()!r} digits, and no decimals")
    if old is None or 10 not in element:
        return
    agree = (old == _UTF8) == (_STRING in new)
    if _TIMESTAMP in new:
        agree = old - _MILLIS + 1 in new[_TIMESTAMP][2]
    if not agree or not all(isinstance(about, dict) for about in new.values()):
        raise Broken(f"its footer says two things about column {element[4].decode()!r}")


class _Reading:
    """Row groups under way, and how far the pages of those before reach."""

    def __init__(self, raw: bytes, body: int, leaves: tuple[Leaf, ...], stamp: str) -> None:
        self._raw, self._body, self._leaves = raw, body, leaves
        self._starts: list[int] = []
        self._ends: list[int] = []
        flat = [n for n, leaf in enumerate(leaves) if leaf.path == [stamp.encode()]]
        is_stamp = len(flat) == 1 and leaves[flat[0]].is_flat
        self._stamp = flat[0] if is_stamp and leaves[flat[0]].physical == INT64 else None

    def groups(self, count: int, at: int) -> Iterator[Group]:
        for number in range(count):
            fields, end = struct(self._raw, at)
            rows, chunks = fields[3], fields[1]
            if rows < 0:
                raise Broken(f"row group {number} has a negative number of rows")
            if len(chunks) != len(self._leaves):
                raise Broken(f"row group {number} has not the columns of the schema")
            for chunk, leaf in zip(chunks, self._leaves, strict=True):
                self._check_chunk(chunk, leaf, rows)
            stamps = Stated()
            if self._stamp is not None:
                stamps = _stated(chunks[self._stamp], self._leaves[self._stamp])
            yield Group(rows, at, end, stamps)
            at = end
        self._check_places()

    def _check_chunk(self, chunk: dict[int, Any], leaf: Leaf, rows: int) -> None:
        if 8 in chunk or 9 in chunk:
            raise Encrypted("is encrypted")
        about = chunk[3]
        if 1 in chunk or about[1] != leaf.physical or about[3] != leaf.path:
            raise Broken(f"its footer says two things about column {leaf.name!r}")
        values, size = about[5], about[7]
        if values < 0 or (values != rows and not leaf.is_repeated):
            raise Broken(f"has {values} values in {rows} rows of column {leaf.name!r}")
        if not 0 <= about[4] < _CODECS or about[6] < 0 or not isinstance(about[2], list):
            raise Broken(f"has a damaged footer (column {leaf.name!r} is stored in no known way)")
        start = _first_page(about)
        if values and not (size > 0 and len(MAGIC) <= start <= self._body - size):
            raise Broken(f"its footer has column {leaf.name!r} lie where there are no pages")
        if values:
            self._starts.append(start)
            self._ends.append(start + size)

    def _check_places(self) -> None:
        starts, ends = self._starts, self._ends
        if any(map(int.__gt__, ends[:-1], starts[1:])):
            order = sorted(range(len(starts)), key=starts.__getitem__)
            starts, ends = [starts[n] for n in order], [ends[n] for n in order]
            if any(map(int.__gt__, ends[:-1], starts[1:])):
                raise Broken("its footer has two columns lie in one place")


def _first_page(about: dict[int, Any]) -> int:
    start: int = about[9]
    before: int = about.get(11, 0)
    return before if 0 < before < start else start


# ---------------------------------------------------------------- what is said of values


def _chunk(chunk: dict[int, Any], leaf: Leaf) -> Chunk:
    about = chunk[3]
    return Chunk(
        start=_first_page(about),
        size=about[7],
        raw_size=about[6],
        values=about[5],
        codec=about[4],
        physical=about[1],
        width=leaf.width,
        is_nullable=leaf.is_nullable,
        stated=_stated(chunk, leaf),
    )


def _stated(chunk: dict[int, Any], leaf: Leaf) -> Stated:
    """Return what is said of a flat column; what is said twice must agree."""
    about = chunk[3]
    said = about.get(12, {})
    nulls, agree = _nulls(about, said.get(3), leaf)
    index = (chunk[6], chunk[7]) if 6 in chunk and 7 in chunk else None
    if leaf.physical not in {INT32, INT64}:
        return Stated(None, None, nulls, True, agree, index)
    width = 4 if leaf.physical == INT32 else 8
    pairs = [_bounds(said, low, high, width, leaf) for low, high in ((6, 5), (2, 1))]
    known = [pair for pair in pairs if pair is not None]
    if len(known) == 2 and known[0] != known[1]:
        raise Broken(f"its footer says two things about the bounds of column {leaf.name!r}")
    if not known or known[0][0] > known[0][1]:
        return Stated(None, None, nulls, False, agree, index)
    return Stated(*known[0], nulls, len(known) == 2, agree, index)


def _bounds(
    said: dict[int, Any], low: int, high: int, width: int, leaf: Leaf
) -> tuple[int, int] | None:
    if low not in said or high not in said:
        return None
    if len(said[low]) != width or len(said[high]) != width:
        raise Broken(f"its footer has bounds of column {leaf.name!r} that are no numbers")
    return (
        int.from_bytes(said[low], "little", signed=True),
        int.from_bytes(said[high], "little", signed=True),
    )


def _nulls(about: dict[int, Any], nulls: int | None, leaf: Leaf) -> tuple[int | None, bool]:
    """Return how many nulls there are, and whether that is said twice."""
    levels = about.get(16, {}).get(3) or None
    values = about[5]
    if levels is not None:
        if len(levels) != 1 + leaf.is_nullable or sum(levels) != values or min(levels) < 0:
            raise Broken(f"its footer says two things about the nulls of column {leaf.name!r}")
        counted = levels[0] if leaf.is_nullable else 0
        nulls_again = counted if nulls is None else nulls
        if nulls_again != counted:
            raise Broken(f"its footer says two things about the nulls of column {leaf.name!r}")
        return counted, nulls is not None
    if not leaf.is_nullable:
        if nulls:
            raise Broken(f"its footer has nulls in column {leaf.name!r}, which can have none")
        return 0, True
    if nulls is not None and not 0 <= nulls <= values:
        raise Broken(f"its footer has {nulls} nulls in {values} rows of column {leaf.name!r}")
    return nulls, False


# ---------------------------------------------------------------- the index of a column


def with_index(stated: Stated, index: bytes) -> Stated:
    """Return what is said of a column of 64-bit numbers where its index says the same.

    An index has bounds and nulls of each page; they are taken together.

    Raises:
        Broken: it is damaged, or says something else.
    """
    try:
        fields, _ = struct(index, 0)
        empty, lows, highs = fields[1], fields[2], fields[3]
        full = [n for n, is_empty in enumerate(empty) if not is_empty]
        low = min((int.from_bytes(lows[n], "little", signed=True) for n in full), default=None)
        high = max((int.from_bytes(highs[n], "little", signed=True) for n in full), default=None)
        nulls = sum(fields[5]) if 5 in fields else None
    except _DAMAGED as damage:
        raise Broken("has a damaged index of the timestamps") from damage
    if stated.low is not None and (low, high) != (stated.low, stated.high):
        raise Broken("its footer says other bounds of the timestamps than its index")
    if None not in {nulls, stated.nulls} and nulls != stated.nulls:
        raise Broken("its footer says other nulls of the timestamps than its index")
    return replace(
        stated,
        bounds_agree=stated.bounds_agree or stated.low is not None,
        nulls_agree=stated.nulls_agree or (nulls is not None and stated.nulls is not None),
    )
