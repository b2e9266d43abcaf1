"""What several commands share: the month, JSON, and finding a settlement in the book."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from settlement import shell
from settlement.book import Book, Settlement, is_folder
from settlement.commands import completing
from settlement.month import Month, last_ended
from settlement.operations import values
from settlement.report import json_text, safe

month = click.argument(
    "month",
    type=values.month_of,
    required=False,
    metavar="[MONTH]",
    envvar="SETTLE_MONTH",
    shell_complete=completing.settled_months,
)
month_due = click.argument(
    "month",
    type=values.month_of,
    required=False,
    metavar="[MONTH]",
    envvar="SETTLE_MONTH",
    shell_complete=completing.due_months,
)
as_json = click.option(
    "--json", "as_json", is_flag=True, envvar="SETTLE_JSON", help="print one JSON object"
)


def revisions(book: Path, month: Month | None) -> tuple[Settlement, ...]:
    """Return a month's settlements, oldest first; without a month, of the one that last ended."""
    opened, given = Book.open(book), shell.given_again()
    if month is None and opened.settlements:
        month = last_ended(shell.now(), opened.settlements[-1].price_book.zone)
    if month is None:
        raise opened.nothing_settled(given)
    opened.settlement(month, given)
    return opened.revisions(month)


def there(book: Path) -> str:
    """Say that a book is not there, before what it has not; nothing where it is."""
    return "" if is_folder(book) else "no book there, "


def settled(settlement: Settlement) -> dict[str, Any]:
    """Return what a list of settlements prints of one in JSON."""
    keys = ("month", "revision", "number", "totals", "created_at", "digest")
    return {key: settlement.manifest[key] for key in keys}


def tell(text: str) -> None:
    """Print a result for a person: whatever comes from outside, only printable characters."""
    _print("\n".join(map(safe, text.split("\n"))))


def print_json(value: Mapping[str, Any]) -> None:
    """Print the one object of a command."""
    _print(json_text(value, getattr(sys.stdout, "encoding", None) or "utf-8"))


def _print(text: str) -> None:
    # The stream is named, for click takes ASCII for a mistake and would write UTF-8 to it.
    click.echo(text, file=sys.stdout)
