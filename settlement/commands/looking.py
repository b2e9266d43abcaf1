"""Commands that show what stands: settlements, accounts, differences, prices."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from settlement import shell
from settlement.book import Book, Settlement
from settlement.commands import completing, shared
from settlement.month import Month, last_ended
from settlement.operations import values
from settlement.report import aligned, grouped, safe, summary
from settlement.words import count_of

Columns = tuple[tuple[str, str], ...]

if TYPE_CHECKING:
    from settlement.late import Late


@click.command()
@shell.options(
    click.option(
        "--late",
        is_flag=True,
        envvar="SETTLE_LATE",
        help="look for files that came since a month was settled; also asked for by --logs",
    ),
    shell.logs,
    shell.columns,
    shell.book,
    shared.as_json,
)
def status(late: bool, logs: str, columns: Columns, book: Path, as_json: bool) -> None:
    """List the settled months, and those that are missing.

    With --late or --logs, say too of which settled months the log has calls that were not read.

    \b
    Examples:
      settle status --json
      settle status --late
    """
    opened = Book.open(book)
    months = opened.months
    missing = opened.missing(shell.now())
    # Reading a log takes heavy libraries; who only asks what is settled need not wait for them.
    found = _late(book, logs, columns) if late or shell.was_typed("logs") else None
    if as_json:
        settled = [shared.settled(settlement) for settlement in months.values()]
        said = {"book": str(book), "settled": settled, "missing": list(map(str, missing))}
        news = {"late": [each.described() for each in found]} if found is not None else {}
        shared.print_json(said | news)
        return
    if not months:
        shared.tell(f"{book}: {shared.there(book)}no month is settled yet")
        return
    heads = ("month", "revision", "accounts", "payable", "frozen", "published")
    rows = [heads, *(_status_row(opened, settlement) for settlement in months.values())]
    shared.tell(aligned(rows, right=[1, 2, 3, 4]))
    if missing:
        shared.tell(f"missing: {', '.join(map(str, missing))}")
    for each in found or ():
        shared.tell(f"late: {safe(str(each))}")


def _late(book: Path, logs: str, columns: Columns) -> "list[Late]":
    from settlement import catchup

    return list(catchup.look_for_late(book, logs, columns))


def _status_row(book: Book, settlement: Settlement) -> tuple[str, ...]:
    totals = settlement.manifest["totals"]
    return (
        str(settlement.month),
        str(settlement.revision),
        f"{totals['accounts']:,}",
        grouped(totals["payable"]),
        book.frozen(settlement.month),
        settlement.manifest["created_at"],
    )


@click.command()
@shell.options(
    shared.month,
    click.argument("account", type=values.text_of, required=False),
    shell.book,
    shared.as_json,
)
def show(month: Month | None, account: str | None, book: Path, as_json: bool) -> None:
    """Show a settlement, or one ACCOUNT's invoice and entries.

    \b
    Example:
      settle show 2026-02 0100000042
    """
    revisions = shared.revisions(book, month)
    settlement = revisions[-1]
    if account is None:
        if as_json:
            shared.print_json(dict(settlement.manifest))
            return
        manifest = settlement.manifest
        shared.tell(f"{settlement.name}: published {manifest['created_at']}, {settlement.folder}")
        if reason := manifest["options"].get("reason"):
            shared.tell(f"reason   {safe(reason)}")
        shared.tell(summary(manifest, settlement.price_book.currency.code))
        return
    from settlement.show import accounts

    found = accounts.find(revisions, account)
    if as_json:
        shared.print_json(found)
    else:
        shared.tell(accounts.shown(found))


@click.command()
@shell.options(
    click.argument(
        "month",
        type=values.month_of,
        metavar="MONTH",
        shell_complete=completing.settled_months,
    ),
    *(
        click.argument(name, type=values.revision_of, required=False, metavar=f"[{label}]")
        for name, label in (("before", "rA"), ("after", "rB"))
    ),
    shell.book,
    shared.as_json,
)
def diff(month: Month, before: int | None, after: int | None, book: Path, as_json: bool) -> None:
    """Show what changed from revision rA of MONTH to rB, and why.

    Left out, they are the last two; with rA alone, rB is the newest. r0 stands for the time
    before the month was settled, when there was nothing.

    \b
    Examples:
      settle diff 2026-02
      settle diff 2026-02 r1 r3 --json
    """
    from settlement.diff import Side, compare
    from settlement.show import diffs

    opened = Book.open(book)
    newest = opened.settlement(month, shell.given_again()).revision
    after = newest if after is None else after
    before = after - 1 if before is None else before
    sides = [
        Side.of(opened.revision(month, revision)) if revision else Side.nothing()
        for revision in (before, after)
    ]
    found = compare(*sides)
    if as_json:
        shared.print_json(
            {"month": str(month), "reason": found.after.options.get("reason")}
            | diffs.described(found)
        )
    else:
        shared.tell(f"{month}: {found.before.name} → {found.after.name}")
        shared.tell(diffs.shown(found))


@click.command()
@shell.options(
    shared.month, click.argument("account", type=values.text_of), shell.book, shared.as_json
)
def explain(month: Month | None, account: str, book: Path, as_json: bool) -> None:
    """Derive every amount of ACCOUNT in words and numbers: why is the bill what it is?

    \b
    Example:
      settle explain 2026-02 0100000042
    """
    from dataclasses import asdict

    from settlement.show.explain import explain as derive
    from settlement.show.explain import shown

    revisions = shared.revisions(book, month)
    settlement, sections = revisions[-1], derive(revisions, account)
    if as_json:
        sections_json = [asdict(section) for section in sections]
        shared.print_json(
            {"month": str(settlement.month), "revision": settlement.revision}
            | {"account_id": account, "sections": sections_json}
        )
        return
    shared.tell(f"{settlement.name}, account {safe(account)}")
    shared.tell(shown(sections))


@click.command()
@shell.options(shell.prices, shell.contracts, shared.as_json)
def prices(prices: Path, contracts: Path | None, as_json: bool) -> None:
    """Print the price book, checked: tiers, and the bounds at which a bill falls.

    Contracts are checked too, and counted as of the month that last ended.

    \b
    Example:
      settle prices --prices data/price_book.toml
    """
    from settlement.show import pricelist

    book = shell.price_book(prices)
    agreed = shell.contract_prices(contracts, prices, book)
    month = last_ended(shell.now(), book.zone)
    counted = pricelist.contracts_described(agreed, month) if agreed else None
    if as_json:
        shared.print_json(pricelist.described(book) | ({"contracts": counted} if counted else {}))
        return
    shared.tell(pricelist.shown(book))
    if counted:
        shared.tell(
            f"\n{safe(counted['file'])}: {count_of(counted['rows'], 'row')} for "
            f"{count_of(counted['accounts'], 'account')}, "
            f"{counted['in_force']:,} of them in force in {month}"
        )
