"""Commands that keep what is settled: ``check`` proves the book, ``export`` hands it on."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from settlement import shell
from settlement.book import Settlement, is_folder
from settlement.commands import shared
from settlement.errors import BadInput, MissingInput, SettlementError
from settlement.month import Month
from settlement.operations import messages, values
from settlement.progress import watched
from settlement.report import aligned
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.check import Findings
    from settlement.recount import Recounted


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

    Invoices and lines are those of the newest revision, entries those of all: they add up. Of a
    revised month the adjustments of all revisions too, with their document numbers.

    \b
    Example:
      settle export 2026-02 --out data/exports/2026-02
    """
    from pyarrow import concat_tables

    from settlement import exports, tables

    revisions = shared.revisions(book, month)
    settlement = revisions[-1]
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(book)):
        raise click.UsageError("--out lies in the book, where nothing may change; name another")
    wanted = {table.name: settlement.published(table) for table in (tables.INVOICES, tables.LINES)}
    wanted["entries"] = concat_tables([each.published(tables.ENTRIES) for each in revisions])
    if adjusted := [each.published(tables.ADJUSTMENTS) for each in revisions[1:]]:
        wanted["adjustments"] = concat_tables(adjusted)
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
    rows = [(name, count_of(file["rows"], "row")) for name, file in control["files"].items()]
    shared.tell(f"{settlement.name}: exported to {out}")
    shared.tell(aligned(rows, right=[1], indent="  "))


NEWEST = "newest"
"""Stands for the month settled last, where a month to recount is not named."""


def _recounted(text: str) -> str:
    """Read a month to recount."""
    return text if text == NEWEST else str(values.month_of(text))


def _hex(text: str) -> str:
    """Read a settlement's digest."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise click.BadParameter(f"{text!r} is not a digest: 64 digits from 0 to f")
    return text.lower()


@click.command()
@shell.options(
    shell.book,
    click.option(
        "--digest",
        type=_hex,
        metavar="HEX",
        envvar="SETTLE_DIGEST",
        help="what the newest run printed as its digest; nothing else proves its settlement",
    ),
    click.option(
        "--recount",
        is_flag=False,
        flag_value=NEWEST,
        type=_recounted,
        metavar="[MONTH]",
        help="count MONTH from the log again; without MONTH, the one settled last",
    ),
    shell.logs,
    shell.prices,
    shell.contracts,
    shell.threads,
    shared.as_json,
)
def check(
    book: Path, digest: str | None, recount: str | None, as_json: bool, **options: Any
) -> None:
    """Prove the whole book again: digests, chain, prices, laws. Exit 65 if anything is wrong.

    Every settlement is proved from its usage; that its usage is what the log says, only
    --recount can tell. It reads the files that were read then, and no cache, and goes by the
    price book and contracts beside the settlement, unless others are named.

    \b
    Examples:
      settle check --book data/book --digest 5a0f…
      settle check --recount 2026-02 --logs data/logs
    """
    from settlement.check import check as prove

    if not is_folder(book):
        what = "is not a folder" if os.path.lexists(book) else "no book"
        raise MissingInput(what, where=str(book), cure="name it with --book")
    with watched("check"):
        findings = prove(book, digest)
    if not findings.settlements and not findings.problems:
        raise MissingInput("no settlement there", where=str(book), cure="name it with --book")
    findings, again = _recounted_too(findings, recount, **options) if recount else (findings, None)
    found = (*findings.found, *(again.found if again else ()))
    if as_json:
        shared.print_json(_checked(book, findings, again))
    else:
        _tell(book, findings, again)
    if found:
        sys.exit(65)


def _recounted_too(
    findings: "Findings", month: str, **options: Any
) -> "tuple[Findings, Recounted | None]":
    """Count a month again; where the book is not sound, that cannot keep it from being told."""
    try:
        return findings, _recount(findings, month, **options)
    except SettlementError as error:
        if not findings.found:
            raise
        said = f"the usage of {month}, which was not counted again: {error}"
        return replace(findings, unproved=(*findings.unproved, said)), None


def _to_recount(findings: "Findings", month: str) -> Settlement:
    """Return the settlement that is meant, if a sound or damaged book has it."""
    named = (findings.newest and findings.newest.month) if month == NEWEST else Month.parse(month)
    if named and (named in findings.book.months or not findings.found):
        return findings.book.settlement(named, shell.given_again())
    cure = "restore what is damaged from a backup, then check again"
    where = str(findings.book.folder if month == NEWEST else f"{findings.book.folder}, {month}")
    raise BadInput("no settlement that can be read", where=where, cure=cure)


def _recount(
    findings: "Findings",
    month: str,
    logs: str,
    prices: Path,
    contracts: Path | None,
    threads: int | None,
) -> "Recounted":
    """Count a month again, by the price book and contracts that were typed, if any were."""
    from settlement.columns import mapping
    from settlement.progress import shown
    from settlement.recount import recount
    from settlement.scan import finding

    settlement = _to_recount(findings, month)
    named = shell.price_book(prices) if shell.was_typed("prices") else None
    if contracts and not named:
        named = settlement.price_book
    agreed = shell.contract_prices(contracts, prices, named) if contracts and named else None
    own = settlement.manifest["options"].get("columns") or {}
    log = finding.find(logs, mapping(own.items()))
    with watched("recount"), shown(log.rows, log.size) as advance:
        return recount(
            settlement, log, prices=named, contracts=agreed, threads=threads, progress=advance
        )


def _checked(book: Path, findings: "Findings", again: "Recounted | None") -> dict[str, Any]:
    """Return what a check came to, as `settle check --json` prints it."""
    found = (*findings.found, *(again.found if again else ()))
    newest = findings.newest
    said = {
        "book": str(book),
        "sound": not found,
        "settlements": findings.settlements,
        "rows": findings.rows,
        "problems": [str(each) for each in found],
        "findings": [asdict(each) for each in found],
        "trusted": list(findings.trusted),
        "doubtful": list(findings.doubtful),
        "unproved": _unproved(findings, again),
        "newest": shared.settled(newest) if newest else None,
    }
    return said | ({"recounted": asdict(again)} if again else {})


def _tell(book: Path, findings: "Findings", again: "Recounted | None") -> None:
    """Say what a check came to: to stdout where the book is sound, else to stderr."""
    found = (*findings.found, *(again.found if again else ()))
    lines = [f"  {each}" for each in found]
    if found:
        head = count_of(len(found), "problem")
        if findings.trusted:
            lines.append(f"  to be trusted, before all that is wrong: {_listed(findings.trusted)}")
        if findings.doubtful:
            lines.append(f"  sound but for what came before: {_listed(findings.doubtful)}")
    else:
        settlements = count_of(findings.settlements, "settlement")
        head = f"sound, {settlements}, {count_of(findings.rows, 'row')}"
    if again and not again.found:
        files, rows = count_of(again.files, "file"), count_of(again.rows, "row")
        newer = count_of(again.newer, "other file")
        left = f"; not read: {newer} in the log" if again.newer else ""
        lines.append(f"  counted again: {again.settlement}, {files}, {rows}{left}")
    lines += [f"  not proved: {what}" for what in _unproved(findings, again)]
    for line in (f"{book}: {head}", *lines):
        if found:
            messages.say(line, "error")
        else:
            shared.tell(line)


def _unproved(findings: "Findings", again: "Recounted | None") -> list[str]:
    """Return what is still not proved, once a month may have been counted again."""
    if again is None or again.found:
        return list(findings.unproved)
    from settlement.check import USAGE

    rest = [what for what in findings.unproved if what != USAGE]
    others = [name for name in findings.trusted if name != again.settlement]
    usage = f"the usage of the other {count_of(len(others), 'settlement')}"
    return [*rest, usage] if others else rest


def _listed(names: Sequence[str]) -> str:
    """Name settlements, the first and the last where they are many."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names):,})"
