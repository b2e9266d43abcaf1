"""Publishing: a draft → a settlement in the book, complete or absent.

The draft is written aside on the same file system, every file and folder is flushed, and
one rename puts it in place. The rename is the commit and the guard against a second run:
a folder cannot be renamed onto one that holds something. One lock covers the book, held by
the operating system for as long as the process lives, so that a kill never leaves it stale.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow.parquet as pq

from settlement import __version__, frames
from settlement.book import (
    DRAFTS,
    LOCK,
    MANIFEST,
    PRICES,
    Book,
    Settlement,
    digest_of,
    is_folder,
    on_book,
    render,
)
from settlement.disk import flush_folder
from settlement.draft import Draft
from settlement.errors import BookHeld, CannotRead, CannotWrite, in_the_way
from settlement.month import Month, instant_of

if TYPE_CHECKING:
    import pandas as pd

    from settlement.tables import Table

ROWS_PER_GROUP = 1 << 18
_LOCK_TRIES = 100


@contextlib.contextmanager
def locked(book: Path) -> Iterator[None]:
    """Hold the book for one run; raises `BookHeld` (saying who holds it) or `CannotWrite`.

    Makes the book's folder where there is none. What nothing was put into is removed again,
    and so is the lock file: a refused run leaves the book as it was.
    """
    new = not is_folder(book)
    opened: list[int] = []
    try:
        _acquire(book, opened)
        clear_drafts(book)
        yield
    finally:
        for lock in opened:
            _leave(book, lock)
        if new:
            with contextlib.suppress(OSError):  # not empty: something was published
                book.rmdir()


def _leave(book: Path, lock: int) -> None:
    """Remove what is empty and close the lock, if it is ours: a signal may come before it is."""
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(lock, book / LOCK):
            # In this order: once the lock file is gone, another run may begin.
            with contextlib.suppress(OSError):
                (book / DRAFTS).rmdir()
            (book / LOCK).unlink()
    with contextlib.suppress(OSError):
        os.close(lock)


def _acquire(book: Path, opened: list[int]) -> None:
    """Open and lock the lock file; again if it was removed meanwhile by a leaving run.

    What is open is in ``opened``, for whoever is interrupted.
    """
    path = book / LOCK
    for left in reversed(range(_LOCK_TRIES)):
        try:
            _make_folder(book)
            opened.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            fcntl.flock(opened[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(opened[-1], path):
                break
            os.close(opened.pop())
        except BlockingIOError as error:
            raise _held(book, opened.pop()) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError) and left:  # a leaving run removed the book
                continue
            raise _cannot_write(path, error) from error
    else:
        raise BookHeld("the lock is taken and left all the time", where=str(path), cure="try again")
    began = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    command = " ".join(sys.argv)[:200]
    holder = f"process {os.getpid()} on {socket.gethostname()} since {began}: {command}"
    with contextlib.suppress(OSError):  # a courtesy to whoever comes meanwhile
        os.ftruncate(opened[-1], 0)
        os.pwrite(opened[-1], holder.encode(errors="replace"), 0)


def _held(book: Path, lock: int) -> BookHeld:
    """Say who holds the book, as the lock file tells."""
    holder = ""
    with contextlib.suppress(OSError):
        holder = os.pread(lock, 4096, 0).decode(errors="replace").strip()
    with contextlib.suppress(OSError):
        os.close(lock)
    return BookHeld(
        f"another run holds the book: {holder or 'it has just begun'}",
        where=str(book),
        cure="wait until it ends; a killed run holds nothing",
    )


def _is_at(opened: int, path: Path) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except FileNotFoundError:
        return False


def publish(book: Book, draft: Draft, now: datetime) -> Settlement:
    """Write a draft and put it in place; the caller holds the lock.

    Args:
        book: the book as it stands.
        draft: what to publish.
        now: the instant that is recorded as ``created_at``.

    Returns:
        The settlement, read back from where it now stands.

    Raises:
        CannotWrite: the file system refused; the book is as it was, unless the message says
            that the settlement had already been put in place.
    """
    place = book.folder / str(draft.month) / f"r{draft.revision}"
    aside = book.folder / DRAFTS / f"{draft.month}-r{draft.revision}-{os.getpid()}"
    try:
        _flush_before(book)
        _make_folder(aside.parent)
        aside.mkdir()
        _write(aside, book, draft, now)
        _put_in_place(aside, place, book.folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        standing = os.path.lexists(place / MANIFEST)
        if standing and error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise BookHeld(
                "another run has published it meanwhile",
                where=str(place),
                cure="this file system seems not to know locks; look at: "
                + on_book("status", book.folder),
            ) from error
        if standing:
            raise _unconfirmed(place, error) from error
        # What drafts are written into is looked at too: it may be no folder.
        raise _cannot_write(aside if in_the_way(aside.parent) else place, error) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Settlement.load(place)


def clear_drafts(book: Path) -> None:
    """Remove what killed runs left in the drafts; the caller holds the lock.

    Raises `CannotWrite`.
    """
    drafts = book / DRAFTS
    try:
        for left in drafts.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(drafts / "…" if in_the_way(drafts) else drafts, error) from error


def make_good(settlement: Settlement) -> None:
    """Do what the run that published a settlement left undone, if it was killed then.

    Its rename may not have been flushed, and must be before anybody is told that the month is
    settled. Its lock file and drafts are removed, unless the book is held or read-only.

    Raises:
        CannotWrite: the disk refuses to confirm it.
    """
    try:
        flush_folder(settlement.folder.parent)
    except OSError as error:
        if error.errno not in _NOTHING_TO_FLUSH:
            raise _unconfirmed(settlement.folder, error) from error
    book = settlement.folder.parent.parent
    if any(os.path.lexists(book / left) for left in (LOCK, DRAFTS)):
        with contextlib.suppress(BookHeld, CannotRead, CannotWrite), locked(book):
            pass


_NOTHING_TO_FLUSH = {errno.EINVAL, errno.EROFS, errno.ENOTSUP}
"""What file systems say that are only read, or know no flushing of folders."""
_NOT_OURS = _NOTHING_TO_FLUSH | {errno.EACCES, errno.EPERM}
"""What they say of folders above the book, which others made and look after."""


def _flush_before(book: Book) -> None:
    """Flush what must not be lost once another settlement follows upon it.

    That is the rename before, if a kill came between it and its flush; and, for the first
    settlement, the folders that hold the book, made by a run that may have been killed, too.
    """
    if book.settlements:
        flush_folder(book.settlements[-1].folder.parent)
        return
    for folder in book.folder.absolute().parents:
        try:
            flush_folder(folder)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise


def _write(aside: Path, book: Book, draft: Draft, now: datetime) -> None:
    """Write and flush every file of the draft, and their folder."""
    described = {
        table.name: {
            "rows": len(rows),
            "sha256": _write_table(
                aside / f"{table.name}.parquet", table, rows, draft.month, draft.revision
            ),
        }
        for table, rows in draft.tables.items()
    }
    _write_bytes(aside / PRICES, draft.prices.raw)
    if draft.contracts:
        _write_bytes(aside / draft.contracts.copy, draft.contracts.raw)
    previous = book.settlements[-1].sha256 if book.settlements else None
    manifest = _manifest(draft, len(book.settlements) + 1, previous, now) | {"tables": described}
    manifest["digest"] = digest_of(manifest)
    _write_bytes(aside / MANIFEST, render(manifest))
    flush_folder(aside)


def _manifest(draft: Draft, number: int, previous: str | None, now: datetime) -> dict[str, Any]:
    """Return the manifest in its order of keys, without tables and digest filled in."""
    return {
        "number": number,
        "month": str(draft.month),
        "revision": draft.revision,
        "period": {"start": draft.period.start_text, "end": draft.period.end_text},
        "rows": dict(draft.stated.rows),
        "totals": draft.totals,
        "tables": {},
        "inputs": [dataclasses.asdict(file) for file in draft.inputs],
        "options": dict(draft.options),
        "rules_sha256": draft.version.digest,
        "prices_sha256": draft.prices.digest,
        "program": __version__,
        "created_at": instant_of(now),
        "previous": previous,
    }


def _write_table(
    path: Path, table: "Table", rows: "pd.DataFrame", month: Month, revision: int
) -> str:
    """Write one table as Parquet with page checksums; return the file's SHA-256."""
    with path.open("xb") as file:
        hashing = _Hashing(file)
        with pq.ParquetWriter(
            hashing,
            table.published,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=["month", *(c.name for c in table.columns if c.name in _REPEATING)],
        ) as writer:
            for batch in frames.batches(rows, ROWS_PER_GROUP):
                writer.write_table(frames.to_arrow(table, batch, month, revision))
        _flush(file)
        return hashing.digest


_REPEATING = {"item", "interface", "kind", "hold_month", "currency", "reason", "file", "unit_price"}
"""Columns of few values, for which a dictionary is worth building."""


class _Hashing:
    """A file to write to that digests what passes through."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The file is closed by whoever opened it, after it has been flushed to disk."""

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        _flush(file)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _put_in_place(aside: Path, place: Path, book: Path) -> None:
    """Commit by one rename, with every folder flushed in the order that keeps it whole."""
    flush_folder(aside.parent)
    place.parent.mkdir(exist_ok=True)
    flush_folder(book)
    aside.rename(place)
    flush_folder(place.parent)
    flush_folder(aside.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each flushed into the one that holds it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def _unconfirmed(place: Path, error: OSError) -> CannotWrite:
    return CannotWrite(
        f"published, but the disk refused to confirm it ({error.strerror or error})",
        where=str(place),
        cure=f"check the disk, then run: {on_book('check', place.parents[1])}",
    )


def _cannot_write(path: Path, error: OSError) -> CannotWrite:
    if found := in_the_way(path.parent):
        where, what = found
        cure = "move it away, or name another book; nothing was published"
        return CannotWrite(what, where=str(where), cure=cure)
    return CannotWrite(
        f"cannot write ({error.strerror or error})",
        where=str(path),
        cure="check permissions and free space; nothing was published",
    )
