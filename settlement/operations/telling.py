"""Telling: the options that say who is told of a run, and the watch that they make."""

from pathlib import Path
from typing import Any

import click

from settlement import shell
from settlement.operations import settings
from settlement.operations.hooks import Hooks
from settlement.operations.watch import Telling, Watch

options = shell.options(
    settings.option("outputs.metrics"),
    settings.option("notify.on_success"),
    settings.option("notify.on_failure"),
    settings.option("notify.on_review"),
    settings.option("notify.ping"),
    settings.option("notify.seconds"),
)
"""Who is told of a run."""


def taken(given: dict[str, Any]) -> Telling:
    """Return who is to be told, and take those options out of the given ones."""
    hooks = Hooks(
        given.pop("on_success") or (),
        given.pop("on_failure") or (),
        given.pop("on_review") or (),
        given.pop("ping"),
        given.pop("notify_seconds"),
    )
    return Telling(hooks, given.pop("metrics"))


def watch(telling: Telling, book: Path, month: object = None) -> Watch:
    """Return a watch over the command under way; ``month`` is the one asked for, if one is."""
    every = click.get_current_context().params
    return Watch(book, shell.now, every, telling, shell.warn, month)


def watched(given: dict[str, Any], month: object = None) -> Watch:
    """Return a watch by the options given, and take those that are its own out of them."""
    return watch(taken(given), given["book"], month)
