"""Commands that keep what is settled: ``check`` proves the book, ``export`` hands it on."""

import sys
from pathlib import Path

import click

from settlement import shell
from settlement.commands import shared
from settlement.errors import MissingInput
from settlement.month import Month
from settlement.operations import values
from settlement.progress import watched
from settlement.report import aligned, safe


@click.command()
@shell.options(
    shared.month,
    click.option(
        "--out",
        required=True,
        type=values.path_of,
        metavar="PATH",
        envvar="SETTLE_OUT",
        help="the folder for the CSV files",
    ),
    shell.book,
    shared.as_json,
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

    revisions = shared.revisions(book, month)
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
        shared.print_json(control)
        return
    rows = [(name, f"{file['rows']:,} rows") for name, file in control["files"].items()]
    click.echo(f"{settlement.name}: exported to {out}")
    click.echo(aligned(rows, right=[1], indent="  "))


@click.command()
@shell.options(shell.book, shared.as_json)
def check(book: Path, as_json: bool) -> None:
    """Prove the whole book again: digests, chain, prices, laws. Exit 65 if anything is wrong.

    \b
    Example:
      settle check --book data/book
    """
    from settlement.check import check as prove

    if not book.is_dir():
        raise MissingInput("no book", where=str(book), cure="name it with --book")
    with watched("check"):
        findings = prove(book)
    if not findings.settlements and not findings.problems:
        raise MissingInput("no settlement there", where=str(book), cure="name it with --book")
    newest = findings.newest
    if as_json:
        shared.print_json(
            {
                "book": str(book),
                "sound": not findings.problems,
                "settlements": findings.settlements,
                "rows": findings.rows,
                "problems": list(findings.problems),
                "newest": shared.settled(newest) if newest else None,
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
