"""Checking a book: proves every published settlement again, from its files alone.

Four things hold or do not: the files are those that were published (digests), in the order
in which they were published (the chain), they follow from each other by the rules of their
time (usage is rated and invoiced again), and the laws hold within each settlement and over
the whole ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from settlement import invoicing, laws, ledger, repricing, tables
from settlement.book import CONTRACTS, MANIFEST, PRICES, Settlement, settlement_folders
from settlement.contracts import Contracts
from settlement.draft import Draft
from settlement.errors import SettlementError
from settlement.laws import Posted, Statement
from settlement.scan.logfiles import InputFile


@dataclass(frozen=True)
class Findings:
    """What a check saw: settlements, rows of tables, and the problems as sentences."""

    settlements: int
    rows: int
    problems: tuple[str, ...]
    newest: Settlement | None


def check(folder: Path) -> Findings:
    """Prove a whole book again; problems are collected, not raised.

    Raises:
        CannotRead: the file system refused to read.
    """
    problems: list[str] = []
    loaded: list[Settlement] = []
    history: list[Posted] = []
    rows = 0
    for place in settlement_folders(folder):
        try:
            loaded.append(Settlement.load(place))
        except SettlementError as error:
            problems.append(f"{error.where}: {error.what}")
    loaded.sort(key=lambda settlement: settlement.number)
    problems += _chain(loaded)
    for settlement in loaded:
        problems += [f"{settlement.name}: {problem}" for problem in _files(settlement)]
        try:
            stated, contracts = statement(settlement), settlement.contracts
            proven = _prove(settlement, stated, contracts)
            problems += [f"{settlement.name}: {problem}" for problem in proven]
        except SettlementError as error:
            problems.append(f"{error.where}: {error.what}")
            continue
        except (tables.WrongTable, KeyError, TypeError, ValueError) as error:
            # Well-formed files whose contents no program here would have written.
            problems.append(f"{settlement.name}: {type(error).__name__}: {error}")
            continue
        rows += sum(table["rows"] for table in settlement.manifest["tables"].values())
        history.append(_posted(settlement, stated, contracts))
    if len(history) == len(loaded):
        problems += laws.broken_ledger(history)
    return Findings(len(loaded), rows, tuple(problems), loaded[-1] if loaded else None)


def statement(settlement: Settlement) -> Statement:
    """Read a settlement's tables; raises `BadInput` where one is not what was published."""
    return Statement(
        settlement.manifest["rows"],
        settlement.table(tables.USAGE),
        settlement.table(tables.LINES),
        settlement.table(tables.INVOICES),
        settlement.table(tables.ENTRIES),
        settlement.table(tables.REJECTS),
        settlement.table(tables.ADJUSTMENTS) if settlement.revision > 1 else None,
        settlement.table(tables.CONTRACT_LINES) if _has_contract_lines(settlement) else None,
    )


def _has_contract_lines(settlement: Settlement) -> bool:
    return tables.CONTRACT_LINES.name in settlement.manifest["tables"]


def _chain(loaded: list[Settlement]) -> Iterator[str]:
    """Each manifest names its place and the digest of the one published before it."""
    previous: Settlement | None = None
    revisions: dict[object, int] = {}
    for position, settlement in enumerate(loaded, 1):
        if settlement.number != position:
            yield f"{settlement.name}: number {settlement.number} where {position} is expected"
        expected = previous.sha256 if previous else None
        if settlement.manifest["previous"] != expected:
            before = previous.name if previous else "nothing"
            yield f"{settlement.name}: the chain is broken: it does not follow {before}"
        if settlement.revision != revisions.get(settlement.month, 0) + 1:
            yield f"{settlement.name}: the revision before it is missing"
        revisions[settlement.month] = settlement.revision
        previous = settlement


def _files(settlement: Settlement) -> Iterator[str]:
    """The folder holds exactly what was published in it."""
    present = {child.name for child in settlement.folder.iterdir()}
    expected = {f"{name}.parquet" for name in settlement.manifest["tables"]} | {MANIFEST, PRICES}
    if settlement.manifest["options"].get("contracts_sha256"):
        expected |= present.intersection(CONTRACTS) or {CONTRACTS[0]}
    for name in sorted(present - expected):
        yield f"{name} was not published there"
    for name in sorted(expected - present):
        yield f"{name} is missing"


def _posted(settlement: Settlement, stated: Statement, contracts: Contracts | None) -> Posted:
    """Return its entries, and the holds that its bills make by its own rules."""
    month, prices = settlement.month, settlement.price_book
    rule = prices.version_for(month).freeze
    own = contracts.in_force(month).factors if contracts else None
    frozen = ledger.freeze(month, stated.invoices, rule, prices.currency, own)
    return Posted(month, settlement.revision, stated.invoices, stated.entries, frozen)


def _prove(settlement: Settlement, stated: Statement, contracts: Contracts | None) -> Iterator[str]:
    """Work the settlement out again from its usage, by its own price book and contracts."""
    prices = settlement.price_book
    version = prices.version_for(settlement.month)
    manifest = settlement.manifest
    yield from _prices(settlement, stated, contracts)
    yield from laws.broken(stated, prices.currency)
    if manifest["rules_sha256"] != version.digest:
        yield "the price book beside it is not the one in force"
    period = settlement.month.period(prices.zone)
    draft = Draft(
        settlement.month,
        settlement.revision,
        period,
        stated,
        tuple(InputFile(**file) for file in manifest["inputs"]),
        manifest["options"],
        prices,
        version,
        contracts,
    )
    if manifest["totals"] != draft.totals:
        yield f"totals {manifest['totals']} ≠ {draft.totals}, the sums of the tables"
    if manifest["period"] != {"start": period.start_text, "end": period.end_text}:
        yield "the period is not the month's"
    for table, rows in draft.tables.items():
        if manifest["tables"][table.name]["rows"] != len(rows):
            yield f"{table.name}: the manifest's row count is not the table's"
    yield from _stamps(settlement)


def _prices(
    settlement: Settlement, stated: Statement, contracts: Contracts | None
) -> Iterator[str]:
    """Price the usage again by the price book and the contracts that lie beside it."""
    prices = settlement.price_book
    terms = contracts.in_force(settlement.month) if contracts else None
    version = prices.version_for(settlement.month)
    lines, contract_lines = repricing.rate(stated.usage, version, terms)
    if not lines.equals(stated.lines):
        yield "lines do not follow from usage and prices"
    if not _same(contract_lines, stated.contract_lines):
        yield "contract_lines do not follow from usage, prices and contracts"
    if settlement.manifest["options"].get("terms_sha256") != (terms.digest if terms else None):
        yield "the contracts beside it do not say what was in force"
    if not invoicing.invoice(lines, prices.currency).equals(stated.invoices):
        yield "invoices do not follow from lines"


def _same(one: pd.DataFrame | None, other: pd.DataFrame | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.equals(other))


def _stamps(settlement: Settlement) -> Iterator[str]:
    """Every row of every table says the month and revision of its settlement."""
    import pyarrow.compute as pc

    every = [*tables.PUBLISHED]
    every += [tables.ADJUSTMENTS] if settlement.revision > 1 else []
    every += [tables.CONTRACT_LINES] if _has_contract_lines(settlement) else []
    for table in every:
        published = settlement.published(table)
        for name, value in (
            ("month", str(settlement.month)),
            ("revision", settlement.revision),
        ):
            if not pc.all(pc.equal(published[name], value), min_count=0).as_py():
                yield f"{table.name}: a row of another {name}"
