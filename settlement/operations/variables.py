"""Variables of the environment that are set as if they were settings, and are none.

A mistyped one would be passed over without a word; another program may use such names too. So
nothing is refused for them.
"""

import difflib
import os
from collections.abc import Iterator

import click

from settlement.operations.settings import SETTINGS

_PREFIX = "SETTLE_"
_OWN = {"SETTLE_NOW", "SETTLE_CONFIG"}
"""Variables that are no settings: the rehearsal's clock, and the file's name."""
_NEAR = 0.75
"""How like a right name, from 0 to 1, a mistyped one is; what they all begin with apart."""


def unknown(command: click.Command) -> Iterator[tuple[str, str]]:
    """Yield each such variable, and the right one that is near it; empty where none is.

    Args:
        command: the whole program, whose commands may have variables of their own.
    """
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    known = {setting.variable for setting in SETTINGS} | _OWN
    for each in commands:
        known |= {option.envvar for option in each.params if isinstance(option.envvar, str)}
    names = {variable.removeprefix(_PREFIX) for variable in known}
    for variable in sorted(os.environ):
        if variable.startswith(_PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable.removeprefix(_PREFIX), names, 1, _NEAR)
            yield variable, _PREFIX + near[0] if near else ""
