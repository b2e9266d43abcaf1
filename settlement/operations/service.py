"""The service: a round when it starts, one whenever the schedule says, more where one failed.

The service keeps no state of its own: after a crash, a refusal or a week without power the
next round finds in the book what is missing. A round that failed for a reason that may pass
by itself is tried again with growing delays; any other waits for the next tick.

APScheduler only says when. The work is done by the main thread, because only there can a
signal end it, and because APScheduler would swallow what a job raises, SystemExit included.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from zoneinfo import ZoneInfo

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from settlement import shell
from settlement.errors import BookHeld, CannotRead, MissingInput, SettlementError
from settlement.month import Month
from settlement.operations import messages
from settlement.operations.cron import Cron
from settlement.operations.stop import Stop

log = logging.getLogger(__name__)

LOOK_EVERY = 15.0
"""Seconds between looks at the clock: clocks are set, and machines sleep."""
PASSING = (MissingInput, CannotRead, BookHeld)
"""Refusals that may pass by themselves: the log is late, the storage away, the book held.

Not among them is `CannotWrite`: a full disk needs a person, as wrong input does.
"""
Round = Callable[[Callable[[], bool]], Iterator[str]]
"""Goes one round, told how to learn that it should stop; yields lines, raises a refusal."""


@dataclass(frozen=True)
class Retry:
    """How long to wait before a round that failed is tried again, in seconds.

    ``first`` before the first time, ``factor`` times longer before each further one, never
    longer than ``longest``; no more once the waits would add up to more than ``total``.
    """

    first: float = 60.0
    factor: float = 2.0
    longest: float = 3600.0
    total: float = 12 * 3600.0

    def __post_init__(self) -> None:
        """Refuse what would try again without a pause."""
        if self.first <= 0 or self.factor < 1 or self.longest < self.first:
            raise ValueError("retries need a first delay > 0, a factor ≥ 1, and longest ≥ first")

    def delays(self) -> Iterator[float]:
        """Yield the waits, in order."""
        waited, delay = 0.0, self.first
        while waited + delay <= self.total:
            yield delay
            waited += delay
            delay = min(delay * self.factor, self.longest)


class OnSchedule(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires when cron fields say so in a zone; fire times that were missed count as one."""

    def __init__(self, cron: Cron, zone: ZoneInfo) -> None:
        self._cron, self._zone = cron, zone

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the next instant after now, or after the previous one if that is later."""
        return self._cron.after(max(previous_fire_time or now, now), self._zone)


def first_tick_after(cron: Cron, zone: ZoneInfo) -> Callable[[Month], datetime]:
    """Return what tells the first tick after a month's end; before it, no round settles it.

    The schedule says when the log is complete. A service that happens to start between midnight
    and that tick must not settle a month without its last files.
    """

    def begins(month: Month) -> datetime:
        end = datetime.fromtimestamp(month.period(zone).end, UTC)
        return cron.after(end - timedelta(seconds=1), zone)

    return begins


class Ticks:
    """Ticks of a schedule, as APScheduler tells them, waited for by the main thread.

    Ticks that come while nobody waits count as one. Where the clock was put back, the next tick
    is the first from there; where it was put forward, the ticks that were passed over are one.
    """

    def __init__(self, trigger: BaseTrigger) -> None:
        self._ticked, self._trigger = threading.Event(), trigger
        self._scheduler = BackgroundScheduler(timezone=UTC)
        # No grace time: a tick that is late by any amount is better than a month not settled.
        self._job = self._scheduler.add_job(
            self._ticked.set, trigger, misfire_grace_time=None, coalesce=True, max_instances=1
        )

    def __enter__(self) -> Self:
        self._scheduler.start()
        self._seen = shell.now()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._scheduler.shutdown(wait=False)

    @property
    def next(self) -> datetime:
        """The instant of the next tick."""
        fire: datetime = self._job.next_run_time
        return fire

    def wait(self, seconds: float | None) -> bool:
        """Wait for a tick, or so many seconds; tell whether a tick came."""
        until = float("inf") if seconds is None else time.monotonic() + seconds
        self._look_at_the_clock()  # which may have gone on during a long round
        while not self._ticked.wait(max(min(LOOK_EVERY, until - time.monotonic()), 0.0)):
            if time.monotonic() >= until:
                return False
            self._look_at_the_clock()
        self._ticked.clear()
        return True

    def _look_at_the_clock(self) -> None:
        now = shell.now()
        if now < self._seen:
            self._job.reschedule(self._trigger)
            messages.say(f"the clock went back; next tick at {self.next.isoformat()}")
        self._seen = now
        self._scheduler.wakeup()


def serve(go_round: Round, trigger: BaseTrigger, retry: Retry, stop_within: float) -> None:
    """Go a round at once and then whenever the trigger fires, until a signal comes.

    A trigger that fires during a round causes one more when that has ended, however often it
    fired. A signal that comes during a round lets the run under way finish within
    ``stop_within`` seconds; one that comes while nothing runs ends this at once.

    Raises:
        Interrupted: a run was abandoned: the time was up, or a second signal came.
    """
    stop = Stop(stop_within)
    delays = retry.delays()
    try:
        with stop.heeded(), Ticks(trigger) as ticks:
            while True:
                with stop.run():
                    refusal = _tried(go_round, stop)
                if stop:
                    messages.say(f"{stop}: the run under way has ended; leaving")
                    return
                delay = next(delays, None) if isinstance(refusal, PASSING) else None
                _tell(refusal, delay, ticks.next)
                if ticks.wait(delay):
                    delays = retry.delays()
    except shell.Interrupted as signalled:
        if stop.running:
            raise
        messages.say(f"{signalled.name} while idle: leaving")


def _tried(go_round: Round, stop: Stop) -> SettlementError | None:
    """Go one round and log its lines; return the refusal, if there was one."""
    messages.begin_run()
    messages.say("tick: looking for months to settle")
    try:
        for line in go_round(stop.__bool__):
            messages.say(line)
    except SettlementError as refusal:
        messages.refused(refusal, before="refused: ")
        return refusal
    except (Exception, SystemExit):
        # A service that dies of a bug would miss the month in which the bug is mended.
        log.exception("a bug, the next tick tries again")
    return None


def _tell(refusal: SettlementError | None, delay: float | None, tick: datetime) -> None:
    """Say when the next round is."""
    messages.about(None)
    if delay is not None:
        messages.say(f"trying again in {delay:g} s; next tick at {tick.isoformat()}")
    elif refusal:
        messages.say(f"not trying again before the next tick at {tick.isoformat()}")
    else:
        messages.say(f"next tick at {tick.isoformat()}")
