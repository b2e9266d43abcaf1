"""What a shell completes: months and runs, looked up in the book.

Whatever goes wrong there completes to nothing: a person who types is told no errors.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.core import ParameterSource

from settlement import catchup, shell
from settlement.book import Book
from settlement.operations import attempts, config

_Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _quietly(find: Callable[[click.Context], Iterable[object]]) -> _Complete:
    """Return what click asks for completions: those found that begin as is typed."""

    def complete(context: click.Context, _param: click.Parameter, typed: str) -> list[str]:
        try:
            return [text for text in map(str, find(context)) if text.startswith(typed)]
        except Exception:  # noqa: BLE001  # whatever it is, it must not disturb the line
            return []

    return complete


def _given(context: click.Context, name: str) -> Path:
    """Return an option of the line that is being typed, else as it is set otherwise."""
    found = context.params.get(name)
    if found is None or context.get_parameter_source(name) is ParameterSource.DEFAULT:
        found = config.read(None).given.get(name, found)
    if found is None:
        option = next(each for each in context.command.params if each.name == name)
        found = option.value_from_envvar(context) or option.get_default(context)
    return Path(str(found))


def _settled(context: click.Context) -> Iterable[object]:
    return reversed(Book.open(_given(context, "book")).months)


def _due(context: click.Context) -> Iterable[object]:
    """Return what is to settle next; with ``--revise``, what is settled."""
    if context.params.get("revise"):
        return _settled(context)
    book = Book.open(_given(context, "book"))
    if book.settlements:
        zone = book.settlements[-1].price_book.zone
    else:
        zone = shell.price_book(_given(context, "prices")).zone
    return catchup.due(book, shell.now(), zone)


def _runs(context: click.Context) -> Iterable[object]:
    return attempts.ids(_given(context, "book"))


settled_months = _quietly(_settled)
"""The settled months, the newest first."""
due_months = _quietly(_due)
"""The months that are due, the next one first."""
runs = _quietly(_runs)
"""The ids of runs, the newest first."""
