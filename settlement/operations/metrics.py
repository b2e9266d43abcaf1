"""Metrics: the state of a book and of its last run, as a Prometheus textfile.

The file is for node_exporter's textfile collector, and is put anew, whole, after every attempt.
All of it is derived: of the run from its report, of the settled month from the book, and when a
run last ended well from the reports before. So a failed run keeps the last success, and a file
that is lost comes back. Money is written with all its digits, whatever a reader makes of them.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from settlement import __version__
from settlement.book import Book, Settlement
from settlement.buckets import in_month, rejected
from settlement.errors import SettlementError
from settlement.operations import attempts
from settlement.operations.attempts import Report

NOTHING_DUE = "nothing due"
OUTCOMES = (
    *attempts.SUCCESSES,
    NOTHING_DUE,
    attempts.REFUSED,
    attempts.REVIEW,
    attempts.FAILED,
    attempts.INTERRUPTED,
)
"""How a run may have ended."""
Sample = tuple[Mapping[str, str], str]
"""Labels and a value, as text."""


@dataclass(frozen=True)
class Family:
    """A metric: its name after ``settlement_``, what it means, and its samples; all gauges."""

    name: str
    meaning: str
    samples: list[Sample]

    def __str__(self) -> str:
        name = f"settlement_{self.name}"
        lines = [f"# HELP {name} {self.meaning}", f"# TYPE {name} gauge"]
        for labels, value in self.samples:
            said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            lines.append(f"{name}{{{said}}} {value}" if said else f"{name} {value}")
        return "\n".join(lines) + "\n"


def write(path: Path, book: Path, report: Report | None, now: datetime) -> None:
    """Put the metrics of a book in place.

    Args:
        path: the file; its folder must exist.
        book: the book's folder.
        report: of the attempt that has just ended; None where nothing was due.
        now: the instant by which months are missing.

    Raises:
        OSError: the file system refused; the file is as it was.
    """
    # Not ending in .prom: the collector must not read what is half there.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text(book, report, now), "utf-8")
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def text(book: Path, report: Report | None, now: datetime) -> str:
    """Return the metrics of a book, after an attempt, in the text format of Prometheus."""
    opened = None
    with contextlib.suppress(SettlementError):  # a book that is damaged is told by the refusal
        opened = Book.open(book)
    families = [
        Family("build_info", "The program's version.", [({"version": __version__}, "1")]),
        *_run(report),
        *_success(book, opened, report),
    ]
    if opened and opened.newest_month:
        families += _book(opened, now)
    return "".join(str(family) for family in families if family.samples)


def _run(report: Report | None) -> Iterator[Family]:
    """What the last run came to, whether it ended well or not."""
    ended = datetime.now(UTC).timestamp()
    outcome, code = (report.outcome, report.exit_code) if report else (NOTHING_DUE, 0)
    yield _gauge("last_completion_timestamp_seconds", "When a run last ended, however.", ended)
    yield _gauge("last_exit_code", "The exit code of the last run; 0 is well.", code)
    yield Family(
        "last_outcome",
        "How the last run ended: 1 for that outcome.",
        [({"outcome": each}, str(int(each == outcome))) for each in OUTCOMES],
    )
    if report is None:
        return
    yield _gauge("last_duration_seconds", "How long the last run took.", report.seconds)
    yield _gauge("last_cpu_seconds", "CPU time of the last run.", report.cpu_seconds)
    peak = report.peak_memory_bytes
    yield _gauge("last_peak_memory_bytes", "The most memory the last run had.", peak)
    yield Family(
        "last_stage_seconds",
        "How long each stage of the last run took.",
        [({"stage": name}, _number(taken)) for name, taken in report.stages.items()],
    )


def _success(book: Path, opened: Book | None, report: Report | None) -> Iterator[Family]:
    """When a run last ended with its month settled: by the reports, else by the book."""
    when = report.finished if report and report.succeeded else None
    if when is None:
        with contextlib.suppress(SettlementError):
            ended = (each.finished for each in attempts.reports(book) if each.succeeded)
            when = next(ended, None)
    if when is None and opened and opened.settlements:
        when = str(opened.settlements[-1].manifest["created_at"])
    if when is not None:
        yield _gauge(
            "last_success_timestamp_seconds",
            "When a run last ended with its month settled.",
            datetime.fromisoformat(when).timestamp(),
        )


def _book(book: Book, now: datetime) -> Iterator[Family]:
    """What is settled, and the newest settled month."""
    months = book.months
    last = months[max(months)]
    end = datetime.fromisoformat(last.manifest["period"]["end"]).timestamp()
    yield _gauge("settlements", "Settlements published in the book.", len(book.settlements))
    yield _gauge("missing_months", "Months that are over and not settled.", len(book.missing(now)))
    yield _gauge("settled_month_end_timestamp_seconds", "When the newest settled month ended.", end)
    info = {"month": str(last.month), "revision": str(last.revision)}
    yield Family("settled_month_info", "The newest settled month.", [(info, "1")])
    yield from _month(book, last)


def _month(book: Book, last: Settlement) -> Iterator[Family]:
    """The figures of the newest settled month."""
    rows, totals = last.manifest["rows"], last.manifest["totals"]
    currency = {"currency": last.price_book.currency.code}
    yield Family(
        "rows",
        "Rows of the log by what became of them, in the newest settled month.",
        [({"bucket": name}, str(count)) for name, count in rows.items()],
    )
    of = in_month(rows)
    share = rejected(rows) / of if of else 0
    yield _gauge("rejected_ratio", "The share of its rows that were rejected.", share)
    yield _gauge("accounts", "Accounts with an invoice in it.", totals["accounts"])
    invoices = last.manifest["tables"]["invoices"]["rows"]
    yield _gauge("invoices", "Invoices in it.", invoices)
    yield Family("payable", "What its invoices add up to.", [(currency, totals["payable"])])
    frozen = book.frozen(last.month).replace(",", "")
    yield Family("frozen", "What is held for the next month.", [(currency, frozen)])


def _gauge(name: str, meaning: str, value: float | None) -> Family:
    return Family(name, meaning, [({}, _number(value))] if value is not None else [])


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return (f"{value:.6f}" if value >= 1 else f"{value:.9f}").rstrip("0").rstrip(".")


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
