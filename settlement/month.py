"""Calendar months, and the instants at which they begin and end in a time zone."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import total_ordering
from zoneinfo import ZoneInfo

from settlement.errors import BadConfig, WrongUsage

UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


@dataclass(frozen=True)
class Period:
    """A half-open stretch of time, ``start`` ≤ t < ``end``, in whole UTC seconds since 1970."""

    start: int
    end: int

    def bounds(self, unit: str) -> tuple[int, int]:
        """Return start and end in a column's unit (``s``, ``ms``, ``us`` or ``ns``).

        The bounds are converted, never the column: a year 9999 in nanoseconds would wrap.
        They may lie outside int64; Python integers do not.
        """
        return self.start * UNITS_PER_SECOND[unit], self.end * UNITS_PER_SECOND[unit]

    @property
    def start_text(self) -> str:
        """The first instant, ISO 8601 in UTC."""
        return instant_text(self.start)

    @property
    def end_text(self) -> str:
        """The first instant after the period, ISO 8601 in UTC."""
        return instant_text(self.end)


@total_ordering
@dataclass(frozen=True)
class Month:
    """A calendar month from 1970-01 to 9998-12."""

    year: int
    number: int

    def __post_init__(self) -> None:
        if not (_FIRST_YEAR <= self.year <= _LAST_YEAR and 1 <= self.number <= 12):
            raise WrongUsage(
                "no such month",
                where=f"{self.year:04d}-{self.number:02d}",
                cure=f"months run from {_FIRST_YEAR}-01 to {_LAST_YEAR}-12",
            )

    @classmethod
    def parse(cls, text: str) -> "Month":
        """Read ``YYYY-MM``; raises `WrongUsage` for anything else."""
        found = re.fullmatch(r"([0-9]{4})-([0-9]{2})", text)
        if not found:
            raise WrongUsage(
                "not a month", where=repr(text), cure="write it as YYYY-MM, such as 2026-02"
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of(cls, instant: datetime, zone: ZoneInfo) -> "Month":
        """Return the month whose local date an instant has in a zone."""
        local = instant.astimezone(zone)
        return cls(local.year, local.month)

    @property
    def next(self) -> "Month":
        """The month after this one."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)

    @property
    def previous(self) -> "Month":
        """The month before this one."""
        return Month(self.year - (self.number == 1), (self.number - 2) % 12 + 1)

    def period(self, zone: ZoneInfo) -> Period:
        """Return the instants of the month in a billing zone.

        From the first instant whose local date lies in the month to that of the next month.
        """
        after = self.next if (self.year, self.number) != (_LAST_YEAR, 12) else None
        first_after = date(after.year, after.number, 1) if after else date(_LAST_YEAR + 1, 1, 1)
        return Period(
            _first_instant(date(self.year, self.number, 1), zone),
            _first_instant(first_after, zone),
        )

    def days(self, zone: ZoneInfo) -> dict[date, int]:
        """Return each local date of the month with its first instant, oldest first.

        A date that clocks skip as a whole, as Samoa's did in 2011, is not among them.
        """
        day, days = date(self.year, self.number, 1), {}
        while day.month == self.number:
            days[day] = _first_instant(day, zone)
            day += timedelta(days=1)
        ends = [*days.values(), self.period(zone).end][1:]
        return {
            day: begin for (day, begin), end in zip(days.items(), ends, strict=True) if begin < end
        }

    def __lt__(self, other: "Month") -> bool:
        return (self.year, self.number) < (other.year, other.number)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"


def months_between(first: Month, last: Month) -> list[Month]:
    """Return the months strictly between two months, oldest first."""
    between = []
    month = first.next if first < last else last
    while month < last:
        between.append(month)
        month = month.next
    return between


def months_from(first: Month, last: Month) -> tuple[Month, ...]:
    """Return the months from the first to the last, both included."""
    return (first, *months_between(first, last), last) if first < last else (first,)


def last_ended(now: datetime, zone: ZoneInfo) -> Month:
    """Return the newest month that is over in a zone at an instant.

    Where clocks go back over midnight, the local date lies in a month that is over already.
    """
    month = Month.of(now, zone)
    return month if is_over(month, now, zone) else month.previous


def is_over(month: Month, now: datetime, zone: ZoneInfo) -> bool:
    """Tell whether a month has ended in a zone at an instant."""
    return now.timestamp() >= month.period(zone).end


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database; raises `BadConfig` for an unknown name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise BadConfig(
            "unknown time zone", where=repr(name), cure="use an IANA name such as Asia/Shanghai"
        ) from error


def instant_text(seconds: int) -> str:
    """Write whole UTC seconds since 1970 as ISO 8601 with ``Z``."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


def instant_of(moment: datetime) -> str:
    """Write an instant as ISO 8601 in UTC with ``Z``, with the fraction of a second it has."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _first_instant(day: date, zone: ZoneInfo) -> int:
    """Return the first UTC second whose local date is ``day`` or later.

    A midnight that exists twice counts the first time (fold 0). A midnight that clocks skip
    is replaced by the instant of the jump, found by halving the day before.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    instant = int(midnight.timestamp())
    if _local_date(instant, zone) == (day, True):
        return instant
    before, after = instant - 86_400, instant + 86_400
    while after - before > 1:
        middle = (before + after) // 2
        if _local_date(middle, zone)[0] >= day:
            after = middle
        else:
            before = middle
    return after


def _local_date(instant: int, zone: ZoneInfo) -> tuple[date, bool]:
    """Return the local date of an instant, and whether it is exactly local midnight."""
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant)).astimezone(zone)
    return local.date(), (local.hour, local.minute, local.second) == (0, 0, 0)
