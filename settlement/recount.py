"""Recounting: a settled month counted from its log again, and held against what was published.

Whatever a book says of itself follows from its usage; usage follows from the log alone. A
recount reads the very files that were read then, without any cache, and names the first row of
each table that is not as it was published. Files that came since are not counted: they are
late, not wrong.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import pandas as pd
import pyarrow as pa

from settlement import chain, difference, inputs, invoicing, repricing, tables, usage
from settlement.book import Settlement
from settlement.chain import Finding, finding
from settlement.contracts import Contracts
from settlement.errors import SettlementError
from settlement.month import zone_named
from settlement.prices import PriceBook
from settlement.scan.logfiles import CallLog, InputFile
from settlement.usage import KEPT_REJECTS, Counted

_OF_THE_LOG = ("read", "outside_month", "rejected.missing_timestamp")
"""Buckets in which files stand too that had no row in the month, and are not recorded."""


@dataclass(frozen=True)
class Recounted:
    """What a recount came to: files and rows read again, and what is not as published.

    ``newer`` is how many files the log has beside those that were read then.
    """

    settlement: str
    files: int
    rows: int
    newer: int
    found: tuple[Finding, ...]


def recount(
    settlement: Settlement,
    log: CallLog,
    *,
    prices: PriceBook | None = None,
    contracts: Contracts | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Recounted:
    """Count a settled month again, and compare it with what was published.

    Args:
        settlement: what was published.
        log: the call log, with at least the files that were read then.
        prices: the price book it must have been settled by; without it the copy beside it.
        contracts: the contracts likewise.
        threads: how many read at once.
        progress: called with the rows and bytes done so far.

    Raises:
        BadInput, MissingInput, CannotRead: the log is refused, as by a run.
    """
    recorded = settlement.manifest["inputs"]
    moves = inputs.compare(recorded, [asdict(InputFile.of(file)) for file in log.files])
    names = {file["file"]: file["file"] for file in recorded}
    names |= {old["file"]: new["file"] for old, new in moves.moved}
    then = {now: name for name, now in names.items()}
    files = tuple(file for file in log.files if file.name in then)
    missing = [(str(file["file"]), "is gone from the log") for file in moves.went]
    missing += [(str(new["file"]), "has other contents than then") for _, new in moves.changed]
    found = [finding(settlement, "", f"recount: {name!r} {what}") for name, what in missing]
    if not found:
        same = CallLog(log.root, files, 0, log.filesystem)
        counting = (same, then, threads, progress)
        found += _compared(settlement, prices, contracts, counting)
    rows = sum(file.rows for file in files)
    return Recounted(settlement.name, len(files), rows, len(log.files) - len(files), tuple(found))


_Counting = tuple[CallLog, dict[str, str], int | None, Callable[[int, int], None] | None]


def _compared(
    settlement: Settlement,
    prices: PriceBook | None,
    contracts: Contracts | None,
    counting: _Counting,
) -> list[Finding]:
    """Count, price and invoice again; say what is not as it was published."""
    try:
        stated = {table: settlement.table(table) for table in _tables(settlement)}
        prices = prices or settlement.price_book
        contracts = contracts or settlement.contracts
    except SettlementError as error:
        return [chain.refusal(settlement, error)]
    counted = _count(settlement, prices, counting)
    found = list(_rules(settlement, prices, contracts))
    found += _rows(settlement, counted)
    due = _stated_again(settlement, counted, prices, contracts)
    for table, rows in stated.items():
        if table not in due:
            found.append(f"{table.name} were published, and there are none")
        elif differs := difference.first(table, _comparable(table, rows, counting[1]), due[table]):
            found.append(differs.said("in the book", "by the log"))
    return [finding(settlement, "", f"recount: {what}") for what in found]


def _tables(settlement: Settlement) -> list[tables.Table]:
    every = [tables.USAGE, tables.LINES, tables.INVOICES, tables.REJECTS]
    named = settlement.manifest["tables"]
    return every + ([tables.CONTRACT_LINES] if tables.CONTRACT_LINES.name in named else [])


def _count(settlement: Settlement, prices: PriceBook, counting: _Counting) -> Counted:
    log, then, threads, progress = counting
    naive = settlement.manifest["options"].get("naive_timestamps")
    rows = settlement.manifest["rows"]
    rejected = sum(count for name, count in rows.items() if name.startswith("rejected."))
    counted = usage.count(
        log,
        settlement.month.period(prices.zone),
        prices.version_for(settlement.month),
        naive_zone=zone_named(naive) if naive else None,
        threads=threads,
        keep_rejects=max(rejected, KEPT_REJECTS),
        progress=progress,
    )
    rejects, texts = counted.rejected_rows, pa.large_string()
    files = pa.array([then[name] for name in rejects["file"].to_pylist()], texts)
    renamed = rejects.set_column(0, "file", files)
    keys = [(name, "ascending") for name in tables.REJECTS.key]
    return replace(counted, rejected_rows=renamed.sort_by(keys))


def _rules(settlement: Settlement, prices: PriceBook, contracts: Contracts | None) -> Iterator[str]:
    """The price book and the contracts given are those that it was settled by."""
    manifest = settlement.manifest
    if prices.version_for(settlement.month).digest != manifest["rules_sha256"]:
        yield "the price book given has other rules for the month than those it was settled by"
    terms = contracts.in_force(settlement.month).digest if contracts else None
    if terms != manifest["options"].get("terms_sha256"):
        yield "the contracts given have other terms for the month than those it was settled by"


def _rows(settlement: Settlement, counted: Counted) -> Iterator[str]:
    """Each bucket has as many rows as was said, as far as the files recorded can tell."""
    said = settlement.manifest["rows"]
    for bucket, rows in counted.rows.items():
        published = said.get(bucket, 0)
        if published != rows if bucket not in _OF_THE_LOG else published < rows:
            yield f"rows: {bucket}: {published:,} in the book, {rows:,} by the log"


def _stated_again(
    settlement: Settlement, counted: Counted, prices: PriceBook, contracts: Contracts | None
) -> dict[tables.Table, pd.DataFrame]:
    terms = contracts.in_force(settlement.month) if contracts else None
    version = prices.version_for(settlement.month)
    lines, contracted = repricing.rate(counted.usage, version, terms)
    due = {
        tables.USAGE: counted.usage,
        tables.LINES: lines,
        tables.INVOICES: invoicing.invoice(lines, prices.currency),
        tables.REJECTS: counted.rejects,
    }
    return due if contracted is None else due | {tables.CONTRACT_LINES: contracted}


def _comparable(table: tables.Table, rows: pd.DataFrame, then: dict[str, str]) -> pd.DataFrame:
    """Leave out rejected rows of files that had no row in the month: which, nobody knows."""
    if table is not tables.REJECTS:
        return rows
    return rows[rows["file"].isin(set(then.values()))].reset_index(drop=True)
