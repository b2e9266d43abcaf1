"""Values as people write them, in options, variables and files: months, shares, amounts, paths.

Each reader takes text and raises `click.BadParameter` for what it cannot be, so that whoever
asked for it can say where it was written.
"""

import os
import re
import shlex
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import click

from settlement import money
from settlement.errors import WrongUsage
from settlement.month import Month, months_from, zone_named
from settlement.operations.cron import Cron


def month_of(text: str) -> Month:
    """Read an option that is a month, ``YYYY-MM``."""
    try:
        return Month.parse(text)
    except WrongUsage as error:
        raise click.BadParameter(str(error)) from error


def months_of(text: str) -> Month | tuple[Month, ...]:
    """Read an option that is a month, or a run of months ``YYYY-MM..YYYY-MM``, in order."""
    first, dots, last = text.partition("..")
    if not dots:
        return month_of(text)
    ends = month_of(first), month_of(last)
    if ends[0] > ends[1]:
        raise click.BadParameter(f"{text!r} ends before it begins; write the older month first")
    return months_from(*ends)


def revision_of(text: str) -> int:
    """Read an argument that is a revision, ``r2``; ``r0`` is what was before the first."""
    if not re.fullmatch(r"r(0|[1-9][0-9]{0,3})", text):
        raise click.BadParameter(f"{text!r} is not a revision, such as r2")
    return int(text[1:])


def share_of(text: str) -> Fraction:
    """Read an option that is a share from 0 to 1, kept exact."""
    plain = re.fullmatch(r"[0-9]{0,20}\.?[0-9]{1,20}(e-[0-9]{1,2}|/0*[1-9][0-9]{0,20})?", text)
    try:
        share = Fraction(text) if plain else Fraction(-1)
    except ValueError:
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{text!r} is not a share from 0 to 1, such as 0.0001")
    return share


def decimal_of(text: str) -> Fraction:
    """Read an option that is a plain decimal ≥ 0, kept exact."""
    return Fraction(amount_of(text), money.UNITS_PER_ONE)


def amount_of(text: str) -> int:
    """Read an option that is an amount of money ≥ 0, as units."""
    try:
        return money.units(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def factor_and_amount_of(text: str) -> tuple[Fraction, int]:
    """Read an option that is a factor and an amount, such as ``5:1000``."""
    factor, colon, amount = text.partition(":")
    if not colon:
        raise click.BadParameter(f"{text!r} is not FACTOR:AMOUNT, such as 5:1000")
    return decimal_of(factor), amount_of(amount)


def seconds_of(text: str) -> float:
    """Read an option that is a duration, ``90s``, ``15m`` or ``12h``; a bare number is seconds."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)", text)
    if not found:
        raise click.BadParameter(f"{text!r} is not a duration, such as 90s, 15m or 12h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def multiple_of(text: str) -> float:
    """Read an option that says how many times as long, from 1 to 100; NaN is neither."""
    plain = re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,6})?", text)
    if not plain or not 1 <= float(text) <= 100:
        raise click.BadParameter(f"{text!r} is not a number from 1 to 100, such as 2")
    return float(text)


def schedule_of(text: str) -> Cron:
    """Read an option that says when: a time of day, ``02:00``, or five cron fields."""
    try:
        if ":" in text:
            return Cron.daily(datetime.strptime(text, "%H:%M").time())  # noqa: DTZ007
        return Cron.parse(text)
    except ValueError as error:
        said = f"{text!r} is not a time of day, such as 02:00" if ":" in text else str(error)
        raise click.BadParameter(said) from error


def path_of(text: str) -> Path:
    """Read an option that is a path; an empty one would silently mean the working folder."""
    if not text:
        raise click.BadParameter("empty; name a file or folder")
    return Path(text)


def words_of(text: str) -> tuple[str, ...]:
    """Read an option that is a command, into words as a shell would; none starts nothing."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no command ({error})") from error


def logs_of(text: str) -> str:
    """Read an option that is a call log: a path, a glob or a URL."""
    if not text:
        raise click.BadParameter("empty; name a folder, file, glob or URL")
    return text


def text_of(text: str) -> str:
    """Read an option that is text, whatever characters the locale knows; it must be UTF-8."""
    try:
        return os.fsencode(text).decode() if not text.isprintable() else text
    except UnicodeError as error:
        raise click.BadParameter("not UTF-8") from error


def zone_of(text: str) -> str:
    """Read an option that is a time zone; raises `BadConfig` for an unknown one."""
    zone_named(text)
    return text


def column_of(text: str) -> tuple[str, str]:
    """Read an option that is a column's name here and in the log, ``request_id=rid``."""
    name, equals, own = text_of(text).partition("=")
    if not (name and equals and own):
        raise click.BadParameter(f"{text!r} is not NAME=COLUMN, such as request_id=rid")
    return name, own
