"""Files of pieces: written once, found whole or not at all, verified piece by piece when read.

    pieces, one after another | what they are, as JSON | their sizes | their digests | ending

The ending has the lengths of the JSON and of all behind the pieces, a magic word, and the digest of
all that; and every piece is read together with its own digest. So a file that was cut short,
damaged or swapped is noticed at the latest where it would be used.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from settlement.disk import flush_folder
from settlement.errors import CannotWrite
from settlement.prices import canonical_json

NEW = ".new-"
"""What names of files under way begin with."""
_MAGIC = b"settled\n"
_DIGEST = 32
_SIZE = 8
"""Bytes that tell a size."""
_LENGTHS = 2 * _SIZE
_ENDING = _LENGTHS + len(_MAGIC) + _DIGEST


class Damaged(Exception):
    """A file of pieces is not what was written, or is gone; it must not be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(str(path))


class Writer:
    """A file of pieces under way; it is nowhere to be found until `commit`.

    Raises `CannotWrite`, and so do its methods; then nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f"{NEW}{os.getpid()}-{path.name}")
        self._sizes: list[int] = []
        self._digests = bytearray()
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
        self._sizes.append(len(view))
        self._digests += hashlib.sha256(view).digest()
        return len(self._sizes) - 1

    def commit(self, key: Mapping[str, Any], about: Mapping[str, Any]) -> int:
        """Write what the pieces are, flush all, put the file in place; return its size."""
        said = canonical_json({"key": key, "about": about})
        tail = said + np.array(self._sizes, "<i8").tobytes() + bytes(self._digests)
        lengths = np.array([len(said), len(tail)], "<u8").tobytes()
        with writing(self._path):
            self._file.write(tail + lengths + _MAGIC)
            self._file.write(hashlib.sha256(tail + lengths).digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
            self._file.close()
            self._aside.replace(self._path)
            flush_folder(self._path.parent)
        return size


class Reader:
    """A file of pieces; raises `Damaged` where it is not what a `Writer` wrote for the key.

    Attributes:
        digest: tells the file from all others.
        about: what was said of the pieces.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        said, table, self.digest = self._tail()
        if said["key"] != json.loads(canonical_json(key)):
            raise Damaged(path)
        self.about: Mapping[str, Any] = said["about"]
        count = len(table) // (_SIZE + _DIGEST)
        sizes = np.frombuffer(table, "<i8", count)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._digests = table[_SIZE * count :]

    def _tail(self) -> tuple[Any, bytes, str]:
        """Return what is said of the pieces; their sizes and digests; and the digest of that."""
        try:
            size = self.path.stat().st_size
            ending = self._read(size - _ENDING, _ENDING)
            lengths, digest = ending[:_LENGTHS], ending[-_DIGEST:]
            said, length = np.frombuffer(lengths, "<u8").tolist()
            if ending[_LENGTHS:-_DIGEST] != _MAGIC or said > length or length > size:
                raise Damaged(self.path)
            tail = self._read(size - _ENDING - length, length)
            if hashlib.sha256(tail + lengths).digest() != digest:
                raise Damaged(self.path)
            return json.loads(tail[:said]), tail[said:], digest.hex()
        except (OSError, ValueError) as error:
            raise Damaged(self.path) from error

    def _read(self, start: int, size: int) -> bytes:
        if start < 0:
            raise Damaged(self.path)
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                parts, left = [], size
                while left and (part := os.pread(file, left, start + size - left)):
                    parts.append(part)
                    left -= len(part)
            finally:
                os.close(file)
        except OSError as error:
            raise Damaged(self.path) from error
        if left:
            raise Damaged(self.path)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def is_sound(self) -> bool:
        """Read every piece, and tell whether all are what was written."""
        try:
            for number in range(len(self._starts) - 1):
                self.piece(number)
        except Damaged:
            return False
        return True

    def piece(self, number: int) -> bytes:
        """Read a piece, verified."""
        return self.pieces(range(number, number + 1))

    def pieces(self, numbers: range) -> bytes:
        """Read some pieces, one after another as they lie, each verified."""
        starts = self._starts[numbers.start : numbers.stop + 1].tolist()
        found = self._read(starts[0], starts[-1] - starts[0])
        view = memoryview(found)
        for number, begin, end in zip(numbers, starts, starts[1:], strict=False):
            own = hashlib.sha256(view[begin - starts[0] : end - starts[0]]).digest()
            if own != self._digests[_DIGEST * number : _DIGEST * (number + 1)]:
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


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into `CannotWrite`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """Return the refusal of a file system that does not take what is to be kept."""
    return CannotWrite(
        f"cannot write the cache ({error.strerror or error})",
        where=str(path),
        cure="free 20 bytes for each call of the month; nothing else was touched",
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it."""
    folder.mkdir(parents=True, exist_ok=True)
