"""Which days of a month have rows, and which between them have none: is the log complete?

A day without a single row, between days that have some, is mostly a delivery that failed.
Footers answer nearly always: the smallest and the largest timestamp of a row group are rows,
each of a day, so a log that is written day by day is not decoded at all. Of row groups that
span several days the timestamps alone are decoded, widest first, until every day has a row;
of a log written in any order that is a row group or two. Only where a day is really empty
are all row groups that span it decoded, one column of them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from settlement.month import UNITS_PER_SECOND, Month
from settlement.scan.decoding import columns, read_stamps
from settlement.scan.logfiles import CallLog, LogFile, RowGroup
from settlement.scan.stamps import Clock

Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class _Open:
    """A row group that may have rows on any day from ``first`` to ``last``."""

    file: LogFile
    group: RowGroup
    first: int
    last: int


def missing(
    log: CallLog,
    month: Month,
    zone: ZoneInfo,
    naive_zone: ZoneInfo | None = None,
    threads: int = 1,
) -> tuple[date, ...]:
    """Return the days of a month without any row, between days that have some.

    Every row with a timestamp counts, charged or not. The timestamp column must have been
    checked (`logfiles.check`).

    Args:
        log: the call log.
        month: whose days are asked for.
        zone: the billing zone, in which days begin.
        naive_zone: what timestamps without a zone mean.
        threads: how many row groups are decoded at once, where any are.

    Raises:
        BadInput: a file is damaged.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """
    looking = _Looking(log, month, zone, naive_zone)
    found = np.zeros(len(looking.days), bool)
    left = sorted(looking.footers(found), key=lambda each: each.first - each.last)
    wave = 1  # one row group is mostly enough
    with ThreadPoolExecutor(threads) as pool:
        while left := [each for each in left if not found[each.first : each.last + 1].all()]:
            for more in pool.map(looking.decoded, left[:wave]):
                found |= more
            left, wave = left[wave:], threads
    some = np.flatnonzero(found)
    between = range(some[0] + 1, some[-1]) if len(some) else range(0)
    return tuple(looking.days[day] for day in between if not found[day])


class _Looking:
    """The days of a month as instants, and how to find rows in them."""

    def __init__(
        self, log: CallLog, month: Month, zone: ZoneInfo, naive_zone: ZoneInfo | None
    ) -> None:
        self._log = log
        self._clock = Clock(month.period(zone), naive_zone)
        begins = month.days(zone)
        self.days = list(begins)
        self._begins = np.array([*begins.values(), self._clock.period.end], np.int64)

    def footers(self, found: Bools) -> Iterator[_Open]:
        """Mark the days that footers prove to have rows; yield what they leave open."""
        for file in self._log.files:
            kind = file.types["timestamp"]
            is_exact = pa.types.is_timestamp(kind) and kind.tz is not None
            for group in file.groups:
                span = group.span
                if not group.rows or self._clock.overlaps(kind, span) is False:
                    continue
                if not is_exact or span.first is None or span.last is None:
                    yield _Open(file, group, 0, len(self.days) - 1)
                    continue
                ends = self._day(np.array([span.first, span.last]), kind.unit)
                first, last = int(ends[0]), int(ends[1])
                inside = [day for day in (first, last) if 0 <= day < len(found)]
                found[inside] = True
                first, last = max(first, 0), min(last, len(found) - 1)
                if not found[first : last + 1].all():
                    yield _Open(file, group, first, last)

    def _day(self, values: Any, unit: str) -> Any:
        """Return the number of the day of each instant: -1 before the month, last + 1 after."""
        return np.searchsorted(self._begins * UNITS_PER_SECOND[unit], values, side="right") - 1

    def decoded(self, left: _Open) -> Bools:
        """Return the days on which a row group has rows."""
        found = np.zeros(len(self.days), bool)
        for _, cells in columns(self._log, left.file, left.group, ["timestamp"]):
            stamps = read_stamps(self._clock, left.file, cells["timestamp"])
            found[self._day(stamps.values[stamps.inside], stamps.unit)] = True
        return found


def said(days: tuple[date, ...], most: int = 10) -> str:
    """Name days for a person, the first ones where they are many."""
    named = ", ".join(map(str, days[:most]))
    return named if len(days) <= most else f"{named} and {len(days) - most} more"
