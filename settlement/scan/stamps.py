"""Timestamps of calls, and whether they lie in the month.

A column of timestamps is compared as it is written: the month's bounds are turned into its
unit, never the column into another. What a footer tells of a row group's timestamps often
decides without decoding any. Timestamps without a zone are wall clock times; those near the
month are turned into instants, in a zone that somebody must have named.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from settlement.month import UNITS_PER_SECOND, Period
from settlement.scan.arrays import nulls, strings, to_numpy

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_DAY = 86_400
_NS = 10**9
_FAR_PAST = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Span:
    """What a footer tells of a row group's timestamps; None where it does not.

    ``first`` and ``last`` are the smallest and largest in the column's own unit, ``nulls``
    how many rows have none. ``is_sure`` says that nulls are told of twice: a call without a
    timestamp must not be charged because one bit of a footer says that there is none.
    """

    first: int | None = None
    last: int | None = None
    nulls: int | None = None
    is_sure: bool = True

    def joined(self, other: "Span") -> "Span":
        """Return what is told of both together: of either nothing, of both nothing."""
        nulls, is_sure = None, self.is_sure and other.is_sure
        if self.nulls is not None and other.nulls is not None:
            nulls = self.nulls + other.nulls
        if self.first is None or self.last is None or other.first is None or other.last is None:
            return Span(nulls=nulls, is_sure=is_sure)
        first, last = min(self.first, other.first), max(self.last, other.last)
        return Span(first, last, nulls, is_sure)


@dataclass(frozen=True)
class Stamps:
    """The timestamps of some rows.

    ``values`` are instants since 1970 in ``unit``, meaningful where neither ``missing`` nor
    far outside the month; ``inside`` marks the rows whose instant lies in the month.
    """

    values: Ints
    unit: str
    missing: Bools
    inside: Bools

    def since(self, start: int, rows: Ints) -> Ints:
        """Return nanoseconds since a second near the month, for rows that lie in it."""
        return since(self.values[rows], self.unit, start)

    def cells(self, rows: Ints) -> pa.Array:
        """Return some rows as ISO 8601 in UTC, with all digits of their unit."""
        moments: Any = self.values[rows].view(f"datetime64[{self.unit}]")
        written = np.char.add(np.datetime_as_string(moments), "Z").astype(object)
        written[self.missing[rows]] = None
        return strings(written.tolist())


def since(values: Ints, unit: str, start: int) -> Ints:
    """Return nanoseconds since a second for instants near it, which count a unit since 1970."""
    scale = UNITS_PER_SECOND[unit]
    return (values - start * scale) * (_NS // scale)


@dataclass(frozen=True)
class Clock:
    """Tells which timestamps lie in the month.

    Args:
        period: the month's instants.
        naive_zone: what timestamps without a zone mean; a wall clock there.
    """

    period: Period
    naive_zone: ZoneInfo | None = None

    def overlaps(self, kind: pa.DataType, span: Span) -> bool | None:
        """Tell whether rows of a span lie in the month; None where only decoding tells."""
        low, high, is_naive = self._window(kind)
        if span.first is None or span.last is None or span.first > span.last:
            return None
        if span.last < low or span.first >= high:
            return False
        known = low <= span.first < high or low <= span.last < high
        return True if known and not is_naive else None

    def excludes(self, kind: pa.DataType, span: Span) -> bool:
        """Tell whether every row surely has an instant outside the month."""
        return span.nulls == 0 and self.overlaps(kind, span) is False

    def includes(self, kind: pa.DataType, span: Span) -> bool:
        """Tell whether every row surely has an instant in the month."""
        low, high, is_naive = self._window(kind)
        if span.first is None or span.last is None or span.nulls != 0 or is_naive:
            return False
        return span.is_sure and low <= span.first <= span.last < high

    def _window(self, kind: pa.DataType) -> tuple[int, int, bool]:
        """Return the bounds in a column's unit; for a wall clock a day wider."""
        if not pa.types.is_timestamp(kind):
            return 0, 0, True
        low, high = self.period.bounds(kind.unit)
        day = _DAY * UNITS_PER_SECOND[kind.unit]
        return (low - day, high + day, True) if kind.tz is None else (low, high, False)

    def read(self, column: pa.Array) -> Stamps:
        """Read a timestamp column; raises `ValueError` for wall clock times that never were."""
        missing = nulls(column)
        if pa.types.is_null(column.type):
            nothing = np.zeros(len(column), bool)
            return Stamps(np.zeros(len(column), np.int64), "s", missing, nothing)
        unit = column.type.unit
        values = to_numpy(column.cast(pa.int64()))
        low, high = self.period.bounds(unit)
        if column.type.tz is None:
            values = self._from_wall_clock(values, unit, missing)
        inside = (values >= low) & (values < high) & ~missing
        return Stamps(values, unit, missing, inside)

    def _from_wall_clock(self, walls: Ints, unit: str, missing: Bools) -> Ints:
        """Turn wall clock times within a day of the month into instants; others stay outside."""
        scale = UNITS_PER_SECOND[unit]
        low, high = (self.period.start - _DAY) * scale, (self.period.end + _DAY) * scale
        near = np.flatnonzero((walls >= low) & (walls < high) & ~missing)
        values = np.full(len(walls), _FAR_PAST)
        for skip_from, skip_to in self.changes.skipped:
            gap = (walls[near] >= skip_from * scale) & (walls[near] < skip_to * scale)
            if gap.any():
                never = walls[near][gap][:1].view(f"datetime64[{unit}]")[0]
                raise ValueError(f"{never} never was in {self.naive_zone}: clocks skipped it")
        switches = np.array([at * scale for at in self.changes.walls], np.int64)
        offsets = np.array(self.changes.offsets, np.int64) * scale
        values[near] = walls[near] - offsets[np.searchsorted(switches, walls[near], side="right")]
        return values

    @cached_property
    def changes(self) -> "Changes":
        """How the clocks of the zone run about the month; there must be a zone."""
        assert self.naive_zone is not None
        return Changes.near(self.period, self.naive_zone)


@dataclass(frozen=True)
class Changes:
    """How a zone's clocks run: ``offsets[k]`` holds from wall clock second ``walls[k - 1]`` on.

    Times that exist twice count the first time. ``skipped`` are wall clock times that clocks
    jump over.
    """

    walls: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def near(cls, period: Period, zone: ZoneInfo) -> "Changes":
        """Find the changes within two days of a period, by looking at every hour."""
        begin, end = period.start - 2 * _DAY, period.end + 2 * _DAY
        changes = cls(offsets=[_offset(begin, zone)])
        for hour in range(begin, end, 3600):
            before, after = _offset(hour, zone), _offset(hour + 3600, zone)
            if before == after:
                continue
            low, high = hour, hour + 3600
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
            changes.offsets.append(after)
            changes.walls.append(high + max(before, after))
            if after > before:
                changes.skipped.append((high + before, high + after))
        return changes


def _offset(instant: int, zone: ZoneInfo) -> int:
    """Return how many seconds a zone's clocks are ahead of UTC at an instant."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant)
    ahead = moment.astimezone(zone).utcoffset()
    assert ahead is not None
    return round(ahead.total_seconds())
