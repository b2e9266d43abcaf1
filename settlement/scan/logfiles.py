"""The call log as files: which they are, what their footers say, and what is refused.

A call log is a folder, a file, a glob or a URL. Every regular file beneath it that ends in
``.parquet`` is part of it, wherever it lies, because late calls arrive in any folder. To
begin with only footers are read: one small read per file says how many rows there are, of
which types, and between which instants each row group lies, so that most of the log need
never be decoded.

Files come from others and may be damaged in any way. All reading therefore happens inside
`reading`, the one boundary that turns whatever a broken file provokes into a refusal that
names the file.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from settlement.columns import COLUMNS, mapping
from settlement.errors import BadInput, CannotRead, MissingInput, SettlementError
from settlement.month import Period
from settlement.prices import Version
from settlement.scan.stamps import Clock, Span, Stamps

_MAGIC, _MAGIC_ENCRYPTED = b"PAR1", b"PARE"
_SIGNATURE = 28
"""How many bytes a plain footer is longer when it is signed, as it is over encrypted columns."""
AS_HERE = mapping(())
"""The names of a log that calls its columns as they are called here."""
BATCH_ROWS = 1 << 20
"""Row groups are decoded in batches of at most this many rows."""
_TAIL = 1 << 16
"""How much of a file's end is read at once: nearly every footer fits."""
_FOOTER_READERS = 16
_WILD = re.compile(r"[*?\[]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class RowGroup:
    """A row group, as its footer tells it.

    ``size`` is its part of the file's bytes; ``span`` tells of its timestamps.
    """

    number: int
    first_row: int
    rows: int
    size: int
    span: Span


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
    metadata: pq.FileMetaData = field(default=None, repr=False, compare=False)
    names: Mapping[str, str] = field(default_factory=lambda: AS_HERE)

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
        CannotRead: the operating system refused to read it.
        BadInput: it is damaged, or not Parquet.
    """
    try:
        yield
    except SettlementError:
        raise
    except FileNotFoundError as error:
        raise MissingInput(
            "is gone", where=file, cure="do not move files of the call log; run again"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise _unreadable(file, error) from error
        raise CannotRead(
            f"cannot be read: {os.strerror(error.errno)}",
            where=file,
            cure="check its permissions and the disk",
        ) from error
    except Exception as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: Exception) -> BadInput:
    said = " ".join(str(error).split()) or type(error).__name__
    if "ncrypt" in said:
        return BadInput("is encrypted", where=file, cure="deliver it as plain Parquet")
    said = said if len(said) <= 200 else said[:199] + "…"
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
    if isinstance(filesystem, pafs.LocalFileSystem):
        found, skipped, root = _find(path, _exists_locally, _walk_folder)
    else:
        found, skipped, root = _find(
            path,
            lambda p: filesystem.get_file_info(p).type != pafs.FileType.NotFound,
            lambda p: _walk_store(filesystem, p),
            where=logs,
        )
    if not found:
        raise MissingInput(
            "no .parquet file in it", where=logs, cure="give the folder that holds the call log"
        )
    found.sort(key=lambda file: file.name.encode())
    with ThreadPoolExecutor(_FOOTER_READERS) as pool:
        files = tuple(pool.map(lambda file: _read_footer(filesystem, file, names), found))
    for file in files:
        _check_folders(logs, file)
    return CallLog(root, files, skipped, filesystem)


def _filesystem(logs: str) -> tuple[pafs.FileSystem, str]:
    if not _URL.match(logs):
        return pafs.LocalFileSystem(), logs
    address, question, options = logs.partition("?")
    wild = _WILD.search(address)
    fixed = address[: address.rindex("/", 0, wild.start()) + 1] if wild else address
    filesystem, path = pafs.FileSystem.from_uri(fixed + question + options)
    return filesystem, path.rstrip("/") + "/" + address[len(fixed) :] if wild else path


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
    matches = _matcher(pattern)
    return [file for file in found if matches(file.name)], skipped, root


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test whether a name, or a folder that holds it, matches a glob."""
    parts = []
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        text = "".join(
            {"*": "[^/]*", "?": "[^/]"}.get(piece, _character_set(piece))
            for piece in re.findall(r"\[!?\]?[^\]]*\]|.", part, re.DOTALL)
        )
        parts.append(text + "/")
    whole = re.compile("".join(parts) + "(?:[^/]+/)*", re.DOTALL)
    return lambda name: whole.fullmatch(name + "/") is not None


def _character_set(piece: str) -> str:
    if len(piece) == 1:
        return re.escape(piece)
    inner = piece[1:-1].replace("\\", "\\\\")
    return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"


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
    with reading(found.name):
        with filesystem.open_input_file(found.path) as source:
            tail, footer = _tail(source, found)
        opened = pq.ParquetFile(pa.BufferReader(tail), coerce_int96_timestamp_unit="us")
        metadata, schema = opened.metadata, opened.schema_arrow
        if metadata.serialized_size + _SIGNATURE == len(footer) - 8:
            # A plain footer of encrypted columns: to look at one would end the process.
            raise BadInput("is encrypted", where=found.name, cure="deliver it as plain Parquet")
        groups = tuple(_row_groups(found, metadata, opened.schema, own["timestamp"]))
    if metadata.num_rows != sum(group.rows for group in groups):
        raise _lies(found.name, "its footer's row count is not that of its row groups")
    names = schema.names
    return LogFile(
        found.name,
        found.path,
        found.size,
        found.modified_ns,
        metadata.num_rows,
        hashlib.sha256(footer).hexdigest(),
        groups,
        {name: schema.field(names.index(own[name])).type for name in COLUMNS if own[name] in names},
        tuple(name for name in COLUMNS if names.count(own[name]) > 1),
        metadata,
        own,
    )


def _lies(name: str, what: str) -> BadInput:
    return BadInput(
        what, where=name, cure="have it delivered again, or move it out of the call log"
    )


def _tail(source: pa.NativeFile, found: _Found) -> tuple[bytes, bytes]:
    """Return the end of a file, at least its whole footer, and the footer alone."""
    size = source.size()
    if size != found.size:
        raise changed(found.name)
    tail = source.read_at(min(size, _TAIL), max(size - _TAIL, 0))
    if tail[-4:] == _MAGIC_ENCRYPTED:
        raise BadInput("is encrypted", where=found.name, cure="deliver it as plain Parquet")
    if size < 12 or tail[-4:] != _MAGIC:
        raise _lies(found.name, "is truncated, or not Parquet: it does not end as Parquet does")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size - 4:
        raise _lies(found.name, "is truncated: its footer is longer than the file")
    if length > len(tail):
        tail = source.read_at(length, size - length)
    return tail, tail[-length:]


def _row_groups(
    found: _Found, metadata: pq.FileMetaData, written: pq.ParquetSchema, timestamp: str
) -> Iterator[RowGroup]:
    """Yield what the footer tells of each row group.

    Of its columns only the timestamp is looked at: Arrow ends the whole process, without an
    exception, when asked for a column whose entry in the footer is damaged.
    """
    paths = [written.column(i).path for i in range(metadata.num_columns)]
    stamp = paths.index(timestamp) if paths.count(timestamp) == 1 else None
    if stamp is not None and written.column(stamp).physical_type != "INT64":
        stamp = None
    first_row = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows < 0:
            raise _lies(found.name, f"row group {number} has a negative number of rows")
        size = found.size * group.num_rows // max(metadata.num_rows, 1)
        span = _span(group.column(stamp)) if stamp is not None else Span()
        yield RowGroup(number, first_row, group.num_rows, size, span)
        first_row += group.num_rows


def _span(column: pq.ColumnChunkMetaData) -> Span:
    statistics = column.statistics
    if statistics is None:
        return Span()
    nulls = statistics.null_count if statistics.has_null_count else None
    if not statistics.has_min_max:
        return Span(nulls=nulls)
    return Span(statistics.min_raw, statistics.max_raw, nulls)


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
    """Refuse the first file whose columns are not what the log must have (README, Input).

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
                cure="write it into the file, or move the file out of the call log",
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


# ---------------------------------------------------------------- rows


def columns(
    log: CallLog, file: LogFile, group: RowGroup, names: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, pa.Array]]]:
    """Decode some columns of a row group, in batches of at most `BATCH_ROWS` rows.

    Texts come as dictionaries, ids as they are written. Yields the first row of each batch
    (in the file) and its columns; a column that the file lacks is not there.

    Raises:
        BadInput: the file is damaged, or has fewer or more rows than its footer says.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """
    present = [name for name in names if name in file.types]
    own = [file.names[name] for name in present]
    coded = [file.names[name] for name in present if _is_coded(name, file.types[name])]
    row = group.first_row
    with reading(file.name), log.filesystem.open_input_file(file.path) as source:
        opened = pq.ParquetFile(
            source,
            metadata=file.metadata,
            read_dictionary=coded,
            coerce_int96_timestamp_unit="us",
            pre_buffer=not log.is_local,
            page_checksum_verification=True,
        )
        batches = opened.iter_batches(
            BATCH_ROWS, row_groups=[group.number], columns=own, use_threads=False
        )
        for batch in batches:
            yield row, {name: _simple(batch.column(file.names[name])) for name in present}
            row += len(batch)
    if row != group.first_row + group.rows:
        raise BadInput(
            f"has {row - group.first_row} rows in row group {group.number}, "
            f"where its footer says {group.rows}",
            where=file.name,
            cure="have it delivered again, or move it out of the call log",
        )


def _simple(column: pa.Array) -> pa.Array:
    """Return a column without its extension type, and views as the arrays all functions know."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(column.type) else column


def _is_coded(name: str, kind: pa.DataType) -> bool:
    if name == "request_id":
        return bool(pa.types.is_dictionary(kind))
    return is_text(plain_type(kind))


def read_stamps(clock: Clock, file: LogFile, column: pa.Array) -> Stamps:
    """Read a timestamp column of a file; raises `BadInput` for times that never were."""
    try:
        return clock.read(column)
    except ValueError as error:
        raise BadInput(
            str(error),
            where=f"{file.name}, {file.column('timestamp')}",
            cure="write timestamps with a zone",
        ) from error


def touching(
    log: CallLog, period: Period, naive_zone: ZoneInfo | None = None
) -> tuple[InputFile, ...]:
    """Return the files with at least one row in a month.

    Footers decide; only where they leave it open is the timestamp column decoded.

    Raises:
        BadInput: a timestamp column is missing or mistyped, or a file is damaged.
    """
    check(log.files, ["timestamp"], naive_zone)
    clock = Clock(period, naive_zone)
    return tuple(InputFile.of(file) for file in log.files if _touches(log, file, clock))


def _touches(log: CallLog, file: LogFile, clock: Clock) -> bool:
    known = [
        (group, clock.overlaps(file.types["timestamp"], group.span))
        for group in file.groups
        if group.rows
    ]
    if any(overlaps for _, overlaps in known):
        return True
    return any(
        read_stamps(clock, file, cells["timestamp"]).inside.any()
        for group, overlaps in known
        if overlaps is None
        for _, cells in columns(log, file, group, ["timestamp"])
    )


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
