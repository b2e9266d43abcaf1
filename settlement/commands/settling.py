"""Commands that count a month: ``run`` publishes it, ``plan`` shows it, ``ingest`` prepares it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from settlement import shell
from settlement.commands import completing, shared
from settlement.month import Month, last_ended
from settlement.operations import telling, values
from settlement.report import seconds, summary
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.order import Order
    from settlement.settle import Done

_months = click.argument(
    "month",
    type=values.months_of,
    required=False,
    metavar="[MONTH | FIRST..LAST]",
    envvar="SETTLE_MONTH",
    shell_complete=completing.due_months,
)
_ordering = shell.options(
    shell.logs,
    shell.book,
    shell.prices,
    shell.contracts,
    shell.counting,
    shell.limits,
    click.option(
        "--allow-gap",
        is_flag=True,
        envvar="SETTLE_ALLOW_GAP",
        help="settle though an earlier month is not settled",
    ),
    shared.as_json,
)


@click.command()
@shell.options(
    shared.month_due,
    shell.logs,
    shell.book,
    shell.prices,
    shell.naive_timestamps,
    shell.columns,
    shell.threads,
    shared.as_json,
)
def ingest(month: Month | None, prices: Path, as_json: bool, **options: Any) -> None:
    """Digest the files of the log that are new, so that settling their months has less to do.

    Without MONTH, for every month after the newest settled one, the one under way included.
    What they come to is kept in BOOK/.cache, which may be removed at any time.

    \b
    Examples:
      settle ingest --logs data/logs --book data/book
      settle ingest 2026-02
    """
    from dataclasses import asdict

    from settlement import ingest as ingesting
    from settlement.progress import watched

    intake = ingesting.Intake(
        logs=options["logs"],
        book=options["book"],
        prices=shell.price_book(prices),
        now=shell.now(),
        month=month,
        naive_timestamps=options["naive_timestamps"],
        threads=options["threads"],
        columns=options["columns"],
    )
    with watched("digest"):
        done = ingesting.ingest(intake)
    if as_json:
        made = [asdict(each) | {"month": str(each.month)} for each in done.digested]
        shared.print_json(asdict(done) | {"cache": str(done.cache), "digested": made})
        return
    shared.tell(f"{done.cache}: {done}")


_revise = click.option(
    "--revise", is_flag=True, help="state a settled month anew, and post the difference"
)


@click.command()
@_months
@_ordering
@telling.options
@_revise
@click.option(
    "--approve",
    metavar="DIGEST",
    envvar="SETTLE_APPROVE",
    help="publish the figures of this digest, whatever limits they cross",
)
@click.option(
    "--reason",
    type=values.text_of,
    metavar="TEXT",
    help="why it is revised; kept with the settlement",
)
def run(month: Month | tuple[Month, ...] | None, as_json: bool, **options: Any) -> None:
    """Settle MONTH and publish it. Doing it again changes nothing.

    FIRST..LAST settles a run of months in order and stops at the first refusal; doing it again
    resumes. A month older than the newest settled one is only debited.

    \b
    Examples:
      settle run 2026-02 --logs data/logs --book data/book
      settle run 2025-04..2026-02
      settle run 2026-02 --revise --reason "late calls of 28 February"
    """
    from settlement.progress import shown

    if options["reason"] and not options["revise"]:
        raise click.UsageError("--reason goes with --revise")
    if isinstance(month, tuple):
        _run_months(month, as_json, **options)
        return
    with telling.watched(options, month) as watched:
        order = _order(month, **options)
        done = watched.settle(order, shown, shell.warn)
    manifest = done.settlement.manifest
    if as_json:
        shared.print_json(_done(done))
        return
    place = f"{done.settlement.name}: {done.outcome}"
    if done.outcome != "published":
        shared.tell(f"{place}, nothing to do ({done.settlement.folder})")
        return
    shared.tell(f"{place} in {done.settlement.folder}")
    shared.tell(summary(manifest, order.prices.currency.code))
    if contracted := manifest["tables"].get("contract_lines"):
        shared.tell(f"contracts priced {count_of(contracted['rows'], 'line')}")
    if done.skipped:
        shared.tell(f"skipped  {count_of(done.skipped, 'name')} beginning with _ or .")
    shared.tell(f"digest   {manifest['digest']}")
    shared.tell(f"took     {seconds(done.seconds)}")


def _run_months(months: tuple[Month, ...], as_json: bool, **options: Any) -> None:
    """Settle a run of months; those before a refusal are told all the same."""
    from dataclasses import replace

    from settlement import catchup
    from settlement.progress import shown

    told = []
    try:
        with telling.watched(options) as watched:
            order = _order(months[0], **options)
            settled = catchup.catch_up(
                months,
                lambda month: replace(order, month=month),
                shown,
                shell.warn,
                watched.settle,
            )
            for done in settled:
                told.append(_done(done))
                if not as_json:
                    shared.tell(catchup.told(done))
    finally:
        if as_json:
            shared.print_json({"months": told})


def _done(done: "Done") -> dict[str, Any]:
    """Return what a run came to, as `settle run --json` prints it."""
    return {
        "outcome": done.outcome,
        "folder": str(done.settlement.folder),
        "seconds": done.seconds,
        "skipped": done.skipped,
    } | dict(done.settlement.manifest)


@click.command()
@shared.month_due
@_ordering
@_revise
@click.option(
    "--what-if",
    is_flag=True,
    envvar="SETTLE_WHAT_IF",
    help="price the settled calls of MONTH by these prices, without reading a log",
)
def plan(month: Month | None, what_if: bool, as_json: bool, **options: Any) -> None:
    """Show what `settle run` would publish, and how it differs from the month before.

    Of a settled month it shows, as `settle diff` does, how it differs from what stands; where
    prices differ, who would pay more and less if its calls were priced by them, without
    reading a log (with --revise, the log is counted).

    \b
    Examples:
      settle plan 2026-02
      settle plan 2026-02 --revise
      settle plan 2026-02 --prices next.toml
    """
    from settlement import settle as settling
    from settlement.progress import shown
    from settlement.show import plans, whatifs

    order = _order(month, **options)
    if what_if and order.revise:
        raise click.UsageError("--what-if reads no log, --revise counts it: choose one")
    if what_if or settling.asks_what_if(order):
        effect = settling.what_if(order)
        if as_json:
            shared.print_json(whatifs.described(effect))
        else:
            shared.tell(whatifs.shown(effect))
        return
    planned = settling.plan(order, shown, shell.warn)
    if as_json:
        shared.print_json(plans.described(planned))
    else:
        shared.tell(plans.shown(planned))


def _order(month: Month | None, prices: Path, contracts: Path | None, **options: Any) -> "Order":
    """Gather what `run` and `plan` need: price book, contracts, the month, the clock."""
    from settlement.order import Order

    price_book = shell.price_book(prices)
    return Order(
        month=month or last_ended(shell.now(), price_book.zone),
        prices=price_book,
        contracts=shell.contract_prices(contracts, prices, price_book),
        now=shell.now(),
        now_set=shell.now_set(),
        given=shell.given_again(),
        **options,
    )
