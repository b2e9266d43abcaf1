"""A file without a name, for what does not fit in memory.

It lies in the folder for temporary files (``TMPDIR`` says which) and vanishes with the process,
however that ends. A count with de-duplication writes 12 bytes there for every call; see that
the folder is on a disk, not in memory, when hundreds of millions are counted.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from settlement.errors import CannotWrite

_WRITE = 1 << 20
"""Bytes written at once: some file systems give larger aligned writes huge pages, dearly."""


class Scratch:
    """Arrays in a file; threads may write and read at once.

    Raises `CannotWrite`, naming the folder, where the disk is full or the folder is not to be
    written; so do its methods.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size = 0
        with _writing():
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # `close` does

    def close(self) -> None:
        """Give its disk space back; a disk that complains of it now has nothing to lose."""
        with suppress(OSError):
            self._file.close()

    def append(self, array: "np.ndarray[Any, Any]") -> int:
        """Write an array and return where it lies."""
        view = np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
        with self._lock:
            start = self._size
            self._size += len(view)
        done = 0
        with _writing():
            while done < len(view):
                part = view[done : done + _WRITE]
                done += os.pwrite(self._file.fileno(), part, start + done)
        return start

    def read(self, start: int, out: "np.ndarray[Any, Any]") -> None:
        """Fill a contiguous array with what lies at a place."""
        if not out.size:
            return
        view = out.data.cast("B")
        done = 0
        with _writing():
            while done < len(view):
                got = os.preadv(self._file.fileno(), [view[done:]], start + done)
                if not got:
                    raise OSError("it is shorter than what was written")
                done += got


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
