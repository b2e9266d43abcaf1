"""What every program here shares with the shell: options, clock, signals, exit codes.

The environment and the clock are read here and nowhere below. A refusal is one line on
stderr and its exit code; SIGTERM and SIGINT unwind, so that nothing is left half-written;
a traceback means a bug.
"""

import atexit
import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import shell_complete

from settlement import lean
from settlement.errors import (
    BadConfig,
    CannotRead,
    CannotWrite,
    MissingInput,
    SettlementError,
)
from settlement.operations import config, messages, settings, variables
from settlement.prices import PriceBook
from settlement.report import safe
from settlement.terminal import ERRORS

if TYPE_CHECKING:
    from settlement.contracts import Contracts

_F = TypeVar("_F", bound=Callable[..., Any])
HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""How a program shows its help, whichever command it begins with."""


class Interrupted(BaseException):
    """SIGTERM or SIGINT came. Not an `Exception`, so that nothing mistakes it for a failure."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number
        super().__init__(self.name)


def options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Return several options as one, in this order."""

    def decorate(function: _F) -> _F:
        for option in reversed(decorators):
            function = option(function)
        return function

    return decorate


logs = settings.option("logs.path")
book = settings.option("book")
prices = settings.option("prices")
contracts = settings.option("contracts")
columns = settings.option("logs.columns")
naive_timestamps = settings.option("logs.naive_timestamps")
threads = settings.option("counting.threads")
counting = options(
    naive_timestamps,
    columns,
    *(
        settings.option(f"counting.{name}")
        for name in (
            "max_rejects",
            "allow_empty",
            "require_days",
            "threads",
            "engine",
            "master",
            "conf",
        )
    ),
)
limits = options(
    *(settings.option(f"limits.{name}") for name in ("total", "account", "items", "rejects"))
)
"""When to stop before publishing, for a person to look; each is off unless it is given."""
_AGAIN = {
    *("logs", "book", "prices", "contracts", "naive_timestamps", "columns"),
    *("max_rejects", "allow_empty", "allow_gap", "require_days", "engine", "master"),
}


def given_again() -> str:
    """Spell the options that came from a person or the environment, for another command to take.

    Limits are left out: an approval says what is to pass, whatever they are. So are a cluster's
    settings, for a password may be among them.
    """
    context = click.get_current_context()
    file = config.used(context).path
    words = [f"--config {quote(str(file.absolute()))}"] if file else []
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name in _AGAIN and source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}:
            words += _spelled(option, context.params[name])
    return " ".join(words)


def _spelled(option: click.Parameter, value: Any) -> list[str]:
    """Spell an option as it is typed, for each of its values."""
    typed = option.opts[0]
    if value is None or isinstance(value, bool):
        no = option.secondary_opts[0] if option.secondary_opts else None
        return [word for word in [typed if value else no] if word and value is not None]
    if isinstance(value, Fraction):
        value = _spelled_share(value)
    several = ["=".join(each) for each in value] if isinstance(value, tuple) else [str(value)]
    return [f"{typed} {quote(each)}" for each in several]


def _spelled_share(value: Fraction) -> str:
    """Spell a share so that it is read as the same: as a decimal where it has a short one."""
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    if Fraction(decimal) != value:
        return str(value)
    plain = f"{decimal:f}"
    return plain if len(plain) <= len("0.") + 20 else f"{decimal:e}"


def was_typed(name: str) -> bool:
    """Tell whether an option was typed, rather than set by the environment or left out."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def price_book(path: Path) -> PriceBook:
    """Read the price book; raises `MissingInput`, `CannotRead` or `BadInput`."""
    return PriceBook.parse(_read(path, "no price book", "name it with --prices"), str(path))


def contract_prices(named: Path | None, prices: Path, book: PriceBook) -> "Contracts | None":
    """Read the contracts, without checking them yet.

    Args:
        named: the file; None for the one beside the price book, if there is one.
        prices: where the price book lies.
        book: the price book, which knows the items.

    Raises:
        BadConfig: none is named, and both contracts.csv and contracts.parquet lie there.
        MissingInput: the named file does not exist.
        CannotRead: the file system refused to read.
    """
    beside = [prices.with_name(name) for name in ("contracts.csv", "contracts.parquet")]
    present = [named] if named else [path for path in beside if _exists(path)]
    if len(present) > 1:
        raise BadConfig(
            "both contracts.csv and contracts.parquet",
            where=str(prices.parent),
            cure="keep one of them, or name it with --contracts",
        )
    if not present:
        return None
    from settlement.contracts import Contracts

    raw = _read(present[0], "no such contracts file", "check --contracts, or leave it out")
    return Contracts.of(raw, str(present[0]), book)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _cannot_read(path, error) from error


def _read(path: Path, missing: str, cure: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingInput(missing, where=str(path), cure=cure) from error
    except IsADirectoryError as error:
        raise CannotRead("is a folder", where=str(path), cure="name the file in it") from error
    except OSError as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError) -> CannotRead:
    return CannotRead(
        f"cannot read ({error.strerror})", where=str(path), cure="check its permissions"
    )


def now() -> datetime:
    """Return the present, or the instant in SETTLE_NOW that stands in for it.

    Raises:
        BadConfig: SETTLE_NOW is not an instant with its offset from UTC.
    """
    given = os.environ.get("SETTLE_NOW")
    if given is None:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(given)
        known = instant.tzinfo is not None and 1970 < instant.year < 9998
    except ValueError as error:
        raise _bad_now(given) from error
    if not known:  # no offset, or no month near it that could be settled
        raise _bad_now(given)
    return instant.astimezone(UTC)


def _bad_now(given: str) -> BadConfig:
    return BadConfig(
        "not an instant",
        where=f"SETTLE_NOW={given!r}",
        cure="write it like 2026-03-01T02:00:00Z",
    )


def now_set() -> bool:
    """Tell whether SETTLE_NOW stands in for the clock."""
    return "SETTLE_NOW" in os.environ


def warn(line: str) -> None:
    """Write a warning: what a person should know and nothing is refused for."""
    messages.warn(line)


_SPOKEN = "settlement.spoken"
"""Where a context keeps how a person asked this program to speak."""
_UNSPOKEN = "settlement.unspoken"
"""Where it keeps which manners of speaking are still to be read."""
_MANNERS = ("log_format", "quiet", "verbose")
"""The settings of how this program speaks."""


def _speak(context: click.Context, option: click.Parameter, value: object) -> None:
    """Speak as asked; what is typed before a command's name holds for the command."""
    name = option.name or ""
    asked = context.meta.setdefault(_SPOKEN, {})
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        asked[name] = value
    value = context.meta[f"messages.{name}"] = asked.get(name, value)
    if name in asked or source is not ParameterSource.DEFAULT:
        setattr(messages.manner, {"log_format": "form"}.get(name, name), value)
    if isinstance(context.command, click.Group) or context.resilient_parsing:
        return
    left = context.meta.setdefault(_UNSPOKEN, {*_MANNERS})
    left.discard(name)
    if not left:  # by now it is known how to say it
        _warn_of_mistyped(context.find_root().command)


def _warn_of_mistyped(command: click.Command) -> None:
    """Name the variables that nothing reads and that are nearly some that are read."""
    for variable, near in variables.unknown(command):
        if near:
            said = f"{variable} is set, but is no setting; did you mean {near}?"
            messages.warn(said, variable=variable)


def _common() -> list[click.Parameter]:
    """Return the options that every command has."""
    return [
        config.chosen(),
        *(
            settings.parameter(f"messages.{name}", callback=_speak, expose_value=False)
            for name in _MANNERS
        ),
    ]


def source_of(context: click.Context, setting: settings.Setting) -> ParameterSource | None:
    """Tell where the value of a setting comes from; typed before a command, it was typed."""
    if setting.name in context.meta.get(_SPOKEN, {}):
        return ParameterSource.COMMANDLINE
    return context.get_parameter_source(setting.name)


_C = TypeVar("_C", bound=click.Command)


def with_common(command: _C) -> _C:
    """Give a command, and those of a group, the options that every command has."""
    if not any(option.name == "log_format" for option in command.params):
        command.params.extend(_common())
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        with_common(each)
    return command


def main(
    command: click.Command,
    name: str,
    arguments: Sequence[str] | None = None,
    *,
    typed: str = "",
    stamped: bool = False,
) -> NoReturn:
    """Run a command of this name as a program, and leave with its exit code.

    ``typed`` is how a person calls it, where that is not its name. ``stamped`` lines of text
    begin with instant, run and month, as those of a service do. Where a shell asks
    (``_SETTLE_COMPLETE``), it completes a line instead.
    """
    asked = f"_{name.upper()}_COMPLETE"
    if os.environ.get(asked):
        sys.exit(shell_complete(with_common(command), {}, name, asked, os.environ[asked]))
    lean.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored by whoever started us
            signal.signal(number, interrupt)
    given = list(sys.argv[1:] if arguments is None else arguments)
    messages.manner.name, messages.manner.stamped = name, stamped
    messages.manner.form = "json" if _asks_json(given) else "text"
    _leave(_exit_code(with_common(command), name, typed or name, given))


def _leave(code: int) -> NoReturn:
    """End the process with an exit code, without taking the interpreter and libraries down.

    Nothing is left to clear up. A thread that Arrow is just starting, to read ahead say, would
    meet the destructors of its library, which now and then abort the process (exit code 134)
    after all was done and said.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _asks_json(given: Sequence[str]) -> bool:
    """Tell whether messages are to be JSON, before the arguments are known to be right."""
    typed = [right for left, right in pairwise(given) if left == "--log-format"]
    typed += [word.partition("=")[2] for word in given if word.startswith("--log-format=")]
    return (typed[-1] if typed else os.environ.get("SETTLE_LOG_FORMAT")) == "json"


def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal: unwind once, for a second one must not disturb the clearing up."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def _exit_code(command: click.Command, name: str, typed: str, given: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no Chinese still works
            stream.reconfigure(errors=ERRORS)
    try:
        # Not `command.main`, which turns a closed pipe into exit code 1.
        with command.make_context(typed, given) as context:
            command.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        messages.say(_wrong_usage(name, typed, error), "error", exit_code=error.exit_code)
        return error.exit_code
    except Interrupted as signalled:
        said = f"{name}: {signalled.name}; nothing was left half-written"
        messages.say(said, "warning", exit_code=signalled.exit_code)
        return signalled.exit_code
    except SettlementError as error:
        messages.refused(error)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and _is_of_output(error):
            return _without_output(name, error)
        if not messages.bug(error):
            raise
        return 1
    return 0


def _is_of_output(error: OSError) -> bool:
    """Tell whether standard output failed: its reader has left, or its disk is full.

    Nothing but `click.echo` writes to it and nothing but `_exit_code` flushes it, so the error
    comes out of one of these two.
    """
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return innermost.f_code in {click.echo.__code__, _exit_code.__code__}


def _without_output(name: str, error: OSError) -> int:
    """Leave without standard output, and keep Python from flushing into nothing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(error, BrokenPipeError):
        said = f"{name}: standard output: cannot write ({error.strerror}); what was asked is done"
        messages.say(said, "error", exit_code=CannotWrite.exit_code)
    return CannotWrite.exit_code


def _wrong_usage(name: str, typed: str, error: click.ClickException) -> str:
    """Say on one line what is wrong with a command, and where its help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else typed
    said = safe(" ".join(error.format_message().split())).removesuffix(".")
    parameters = {each.name for each in context.command.params} if context else set()
    if isinstance(error, click.NoSuchOption) and "account" in parameters:
        said += f"; an account that begins with - goes after --: {command} MONTH -- ACCOUNT"
    return f"{name}: {said}; see: {command} --help"
