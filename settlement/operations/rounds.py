"""One round: settle whatever is due, look for late calls, digest what has come since.

Nothing is remembered between two rounds: price book, contracts, book and clock are read
anew, so a service may go round day after day, and cron may start each round by itself.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from settlement import catchup, shell
from settlement.book import Book
from settlement.errors import SettlementError
from settlement.month import Month
from settlement.operations import messages
from settlement.operations.watch import Watch
from settlement.progress import shown, watched

if TYPE_CHECKING:
    from settlement.late import Late
    from settlement.order import Order

OrderOf = Callable[[Month], "Order"]
"""Gives what to settle a month with."""


def go_round(watch: Watch, stopping: Callable[[], bool] = bool, **conditions: Any) -> Iterator[str]:
    """Settle every month that is over and not settled, oldest first; look for late calls.

    The conditions are those of `order.Order`, and ``first_month`` and ``auto_revise_below``;
    the watch tells whoever is to be told. Yields a line for each month settled and each
    settled month that the log has news of; warnings are said at once. Once ``stopping`` tells
    so, the month under way is finished and nothing more is begun. A month is left alone before
    the instant at which it ``begins`` to be due. Raises the first refusal, at the end; the months
    before it stay settled.
    """
    with watch:
        yield from _go_round(watch, stopping=stopping, **conditions)


def _go_round(
    watch: Watch,
    logs: str,
    book: Path,
    prices: Path,
    first_month: Month | None,
    auto_revise_below: int | None,
    contracts: Path | None,
    stopping: Callable[[], bool],
    begins: Callable[[Month], datetime] | None = None,
    **conditions: Any,
) -> Iterator[str]:
    price_book, now, given = shell.price_book(prices), shell.now(), shell.given_again()
    conditions["contracts"] = shell.contract_prices(contracts, prices, price_book)

    def order_of(month: Month) -> "Order":
        from settlement.order import Order

        return Order(month, logs, book, price_book, now, shell.now_set(), given=given, **conditions)

    months = catchup.due(Book.open(book), now, price_book.zone, first_month)
    for early in [month for month in months if begins and begins(month) > now]:
        months.remove(early)
    refusal = yield from _settled(watch, months, order_of, stopping)
    if not stopping():
        found = catchup.look_for_late(book, logs, conditions["columns"])
        yield from _late(watch, found, order_of, auto_revise_below, stopping)
    if refusal:
        raise refusal
    if conditions["engine"] == "local" and not stopping():
        of_log = (conditions[name] for name in ("naive_timestamps", "threads", "columns"))
        try:
            with watched("digest"):
                ingested = catchup.ingest(logs, book, price_book, now, *of_log)
            if ingested.digested:
                yield str(ingested)
        except SettlementError as error:
            yield f"could not digest the log: {error}"
    if not months:
        yield "nothing is due"


def _settled(
    watch: Watch, months: list[Month], order_of: OrderOf, stopping: Callable[[], bool]
) -> Generator[str, None, SettlementError | None]:
    """Settle the months that are due; return the refusal that ended it, if one did."""
    left = takewhile(lambda _month: not stopping(), months)
    try:
        for done in catchup.catch_up(left, order_of, shown, messages.warn, watch.settle):
            yield catchup.told(done)
    except SettlementError as error:
        return error
    return None


def _late(
    watch: Watch,
    found: Iterable["Late"],
    order_of: OrderOf,
    below: int | None,
    stopping: Callable[[], bool],
) -> Iterator[str]:
    """Say what the log has of settled months beyond what was read; revise if that is asked for."""
    try:
        for late in found:
            yield str(late)
            if below is not None and not stopping():
                yield from _revised(watch, late, order_of(late.month), below)
    except SettlementError as error:
        yield f"could not look for late calls: {error}"


def _revised(watch: Watch, late: "Late", order: "Order", below: int) -> Iterator[str]:
    """Revise a month that has late calls; say what it came to, or why it was not done."""
    if late.gone:
        yield f"{late.month}: not revised unasked, because files are gone"
        return
    try:
        yield catchup.told(catchup.revise(late, order, below, messages.warn, watch.settle))
    except SettlementError as refusal:
        yield f"{late.month}: not revised unasked: {refusal}"
        yield from refusal.details
