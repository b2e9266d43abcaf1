"""What counting a file came to, kept beside the book: work done early stays done.

A day's files are final long before the month is. An *entry* holds all that a count needs to
know of one file and one month, so that the count need not read the file:

    how many rows are in each bucket, and the rejected rows
    the accounts, numbered, and how many calls each was charged for
    the keys of the charged rows' request ids, as `dedup.Keys` holds them
    for each row a note: half of its id's hash, and what it charged

and a *memo* beside it holds the ids of the rows that had to be looked at twice.

An entry is found by all that it depends on (`Key`): the file's name, size, modification time
and footer, what its columns are called, the month's instants, the rules that decide what is
charged (not the prices), and the form of entries. So a wrong one is never found, and an entry
once written is never changed. It is written aside, flushed, and put in place by one rename.
Every piece of it is read together with its digest, and what does not fit is `Damaged`: the file
is counted instead. Nothing is lost with the cache but time; whoever wants to may remove it
whenever they like.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from settlement.columns import renamed
from settlement.errors import BookHeld, CannotWrite
from settlement.month import Month, Period
from settlement.prices import canonical_json
from settlement.scan.logfiles import InputFile, LogFile
from settlement.scan.texts import Ints, Lanes

FOLDER = ".cache"
FORMAT = 1
"""To be raised whenever entries, hashes or what is counted change."""
NOTES = 1 << 11
"""Notes of so many rows are one piece: few are ever looked at."""
ENTRY, MEMO = ".entry", ".memo"
_LOCK = ".lock"
_NEW = ".new-"
_MAGIC = b"settled\n"
_DIGEST = 32
_REST = np.uint64(32)


class Damaged(Exception):
    """An entry or a memo is not what was written, or is gone; it must not be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(str(path))


@dataclass(frozen=True)
class Key:
    """All that an entry depends on."""

    file: InputFile
    period: Period
    naive_zone: str | None
    rules: str
    columns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls, file: LogFile, period: Period, naive_zone: ZoneInfo | None, rules: Mapping[str, Any]
    ) -> "Key":
        """Return the key of a file in a month; ``rules`` are those that decide what is charged."""
        digest = hashlib.sha256(canonical_json(rules)).hexdigest()
        zone = str(naive_zone) if naive_zone else None
        columns = tuple(sorted(renamed(file.names).items()))
        return cls(InputFile.of(file), period, zone, digest, columns)

    @property
    def json(self) -> dict[str, Any]:
        """The key as JSON values."""
        known = asdict(self) | {"format": FORMAT, "bytes": sys.byteorder}
        if not self.columns:
            del known["columns"]  # so that entries made before there were any are still found
        return known

    @cached_property
    def name(self) -> str:
        """What its entry is called."""
        return hashlib.sha256(canonical_json(self.json)).hexdigest()


# ---------------------------------------------------------------- files of pieces


class Writer:
    """A file of pieces under way; it is nowhere to be found until `commit`.

    Raises `CannotWrite`, and so do its methods; then nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f"{_NEW}{os.getpid()}-{path.name}")
        self._pieces: list[tuple[int, int, str]] = []
        with writing(path):
            make_folder(path.parent)
            self._file = self._aside.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._aside.unlink()

    def add(self, piece: Any) -> int:
        """Write a piece, anything with bytes; return its number."""
        view = memoryview(piece).cast("B") if len(piece) else memoryview(b"")
        with writing(self._path):
            self._file.write(view)
        start = self._pieces[-1][0] + self._pieces[-1][1] if self._pieces else 0
        self._pieces.append((start, len(view), hashlib.sha256(view).hexdigest()))
        return len(self._pieces) - 1

    def commit(self, key: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write what the pieces are, flush all, and put the file in place."""
        tail = canonical_json({"key": key, "about": about, "pieces": self._pieces})
        with writing(self._path):
            self._file.write(tail + len(tail).to_bytes(8, "little") + _MAGIC)
            self._file.write(hashlib.sha256(tail).digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._aside.replace(self._path)
            _flush_folder(self._path.parent)


class Reader:
    """A file of pieces; raises `Damaged` where it is not what a `Writer` wrote for the key."""

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            ending = self._read(size - _DIGEST - 16, _DIGEST + 16)
            length = int.from_bytes(ending[:8], "little")
            if ending[8:16] != _MAGIC or length > size:
                raise Damaged(path)
            tail = self._read(size - _DIGEST - 16 - length, length)
            if hashlib.sha256(tail).digest() != ending[16:]:
                raise Damaged(path)
            said = json.loads(tail)
        except (OSError, ValueError) as error:
            raise Damaged(path) from error
        self.digest = ending[16:].hex()
        if said["key"] != json.loads(canonical_json(key)):
            raise Damaged(path)
        self.about: Mapping[str, Any] = said["about"]
        self._pieces: list[tuple[int, int, str]] = said["pieces"]

    def _read(self, start: int, size: int) -> bytes:
        if start < 0:
            raise Damaged(self.path)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                parts, left = [], size
                while left and (part := file.read(left)):
                    parts.append(part)
                    left -= len(part)
        except OSError as error:
            raise Damaged(self.path) from error
        if left:
            raise Damaged(self.path)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self) -> None:
        """Read every piece."""
        for number in range(len(self._pieces)):
            self.piece(number)

    def piece(self, number: int) -> bytes:
        """Read a piece, verified."""
        start, size, digest = self._pieces[number]
        found = self._read(start, size)
        if hashlib.sha256(found).hexdigest() != digest:
            raise Damaged(self.path)
        return found


def as_ipc(table: pa.Table) -> pa.Buffer:
    """Return a table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def of_ipc(piece: bytes) -> pa.Table:
    """Return the table that bytes are of."""
    return pa.ipc.open_stream(piece).read_all()


# ---------------------------------------------------------------- entries and memos


class Entry:
    """What counting a file came to; its pieces are verified when they are read.

    Every method raises `Damaged`.
    """

    def __init__(self, path: Path, key: Key) -> None:
        self._reader = Reader(path, key.json)
        self.path, self._about = path, self._reader.about
        self._memo_path = path.with_suffix(MEMO)
        self._memo_key = {"entry": self._reader.digest}

    @property
    def counts(self) -> Ints:
        """How many rows are in each bucket."""
        return np.array(self._about["counts"], np.int64)

    @property
    def position_bits(self) -> int:
        """How many lower bits of a key are the row's number in the file."""
        return int(self._about["position_bits"])

    def accounts(self) -> pa.Array:
        """Return the accounts by their numbers within the entry."""
        return of_ipc(self._reader.piece(self._about["accounts"]))["account"].chunk(0)

    def tally(self) -> tuple[Ints, Ints]:
        """Return what was charged, as cells within the entry, and how many calls each."""
        piece = np.frombuffer(self._reader.piece(self._about["tally"]), np.uint32)
        cells, calls = piece.astype(np.int64).reshape(2, -1)
        return cells, calls

    def rejects(self) -> pa.Table | None:
        """Return the rejected rows."""
        number = self._about["rejects"]
        return None if number is None else of_ipc(self._reader.piece(number))

    def key_blocks(self) -> Iterator[Lanes]:
        """Yield keys by the block, each ordered by its first byte."""
        for number in self._about["keys"]:
            yield np.frombuffer(self._reader.piece(number), np.uint64)

    def notes(self, rows: Ints) -> Lanes:
        """Return the notes of rows of the file, ascending, all of them charged."""
        found = np.empty(len(rows), np.uint64)
        bounds = np.append(np.searchsorted(rows, self._firsts), len(rows))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            begin, end = bounds[number : number + 2].tolist()
            first, piece = self._about["notes"][number]
            notes = np.frombuffer(self._reader.piece(piece), np.uint64)
            found[begin:end] = notes[rows[begin:end] - first]
        return found

    @cached_property
    def _firsts(self) -> Ints:
        return np.array([first for first, _ in self._about["notes"]], np.int64)

    @cached_property
    def memo(self) -> "Memo | None":
        """The rows of the file that were looked at twice, if any were."""
        return Memo(self._memo_path, self._memo_key) if self._memo_path.exists() else None

    def write_memo(self, tables: Mapping[int, Iterable[Lanes]]) -> None:
        """Write a memo: tables of rows by row group; raises `CannotWrite`."""
        with Writer(self._memo_path) as writer:
            about = {
                str(group): [
                    [table.shape[1], writer.add(np.ascontiguousarray(table).reshape(-1))]
                    for table in own
                ]
                for group, own in tables.items()
            }
            writer.commit(self._memo_key, about)

    def is_sound(self) -> bool:
        """Read every piece, of the memo too, and tell whether all are what was written."""
        try:
            self._reader.check()
            if self.memo:
                self.memo.check()
        except Damaged:
            return False
        return True


class Memo:
    """The rows of a file that were looked at twice, by row group and number of lanes.

    A table of theirs has a row for each: its number in the file (ascending), its note,
    nanoseconds since the month began, and its id as lanes. A memo belongs to one very entry.
    """

    COLUMNS = 3
    """Columns in front of the lanes."""

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._reader = Reader(path, key)

    def tables(self, group: int) -> list[Lanes]:
        """Return the tables of a row group; raises `Damaged`."""
        return [
            np.frombuffer(self._reader.piece(place), np.uint64).reshape(-1, columns)
            for columns, place in self._reader.about.get(str(group), [])
        ]

    def check(self) -> None:
        """Read every piece; raises `Damaged`."""
        self._reader.check()

    @property
    def groups(self) -> list[int]:
        """The row groups that have some."""
        return [int(group) for group in self._reader.about]


def note(rests: Lanes, cells: Ints) -> Lanes:
    """Return notes: the lower half of each id's hash above what the row charged."""
    return (rests << _REST) | cells.astype(np.uint64)


def rests(notes: Lanes) -> Lanes:
    """Return the lower halves of hashes."""
    return notes >> _REST


def cells(notes: Lanes) -> Ints:
    """Return what rows charged, as cells within the entry."""
    return (notes & np.uint64((1 << 32) - 1)).view(np.int64)


# ---------------------------------------------------------------- the cache of a book


@dataclass(frozen=True)
class Cache:
    """The cache of a book: a folder of entries for each month."""

    book: Path

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.book / FOLDER

    def path(self, month: Month, key: Key) -> Path:
        """Return where a key's entry lies, if there is one."""
        return self.folder / str(month) / f"{key.name}{ENTRY}"

    def find(self, month: Month, keys: Iterable[Key]) -> dict[str, Entry]:
        """Return the entries that there are, by the names of their files."""
        try:
            present = {entry.name for entry in os.scandir(self.folder / str(month))}
        except OSError:
            return {}
        found = {}
        for key in keys:
            path = self.path(month, key)
            if path.name in present:
                with contextlib.suppress(Damaged):
                    found[key.file.file] = Entry(path, key)
        return found

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the cache for writing; whoever reads needs not. Raises `BookHeld`."""
        path = self.folder / _LOCK
        with writing(path):
            make_folder(self.folder)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BookHeld(
                    "another ingest is writing the cache",
                    where=str(self.folder),
                    cure="wait until it ends; a killed one holds nothing",
                ) from error
            yield
        finally:
            os.close(lock)

    def forget(self, month: Month, key: Key) -> None:
        """Remove a key's entry and memo, if there are any."""
        path = self.path(month, key)
        with writing(path):
            for left in (path, path.with_suffix(MEMO)):
                left.unlink(missing_ok=True)

    def sweep(self, month: Month, keep: Iterable[Key]) -> int:
        """Remove a month's files but those of some keys; return how many entries that were."""
        kept = {self.path(month, key).stem for key in keep}
        removed = 0
        folder = self.folder / str(month)
        with writing(folder):
            for file in list(folder.iterdir()) if folder.is_dir() else []:
                if file.stem not in kept:
                    file.unlink()
                    removed += file.suffix == ENTRY and not file.name.startswith(_NEW)
            if folder.is_dir() and not kept:
                folder.rmdir()
        return removed

    def months(self) -> list[Month]:
        """Return the months that have entries; raises `CannotWrite` where it cannot be seen."""
        with writing(self.folder):
            names = [entry.name for entry in os.scandir(self.folder) if entry.is_dir()]
        months = re.compile("[0-9]{4}-(0[1-9]|1[0-2])")
        return [Month.parse(name) for name in sorted(names) if months.fullmatch(name)]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into `CannotWrite`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write the cache ({error.strerror or error})",
            where=str(path),
            cure="free 20 bytes for each call of the month; nothing else was touched",
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it."""
    folder.mkdir(parents=True, exist_ok=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
