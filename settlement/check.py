"""Checking a book: proves every published settlement again, from its files alone.

Four things hold or do not: the files are those that were published (digests), in the order
in which they were published (the chain), they follow from each other by the rules of their
time (usage is rated and invoiced again), and the laws hold within each settlement and over
the whole ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from settlement import invoicing, laws, ledger, rating, tables
from settlement.book import MANIFEST, PRICES, Settlement, settlement_folders
from settlement.draft import Draft
from settlement.errors import SettlementError
from settlement.laws import Posted, Statement
from settlement.logfiles import InputFile


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
            stated = statement(settlement)
            problems += [f"{settlement.name}: {problem}" for problem in _prove(settlement, stated)]
        except SettlementError as error:
            problems.append(f"{error.where}: {error.what}")
            continue
        rows += sum(table["rows"] for table in settlement.manifest["tables"].values())
        history.append(_posted(settlement, stated))
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
    )


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
    expected = {f"{name}.parquet" for name in settlement.manifest["tables"]} | {MANIFEST, PRICES}
    present = {child.name for child in settlement.folder.iterdir()}
    for name in sorted(present - expected):
        yield f"{name} was not published there"
    for name in sorted(expected - present):
        yield f"{name} is missing"


def _posted(settlement: Settlement, stated: Statement) -> Posted:
    """Return its entries, and the holds that its bills make by its own price book."""
    month, prices = settlement.month, settlement.price_book
    rule = prices.version_for(month).freeze
    frozen = ledger.freeze(month, stated.invoices, rule, prices.currency)
    return Posted(month, settlement.revision, stated.invoices, stated.entries, frozen)


def _prove(settlement: Settlement, stated: Statement) -> Iterator[str]:
    """Work the settlement out again from its usage, by its own price book."""
    prices = settlement.price_book
    version = prices.version_for(settlement.month)
    manifest = settlement.manifest
    lines = rating.rate(stated.usage, version)
    if not lines.equals(stated.lines):
        yield "lines do not follow from usage and prices"
    if not invoicing.invoice(lines, prices.currency).equals(stated.invoices):
        yield "invoices do not follow from lines"
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
    )
    if manifest["totals"] != draft.totals:
        yield f"totals {manifest['totals']} ≠ {draft.totals}, the sums of the tables"
    if manifest["period"] != {"start": period.start_text, "end": period.end_text}:
        yield "the period is not the month's"
    for table, rows in draft.tables.items():
        if manifest["tables"][table.name]["rows"] != len(rows):
            yield f"{table.name}: the manifest's row count is not the table's"
    yield from _stamps(settlement)


def _stamps(settlement: Settlement) -> Iterator[str]:
    """Every row of every table says the month and revision of its settlement."""
    import pyarrow.compute as pc

    revised = [tables.ADJUSTMENTS] if settlement.revision > 1 else []
    for table in (*tables.PUBLISHED, *revised):
        published = settlement.published(table)
        for name, value in (
            ("month", str(settlement.month)),
            ("revision", settlement.revision),
        ):
            if not pc.all(pc.equal(published[name], value), min_count=0).as_py():
                yield f"{table.name}: a row of another {name}"
