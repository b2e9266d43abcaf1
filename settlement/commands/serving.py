"""Commands that settle whatever is due: ``serve`` stays and ticks, ``once`` is for cron."""

from typing import Any

import click

from settlement import shell
from settlement.operations import messages, settings, telling
from settlement.operations.cron import Cron

_round = shell.options(
    shell.logs,
    shell.book,
    shell.prices,
    shell.contracts,
    settings.option("schedule.first_month"),
    shell.counting,
    shell.limits,
    settings.option("schedule.auto_revise_below"),
    telling.options,
)
"""What to settle, under which conditions, and who is told: the options of a round."""
_schedule = shell.options(
    *(
        settings.option(f"schedule.{name}")
        for name in (
            "at",
            "retry_first",
            "retry_factor",
            "retry_longest",
            "retry_total",
            "stop_within",
        )
    )
)


@click.command(context_settings=shell.HELP)
@_round
@_schedule
def serve(
    at: Cron,
    retry_first: float,
    retry_factor: float,
    retry_longest: float,
    retry_total: float,
    stop_within: float,
    **options: Any,
) -> None:
    """Settle every month that is over and not settled: now, and daily until stopped.

    A month is settled from its first tick on, so a service that starts just after midnight does
    not overtake a log that is still coming in.

    A round that fails because the log is not there yet, the storage does not answer or another
    run holds the book is tried again soon; any other waits for the next tick. SIGTERM or SIGINT
    lets the run under way finish; a second one abandons it, and nothing is left half-written.

    \b
    Examples:
      settle serve --logs data/logs --book data/book
      settle serve --cron "30 6,18 * * *" --first-month 2026-01 --stop-within 5m
    """
    from settlement.operations import rounds, service

    messages.manner.stamped = True
    messages.take_logging()
    shell.now()  # a SETTLE_NOW that is no instant is refused at once, not at every tick
    zone = shell.price_book(options["prices"]).zone
    longest = max(retry_longest, retry_first)
    try:
        retry = service.Retry(retry_first, retry_factor, longest, retry_total)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # A clock that stands still never ticks: in a rehearsal every month that is over is due.
    begins = None if shell.now_set() else service.first_tick_after(at, zone)
    messages.say(f"settling at {at.text!r} in {zone} into {options['book']}")
    told = telling.taken(options)
    service.serve(
        lambda stopping: rounds.go_round(
            telling.watch(told, options["book"]), stopping, begins=begins, **options
        ),
        service.OnSchedule(at, zone),
        retry,
        stop_within,
    )


@click.command(context_settings=shell.HELP)
@_round
def once(**options: Any) -> None:
    """Settle every month that is over and not settled, oldest first, and leave."""
    from settlement.operations import rounds

    for line in rounds.go_round(telling.watched(options), **options):
        messages.say(line)
