"""The call log as files: which they are, what their footers say, and what is refused.

A call log is a folder, a file, a glob or a URL. Every regular file beneath it that ends in
``.parquet`` is part of it, wherever it lies, because late calls arrive in any folder. To
begin with only footers are read (`footers`): one small read per file says how many rows there
are, of which types, and between which instants each row group lies, so that most of the log
need never be decoded.

Files come from others and may be damaged in any way. All reading therefore happens inside
`reading`, the one boundary that turns whatever a broken file provokes into a refusal that
names the file.
"""

import errno
import hashlib
import os
import re
import stat
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from settlement.columns import COLUMNS, cure_of_missing, mapping
from settlement.errors import BadInput, CannotRead, MissingInput, SettlementError
from settlement.prices import Version
from settlement.scan import footers
from settlement.scan.footers import MOST_ROWS, Footer, Stated
from settlement.scan.stamps import Span
from settlement.words import count_of

_MAGIC_ENCRYPTED = b"PARE"
_ARROW = b"ARROW:schema"
AS_HERE = mapping(())
"""The names of a log that calls its columns as they are called here."""
_TAIL = 1 << 16
"""How much of a file's end is read at once: nearly every footer fits."""
_FOOTER_READERS = {True: 2, False: 16}
"""So many read footers at once: of local files, and of others, for whom one waits."""
_WILD = re.compile(r"[*?\[]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_STORE_SAID = re.compile(
    r"AWS Error|google::cloud|Azure Error|curl ?Code|curl error", re.IGNORECASE
)
"""What Arrow's errors of object storage say; of a damaged file they say nothing of the kind."""


@dataclass(frozen=True)
class RowGroup:
    """A row group, as its footer tells it; or so many small ones in a row, to be read as one.

    ``size`` is its part of the file's bytes; ``span`` tells of its timestamps.
    """

    number: int
    first_row: int
    rows: int
    size: int
    span: Span
    count: int = 1

    def __str__(self) -> str:
        last = self.number + self.count - 1
        return f"{self.number}" if self.count == 1 else f"{self.number} … {last}"

    @property
    def numbers(self) -> range:
        """The numbers in the file."""
        return range(self.number, self.number + self.count)

    def joined(self, other: "RowGroup") -> "RowGroup":
        """Return this one and the next as one."""
        return RowGroup(
            self.number,
            self.first_row,
            self.rows + other.rows,
            self.size + other.size,
            self.span.joined(other.span),
            self.count + other.count,
        )


@dataclass(frozen=True)
class LogFile:
    """A file of the call log: what identifies it, and what its footer says.

    ``name`` is its path under the log's root with ``/``; ``types`` holds the log's columns
    that it has, by what they are called here, and ``names`` what they are called in the file;
    ``footer_sha256`` is taken over the footer, its length and the closing magic.
    """

    name: str
    path: str
    size: int
    modified_ns: int
    rows: int
    footer_sha256: str
    groups: tuple[RowGroup, ...]
    types: Mapping[str, pa.DataType]
    doubled: tuple[str, ...] = ()
    footer: Footer = field(kw_only=True, repr=False, compare=False)
    names: Mapping[str, str] = field(default_factory=lambda: AS_HERE)

    @property
    def others(self) -> list[str]:
        """The columns at its root that the log does not have, in their order."""
        known = {self.names[name] for name in self.types}
        there = dict.fromkeys(leaf.path[0].decode() for leaf in self.footer.leaves)
        return [name for name in there if name not in known]

    def column(self, name: str) -> str:
        """Say for a refusal which column of the file is meant."""
        own = self.names[name]
        return f"column {own!r}" + (f" ({name})" if own != name else "")


@dataclass(frozen=True)
class InputFile:
    """A file with calls of a month, as a settlement records it."""

    file: str
    size: int
    modified_ns: int
    rows: int
    footer_sha256: str

    @classmethod
    def of(cls, file: LogFile) -> "InputFile":
        """Return what is recorded of a file."""
        return cls(file.name, file.size, file.modified_ns, file.rows, file.footer_sha256)


@dataclass(frozen=True)
class CallLog:
    """A call log: its files by name, and how many names were skipped for their first letter."""

    root: str
    files: tuple[LogFile, ...]
    skipped: int
    filesystem: pafs.FileSystem = field(repr=False, compare=False)

    @property
    def rows(self) -> int:
        """How many rows all files have."""
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """How many bytes all row groups have."""
        return sum(group.size for file in self.files for group in file.groups)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's file systems."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)


@dataclass(frozen=True)
class _Found:
    """A file that was found, before its footer is read."""

    name: str
    path: str
    size: int
    modified_ns: int


# ---------------------------------------------------------------- the boundary


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Turn whatever reading a file raises into a refusal that names it.

    Broken files make Arrow raise far more than its own errors: `UnicodeDecodeError`,
    `ValueError`, `OverflowError`, and `MemoryError` for sizes that a bad page claims.

    Raises:
        MissingInput: the file is gone.
        CannotRead: the operating system, or the store it lies in, refused to read it.
        BadInput: it is damaged, or not Parquet.
    """
    try:
        yield
    except SettlementError:
        raise
    except FileNotFoundError as error:
        if Path(file).is_symlink():
            cure = "remove it, or bring back what it leads to"
            raise MissingInput("is a link to nowhere", where=file, cure=cure) from error
        raise MissingInput(
            "is gone", where=file, cure="do not move files of the call log; run again"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise _unanswered(file, error) or _unreadable(file, error) from error
        raise CannotRead(
            f"cannot be read: {os.strerror(error.errno)}",
            where=file,
            cure="check its permissions and the disk",
        ) from error
    except Exception as error:
        raise _unreadable(file, error) from error


def _unanswered(file: str, error: OSError) -> CannotRead | None:
    """Return the refusal of a file whose store did not hand it over; it may later."""
    said = _said(error)
    if not _STORE_SAID.search(said):
        return None
    cure = "check its address, the network and your rights; then run again"
    return CannotRead(f"cannot be read from its store ({_short(said)})", where=file, cure=cure)


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _short(said: str) -> str:
    return said if len(said) <= 200 else said[:199] + "…"


def _unreadable(file: str, error: Exception) -> BadInput:
    said = _said(error)
    if "ncrypt" in said:
        return BadInput("is encrypted", where=file, cure="deliver it as plain Parquet")
    said = _short(said)
    return BadInput(
        f"cannot be read as Parquet ({said})",
        where=file,
        cure="have it delivered again, or move it out of the call log",
    )


# ---------------------------------------------------------------- which files


def find(logs: str, names: Mapping[str, str] = AS_HERE) -> CallLog:
    """Find the files of a call log and read their footers.

    Args:
        logs: a folder, a file, a glob (``**`` spans folders), or a URL such as ``s3://…``.
            Where a path of that very name exists, it is not taken for a glob.
        names: the log's own name of each column (see `columns.mapping`).

    Raises:
        MissingInput: there is no such path, or no ``.parquet`` file in it.
        CannotRead: the operating system refused.
        BadInput: a file is damaged, or a folder ``X=…`` names a column that the file lacks.
    """
    with reading(logs):
        filesystem, path = _filesystem(logs)
    is_local = isinstance(filesystem, pafs.LocalFileSystem)
    if is_local:
        found, skipped, root = _find(path, _exists_locally, _walk_folder)
    else:
        with reading(logs):
            found, skipped, root = _find(
                path,
                lambda p: filesystem.get_file_info(p).type != pafs.FileType.NotFound,
                lambda p: _walk_store(filesystem, p),
                where=logs,
            )
    if not found:
        with reading(logs):
            is_file = filesystem.get_file_info(root).type == pafs.FileType.File
        raise MissingInput(
            "is no .parquet file" if is_file else f"no .parquet file in it{_but(skipped)}",
            where=logs,
            cure="give the folder that holds the call log",
        )
    found.sort(key=lambda file: file.name.encode())
    with ThreadPoolExecutor(_FOOTER_READERS[is_local]) as pool:
        files = tuple(pool.map(lambda file: _read_footer(filesystem, file, names), found))
    for file in files:
        _check_folders(logs, file)
    rows = sum(file.rows for file in files)
    if rows > MOST_ROWS:
        raise BadInput(
            f"has {rows:,} rows, more than can be counted", where=logs, cure="settle parts of it"
        )
    return CallLog(root, files, skipped, filesystem)


def _filesystem(logs: str) -> tuple[pafs.FileSystem, str]:
    if not _URL.match(logs):
        return pafs.LocalFileSystem(), logs
    address, question, options = logs.partition("?")
    wild = _WILD.search(address)
    fixed = address[: address.rindex("/", 0, wild.start()) + 1] if wild else address
    try:
        filesystem, path = pafs.FileSystem.from_uri(fixed + question + options)
    except pa.ArrowInvalid as error:
        cure = "give a path, or an address such as s3://, gs://, abfss:// or hdfs://"
        what = f"no address of a call log ({' '.join(str(error).split())})"
        raise BadInput(what, where=logs, cure=cure) from error
    return filesystem, path.rstrip("/") + "/" + address[len(fixed) :] if wild else path


def _but(skipped: int) -> str:
    """Say how many names were skipped where nothing else was found."""
    names = count_of(skipped, "name")
    return f", but {names} beginning with _ or ., which are skipped" if skipped else ""


_Walk = Callable[[str], tuple[list[_Found], int]]


def _find(
    path: str, exists: Callable[[str], bool], walk: _Walk, where: str = ""
) -> tuple[list[_Found], int, str]:
    """Return the files under a path or glob, the number of names skipped, and the root."""
    if exists(path):
        found, skipped = walk(path)
        return found, skipped, path
    wild = _WILD.search(path)
    root = (path[: path.rfind("/", 0, wild.start())] or "/") if wild else path
    if wild and "/" not in path[: wild.start()]:
        root = "."
    if not wild or not exists(root):
        raise MissingInput(
            "no such path", where=where or path, cure="give the folder that holds the call log"
        )
    found, skipped = walk(root)
    pattern = path if root == "." else path[len(root) :].lstrip("/")
    try:
        matches = _matcher(pattern)
    except re.error as error:
        cure = "write the smaller character of a range first, such as [a-z]"
        raise BadInput(f"is no glob ({error.msg})", where=where or path, cure=cure) from error
    return [file for file in found if matches(file.name)], skipped, root


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test whether a name, or a folder that holds it, matches a glob.

    Raises `re.error` where it has a set of characters such as ``[z-a]``.
    """
    parts = []
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        text = "".join(
            {"*": "[^/]*", "?": "[^/]"}.get(piece, _character_set(piece))
            for piece in re.findall(r"\[[!^]?+\]?+[^\]]*\]|.", part, re.DOTALL)
        )
        parts.append(text + "/")
    whole = re.compile("".join(parts) + "(?:[^/]+/)*", re.DOTALL)
    return lambda name: whole.fullmatch(name + "/") is not None


def _character_set(piece: str) -> str:
    if len(piece) == 1:
        return re.escape(piece)
    inner = piece[1:-1]
    without = inner[0] in "!^"
    plain = "".join(each if each == "-" else re.escape(each) for each in inner[without:])
    return f"(?!/)[^{plain}]" if without else f"[{plain}]"


def _exists_locally(path: str) -> bool:
    with reading(path):
        try:
            Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def _walk_folder(root: str) -> tuple[list[_Found], int]:
    """Return every ``.parquet`` file at or beneath a local path, each device and inode once."""
    with reading(root):
        status = Path(root).stat()
    if not stat.S_ISDIR(status.st_mode):
        name = Path(root).name
        found = _Found(name, root, status.st_size, status.st_mtime_ns)
        regular = stat.S_ISREG(status.st_mode) and name.endswith(".parquet")
        return ([found] if regular else []), 0
    seen: dict[tuple[int, int], _Found] = {}
    skipped, folders = 0, [("", root)]
    while folders:
        prefix, folder = folders.pop()
        with reading(folder):
            entries = list(os.scandir(folder))
        for entry in entries:
            name = prefix + entry.name
            if entry.name[0] in "._":
                skipped += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((name + "/", entry.path))
            elif entry.name.endswith(".parquet"):
                _add_file(seen, name, entry)
    return list(seen.values()), skipped


def _add_file(seen: dict[tuple[int, int], _Found], name: str, entry: "os.DirEntry[str]") -> None:
    with reading(entry.path):
        status = entry.stat()
        name.encode()
    if not stat.S_ISREG(status.st_mode):
        return
    found = _Found(name, entry.path, status.st_size, status.st_mtime_ns)
    same = (status.st_dev, status.st_ino)
    if same not in seen or name.encode() < seen[same].name.encode():
        seen[same] = found


def _walk_store(filesystem: pafs.FileSystem, root: str) -> tuple[list[_Found], int]:
    """Return every ``.parquet`` file at or beneath a path of another file system."""
    with reading(root):
        info = filesystem.get_file_info(root)
        if info.type == pafs.FileType.File:
            listed = [info] if root.endswith(".parquet") else []
            return [_found(one, info.base_name) for one in listed], 0
        listed = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    found, skipped = [], set()
    for one in listed:
        name = one.path[len(root.rstrip("/")) :].lstrip("/")
        parts = name.split("/")
        hidden = next((i for i, part in enumerate(parts, 1) if part[:1] in ("_", ".")), None)
        if hidden:
            skipped.add("/".join(parts[:hidden]))
        elif one.type == pafs.FileType.File and name.endswith(".parquet"):
            found.append(_found(one, name))
    return found, len(skipped)


def _found(info: pafs.FileInfo, name: str) -> _Found:
    return _Found(name, info.path, info.size, info.mtime_ns or 0)


def _check_folders(logs: str, file: LogFile) -> None:
    """Refuse a folder ``X=…`` where X is a column of the log that the file lacks.

    Whoever lays files out so leaves the column to the folder's name, which is never read.
    """
    folders = [*PurePosixPath(logs).parts, *PurePosixPath(file.name).parts[:-1]]
    for folder in folders:
        column, equals, _ = folder.partition("=")
        lacked = [own for name, own in file.names.items() if name not in file.types]
        if equals and column in lacked:
            raise BadInput(
                f"the folder {folder!r} stands for column {column!r}, which the file lacks",
                where=file.name,
                cure=f"write {column!r} into the file: folder names are never read",
            )


# ---------------------------------------------------------------- footers


def _read_footer(filesystem: pafs.FileSystem, found: _Found, own: Mapping[str, str]) -> LogFile:
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


@contextmanager
def believing(name: str) -> Iterator[None]:
    """Refuse a file whose footer is broken."""
    try:
        yield
    except footers.Encrypted as encrypted:
        raise _encrypted(name) from encrypted
    except footers.Broken as broken:
        raise lies(name, str(broken)) from broken


def _encrypted(name: str) -> BadInput:
    return BadInput("is encrypted", where=name, cure="deliver it as plain Parquet")


def lies(name: str, what: str) -> BadInput:
    """Return the refusal of a file that is not what it says."""
    return BadInput(
        what, where=name, cure="have it delivered again, or move it out of the call log"
    )


@dataclass(frozen=True)
class _End:
    """The end of an open file: at least its footer, with its length and the closing magic."""

    source: pa.NativeFile
    size: int
    tail: bytes
    footer: bytes

    @classmethod
    def of(cls, source: pa.NativeFile, found: _Found) -> "_End":
        """Read it; raises `BadInput` where it is not that of a Parquet file."""
        size = source.size()
        if size != found.size:
            raise changed(found.name)
        tail = source.read_at(min(size, _TAIL), max(size - _TAIL, 0))
        if tail[-4:] == _MAGIC_ENCRYPTED:
            raise _encrypted(found.name)
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


def _row_groups(found: _Found, footer: Footer, end: _End) -> Iterator[RowGroup]:
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
    opened = pq.ParquetFile(pa.BufferReader(raw), coerce_int96_timestamp_unit="us")
    found, again = opened.schema_arrow, (opened.metadata.metadata or {}).get(_ARROW)
    if again is None:
        return found
    said = pa.ipc.read_schema(pa.BufferReader(b64decode(again)))
    leaves = map(opened.schema.column, range(len(opened.schema)))
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


# ---------------------------------------------------------------- what is refused


def needed(version: Version) -> tuple[str, ...]:
    """Return the columns that counting by a version reads; all but ``item`` must be there."""
    unread = set()
    if not version.deduplicate:
        unread.add("request_id")
    if version.billable_status is None:
        unread.add("status_code")
    return tuple(name for name in COLUMNS if name not in unread)


def check(files: Iterable[LogFile], columns: Iterable[str], naive_zone: ZoneInfo | None) -> None:
    """Refuse the first file whose columns are not what the log must have (README, Call log).

    Raises:
        BadInput: a column is missing, doubled, or of a type that cannot mean what it must;
            or a timestamp has no zone and none was given.
    """
    wanted = tuple(columns)
    for file in files:
        with reading(file.name):
            _check_file(file, wanted, naive_zone)


def _check_file(file: LogFile, columns: Iterable[str], naive_zone: ZoneInfo | None) -> None:
    for name in columns:
        where = f"{file.name}, {file.column(name)}"
        if name in file.doubled:
            raise BadInput("is there twice", where=where, cure="write it once")
        if name in file.types:
            _check_type(name, file.types[name], where, naive_zone)
        elif name != "item":
            raise BadInput(
                "is missing",
                where=where,
                cure=cure_of_missing(name, file.names[name], file.others),
            )


def _check_type(name: str, kind: pa.DataType, where: str, naive_zone: ZoneInfo | None) -> None:
    plain = plain_type(kind)
    allowed, meant = _ALLOWED[name]
    if not pa.types.is_null(plain) and not any(test(plain) for test in allowed):
        raise BadInput(f"is {kind}, not {meant}", where=where, cure=f"write it as {meant}")
    if pa.types.is_timestamp(plain) and plain.tz is None and naive_zone is None:
        raise BadInput(
            "has timestamps without a zone",
            where=where,
            cure="write them with a zone, or say what they mean with --naive-timestamps ZONE",
        )


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type beneath dictionaries and extensions such as ``arrow.uuid``."""
    while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain type holds text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Whether a plain type holds bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


_Test = Callable[[Any], bool]
_TEXT_OR_INTEGER: tuple[tuple[_Test, ...], str] = (
    (is_text, pa.types.is_integer),
    "text or an integer",
)
_ALLOWED: dict[str, tuple[tuple[_Test, ...], str]] = {
    "request_id": ((is_text, is_binary), "text or binary"),
    "account_id": _TEXT_OR_INTEGER,
    "interface": ((is_text,), "text"),
    "timestamp": ((pa.types.is_timestamp,), "a timestamp"),
    "status_code": _TEXT_OR_INTEGER,
    "item": ((is_text,), "text"),
}


# ---------------------------------------------------------------- changes


def changed(name: str) -> BadInput:
    """Return the refusal of a file that was written to while it was read."""
    return BadInput(
        "changed while being read", where=name, cure="let its writer finish, then run again"
    )


def check_unchanged(log: CallLog) -> None:
    """Refuse the first file that is no longer what it was when its footer was read.

    Raises:
        BadInput: its size or modification time is another.
        MissingInput: it is gone.
    """
    with reading(log.root):
        remote = (
            iter(())
            if log.is_local
            else iter(log.filesystem.get_file_info([file.path for file in log.files]))
        )
    for file in log.files:
        with reading(file.name):
            if log.is_local:
                status = Path(file.path).stat()
                now = status.st_size, status.st_mtime_ns
            else:
                info = next(remote)
                if info.type == pafs.FileType.NotFound:
                    raise FileNotFoundError(errno.ENOENT, "gone", file.path)
                now = info.size, info.mtime_ns or 0
        if now != (file.size, file.modified_ns):
            raise changed(file.name)
