"""The call log as files: what is known of each before it is read, and what is refused.

Only the files' footers have been read by then (`finding`): they say how many rows there are, of
which types, and between which instants each row group lies, so that most of the log need never
be decoded.
"""

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.fs as pafs

from settlement.columns import COLUMNS, cure_of_missing, mapping
from settlement.errors import BadInput
from settlement.prices import Version
from settlement.scan.boundary import changed, reading
from settlement.scan.footers import Footer
from settlement.scan.kinds import is_binary, is_text, plain_type
from settlement.scan.stamps import Span

AS_HERE = mapping(())
"""The names of a log that calls its columns as they are called here."""


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
