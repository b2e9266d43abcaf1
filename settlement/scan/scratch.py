"""A file without a name, for what does not fit in memory; what does may stay there.

The file lies in the folder for temporary files (``TMPDIR`` says which) and vanishes with the
process, however that ends. A count with de-duplication writes 12 bytes there for every call;
see that the folder is on a disk, not in memory, when hundreds of millions are counted.
"""

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from settlement.errors import CannotWrite
from settlement.scan.texts import Bytes

_WRITE = 1 << 20
"""Bytes written at once: some file systems give larger aligned writes huge pages, dearly."""


class Scratch:
    """Arrays in memory, as far as there is room, and in a file; threads may write and read at once.

    Raises `CannotWrite`, naming the folder, where the disk is full or the folder is not to be
    written; so do its methods.

    Args:
        room: so many bytes stay in memory, which is taken as it fills; the rest is written.
    """

    def __init__(self, room: int = 0) -> None:
        self._lock = threading.Lock()
        self._memory, self._used, self._size = _memory(room), 0, 0
        with _writing():
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # `close` does

    def close(self) -> None:
        """Give memory and disk back; a disk that complains of it now has nothing to lose."""
        self._memory = _memory(0)
        with suppress(OSError):
            self._file.close()

    def append(self, array: "np.ndarray[Any, Any]") -> int:
        """Keep an array and return where it lies: in memory, or behind that in the file."""
        own = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with self._lock:
            stays = own.size <= self._memory.size - self._used
            start = self._used if stays else self._memory.size + self._size
            if stays:
                self._used += own.size
            else:
                self._size += own.size
        if stays:
            self._memory[start : start + own.size] = own
        else:
            self._write(own.data, start - self._memory.size)
        return start

    def read(self, start: int, out: "np.ndarray[Any, Any]") -> None:
        """Fill a contiguous array with what lies at a place."""
        if not out.size:
            return
        own = out.reshape(-1).view(np.uint8)
        if start < self._memory.size:
            own[:] = self._memory[start : start + own.size]
        else:
            self._read(own.data, start - self._memory.size)

    def _write(self, view: memoryview, start: int) -> None:
        done = 0
        with _writing():
            while done < len(view):
                part = view[done : done + _WRITE]
                done += os.pwrite(self._file.fileno(), part, start + done)

    def _read(self, view: memoryview, start: int) -> None:
        done = 0
        with _writing():
            while done < len(view):
                got = os.preadv(self._file.fileno(), [view[done:]], start + done)
                if not got:
                    raise OSError("it is shorter than what was written")
                done += got


def _memory(size: int) -> Bytes:
    """Return memory that costs nothing until it is used; none where so much may not be taken."""
    if not size:
        return np.empty(0, np.uint8)
    try:
        pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return np.empty(0, np.uint8)
    with suppress(AttributeError, OSError):  # large pages are first touched at less cost
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot hold temporary files ({error.strerror or error})",
            where=tempfile.tempdir or "the folder for temporary files",
            cure="free 12 bytes for each call counted, or name another folder in TMPDIR",
        ) from error
