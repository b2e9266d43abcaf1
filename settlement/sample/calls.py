"""Which calls a sample log has: who they are is not said here, only which, and when.

Calls are numbered from 0 in order of time. All that is random about a call is read off the bits
of its number, mixed, so a call that is delivered again is simply asked for again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from math import gcd
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from settlement.month import Month

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

SECOND = 1_000_000  # in the unit of the timestamps, microseconds

_HOURS = (14, 9, 6, 5, 5, 8, 16, 34, 60, 82, 90, 86, 66, 70, 88, 90, 86, 80, 78, 80, 76, 62, 42, 24)
_WEEKDAYS = (100, 103, 104, 102, 98, 72, 64)  # Monday first
_FAILED_OF_65536 = 1311  # 2 %

# What a row is made as. Malformed kinds follow, one for each reason.
CALL, REDELIVERY, RETRY, CONFLICT, STRAY, MALFORMED = range(6)
REASONS = (
    "missing_timestamp",
    "missing_request_id",
    "missing_account_id",
    "unknown_interface",
    "wrong_item",
    "missing_status",
)
BUCKETS = (
    "billed",
    "duplicate",
    "conflict",
    "outside_month",
    "unbillable_status",
    *(f"rejected.{reason}" for reason in REASONS),
)

# What random bits are drawn for.
TIME, FATE, ACCOUNT, TASTE, HIGH, LOW = range(_PURPOSES := 6)


@dataclass(frozen=True)
class Quota:
    """Calls of one item that one account is to be charged, no more and no fewer.

    ``account`` is its number (42 is written 0100000042) and should lie above the number of Zipf
    accounts. A call of a quota that fails is always retried with success under its id.
    """

    account: int
    item: str
    calls: int


@dataclass(frozen=True)
class Rows:
    """Rows to write: which call, what the row is made as, and when the call was born (µs)."""

    number: Ints
    kind: Codes
    born: Ints


NO_ROWS = Rows(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.int64))


@dataclass(frozen=True)
class Extras:
    """Rows beside the calls, and when each is delivered (µs), ascending."""

    rows: Rows
    delivered: Ints


@dataclass(frozen=True)
class Plan:
    """Everything a call's columns are computed from.

    Calls are numbered from 0 in order of time; ``first_call[h]`` is the number of the first call
    of hour ``h`` of the month, which begins at ``starts[h]`` (µs). Rows that are no call of the
    month (strays, malformed ones) have numbers from ``calls`` on.
    """

    calls: int
    accounts: int
    quotas: tuple[Quota, ...]
    keys: Bits
    starts: Ints
    first_call: Ints
    days: tuple[tuple[date, int], ...]
    compact: bool

    def draw(self, purpose: int, numbers: Ints) -> Bits:
        """Return 64 random bits per number: the finaliser of the SplitMix64 generator."""
        bits = numbers.astype(np.uint64)
        bits *= np.uint64(0x9E3779B97F4A7C15)
        bits += self.keys[purpose]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits ^= bits >> np.uint64(shift)
            bits *= np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        return bits

    def born(self, numbers: Ints) -> Ints:
        """Return the instant of calls of the month, in whole numbers so that all machines agree."""
        hour = np.searchsorted(self.first_call, numbers, side="right") - 1
        length = self.starts[hour + 1] - self.starts[hour]
        share = self.first_call[hour + 1] - self.first_call[hour]
        within = (numbers - self.first_call[hour]) * length // share
        jitter = (self.draw(TIME, numbers) >> np.uint64(44)).astype(np.int64)
        return np.asarray(self.starts[hour] + within + (length // share * jitter >> 20))

    def quota(self, numbers: Ints) -> Ints:
        """Return which quota each call belongs to; ``len(quotas)`` says none.

        Multiplying by a number that shares no divisor with the number of calls shuffles them, so
        a quota is a range of the shuffled numbers: exact, and spread over the month.
        """
        if not self.quotas:
            return np.zeros(len(numbers), np.int64)
        step = int(self.calls * 0.236)
        while gcd(step, self.calls) != 1:
            step += 1
        ends = np.cumsum([quota.calls for quota in self.quotas])
        found = np.searchsorted(ends, numbers * step % self.calls, side="right")
        return np.asarray(np.where(numbers < self.calls, found, len(self.quotas)))


def plan_of(
    month: Month,
    accounts: int,
    calls: int,
    seed: int,
    *,
    zone: ZoneInfo,
    quotas: Sequence[Quota],
    compact: bool,
) -> Plan:
    """Spread the calls over the hours of the month by the rhythm of the day and the week."""
    period = month.period(zone)
    starts = [*range(period.start, period.end, 3600), period.end]
    weights = [0]
    days: dict[date, int] = {}
    for hour, (start, end) in enumerate(pairwise(starts)):
        local = datetime.fromtimestamp(start, zone)
        days.setdefault(local.date(), hour)
        rhythm = _HOURS[local.hour] * _WEEKDAYS[local.weekday()]
        weights.append(weights[-1] + rhythm * (end - start))
    keys = np.random.SeedSequence([seed, month.year, month.number])
    return Plan(
        calls=calls,
        accounts=accounts,
        quotas=tuple(quotas),
        keys=keys.generate_state(_PURPOSES, np.uint64).astype(np.uint64),
        starts=np.array(starts, np.int64) * SECOND,
        first_call=np.array([weight * calls // weights[-1] for weight in weights], np.int64),
        days=tuple(days.items()),
        compact=compact,
    )


def extras_of(plan: Plan) -> Extras:
    """Make all rows that are not a call where it belongs, in the order of their delivery.

    They are few, so they are held for the whole month; retries are not, as they come at once.
    """
    rng = np.random.default_rng(plan.keys)
    start, end = int(plan.starts[0]), int(plan.starts[-1])

    again = rng.integers(0, plan.calls, plan.calls // 200)
    born = plan.born(again)
    delay = np.minimum(rng.lognormal(np.log(120), 3.0, len(again)), 4 * 86_400) * SECOND
    parts = [(again, np.full(len(again), REDELIVERY), born, born + delay.astype(np.int64))]

    twice = _conflicting_calls(plan, rng)
    born = plan.born(twice)
    parts.append((twice, np.full(len(twice), CONFLICT), born, born + 60 * SECOND))

    strays = -(-plan.calls // 50_000)
    number = plan.calls + np.arange(2 * strays)
    late = start - 1 - rng.integers(0, 2 * 86_400 * SECOND, strays)
    early = end + rng.integers(0, 1800 * SECOND, strays)
    delivered = np.r_[start + rng.integers(0, 3 * 86_400 * SECOND, strays), np.full(strays, end)]
    parts.append((number, np.full(2 * strays, STRAY), np.r_[late, early], delivered))

    malformed = plan.calls // 20_000
    number = plan.calls + 2 * strays + np.arange(malformed)
    born = rng.integers(start, end, malformed)
    reason = (np.arange(malformed) + rng.integers(len(REASONS))) % len(REASONS)
    parts.append((number, MALFORMED + reason, born, born))

    numbers, kinds, births, deliveries = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.argsort(deliveries, kind="stable")
    rows = Rows(numbers[order], kinds[order].astype(np.int8), births[order])
    return Extras(rows, deliveries[order])


def _conflicting_calls(plan: Plan, rng: np.random.Generator) -> Ints:
    """Choose the few calls that are delivered once more with other columns.

    They succeeded, belong to no quota, and are not of the month's last hours, so the conflicting
    row, which is later, lies in the month too.
    """
    wanted = -(-plan.calls // 50_000)
    numbers = rng.integers(0, max(1, plan.calls * 99 // 100), (wanted, 64))
    flat = numbers.ravel()
    suits = (plan.quota(flat) == len(plan.quotas)) & ~failed(plan.draw(FATE, flat))
    suits = suits.reshape(numbers.shape)
    chosen = np.take_along_axis(numbers, suits.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.unique(chosen[suits.any(axis=1)])


def rows_between(plan: Plan, extras: Extras, first: int, end: int) -> Rows:
    """Return the calls of a range with their retries and the extra rows, as they are delivered."""
    calls = np.arange(first, end, dtype=np.int64)
    born = plan.born(calls)
    fate = plan.draw(FATE, calls)
    always = plan.quota(calls) < len(plan.quotas)
    retried = np.flatnonzero(failed(fate) & (always | ((fate >> np.uint64(18)) % 2 == 1)))
    span = slice(*np.searchsorted(extras.delivered, [_edge(plan, first), _edge(plan, end)]))
    number = np.r_[calls[retried], extras.rows.number[span]]
    kind = np.r_[np.full(len(retried), RETRY, np.int8), extras.rows.kind[span]]
    births = np.r_[born[retried], extras.rows.born[span]]
    when = np.r_[born[retried] + lag(fate[retried]), extras.delivered[span]]
    order = np.argsort(when, kind="stable")
    place = np.searchsorted(born, when[order])
    return Rows(
        np.insert(calls, place, number[order]),
        np.insert(np.full(len(calls), CALL, np.int8), place, kind[order]),
        np.insert(born, place, births[order]),
    )


def _edge(plan: Plan, number: int) -> int:
    """Return when the delivery window that begins with a call begins; all time is covered once."""
    if 0 < number < plan.calls:
        return int(plan.born(np.array([number]))[0])
    limits = np.iinfo(np.int64)
    return int(limits.min if number == 0 else limits.max)


def failed(fate: Bits) -> Bools:
    """Tell which calls failed."""
    return np.asarray(fate % np.uint64(65_536) < _FAILED_OF_65536)


def lag(fate: Bits) -> Ints:
    """Return how much later a retry or a conflicting row is than the call (0.2 s to 8.6 s)."""
    return 200_000 + 8 * (fate >> np.uint64(44)).astype(np.int64)
