"""The boundary between this program and the files of others, which may be damaged in any way.

All reading of the call log happens inside `reading`, which turns whatever a broken file provokes
into a refusal that names the file.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from settlement.errors import BadInput, CannotRead, MissingInput, SettlementError
from settlement.scan import footers

_STORE_SAID = re.compile(
    r"AWS Error|google::cloud|Azure Error|curl ?Code|curl error", re.IGNORECASE
)
"""What Arrow's errors of object storage say; of a damaged file they say nothing of the kind."""


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
        return encrypted(file)
    return BadInput(
        f"cannot be read as Parquet ({_short(said)})",
        where=file,
        cure="have it delivered again, or move it out of the call log",
    )


@contextmanager
def believing(name: str) -> Iterator[None]:
    """Refuse a file whose footer is broken."""
    try:
        yield
    except footers.Encrypted as refused:
        raise encrypted(name) from refused
    except footers.Broken as broken:
        raise lies(name, str(broken)) from broken


def encrypted(name: str) -> BadInput:
    """Return the refusal of a file that only its owner can read."""
    return BadInput("is encrypted", where=name, cure="deliver it as plain Parquet")


def lies(name: str, what: str) -> BadInput:
    """Return the refusal of a file that is not what it says."""
    return BadInput(
        what, where=name, cure="have it delivered again, or move it out of the call log"
    )


def changed(name: str) -> BadInput:
    """Return the refusal of a file that was written to while it was read."""
    return BadInput(
        "changed while being read", where=name, cure="let its writer finish, then run again"
    )
