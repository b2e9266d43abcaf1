"""Progress of long work: a bar on a terminal, a line every half minute elsewhere.

Whoever reads a log tells how far it is (`Progress`); stages tell when they begin and end
(`watched`), so that also work that cannot tell how far it is says that it is still on.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import click

from settlement.operations import messages

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

EVERY = 30.0
"""Seconds between two lines of one stage."""
Advance = Callable[[int, int], None]
"""Told how many rows and bytes of the log have been done so far."""
Progress = Callable[[int, int], AbstractContextManager[Advance]]
"""Given how many rows and bytes there are, gives something to tell."""


@dataclass(frozen=True)
class _Counted:
    """How far reading a log is; nothing is said of it while a bar shows it."""

    rows: int = 0
    of: int = 0
    has_bar: bool = False


_counted = _Counted()


@contextmanager
def silent(_rows: int, _size: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _rows, _size: None


@contextmanager
def shown(rows: int, size: int) -> Iterator[Advance]:
    """Show a bar where a person watches stderr; else let the lines of the stage say how far."""
    manner = messages.manner
    if messages.is_terminal() and manner.form == "text" and not (manner.stamped or manner.quiet):
        with _noted(rows, has_bar=True), _bar(rows, size) as advance:
            yield advance
        return
    with _noted(rows, has_bar=False) as advance:
        yield advance


@contextmanager
def _noted(rows: int, *, has_bar: bool) -> Iterator[Advance]:
    """Keep in mind how far it is, for as long as this lasts."""
    global _counted  # noqa: PLW0603  # what one process reads is one fact of it
    _counted = _Counted(0, rows, has_bar)

    def advance(done: int, _size: int) -> None:
        global _counted  # noqa: PLW0603
        _counted = replace(_counted, rows=done)

    try:
        yield advance
    finally:
        _counted = _Counted()


@contextmanager
def _bar(rows: int, size: int) -> Iterator[Advance]:
    bar: ProgressBar[Any]
    with click.progressbar(
        length=rows,
        label="reading",
        file=sys.stderr,
        show_pos=True,
        width=0,  # what is left of the terminal
        item_show_func=lambda done: f"{(done or 0) / 1e6:,.0f} of {size / 1e6:,.0f} MB",
    ) as bar:
        yield lambda done_rows, done_size: bar.update(done_rows - bar.pos, cast("Any", done_size))


@contextmanager
def watched(stage: str) -> Iterator[None]:
    """Say every half minute that a stage is still on, and how far; with --verbose what it took."""
    ended, began = threading.Event(), time.perf_counter()

    def tell() -> None:
        while not ended.wait(EVERY):
            if not _counted.has_bar:
                messages.say(_line(stage, time.perf_counter() - began), stage=stage)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join(1.0)
        passed = round(time.perf_counter() - began, 3)
        messages.detail(f"{_month()}{stage}: {passed:.2f} s", stage=stage, seconds=passed)


def _line(stage: str, passed: float) -> str:
    """Say how far a stage is, ``2026-02: count, 12 of 50 rows (24 %), 31 s, about 98 s left``."""
    parts = [stage]
    rows, of = _counted.rows, _counted.of
    if of:
        parts.append(f"{rows:,} of {of:,} rows ({rows * 100 // of} %)")
    parts.append(f"{passed:.0f} s")
    if rows:
        parts.append(f"about {passed * (of - rows) / rows:.0f} s left")
    return _month() + ", ".join(parts)


def _month() -> str:
    return f"{messages.manner.month}: " if messages.manner.month else ""


Warn = Callable[[str], object]
"""Takes a warning, one line; whoever settles says where it goes."""


def unheard(_line: str) -> None:
    """Take a warning and say nothing."""
