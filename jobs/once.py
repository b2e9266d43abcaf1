"""One round for cron: settle whatever is due, then leave.

    5 2 * * *  cd /srv/settlement && .venv/bin/python -m jobs.once

Run it daily, not monthly: a month whose log was late, or whose machine was off, is caught up
with on the next day; a day on which nothing is due costs nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from settlement import catchup, shell
from settlement.book import Book
from settlement.month import Month

if TYPE_CHECKING:
    from settlement.settle import Done, Order

options = shell.options(
    shell.logs,
    shell.book,
    shell.prices,
    click.option(
        "--first-month",
        type=shell.month_of,
        metavar="YYYY-MM",
        envvar="SETTLE_FIRST_MONTH",
        help="where an empty book begins  [default: the month that last ended]",
    ),
    shell.counting,
)
"""What to settle, and under which conditions: the options of `settle_due`."""


def settle_due(
    logs: str, book: Path, prices: Path, first_month: Month | None, **conditions: Any
) -> Iterator["Done"]:
    """Settle every month that is over and not settled, oldest first; yield what each came to.

    Price book, book and clock are read anew, so a service may call it day after day. The
    conditions are those of `settle.Order`. Raises the first refusal; the months before it
    stay settled.
    """
    price_book, now = shell.price_book(prices), shell.now()

    def order_of(month: Month) -> "Order":
        from settlement.settle import Order

        return Order(month, logs, book, price_book, now, shell.now_set(), **conditions)

    months = catchup.due(Book.open(book), now, price_book.zone, first_month)
    yield from catchup.catch_up(months, order_of)


@click.command()
@options
def once(**options: Any) -> None:
    """Settle every month that is over and not settled, oldest first, and leave."""
    nothing = True
    for done in settle_due(**options):
        click.echo(catchup.told(done), err=True)
        nothing = False
    if nothing:
        click.echo("nothing is due", err=True)


if __name__ == "__main__":
    shell.main(once, "jobs.once")
