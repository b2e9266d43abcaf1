"""Catching up: which months are due, and settling one month after another.

Nothing is remembered between two calls: what is due follows from the book and the clock
alone, so a service that was off for a year asks the same question as one that was not.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from settlement.book import Book
from settlement.columns import mapping
from settlement.month import Month, last_ended, months_between
from settlement.operations import messages
from settlement.progress import Progress, Warn, silent, unheard
from settlement.report import grouped
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.ingest import Ingested
    from settlement.late import Late
    from settlement.order import Order
    from settlement.prices import PriceBook
    from settlement.settle import Done

Run = Callable[["Order", Progress, Warn], "Done"]
"""Settles a month: `settle.run`, or what watches it."""


def due(book: Book, now: datetime, zone: ZoneInfo, first_month: Month | None = None) -> list[Month]:
    """Return every month that is over and not settled, oldest first.

    They run from the month after the newest settled one to the month that last ended. An
    empty book begins with ``first_month``, else with the month that last ended. Months older
    than the newest settled one are a person's business: their holds have moved on.

    Args:
        book: the book as it stands.
        now: the instant taken for the present.
        zone: the billing zone, in which months end.
        first_month: where an empty book begins; a book that is not empty ignores it.
    """
    last = last_ended(now, zone)
    newest = book.newest_month
    first = newest.next if newest else first_month or last
    return [first, *months_between(first, last.next)] if first <= last else []


def catch_up(
    months: Iterable[Month],
    order_of: Callable[[Month], "Order"],
    progress: Progress = silent,
    warn: Warn = unheard,
    run: Run | None = None,
) -> Iterator["Done"]:
    """Settle months in order, yielding what each came to; stop at the first refusal.

    A later month must not pass an earlier one, whose holds it releases, so a refusal (any
    `SettlementError` of `settle.run`) is raised and nothing after it is tried. Doing it again
    resumes: a month that is settled already says so and costs a look at its files. ``run`` may
    stand in for `settle.run`, to watch it.
    """
    run = run or _run()
    for month in months:
        yield run(order_of(month), progress, warn)


def _run() -> Run:
    from settlement import settle

    return settle.run


def look_for_late(
    book: Path, logs: str, columns: Iterable[tuple[str, str]] = ()
) -> Iterator["Late"]:
    """Compare the log with what each settled month has read; yield the months with news.

    Reads the footers of the whole log. Raises what `finding.find` and `late.look` raise.
    """
    from settlement import late
    from settlement.scan import finding

    opened = Book.open(book)
    if opened.settlements:
        for found in late.look(opened, finding.find(logs, mapping(columns))):
            messages.about(found.month)
            yield found


def revise(
    late: "Late", order: "Order", below: int, warn: Warn = unheard, run: Run | None = None
) -> "Done":
    """Revise a month for its late calls, if the adjustments' sizes add up to less than ``below``.

    Raises `StoppedForReview` where they do not, and anything else that `settle.run` raises.
    """
    order = replace(order, revise=True, reason=f"seen unasked: {late}", limit_adjustments=below)
    return (run or _run())(order, silent, warn)


def ingest(
    logs: str,
    book: Path,
    prices: "PriceBook",
    now: datetime,
    naive: str | None,
    threads: int | None,
    columns: tuple[tuple[str, str], ...] = (),
) -> "Ingested":
    """Digest what the log has of months to come; raises what `ingest.ingest` raises."""
    from settlement import ingest

    messages.about(None)
    return ingest.ingest(ingest.Intake(logs, book, prices, now, None, naive, threads, columns))


def told(done: "Done") -> str:
    """Say in one line what a month came to."""
    settlement = done.settlement
    rows, totals = settlement.manifest["rows"], settlement.manifest["totals"]
    currency = settlement.price_book.currency.code
    return (
        f"{settlement.name}: {done.outcome}, {rows['billed']:,} of "
        f"{count_of(rows['read'], 'call')} billed, {count_of(totals['accounts'], 'account')}, "
        f"payable {grouped(totals['payable'])} {currency}, "
        f"frozen {grouped(totals['frozen'])} {currency}, {sum(done.seconds.values()):.1f} s"
    )
