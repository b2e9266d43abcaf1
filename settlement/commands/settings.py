"""The command that says what is set, and where: ``config``."""

import re
from typing import Any

import click
from click.core import ParameterSource

from settlement import shell
from settlement.commands import shared
from settlement.operations import config, messages, variables
from settlement.operations.settings import FLAG, SETTINGS, Setting, parameter
from settlement.report import aligned, safe

_SECRET = re.compile(
    r"passw|pwd|secret|token|credential|private|(?<![a-z])(auth|key|pin)", re.IGNORECASE
)
_USER = re.compile(r"(?<=://)[^/@\s]*@")


class _AsWritten(click.ParamType[Any]):
    """Checks a value, and leaves it as it was written."""

    name = "text"

    def __init__(self, reader: Any) -> None:
        self._reader = click.types.convert_type(reader)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        self._reader.convert(value, param, ctx)
        return value


def _option(setting: Setting) -> click.Option:
    made = parameter(setting.key)
    if setting.kind != FLAG:
        made.type = _AsWritten(setting.reader)
    return made


@click.command(
    "config",
    params=[_option(each) for each in SETTINGS if not each.key.startswith("messages.")],
)
@shell.options(shared.as_json)
@click.pass_context
def config_(context: click.Context, /, as_json: bool, **_options: Any) -> None:
    """Print every setting: its value, and where that comes from.

    A flag goes before SETTLE_* in the environment, that before settlement.toml (of the working
    folder, or --config FILE), and that before the default. Passwords are not shown.

    \b
    Examples:
      settle config
      settle config --config /etc/settlement.toml --json
    """
    file = config.used(context).path
    found = [_described(context, setting) for setting in SETTINGS]
    for variable, near in variables.unknown(context.find_root().command):
        if not near:  # what may be mistyped is told by every command
            messages.warn(f"{variable} is set, but is no setting", variable=variable)
    if as_json:
        shared.print_json({"file": str(file) if file else None, "settings": found})
        return
    shared.tell(f"settings file: {safe(str(file)) if file else f'none (no {config.FILE} here)'}")
    rows = [
        (each["key"], safe(each["otherwise"] or _said(each["value"])), safe(each["from"]))
        for each in found
    ]
    shared.tell(aligned([("key", "value", "from"), *rows]))


def _described(context: click.Context, setting: Setting) -> dict[str, Any]:
    """Return a setting's key, option, variable, value, and where that comes from.

    ``otherwise`` says in words what holds where nothing sets it and there is no such value.
    """
    value = context.meta.get(setting.key, context.params.get(setting.name))
    source = shell.source_of(context, setting)
    places = {
        ParameterSource.COMMANDLINE: setting.refused if value is False else setting.typed,
        ParameterSource.ENVIRONMENT: setting.variable,
        ParameterSource.DEFAULT_MAP: config.used(context).places.get(setting.name, ""),
    }
    is_set = source in places
    if isinstance(value, tuple):
        value = list(value)
    return {
        "key": setting.key,
        "option": setting.typed,
        "variable": setting.variable,
        "value": "***" if setting.secret and is_set else _masked(value),
        "otherwise": None if is_set else setting.otherwise or None,
        "from": places.get(source, "default") if source else "default",
    }


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _masked(value: Any) -> Any:
    """Hide what is secret in a value: users and passwords of URLs, and values so named."""
    if isinstance(value, list):
        return [_masked(each) for each in value]
    if not isinstance(value, str):
        return value
    name, equals, _ = value.partition("=")
    if equals and "://" not in name and _SECRET.search(name):
        return f"{name}=***"
    return re.sub(
        r"([?&])([^=&]*)=([^&]*)",
        lambda part: f"{part[1]}{part[2]}=***" if _SECRET.search(part[2]) else part[0],
        _USER.sub("***@", value),
    )
