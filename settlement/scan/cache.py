"""What counting a file came to, kept beside the book: work done early stays done.

A day's files are final long before the month is. An *entry* holds all that a count needs to
know of one file and one month, so that the count need not read the file:

    how many rows are in each bucket, and the rejected rows
    the accounts, numbered, and how many calls each was charged for
    the keys of the charged rows' request ids, as `counting.keys` holds them
    for each row a note: half of its id's hash, and what it charged

A *memo* of the month tells what was charged too often by the rows of some entries, among each
other, when the month so far was counted. These rows need not be compared with each other again.

An entry is found by all that it depends on (`Key`): the file's name, size, modification time
and footer, what its columns are called, the month's instants, the rules that decide what is
charged (not the prices), and the form of entries. So a wrong one is never found, and an entry
once written is never changed. A memo is bound to the very entries that it names, by their
digests. Either is a file of `pieces`, each of which is verified when it is read; where one is
`Damaged`, files are counted, or rows compared, all the same. Nothing is lost with the cache but
time; whoever wants to may remove it whenever they like.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from settlement.columns import renamed
from settlement.errors import BookHeld
from settlement.month import Month, Period
from settlement.prices import canonical_json
from settlement.scan.logfiles import InputFile, LogFile
from settlement.scan.pieces import (
    NEW,
    Damaged,
    Reader,
    Writer,
    as_ipc,
    cannot_write,
    make_folder,
    of_ipc,
    writing,
)
from settlement.scan.texts import Ints, Lanes

FOLDER = ".cache"
FORMAT = 3
"""To be raised whenever entries, hashes or what is counted change."""
NOTES = 1 << 11
"""Notes of so many rows are one piece: few are ever looked at."""
LENT = 1 << 20
"""So many keys are kept by partition, to be read from the entry when it is a partition's turn."""
ENTRY, MEMO = ".entry", ".memo"
_LOCK = ".lock"
_REST = np.uint64(32)


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
        return asdict(self) | {"format": FORMAT, "bytes": sys.byteorder}

    @property
    def common(self) -> dict[str, Any]:
        """What it has in common with the keys of all files of the month."""
        own = ("file", "columns")
        return {name: value for name, value in self.json.items() if name not in own}

    @cached_property
    def name(self) -> str:
        """What its entry is called."""
        return _named(self.json)


def _named(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(key)).hexdigest()


# ---------------------------------------------------------------- entries


class Entry:
    """What counting a file came to; its pieces are verified when they are read.

    Every method raises `Damaged`.
    """

    def __init__(self, path: Path, key: Key) -> None:
        self._reader = Reader(path, key.json)
        self.path, self._about = path, self._reader.about
        self.digest = self._reader.digest
        """Tells it from all other entries."""

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
        return accounts_of(self._reader.piece(self._about["accounts"]))

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

    @property
    def keys(self) -> "PartitionedKeys | None":
        """The keys by partition, where they are so many that they are kept in this way."""
        pieces = self._about["partitions"]
        return PartitionedKeys(self._reader, pieces) if pieces else None

    def notes(self, rows: Ints) -> Lanes:
        """Return the notes of rows of the file, ascending, all of them charged."""
        found = np.empty(len(rows), np.uint64)
        firsts, pieces = self._notes
        bounds = np.append(np.searchsorted(rows, firsts), len(rows))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            begin, end = bounds[number : number + 2].tolist()
            notes = np.frombuffer(self._reader.piece(int(pieces[number])), np.uint64)
            found[begin:end] = notes[rows[begin:end] - firsts[number]]
        return found

    @cached_property
    def _notes(self) -> tuple[Ints, Ints]:
        """The first row of each piece of notes, and the piece's number."""
        rows, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for first, count, step, piece in self._about["notes"]:
            rows.append(np.arange(first, first + count, step))
            numbers.append(np.arange(piece, piece + len(rows[-1])))
        return np.concatenate(rows), np.concatenate(numbers)

    def is_sound(self) -> bool:
        """Read every piece, and tell whether all are what was written."""
        return self._reader.is_sound()


class PartitionedKeys:
    """The keys of an entry, by their first byte."""

    def __init__(self, reader: Reader, pieces: list[list[int]]) -> None:
        self._reader, self._pieces = reader, pieces

    def sizes(self) -> Ints:
        """Return how many keys each partition has."""
        return np.array([size for _, size in self._pieces], np.int64)

    def read(self, partitions: range) -> Lanes:
        """Return the keys of partitions, one after another; raises `Damaged`."""
        numbers = [self._pieces[number][0] for number in partitions]
        return np.frombuffer(self._reader.pieces(range(numbers[0], numbers[-1] + 1)), np.uint64)


def as_accounts(accounts: pa.Array) -> pa.Buffer:
    """Return accounts, text by number, as bytes."""
    return as_ipc(pa.table({"account": accounts}))


def accounts_of(piece: bytes) -> pa.Array:
    """Return the accounts that bytes are of."""
    return of_ipc(piece)["account"].chunk(0)


def note(rests: Lanes, cells: Ints) -> Lanes:
    """Return notes: the lower half of each id's hash above what the row charged."""
    return (rests << _REST) | cells.astype(np.uint64)


def rests(notes: Lanes) -> Lanes:
    """Return the lower halves of hashes."""
    return notes >> _REST


def cells(notes: Lanes) -> Ints:
    """Return what rows charged, as cells within the entry."""
    return (notes & np.uint64((1 << 32) - 1)).view(np.int64)


# ---------------------------------------------------------------- memos


@dataclass(frozen=True)
class Lost:
    """What rows of equal request ids charged too much.

    Attributes:
        accounts: texts by number.
        cells: what was charged, by these numbers; each once.
        calls: how often it was charged too much.
        duplicates, conflicts: how many rows that were, equal to the one that is charged or not.
    """

    accounts: pa.Array
    cells: Ints
    calls: Ints
    duplicates: int
    conflicts: int


class Memo:
    """What the rows of some entries charged too much; its pieces are verified when read.

    Every method raises `Damaged`.

    Attributes:
        entries: the digests of the entries, all of whose rows were compared with each other.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._reader = Reader(path, key)
        self.entries = frozenset(self._reader.about["entries"])

    def lost(self) -> Lost:
        """Return what was charged too much; it holds for all entries together, not for fewer."""
        about = self._reader.about
        accounts = accounts_of(self._reader.piece(about["accounts"]))
        lost = np.frombuffer(self._reader.piece(about["lost"]), np.int64)
        cells, calls = lost.reshape(2, -1)
        return Lost(accounts, cells, calls, about["duplicates"], about["conflicts"])

    def is_sound(self) -> bool:
        """Read every piece, and tell whether all are what was written."""
        return self._reader.is_sound()


def write_memo(path: Path, key: Key, digests: "Digests", lost: Lost) -> None:
    """Write the memo of all entries. Raises `CannotWrite`."""
    with Writer(path) as writer:
        about = {
            "entries": sorted(entry.digest for entry in digests.entries.values()),
            "accounts": writer.add(as_accounts(lost.accounts)),
            "lost": writer.add(np.concatenate([lost.cells, lost.calls])),
            "duplicates": lost.duplicates,
            "conflicts": lost.conflicts,
        }
        writer.commit(key.common, about)


@dataclass(frozen=True)
class Digests:
    """What is known of a month before it is counted: entries by file, and their memo."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    memo: Memo | None = None

    def of(self, files: Iterable[LogFile]) -> "Digests":
        """Return what is known of some files; a memo of more than these says nothing of them."""
        names = {file.name for file in files}
        entries = {name: entry for name, entry in self.entries.items() if name in names}
        there = {entry.digest for entry in entries.values()}
        return Digests(entries, self.memo if self.memo and self.memo.entries <= there else None)

    def is_compared(self, entry: Entry) -> bool:
        """Tell whether an entry's rows were compared with those of all others of which it is so."""
        return self.memo is not None and entry.digest in self.memo.entries

    def is_all_compared(self) -> bool:
        """Tell whether there is a sound memo of all entries and no others."""
        if self.memo is None or not self.memo.is_sound():
            return not self.entries
        return self.memo.entries == {entry.digest for entry in self.entries.values()}

    def sound(self) -> "Digests":
        """Return what is left without what is damaged; nothing where all looks sound."""
        entries = {name: entry for name, entry in self.entries.items() if entry.is_sound()}
        memo = self.memo if self.memo and self.memo.is_sound() else None
        is_less = len(entries) < len(self.entries) or memo is not self.memo
        return Digests(entries, memo) if is_less else Digests()


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

    def memo_path(self, month: Month, key: Key) -> Path:
        """Return where the memo of a key's month lies, if there is one."""
        return self.folder / str(month) / f"{_named(key.common)}{MEMO}"

    def find(self, month: Month, keys: Iterable[Key]) -> Digests:
        """Return what there is for the keys of some files of a month."""
        try:
            present = {entry.name for entry in os.scandir(self.folder / str(month))}
        except OSError:
            return Digests()
        found: dict[str, Entry] = {}
        memo = None
        for key in keys:
            path = self.path(month, key)
            if path.name in present:
                with contextlib.suppress(Damaged):
                    found[key.file.file] = Entry(path, key)
        if found and self.memo_path(month, key).name in present:
            with contextlib.suppress(Damaged):
                memo = Memo(self.memo_path(month, key), key.common)
        return Digests(found, memo)

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
            except OSError as error:
                raise cannot_write(path, error) from error
            yield
        finally:
            with contextlib.suppress(OSError):
                os.close(lock)

    def forget(self, month: Month, key: Key) -> None:
        """Remove a key's entry, if there is one."""
        path = self.path(month, key)
        with writing(path):
            path.unlink(missing_ok=True)

    def sweep(self, month: Month, keep: Iterable[Key]) -> int:
        """Remove a month's files but those of some keys; return how many entries that were."""
        kept = set()
        for key in keep:
            kept |= {self.path(month, key).name, self.memo_path(month, key).name}
        removed = 0
        folder = self.folder / str(month)
        with writing(folder):
            for file in list(folder.iterdir()) if folder.is_dir() else []:
                if file.name not in kept:
                    file.unlink()
                    removed += file.suffix == ENTRY and not file.name.startswith(NEW)
            if folder.is_dir() and not kept:
                folder.rmdir()
        return removed

    def months(self) -> list[Month]:
        """Return the months that have entries; raises `CannotWrite` where it cannot be seen."""
        with writing(self.folder):
            names = [entry.name for entry in os.scandir(self.folder) if entry.is_dir()]
        months = re.compile("[0-9]{4}-(0[1-9]|1[0-2])")
        return [Month.parse(name) for name in sorted(names) if months.fullmatch(name)]
