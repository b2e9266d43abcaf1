"""The command ``settle``: reads what a person typed, calls one function, shows the result.

Messages go to stderr, results to stdout. Whatever a command needs is imported when it runs,
so that ``settle --help`` and ``settle status`` start at once. A refusal is one line and an
exit code; a traceback means a bug.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from settlement import __version__, shell
from settlement.book import Book, Settlement
from settlement.errors import MissingInput
from settlement.month import Month, last_ended, months_between
from settlement.report import aligned, grouped, safe, seconds, summary

if TYPE_CHECKING:
    from settlement.late import Late
    from settlement.settle import Done, Order


_month = click.argument(
    "month", type=shell.month_of, required=False, metavar="[MONTH]", envvar="SETTLE_MONTH"
)
_json = click.option(
    "--json", "as_json", is_flag=True, envvar="SETTLE_JSON", help="print one JSON object"
)
_months = click.argument(
    "month",
    type=shell.months_of,
    required=False,
    metavar="[MONTH | FIRST..LAST]",
    envvar="SETTLE_MONTH",
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
    _json,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="settle")
def settle() -> None:
    """Settle a month of API calls: count, price, take off vouchers, invoice, post the ledger.

    MONTH is YYYY-MM; left out, it is the month that last ended in the billing zone. Every option
    can be set as SETTLE_OPTION in the environment.

    \b
    Example:
      settle run 2026-02 --logs data/logs --book data/book
    """


@settle.command()
@shell.options(
    _month,
    shell.logs,
    shell.book,
    shell.prices,
    shell.naive_timestamps,
    shell.threads,
    _json,
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

    intake = ingesting.Intake(
        logs=options["logs"],
        book=options["book"],
        prices=shell.price_book(prices),
        now=shell.now(),
        month=month,
        naive_timestamps=options["naive_timestamps"],
        threads=options["threads"],
    )
    done = ingesting.ingest(intake)
    if as_json:
        made = [asdict(each) | {"month": str(each.month)} for each in done.digested]
        _print_json(asdict(done) | {"cache": str(done.cache), "digested": made})
        return
    click.echo(f"{done.cache}: {done}")


_revise = click.option(
    "--revise", is_flag=True, help="state a settled month anew, and post the difference"
)


@settle.command()
@_months
@_ordering
@_revise
@click.option(
    "--approve",
    metavar="DIGEST",
    envvar="SETTLE_APPROVE",
    help="publish the figures of this digest, whatever limits they cross",
)
@click.option("--reason", metavar="TEXT", help="why it is revised; kept with the settlement")
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
    from settlement import settle as settling
    from settlement.progress import bar

    if options["reason"] and not options["revise"]:
        raise click.UsageError("--reason goes with --revise")
    if isinstance(month, tuple):
        _run_months(month, as_json, **options)
        return
    order = _order(month, **options)
    done = settling.run(order, bar, shell.warn)
    manifest = done.settlement.manifest
    if as_json:
        _print_json(_done(done))
        return
    place = f"{done.settlement.name}: {done.outcome}"
    if done.outcome != "published":
        click.echo(f"{place}, nothing to do ({done.settlement.folder})")
        return
    click.echo(f"{place} in {done.settlement.folder}")
    click.echo(summary(manifest, order.prices.currency.code))
    if contracted := manifest["tables"].get("contract_lines"):
        click.echo(f"contracts priced {contracted['rows']:,} lines")
    if done.skipped:
        click.echo(f"skipped  {done.skipped:,} names beginning with _ or .")
    click.echo(f"digest   {manifest['digest']}")
    click.echo(f"took     {seconds(done.seconds)}")


def _run_months(months: tuple[Month, ...], as_json: bool, **options: Any) -> None:
    """Settle a run of months; those before a refusal are told all the same."""
    from dataclasses import replace

    from settlement import catchup
    from settlement.progress import bar

    order = _order(months[0], **options)
    told = []
    try:
        for done in catchup.catch_up(
            months, lambda month: replace(order, month=month), bar, shell.warn
        ):
            told.append(_done(done))
            if not as_json:
                click.echo(catchup.told(done))
    finally:
        if as_json:
            _print_json({"months": told})


def _done(done: "Done") -> dict[str, Any]:
    """Return what a run came to, as `settle run --json` prints it."""
    return {
        "outcome": done.outcome,
        "folder": str(done.settlement.folder),
        "seconds": done.seconds,
        "skipped": done.skipped,
    } | dict(done.settlement.manifest)


@settle.command()
@_month
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
    from settlement.progress import bar
    from settlement.show import plans, whatifs

    order = _order(month, **options)
    if what_if and order.revise:
        raise click.UsageError("--what-if reads no log, --revise counts it: choose one")
    if what_if or settling.asks_what_if(order):
        effect = settling.what_if(order)
        if as_json:
            _print_json(whatifs.described(effect))
        else:
            click.echo(whatifs.shown(effect))
        return
    planned = settling.plan(order, bar, shell.warn)
    if as_json:
        _print_json(plans.described(planned))
    else:
        click.echo(plans.shown(planned))


@settle.command()
@shell.options(
    click.option(
        "--late",
        is_flag=True,
        envvar="SETTLE_LATE",
        help="look for files that came since a month was settled; also asked for by --logs",
    ),
    shell.logs,
    shell.book,
    _json,
)
def status(late: bool, logs: str, book: Path, as_json: bool) -> None:
    """List the settled months, and those that are missing.

    With --late or --logs, say too of which settled months the log has calls that were not read.

    \b
    Examples:
      settle status --json
      settle status --late
    """
    opened = Book.open(book)
    months = opened.months
    missing: list[Month] = []
    if months:
        zone = opened.settlements[-1].price_book.zone
        over = max(last_ended(shell.now(), zone), *months).next
        missing = [m for m in months_between(min(months), over) if m not in months]
    # Reading a log takes heavy libraries; who only asks what is settled need not wait for them.
    found = _late(book, logs) if late or shell.was_typed("logs") else None
    if as_json:
        settled = [_settled(settlement) for settlement in months.values()]
        said = {"book": str(book), "settled": settled, "missing": list(map(str, missing))}
        news = {"late": [each.described() for each in found]} if found is not None else {}
        _print_json(said | news)
        return
    if not months:
        click.echo(f"{book}: no month is settled yet")
        return
    heads = ("month", "revision", "accounts", "payable", "frozen", "published")
    rows = [heads, *(_status_row(opened, settlement) for settlement in months.values())]
    click.echo(aligned(rows, right=[1, 2, 3, 4]))
    if missing:
        click.echo(f"missing: {', '.join(map(str, missing))}")
    for each in found or ():
        click.echo(f"late: {safe(str(each))}")


def _late(book: Path, logs: str) -> "list[Late]":
    from settlement import catchup

    return list(catchup.look_for_late(book, logs))


def _settled(settlement: Settlement) -> dict[str, Any]:
    keys = ("month", "revision", "number", "totals", "created_at", "digest")
    return {key: settlement.manifest[key] for key in keys}


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


@settle.command()
@shell.options(_month, click.argument("account", required=False), shell.book, _json)
def show(month: Month | None, account: str | None, book: Path, as_json: bool) -> None:
    """Show a settlement, or one ACCOUNT's invoice and entries.

    \b
    Example:
      settle show 2026-02 0100000042
    """
    revisions = _revisions(book, month)
    settlement = revisions[-1]
    if account is None:
        if as_json:
            _print_json(dict(settlement.manifest))
            return
        manifest = settlement.manifest
        click.echo(f"{settlement.name}: published {manifest['created_at']}, {settlement.folder}")
        click.echo(summary(manifest, settlement.price_book.currency.code))
        return
    from settlement.show import accounts

    found = accounts.find(revisions, account)
    if as_json:
        _print_json(found)
    else:
        click.echo(accounts.shown(found))


@settle.command()
@shell.options(
    click.argument("month", type=shell.month_of, metavar="MONTH"),
    *(
        click.argument(name, type=shell.revision_of, required=False, metavar=f"[{label}]")
        for name, label in (("before", "rA"), ("after", "rB"))
    ),
    shell.book,
    _json,
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
    newest = opened.settlement(month).revision
    after = newest if after is None else after
    before = after - 1 if before is None else before
    sides = [
        Side.of(opened.revision(month, revision)) if revision else Side.nothing()
        for revision in (before, after)
    ]
    found = compare(*sides)
    if as_json:
        _print_json({"month": str(month)} | diffs.described(found))
    else:
        click.echo(f"{month}: {found.before.name} → {found.after.name}")
        click.echo(diffs.shown(found))


@settle.command()
@shell.options(_month, click.argument("account"), shell.book, _json)
def explain(month: Month | None, account: str, book: Path, as_json: bool) -> None:
    """Derive every amount of ACCOUNT in words and numbers: why is the bill what it is?

    \b
    Example:
      settle explain 2026-02 0100000042
    """
    from dataclasses import asdict

    from settlement.show.explain import explain as derive
    from settlement.show.explain import shown

    revisions = _revisions(book, month)
    settlement, sections = revisions[-1], derive(revisions, account)
    if as_json:
        sections_json = [asdict(section) for section in sections]
        _print_json(
            {"month": str(settlement.month), "revision": settlement.revision}
            | {"account_id": account, "sections": sections_json}
        )
        return
    click.echo(f"{settlement.name}, account {safe(account)}")
    click.echo(shown(sections))


@settle.command()
@shell.options(
    _month,
    click.option(
        "--out",
        required=True,
        type=shell.path_of,
        metavar="PATH",
        envvar="SETTLE_OUT",
        help="the folder for the CSV files",
    ),
    shell.book,
    _json,
)
def export(month: Month | None, out: Path, book: Path, as_json: bool) -> None:
    """Write MONTH as CSV for finance: invoices, lines, entries, and control totals.

    Invoices and lines are those of the newest revision, entries those of all: they add up.

    \b
    Example:
      settle export 2026-02 --out data/exports/2026-02
    """
    from pyarrow import concat_tables

    from settlement import exports, tables

    revisions = _revisions(book, month)
    settlement = revisions[-1]
    if out.resolve().is_relative_to(book.resolve()):
        raise click.UsageError("--out lies in the book, where nothing may change; name another")
    wanted = {table.name: settlement.published(table) for table in (tables.INVOICES, tables.LINES)}
    wanted["entries"] = concat_tables([each.published(tables.ENTRIES) for each in revisions])
    control = exports.export(
        wanted,
        month=str(settlement.month),
        revision=settlement.revision,
        currency=settlement.price_book.currency.code,
        digest=settlement.manifest["digest"],
        out=out,
    )
    if as_json:
        _print_json(control)
        return
    rows = [(name, f"{file['rows']:,} rows") for name, file in control["files"].items()]
    click.echo(f"{settlement.name}: exported to {out}")
    click.echo(aligned(rows, right=[1], indent="  "))


@settle.command()
@shell.options(shell.book, _json)
def check(book: Path, as_json: bool) -> None:
    """Prove the whole book again: digests, chain, prices, laws. Exit 65 if anything is wrong.

    \b
    Example:
      settle check --book data/book
    """
    from settlement.check import check as prove

    if not book.is_dir():
        raise MissingInput("no book", where=str(book), cure="name it with --book")
    findings = prove(book)
    if not findings.settlements and not findings.problems:
        raise MissingInput("no settlement there", where=str(book), cure="name it with --book")
    newest = findings.newest
    if as_json:
        _print_json(
            {
                "book": str(book),
                "sound": not findings.problems,
                "settlements": findings.settlements,
                "rows": findings.rows,
                "problems": list(findings.problems),
                "newest": _settled(newest) if newest else None,
            }
        )
    elif not findings.problems:
        click.echo(f"{book}: sound, {findings.settlements:,} settlements, {findings.rows:,} rows")
        if newest:
            digest = newest.manifest["digest"]
            click.echo(f"  the newest is {newest.name}; nothing follows it yet that would prove")
            click.echo(f"  its digest, so compare it with what its run printed: {digest}")
    else:
        click.echo(f"{book}: {len(findings.problems):,} problems", err=True)
        for problem in findings.problems:
            click.echo(f"  {safe(problem)}", err=True)
    if findings.problems:
        sys.exit(65)


@settle.command()
@shell.options(shell.prices, shell.contracts, _json)
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
        _print_json(pricelist.described(book) | ({"contracts": counted} if counted else {}))
        return
    click.echo(pricelist.shown(book))
    if counted:
        click.echo(
            f"\n{safe(counted['file'])}: {counted['rows']:,} rows for {counted['accounts']:,} "
            f"accounts, {counted['in_force']:,} of them in force in {month}"
        )


@settle.command()
@shell.options(
    click.option(
        "--out",
        required=True,
        type=shell.path_of,
        metavar="PATH",
        envvar="SETTLE_OUT",
        help="the folder",
    ),
    click.option(
        "--month",
        required=True,
        type=shell.month_of,
        metavar="MONTH",
        envvar="SETTLE_MONTH",
        help="YYYY-MM",
    ),
    *(
        click.option(
            f"--{name}",
            default=default,
            show_default=True,
            type=click.IntRange(least),
            envvar=f"SETTLE_{name.upper()}",
        )
        for name, default, least in (("accounts", 1000, 1), ("calls", 1_000_000, 1), ("seed", 1, 0))
    ),
    _json,
)
def sample(out: Path, month: Month, accounts: int, calls: int, seed: int, as_json: bool) -> None:
    """Make a realistic call log, the same for the same seed.

    \b
    Example:
      settle sample --out data/demo --month 2026-03 --accounts 1000 --calls 1000000 --seed 7
    """
    from dataclasses import asdict

    from settlement.sample import write_sample

    made = write_sample(out, month, accounts, calls, seed)
    if as_json:
        _print_json(asdict(made))
    else:
        click.echo(f"{out}: {made.rows:,} rows in {made.files:,} files under {made.folder}")


def _order(month: Month | None, prices: Path, contracts: Path | None, **options: Any) -> "Order":
    """Gather what `run` and `plan` need: price book, contracts, the month, the clock."""
    from settlement.settle import Order

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


def _revisions(book: Path, month: Month | None) -> tuple[Settlement, ...]:
    """Return a month's settlements, oldest first; without a month, of the one that last ended."""
    opened = Book.open(book)
    if month is None and opened.settlements:
        month = last_ended(shell.now(), opened.settlements[-1].price_book.zone)
    if month is None:
        raise MissingInput(
            "no month is settled yet", where=str(book), cure="settle one with: settle run"
        )
    opened.settlement(month)
    return opened.revisions(month)


def _print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def main() -> NoReturn:
    """Run the command and leave with its exit code."""
    shell.main(settle, "settle")


if __name__ == "__main__":
    main()
