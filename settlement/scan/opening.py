"""Opening a file of the call log: reading its footer, and what Arrow makes of its columns.

It takes one small read, whatever the file's size, and what a footer says once only is not
believed where it would decide about money.
"""

import hashlib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from settlement.columns import COLUMNS
from settlement.scan import footers
from settlement.scan.boundary import believing, changed, encrypted, lies, reading
from settlement.scan.footers import Footer, Stated
from settlement.scan.kinds import is_text, plain_type
from settlement.scan.logfiles import LogFile, RowGroup
from settlement.scan.stamps import Span

_MAGIC_ENCRYPTED = b"PARE"
_ARROW = b"ARROW:schema"
_TAIL = 1 << 16
"""How much of a file's end is read at once: nearly every footer fits."""


@dataclass(frozen=True)
class Found:
    """A file that was found, before its footer is read."""

    name: str
    path: str
    size: int
    modified_ns: int


def opened(filesystem: pafs.FileSystem, found: Found, own: Mapping[str, str]) -> LogFile:
    """Read the footer of a file that was found; ``own`` are the log's names of the columns.

    Raises:
        BadInput: it is damaged, encrypted, or changed since it was found.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """
    with reading(found.name), believing(found.name):
        with filesystem.open_input_file(found.path) as source:
            end = _End.of(source, found)
            footer = footers.read(end.footer[:-8], found.size - len(end.footer), own["timestamp"])
            groups = tuple(_row_groups(found, footer, end))
        sure = frozenset(leaf.name for leaf in footer.leaves if leaf.is_typed_twice)
        schema = _schema_of(footer.without_groups(), tuple(own.values()), sure)
    names = schema.names
    return LogFile(
        found.name,
        found.path,
        found.size,
        found.modified_ns,
        footer.rows,
        hashlib.sha256(end.footer).hexdigest(),
        groups,
        {name: schema.field(names.index(own[name])).type for name in COLUMNS if own[name] in names},
        tuple(name for name in COLUMNS if names.count(own[name]) > 1),
        own,
        footer=footer,
    )


@dataclass(frozen=True)
class _End:
    """The end of an open file: at least its footer, with its length and the closing magic."""

    source: pa.NativeFile
    size: int
    tail: bytes
    footer: bytes

    @classmethod
    def of(cls, source: pa.NativeFile, found: Found) -> "_End":
        """Read it; raises `BadInput` where it is not that of a Parquet file."""
        size = source.size()
        if size != found.size:
            raise changed(found.name)
        tail = source.read_at(min(size, _TAIL), max(size - _TAIL, 0))
        if tail[-4:] == _MAGIC_ENCRYPTED:
            raise encrypted(found.name)
        if size < 12 or tail[-4:] != footers.MAGIC:
            raise lies(found.name, "is truncated, or not Parquet: it does not end as Parquet does")
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if length > size - 4:
            raise lies(found.name, "is truncated: its footer is longer than the file")
        if length > footers.LONGEST:
            raise lies(found.name, f"has a footer of {length} bytes")
        if length > len(tail):
            tail = source.read_at(length, size - length)
        return cls(source, size, tail, tail[-length:])

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the file; they are few, and often read already."""
        if not 0 <= start <= start + size <= self.size or size > _TAIL:
            return b""
        at = start - (self.size - len(self.tail))
        found = self.tail[at : at + size] if at >= 0 else self.source.read_at(size, start)
        return bytes(found)


def _row_groups(found: Found, footer: Footer, end: _End) -> Iterator[RowGroup]:
    first_row = 0
    for number, group in enumerate(footer.groups):
        size = found.size * group.rows // max(footer.rows, 1)
        yield RowGroup(number, first_row, group.rows, size, _span(group.stamps, end))
        first_row += group.rows


def _span(stamps: Stated, end: _End) -> Span:
    """Return what is believed of timestamps: bounds that are said twice."""
    if stamps.index and not stamps.is_sure:
        index = end.read(*stamps.index)
        stamps = footers.with_index(stamps, index) if index else stamps
    if not stamps.bounds_agree:
        return Span(nulls=stamps.nulls, is_sure=stamps.nulls_agree)
    return Span(stamps.low, stamps.high, stamps.nulls, stamps.nulls_agree)


@lru_cache(maxsize=256)
def _schema_of(raw: bytes, own: tuple[str, ...], sure: frozenset[str]) -> pa.Schema:
    """Return the types that Arrow reads the columns of a file as; many files have the same.

    Writers that know Arrow say them again in Arrow's own form; both must mean the same.

    Args:
        raw: the footer without its row groups.
        own: the names of the log's columns.
        sure: the columns whose types are said twice already.
    """
    empty = pq.ParquetFile(pa.BufferReader(raw), coerce_int96_timestamp_unit="us")
    found, again = empty.schema_arrow, (empty.metadata.metadata or {}).get(_ARROW)
    if again is None:
        return found
    said = pa.ipc.read_schema(pa.BufferReader(b64decode(again)))
    leaves = map(empty.schema.column, range(len(empty.schema)))
    physical = {column.path: column.physical_type for column in leaves}
    for name in own:
        if name not in physical or said.names.count(name) != 1 or found.names.count(name) != 1:
            continue
        one, other = found.field(name), said.field(name)
        if physical[name] == "INT96":  # has no type but its width
            continue
        if one.nullable != other.nullable or not _agree(one.type, other.type, name in sure):
            raise footers.Broken(f"its footer says two things about column {name!r}")
    return found


def _agree(kind: pa.DataType, said: pa.DataType, is_sure: bool) -> bool:
    """Tell whether a column's type means what Arrow's own form of the schema says.

    Writers make units coarser, and seconds, which Parquet lacks, finer: then the unit is
    another than Arrow's form says, and must be said twice besides.
    """
    one, other = plain_type(kind), plain_type(said)
    if is_text(one) or is_text(other):
        return is_text(one) and is_text(other)
    if not pa.types.is_timestamp(one) or not pa.types.is_timestamp(other):
        return True
    return (is_sure or one.unit == other.unit) and (one.tz is None) == (other.tz is None)
