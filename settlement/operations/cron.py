"""Five cron fields, and the instants at which they fire in a zone.

    minute hour day month weekday      0 2 * * *    every day at 02:00
                                       30 6 1-3 * * at 06:30 on the first three days of a month

A field is ``*``, a number, a range ``a-b``, either with a step ``/n``, or a list of these with
commas; months and weekdays may be named (``jan``, ``mon``). As in cron(8), weekday 0 and 7
are both Sunday, and where day and weekday are both restricted, either of them suffices.

Fire times are found by walking local dates, so that each time of a date fires once: at a time
that clocks show twice it fires the first time, and at a time that clocks skip it fires that
much later. APScheduler's own cron trigger fires twice at the former, leaves out the whole day
after the latter, and counts weekdays from Monday.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import islice
from zoneinfo import ZoneInfo

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "weekday": {name: number for number, name in enumerate(_WEEKDAYS)},
}
_PART = re.compile(r"(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?")
_DAYS_TO_LOOK = 366 * 9
"""The 29th of February may be eight years away."""


@dataclass(frozen=True)
class Cron:
    """Minutes, hours, days, months and weekdays (0 is Sunday) on which something happens.

    ``text`` are the fields as they were written. ``either`` tells whether a day may match by
    its date or by its weekday alone.
    """

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Read five fields; raises ValueError, saying which field is wrong."""
        fields = text.lower().split()
        if len(fields) != len(_FIELDS):
            raise ValueError(f"{text!r} is not five cron fields, such as 0 2 * * *")
        minutes, hours, days, months, weekdays = (
            frozenset(_numbers(field, *known)) for field, known in zip(fields, _FIELDS, strict=True)
        )
        cron = cls(
            " ".join(fields),
            minutes,
            hours,
            days,
            months,
            frozenset(number % 7 for number in weekdays),
            either=not (fields[2].startswith("*") or fields[4].startswith("*")),
        )
        if next(cron._dates(date(2001, 1, 1)), None) is None:
            raise ValueError(f"{text!r} never happens; there is no such date")
        return cron

    @classmethod
    def daily(cls, at: time) -> "Cron":
        """Return the fields of a time of day."""
        return cls.parse(f"{at.minute} {at.hour} * * *")

    def after(self, instant: datetime, zone: ZoneInfo) -> datetime:
        """Return the first instant after another at which the fields fire in a zone."""
        after = instant.astimezone(UTC)
        # A time that clocks skip may fire on the day after its own.
        start = after.astimezone(zone).date() - timedelta(days=1)
        found = (self._first(day, zone, after) for day in self._dates(start))
        # Of the dates around midnight the later one may fire first, if clocks skip that midnight.
        return min(islice(filter(None, found), 2)).astimezone(zone)

    def _dates(self, start: date) -> Iterator[date]:
        """Yield the dates that match, from one on."""
        for day in (start + timedelta(days=n) for n in range(_DAYS_TO_LOOK)):
            by_date = day.day in self.days
            by_weekday = day.isoweekday() % 7 in self.weekdays
            matches = by_date or by_weekday if self.either else by_date and by_weekday
            if matches and day.month in self.months:
                yield day

    @cached_property
    def _times(self) -> tuple[time, ...]:
        return tuple(time(hour, minute) for hour in self.hours for minute in self.minutes)

    def _first(self, day: date, zone: ZoneInfo, after: datetime) -> datetime | None:
        """Return the first instant of a date's times that is later than ``after``, in UTC."""
        # In UTC: times of one zone compare by what the clock shows, not by when that is.
        fires = (datetime.combine(day, at, zone).astimezone(UTC) for at in self._times)
        return min((fire for fire in fires if fire > after), default=None)


def _numbers(field: str, name: str, low: int, high: int) -> Iterator[int]:
    """Yield the numbers that a field stands for."""
    for part in field.split(","):
        found = _PART.fullmatch(part)
        ends = [_number(text, name) for text in found.group(1, 2) if text] if found else []
        step = int(found[3] or 1) if found else 0
        first, last = (ends[0], ends[-1]) if ends else (low, high)
        if found and found[3] and len(ends) == 1:
            last = high  # 5/15 is 5-59/15
        if not step or not low <= first <= last <= high:
            raise ValueError(f"{part!r} is not a {name} from {low} to {high}, a range or a step")
        yield from range(first, last + 1, step)


def _number(text: str, name: str) -> int:
    return int(text) if text.isdigit() else _NAMES.get(name, {}).get(text, -1)
