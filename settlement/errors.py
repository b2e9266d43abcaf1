"""One exception per kind of refusal, each with the exit code programs read.

A refusal is one line for people: what is wrong, where, and the cure. Anything else that
escapes is a bug and keeps its traceback. The codes follow BSD's ``sysexits.h`` from 64 up.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar


class SettlementError(Exception):
    """A refusal that a person can act on.

    Args:
        what: what is wrong, in a few words.
        where: the file, column, month or account it is about.
        cure: what to do about it.
        details: further lines shown beneath (the first rejected rows, a list to judge).
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, where: str = "", cure: str = "", details: Iterable[str] = ()
    ) -> None:
        self.what, self.where, self.cure, self.details = what, where, cure, tuple(details)
        super().__init__(str(self))

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        return " ".join((f"{sentence}; {self.cure}" if self.cure else sentence).splitlines())


def in_the_way(path: Path) -> tuple[Path, str] | None:
    """Return what keeps a path from being a folder, and what it is; None where nothing does.

    None, too, where the disk does not tell: then it is the disk that is in the way.
    """
    try:
        for each in (path, *path.parents):
            if each.is_symlink() and not each.exists():
                return each, "is a link to nowhere"
            if each.exists():
                return None if each.is_dir() else (each, "is not a folder")
    except OSError:
        return None
    return None


class WrongUsage(SettlementError):
    """The command cannot be meant so: a wrong argument, a month not over, a gap."""

    exit_code = 2


class StoppedForReview(SettlementError):
    """A limit was crossed; a person must look before anything is published."""

    exit_code = 3


class OtherOutcome(SettlementError):
    """The month is settled, and settling it now would give another outcome."""

    exit_code = 4


class BadInput(SettlementError):
    """The call log, the price book or the settlement book is not what it must be."""

    exit_code = 65


class MissingInput(SettlementError):
    """There is no input, or no settlement, where one was named."""

    exit_code = 66


class CannotWrite(SettlementError):
    """The file system refused to create or write."""

    exit_code = 73


class CannotRead(SettlementError):
    """The file system refused to read."""

    exit_code = 74


class BookHeld(SettlementError):
    """Another run holds the book."""

    exit_code = 75


class BadConfig(SettlementError):
    """The configuration contradicts itself or the book."""

    exit_code = 78
