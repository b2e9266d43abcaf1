"""The command that shows what each run came to."""

from collections.abc import Iterable
from pathlib import Path

import click

from settlement import shell
from settlement.book import on_book
from settlement.commands import completing, shared
from settlement.month import Month
from settlement.operations import attempts, values
from settlement.operations.attempts import Report
from settlement.report import aligned, label_of, safe
from settlement.terminal import laid


@click.command()
@shell.options(
    click.argument("run", required=False, metavar="[ID]", shell_complete=completing.runs),
    click.option(
        "--month",
        type=values.month_of,
        metavar="YYYY-MM",
        shell_complete=completing.settled_months,
        help="only of this month",
    ),
    click.option(
        "--limit",
        type=click.IntRange(1),
        default=20,
        show_default=True,
        metavar="N",
        help="how many, the newest",
    ),
    shell.book,
    shared.as_json,
)
def runs(run: str | None, month: Month | None, limit: int, book: Path, as_json: bool) -> None:
    """List what each run came to, the newest first, or show one whole.

    ID is as listed, or how it begins. The newest 1,000 are kept. A run that did not record its
    end is listed as killed: it was, or its machine went down, or the disk was full.

    \b
    Examples:
      settle runs --month 2026-02
      settle runs 20260301T020000Z-3f9a1c --json
    """
    if run is not None:
        report = attempts.report(book, run)
        if as_json:
            shared.print_json(report.json)
        else:
            shared.tell(_shown(report))
        return
    found: list[Report] = []
    for report in attempts.reports(book):
        if month is None or report.month == str(month):
            found.append(report)
        if len(found) == limit:
            break
    if as_json:
        shared.print_json({"book": str(book), "runs": [report.json for report in found]})
    elif not found:
        which = f" of {month}" if month else ""
        shared.tell(f"{book}: {shared.there(book)}no run has been recorded{which}")
    else:
        shared.tell(_listed(book, found))


def _listed(book: Path, found: Iterable[Report]) -> str:
    """Lay runs out in a table, a refusal beneath its run, and what shows the rest of it."""
    heads = ("run", "month", "outcome", "exit", "seconds")
    rows = [heads, *(_row(report) for report in found)]
    table = laid(rows, right=[3, 4])
    lines = [table[0]]
    for report, row in zip(found, table[1:], strict=True):
        lines.append(row)
        if report.refusal:
            lines.append(f"  {safe(report.refusal)}")
        if report.details:
            whole = on_book(f"runs {report.id}", book)
            lines.append(
                f"  the {len(report.details):,} lines below it are shown by: {safe(whole)}"
            )
    return "\n".join(lines)


def _row(report: Report) -> tuple[str, ...]:
    return (
        report.id,
        report.month or "-",
        report.outcome,
        "-" if report.exit_code is None else str(report.exit_code),
        "-" if report.seconds is None else f"{report.seconds:.1f}",
    )


def _shown(report: Report) -> str:
    """Say everything that is known of a run."""
    revision = f" r{report.revision}" if report.revision else ""
    code = "" if report.exit_code is None else f", exit code {report.exit_code}"
    lines = [f"{report.id}: {report.month or 'no month'}{revision} {report.outcome}{code}"]
    if report.refusal:
        lines += [safe(report.refusal), *(f"  {safe(line)}" for line in report.details)]
    facts = [
        ("command", " ".join(report.command)),
        ("book", report.book),
        ("began", report.started),
        ("ended", _ended(report)),
        ("by", f"process {report.pid} on {report.host}, settlement {report.program}"),
        ("took", _took(report)),
        ("stages", ", ".join(f"{name} {taken:.2f} s" for name, taken in report.stages.items())),
        ("read", ", ".join(f"{count:,} {what}" for what, count in report.inputs.items())),
        ("digest", report.digest or ""),
        ("error", report.error or ""),
    ]
    lines.append(aligned([(name, safe(said)) for name, said in facts if said]))
    if report.rows:
        counts = [(label_of(name), f"{count:,}") for name, count in report.rows.items() if count]
        lines += ["calls", aligned(counts, right=[1], indent="  ")]
    set_to = [
        (name, safe(str(value)))
        for name, value in report.options.items()
        if value not in (None, False, [])
    ]
    lines += ["options", aligned(set_to, indent="  ")]
    return "\n".join([*lines, *(safe(line) for line in report.traceback)])


def _ended(report: Report) -> str:
    if report.outcome == attempts.KILLED:
        return "not recorded: it was killed, its machine went down, or the disk was full"
    return report.finished or "-"


def _took(report: Report) -> str:
    if report.seconds is None:
        return "-"
    cpu = f", {report.cpu_seconds:.2f} s of CPU" if report.cpu_seconds is not None else ""
    peak = report.peak_memory_bytes
    return f"{report.seconds:.2f} s{cpu}" + (f", {peak / 1e6:,.0f} MB of memory" if peak else "")
