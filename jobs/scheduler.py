"""The service: one tick a day in the billing zone, and one when it starts.

Every tick settles whatever is due, as `jobs.once` does. The service keeps no state of its
own: after a crash, a refusal or a week without power the next tick finds in the book what
is missing. Ticking daily, it is in time for the bill of day 1 and for a log that is late.

APScheduler only says when. The work is done by the main thread, because only there can a
signal end it, and because APScheduler would swallow what a job raises, SystemExit included.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any
from zoneinfo import ZoneInfo

import click
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from jobs import once
from settlement import shell
from settlement.errors import SettlementError
from settlement.operations import messages

log = logging.getLogger(__name__)


class Daily(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires once on every local date, at a time of day in a zone.

    APScheduler's own cron trigger fires twice at a time that exists twice (01:30 on the night
    clocks go back) and leaves out the day after clocks go forward (at 00:30 in New York). This
    one fires the first time; at a time that clocks skip, it fires that much later.
    """

    def __init__(self, at: time_of_day, zone: ZoneInfo) -> None:
        self.at, self.zone = at, zone

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the next instant after the previous one, or after now if there was none."""
        after = (previous_fire_time or now).astimezone(UTC)
        day = after.astimezone(self.zone).date()
        # In UTC: times of one zone compare by what the clock shows, not by when that is.
        while (fire := datetime.combine(day, self.at, self.zone).astimezone(UTC)) <= after:
            day += timedelta(days=1)
        return fire.astimezone(self.zone)


def serve(settle_due: Callable[[], Iterator[str]], trigger: BaseTrigger) -> None:
    """Settle at once and then whenever the trigger fires, until a signal comes.

    A trigger that fires during a run causes one more when that has ended, however often it
    fired. A refusal or a bug is logged, and the next tick tries again. A signal that comes
    while nothing runs interrupts nothing: then this returns.

    Raises:
        Interrupted: the signal came during a run, which was given up.
    """
    ticked, running = threading.Event(), False
    ticked.set()
    clock = BackgroundScheduler(timezone=UTC)
    # No grace time: a tick that is late by any amount is better than a month not settled.
    clock.add_job(ticked.set, trigger, misfire_grace_time=None, coalesce=True, max_instances=1)
    clock.start()
    try:
        while True:
            ticked.wait()
            ticked.clear()
            running = True
            _tick(settle_due)
            running = False
            for job in clock.get_jobs():
                log.info("next tick at %s", job.next_run_time.isoformat())
    except shell.Interrupted as signalled:
        if running:
            raise
        log.info("%s while idle: leaving", signalled.name)
    finally:
        clock.shutdown(wait=False)


def _tick(settle_due: Callable[[], Iterator[str]]) -> None:
    """Settle whatever is due; say in one line what each month, or the refusal, came to."""
    messages.begin_run()
    log.info("tick: looking for months to settle")
    try:
        for line in settle_due():
            log.info("%s", line)
    except SettlementError as refusal:
        log.error("refused, the next tick tries again: %s", refusal)  # noqa: TRY400
        for line in refusal.details:
            log.error("  %s", line)  # noqa: TRY400
    except Exception:
        # A service that dies of a bug would miss the month in which the bug is mended.
        log.exception("a bug, the next tick tries again")


def _time_of_day(text: str) -> time_of_day:
    try:
        return datetime.strptime(text, "%H:%M").replace(tzinfo=UTC).time()
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time of day, such as 02:00") from error


@click.command()
@once.options
@click.option(
    "--at",
    type=_time_of_day,
    default="02:00",
    show_default=True,
    metavar="HH:MM",
    envvar="SETTLE_AT",
    help="when to look, daily, in the billing zone",
)
def scheduler(at: time_of_day, **options: Any) -> None:
    """Settle every month that is over and not settled: now, and daily until stopped."""
    shell.now()  # a SETTLE_NOW that is no instant is refused at once, not at every tick
    zone = shell.price_book(options["prices"]).zone
    log.info("settling daily at %s %s into %s", at.isoformat("minutes"), zone, options["book"])
    serve(lambda: once.settle_due(**options), Daily(at, zone))


if __name__ == "__main__":
    messages.take_logging()
    shell.main(scheduler, "jobs.scheduler", stamped=True)
