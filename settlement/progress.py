"""Progress of a long count, shown on a terminal only: rows, bytes, time left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

Advance = Callable[[int, int], None]
"""Told how many rows and bytes of the log have been done so far."""
Progress = Callable[[int, int], AbstractContextManager[Advance]]
"""Given how many rows and bytes there are, gives something to tell."""


@contextmanager
def silent(_rows: int, _size: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _rows, _size: None


@contextmanager
def bar(rows: int, size: int) -> Iterator[Advance]:
    """Show a bar on stderr if that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        with silent(rows, size) as advance:
            yield advance
        return
    shown: ProgressBar[Any]
    with click.progressbar(
        length=rows,
        label="reading",
        file=sys.stderr,
        show_pos=True,
        item_show_func=lambda done: f"{(done or 0) / 1e6:,.0f} of {size / 1e6:,.0f} MB",
    ) as shown:
        yield lambda done_rows, done_size: shown.update(
            done_rows - shown.pos, cast("Any", done_size)
        )


Warn = Callable[[str], object]
"""Takes a warning, one line; whoever settles says where it goes."""


def unheard(_line: str) -> None:
    """Take a warning and say nothing."""
