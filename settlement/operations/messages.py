"""Whatever is said on stderr goes through here: as text for people, or as JSON for programs.

A line has a level, an instant, the run it belongs to and the month that the run is about. For
a person at a terminal the text alone is shown; the lines of a service or of cron begin with
instant, run and month (``stamped``); with ``--log-format json`` every line is one object.
Results are not messages: they go to stdout and nothing here touches them.

What a program is and how it was asked to speak is one fact of the whole process, so it is
kept in this module and set once, by whoever starts the program.
"""

import json
import logging
import os
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import click

from settlement.errors import SettlementError
from settlement.report import safe

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]
_COLOURS = {"warning": "yellow", "error": "red"}
_LOUD = ("warning", "error")


@dataclass
class Manner:
    """How this program speaks, and what its lines are about at present.

    ``name`` begins a warning or refusal for a person; ``stamped`` lines begin with instant, run
    and month instead. ``quiet`` leaves only warnings and errors, ``verbose`` adds details.
    """

    name: str = "settle"
    form: Format = "text"
    stamped: bool = False
    quiet: bool = False
    verbose: bool = False
    run: str = ""
    month: str | None = None


manner = Manner()
"""The one manner of this process."""


def run_id() -> str:
    """Return the id of the run under way, such as ``20260301T020000Z-3f9a1c``.

    It is made when first asked for: the instant in UTC and six random digits, so that ids sort
    by time, differ between machines, and may be names of files. The clock is the real one,
    whatever SETTLE_NOW says.
    """
    if not manner.run:
        manner.run = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"
    return manner.run


def begin_run() -> str:
    """Begin another run in this process, about no month yet; return its id."""
    manner.run, manner.month = "", None
    return run_id()


def about(month: object) -> None:
    """Say which month the following lines are about; None for none."""
    manner.month = None if month is None else str(month)


def say(text: str, level: Level = "info", **fields: Any) -> None:
    """Say one line; ``fields`` stand beside it in JSON and are left out for people."""
    if (level == "debug" and not manner.verbose) or (manner.quiet and level not in _LOUD):
        return
    if manner.form == "json":
        _write(_object(text, level, fields))
    else:
        _write(_coloured(_stamped(safe(text)), level))


def detail(text: str, **fields: Any) -> None:
    """Say what only ``--verbose`` asks for."""
    say(text, "debug", **fields)


def warn(text: str, **fields: Any) -> None:
    """Say what a person should know and nothing is refused for."""
    named = manner.form == "text" and not manner.stamped
    prefix = f"{manner.name}: warning: " if named else "warning: "
    say(text if manner.form == "json" else prefix + text, "warning", **fields)


def refused(error: SettlementError, before: str = "") -> None:
    """Say a refusal and its details; in JSON its parts stand beside it."""
    if manner.form == "json":
        parts = {"what": error.what, "where": error.where, "cure": error.cure}
        more = {"kind": type(error).__name__, "exit_code": error.exit_code} | parts
        say(f"{before}{error}", "error", **more, details=list(error.details))
        return
    say(f"{before or manner.name + ': '}{error}", "error")
    for line in error.details:
        say(f"  {line}", "error")


def bug(error: Exception) -> bool:
    """Say a mistake of ours in JSON; as text it is left to Python, which shows a traceback."""
    if manner.form != "json":
        return False
    found = "".join(traceback.format_exception(error))
    say(f"a bug: {error!r}", "error", exit_code=1, traceback=found)
    return True


def _stamped(text: str) -> str:
    """Begin a line of a service with when, which run, and which month."""
    if not manner.stamped:
        return text
    month = manner.month or ""
    if month in text or text.startswith(" "):  # it says so itself, or the line above does
        month = ""
    return " ".join(filter(None, (_now(), run_id(), month, text)))


def _object(text: str, level: str, fields: dict[str, Any]) -> str:
    known = {"time": _now(), "level": level, "run": run_id(), "month": manner.month}
    return json.dumps(known | {"message": text} | fields, default=str)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _coloured(text: str, level: str) -> str:
    colour = _COLOURS.get(level)
    if not colour or not has_colour() or text.startswith(" "):  # details of the line above
        return text
    return click.style(text, fg=colour)


def has_colour() -> bool:
    """Tell whether stderr may be coloured: a terminal, and nobody asked for none."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and is_terminal()


def is_terminal() -> bool:
    """Tell whether a person watches stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def _write(line: str) -> None:
    try:
        click.echo(line, file=sys.stderr)  # named, or click writes UTF-8 where ASCII is asked
    except OSError:
        # Nobody hears it any more. A settlement is not given up for that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class Handler(logging.Handler):
    """Lets what is logged be said here, so that a service has one form of line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record; a traceback follows it, or is its field in JSON."""
        level: Level = "info"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        found = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        if manner.form == "json":
            say(record.getMessage(), level, **({"traceback": found} if found else {}))
            return
        for line in [record.getMessage(), *found.splitlines()]:
            say(line, level)


def take_logging() -> None:
    """Say what this process logs; of APScheduler only what went wrong."""
    logging.basicConfig(level=logging.INFO, handlers=[Handler()], force=True)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
