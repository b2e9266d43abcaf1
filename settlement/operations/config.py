"""The settings file: what it says, and where.

A flag on the command line goes before ``SETTLE_*`` in the environment, that before
``settlement.toml``, and that before the default (`settings.SETTINGS` lists what there is).

The file is checked as a whole whenever a command reads it, also the parts that the command
does not need: a mistyped key should come out by day, not when it is first used at night.
"""

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from settlement import columns
from settlement.errors import BadConfig, CannotRead
from settlement.operations import values
from settlement.operations.settings import (
    BY_KEY,
    FLAG,
    NUMBER,
    PATH,
    SETTINGS,
    TABLE,
    TEXTS,
    WHOLE,
    WORDS,
    Setting,
)

FILE = "settlement.toml"
"""The file that is read from the working folder where none is named."""
_SEE = "see: settle config"


@dataclass(frozen=True)
class Config:
    """What a settings file says; nothing, where there is none.

    ``given`` are values by the options' names, as click takes them in place of defaults, and
    ``places`` say where each is written.
    """

    path: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def read(named: Path | None) -> Config:
    """Read the file that is named, or ``settlement.toml`` of the working folder if there is one.

    Raises:
        BadConfig: it is not there though named, is not TOML, or has an unknown key or a value
            that cannot be meant; the message names file, key and the nearest right key.
        CannotRead: the file system refused to read.
    """
    path = named or Path(FILE)
    try:
        text = path.read_bytes().decode()
        table = tomllib.loads(text, parse_float=_decimal)
    except (FileNotFoundError, NotADirectoryError) as error:
        if named is None:
            return Config()
        cure = "check --config and SETTLE_CONFIG"
        raise BadConfig("no such settings file", where=str(path), cure=cure) from error
    except OSError as error:
        what = f"cannot read ({error.strerror})"
        raise CannotRead(what, where=str(path), cure="check its permissions") from error
    except ValueError as error:  # not UTF-8, or not TOML
        said = " ".join(str(error).split())
        raise BadConfig(f"not TOML ({said})", where=str(path), cure="mend it") from error
    except RecursionError as error:
        raise BadConfig("nested too deep", where=str(path), cure="write it flat") from error
    found = dict(_settings(table, str(path)))
    lines = _lines(text)
    return Config(
        path,
        {setting.name: _taken(setting, value, path) for setting, value in found.items()},
        {setting.name: _place(path, setting.key, lines) for setting in found},
    )


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:  # no ValueError, though it is one
        raise ValueError("a number with so large an exponent") from error


def _settings(
    table: Mapping[str, Any], file: str, section: str = ""
) -> Iterator[tuple[Setting, Any]]:
    """Yield the settings of a table and its sections; refuse a key that there is not."""
    for name, value in table.items():
        key = f"{section}.{name}" if section else name
        if key in BY_KEY:
            yield BY_KEY[key], value
        elif any(known.startswith(key + ".") for known in BY_KEY):
            if not isinstance(value, dict):
                inner = [known for known in BY_KEY if known.startswith(key + ".")]
                cure = f"write [{key}], and beneath it {inner[0].rpartition('.')[2]} = …"
                raise BadConfig("is a section, not a key", where=f"{file}, {key}", cure=cure)
            yield from _settings(value, file, key)
        else:
            what = "unknown section" if isinstance(value, dict) else "unknown key"
            cure = _nearest(key, is_section=isinstance(value, dict))
            raise BadConfig(what, where=f"{file}, {key}", cure=cure)


def _nearest(key: str, *, is_section: bool) -> str:
    """Say which right key is nearest to a wrong one, in its section or in another."""
    name = key.rpartition(".")[2]
    sections = {known.rpartition(".")[0] for known in BY_KEY if "." in known}
    if is_section:
        near = difflib.get_close_matches(key, sections, 1, 0.5)
        said = ", ".join(f"[{section}]" for section in sorted(sections))
        return f"did you mean [{near[0]}]?" if near else f"there are {said}"
    near = difflib.get_close_matches(key, BY_KEY, 1, 0.6)
    last = {known.rpartition(".")[2]: known for known in BY_KEY} | {
        setting.name: setting.key for setting in SETTINGS
    }
    near = near or [last[match] for match in difflib.get_close_matches(name, last, 1, 0.6)]
    return f"did you mean {near[0]}?" if near else "settle config lists what there is"


def _taken(setting: Setting, value: Any, path: Path) -> Any:
    """Return a value as click takes it; refuse one of another kind, or that cannot be meant."""
    where = f"{path}, {setting.key}"
    try:
        written = str(value)
    except ValueError as error:  # Python refuses to write a number of thousands of digits
        raise BadConfig("so large a number will not do", where=where, cure=_SEE) from error
    if not _is(setting.kind, value):
        said = written.lower() if isinstance(value, bool) else repr(value)
        said = written if isinstance(value, Decimal) else said
        raise BadConfig(f"{said} is not {setting.kind}", where=where, cure=_SEE)
    if setting.kind == FLAG:
        return value
    if setting.kind == TABLE:
        try:
            columns.mapping(value.items())
        except BadConfig as error:
            raise BadConfig(error.what, where=where, cure=error.cure) from error
        return [f"{name}={own}" for name, own in value.items()]
    if setting.kind == WORDS and not isinstance(value, str):
        value = shlex.join(value)
    if setting.kind == PATH and "://" not in value:
        # As the file system takes it: a locale may know fewer characters than the file.
        value = str(path.parent / os.fsdecode(value.encode())) if value else value
    given = value if setting.kind == TEXTS else [str(value)]
    for text in given:
        _check(setting, text, where)
    return given if setting.kind == TEXTS else given[0]


def _check(setting: Setting, text: str, where: str) -> None:
    if "\0" in text:  # an option and a variable cannot have one, nor can a path or a command
        raise BadConfig("a NUL character in it", where=where, cure="take it out")
    try:
        click.types.convert_type(setting.reader).convert(text, None, None)
    except (click.BadParameter, BadConfig) as error:
        said = error.what if isinstance(error, BadConfig) else error.format_message()
        said = said.removeprefix("Invalid value: ").rstrip(".")
        raise BadConfig(said, where=where, cure=_SEE) from error


def _is(kind: str, value: Any) -> bool:
    """Tell whether a value of TOML is of a kind."""
    if isinstance(value, bool) or kind == FLAG:
        return isinstance(value, bool) and kind == FLAG
    if kind == TEXTS or (kind == WORDS and not isinstance(value, str)):
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if kind == TABLE:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    allowed: dict[str, tuple[type, ...]] = {WHOLE: (int,), NUMBER: (int, Decimal, str)}
    return isinstance(value, allowed.get(kind, (str,)))


_SECTION = re.compile(r"\s*\[([\w.\s\"'-]+)\]")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def _lines(text: str) -> dict[str, int]:
    """Return the line of every key and section, as far as they are plainly written."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if head := _SECTION.match(line):
            section = re.sub(r"[\s\"']", "", head[1])
            found.setdefault(section, number)
        elif key := _KEY.match(line):
            name = re.sub(r"[\"']", "", key[1])
            found.setdefault(f"{section}.{name}" if section else name, number)
    return found


def _place(path: Path, key: str, lines: Mapping[str, int]) -> str:
    """Say where a key is written."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return f"{path} line {lines[key]}" if key else str(path)


# ---------------------------------------------------------------- the command line

_NAMED, _READ = "settlement.config.named", "settlement.config.read"


def chosen() -> click.Option:
    """Return the option that names the settings file; it is read before other options are."""
    return click.Option(
        ["--config"],
        type=values.path_of,
        metavar="FILE",
        envvar="SETTLE_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_configure,
        help=f"the settings file  [default: {FILE} in the working folder, if any]",
    )


def _configure(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Let the settings file stand in for defaults; typed before a command, it is the command's."""
    typed = (
        context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
    )
    if typed:
        context.meta[_NAMED] = path
    if isinstance(context.command, click.Group) or context.resilient_parsing:
        return
    context.meta[_READ] = found = read(context.meta.get(_NAMED) or path)
    context.default_map = dict(found.given)


def used(context: click.Context) -> Config:
    """Return the settings file that a command was given."""
    found = context.meta.get(_READ)
    return found if isinstance(found, Config) else Config()
