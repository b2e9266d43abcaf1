"""One round for cron: settle whatever is due, then leave.

    5 2 * * *  cd /srv/settlement && .venv/bin/python -m jobs.once

Run it daily, not monthly: a month whose log was late, or whose machine was off, is caught up
with on the next day. A day on which nothing is due costs a look at the log's footers: files
that came or changed since a month was settled are named, and the month revised if that is
asked for. What has come of the months that are not over yet is digested, so that settling them
has little left to do.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from settlement import catchup, shell
from settlement.book import Book
from settlement.errors import SettlementError
from settlement.month import Month
from settlement.operations import messages, settings

if TYPE_CHECKING:
    from settlement.late import Late
    from settlement.settle import Order

options = shell.options(
    shell.logs,
    shell.book,
    shell.prices,
    shell.contracts,
    settings.option("schedule.first_month"),
    shell.counting,
    shell.limits,
    settings.option("schedule.auto_revise_below"),
)
"""What to settle, and under which conditions: the options of `settle_due`."""


def settle_due(
    logs: str,
    book: Path,
    prices: Path,
    first_month: Month | None,
    auto_revise_below: int | None,
    contracts: Path | None = None,
    **conditions: Any,
) -> Iterator[str]:
    """Settle every month that is over and not settled, oldest first; look for late calls.

    Price book, contracts, book and clock are read anew, so a service may call it day after
    day. The conditions are those of `settle.Order`. Yields a line for each month settled, each
    warning and each settled month that the log has news of. Raises the first refusal, at the
    end; the months before it stay settled.
    """
    price_book, now, given = shell.price_book(prices), shell.now(), shell.given_again()
    conditions["contracts"] = shell.contract_prices(contracts, prices, price_book)

    def order_of(month: Month) -> "Order":
        from settlement.settle import Order

        return Order(month, logs, book, price_book, now, shell.now_set(), given=given, **conditions)

    warnings: list[str] = []
    refusal = None
    months = catchup.due(Book.open(book), now, price_book.zone, first_month)
    try:
        for done in catchup.catch_up(months, order_of, warn=warnings.append):
            yield from _warned(warnings)
            yield catchup.told(done)
    except SettlementError as error:
        yield from _warned(warnings)
        refusal = error
    try:
        for late in catchup.look_for_late(book, logs):
            yield str(late)
            if auto_revise_below is not None:
                yield from _revised(late, order_of(late.month), auto_revise_below)
    except SettlementError as error:
        yield f"could not look for late calls: {error}"
    if refusal:
        raise refusal
    if conditions["engine"] == "local":
        zone, threads = conditions["naive_timestamps"], conditions["threads"]
        try:
            ingested = catchup.ingest(logs, book, price_book, now, zone, threads)
            if ingested.digested:
                yield str(ingested)
        except SettlementError as error:
            yield f"could not digest the log: {error}"
    if not months:
        yield "nothing is due"


def _warned(warnings: list[str]) -> Iterator[str]:
    yield from (f"warning: {line}" for line in warnings)
    warnings.clear()


def _revised(late: "Late", order: "Order", below: int) -> Iterator[str]:
    """Revise a month that has late calls; say what it came to, or why it was not done."""
    if late.gone:
        yield f"{late.month}: not revised unasked, because files are gone"
        return
    warnings: list[str] = []
    try:
        done = catchup.revise(late, order, below, warnings.append)
    except SettlementError as refusal:
        yield from _warned(warnings)
        yield f"{late.month}: not revised unasked: {refusal}"
        yield from refusal.details
        return
    yield from _warned(warnings)
    yield catchup.told(done)


@click.command()
@options
def once(**options: Any) -> None:
    """Settle every month that is over and not settled, oldest first, and leave."""
    for line in settle_due(**options):
        messages.say(line)


if __name__ == "__main__":
    shell.main(once, "jobs.once", stamped=True)
