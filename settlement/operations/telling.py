"""Telling: the options that say who is told of a run, and the watch that they make."""

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


def watched(given: dict[str, Any], month: object = None) -> Watch:
    """Return a watch by the options of the command under way, and take those that are its own.

    Args:
        given: the options; those of `options` are removed, and the rest is what to settle.
        month: which month is asked for, if one is.
    """
    own = Telling(
        Hooks(
            given.pop("on_success") or (),
            given.pop("on_failure") or (),
            given.pop("on_review") or (),
            given.pop("ping"),
            given.pop("notify_seconds"),
        ),
        given.pop("metrics"),
    )
    every = click.get_current_context().params
    return Watch(given["book"], shell.now, every, own, shell.warn, month)
