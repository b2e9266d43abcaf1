"""Checking a book: proves every published settlement again, from its files alone.

Four things hold or do not: the files are those that were published (digests), in the order
in which they were published (the chain), they follow from each other by the rules of their
time (usage is rated, invoiced and posted again), and the laws hold within each settlement and
over the whole ledger.

Usage itself follows from the log alone, and nothing in the book vouches for its newest
settlement. So what is found says what is not proved too: the digest that the newest run printed
proves the one, a recount (`recount`) the other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import (
    buckets,
    chain,
    columns,
    difference,
    frames,
    gates,
    invoicing,
    laws,
    ledger,
    repricing,
    tables,
)
from settlement.book import MANIFEST, Book, Settlement
from settlement.chain import Chain, Finding, finding
from settlement.contracts import Contracts
from settlement.draft import Draft
from settlement.errors import SettlementError
from settlement.laws import History, Posted, Statement
from settlement.month import is_over, zone_named
from settlement.prices import PriceBook, Version
from settlement.scan.logfiles import InputFile
from settlement.tables import Table, WrongTable
from settlement.words import count_of

USAGE = "that the usage is what the log says: settle check --recount MONTH --logs LOGS"
"""What no check proves without the log."""
_OPTIONS = {
    "naive_timestamps",
    "columns",
    "now",
    "reason",
    "contracts_sha256",
    "terms_sha256",
    "approved",
}
_PROGRAM = re.compile(r"[0-9]+(\.[0-9]+)*([a-z0-9.+-]*)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SMALLEST_FILE = 12
"""How many bytes the smallest Parquet file has."""
_UNHEARD_OF = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What well-formed files provoke whose contents no program here would have written."""


@dataclass(frozen=True)
class Findings:
    """What a check saw.

    Attributes:
        book: the settlements that could be read.
        rows: how many rows their tables have.
        found: what is wrong.
        trusted: names of the settlements that nothing found touches, in the order of
            publication: those before the first broken one.
        doubtful: names of settlements that are sound by themselves but follow a broken one.
        unproved: what is sound and yet not proved, as sentences.
    """

    book: Book
    rows: int
    found: tuple[Finding, ...]
    trusted: tuple[str, ...]
    doubtful: tuple[str, ...]
    unproved: tuple[str, ...]

    @property
    def settlements(self) -> int:
        """How many settlements could be read."""
        return len(self.book.settlements)

    @property
    def newest(self) -> Settlement | None:
        """The settlement published last."""
        return self.book.settlements[-1] if self.book.settlements else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, as sentences."""
        return tuple(map(str, self.found))


def check(folder: Path, digest: str | None = None) -> Findings:
    """Prove a whole book again; what is wrong is collected, not raised.

    Args:
        folder: the book.
        digest: the newest settlement's digest as its run printed it, if that is known.

    Raises:
        CannotRead: the book's own folder cannot be read.
    """
    links = chain.follow(folder)
    found = list(links.findings)
    found += _newest_is(links, digest) if digest else ()
    prover = _Prover(links)
    for settlement in links.settlements:
        found += prover.prove(settlement)
    found += prover.left_open()
    lost = [f"the ledger from {prover.lost} on"] if prover.lost else []
    findings = _judged(folder, links, tuple(found), prover.rows, digest)
    return replace(findings, unproved=(*findings.unproved, *lost))


def _newest_is(links: Chain, digest: str) -> Iterator[Finding]:
    """Hold the newest settlement against the digest that its run printed."""
    newest = links.settlements[-1] if links.settlements else None
    if newest is None or newest.manifest["digest"] == digest:
        return
    for settlement in links.settlements:
        if settlement.manifest["digest"] == digest:
            what = f"that digest is the one of {settlement.name}, and this was published after it"
            yield finding(newest, MANIFEST, what)
            return
    what = "its digest is not the one given: replaced, or newer settlements were taken out"
    yield finding(newest, MANIFEST, what)


def _judged(
    folder: Path, links: Chain, found: tuple[Finding, ...], rows: int, digest: str | None
) -> Findings:
    """Say what is to be trusted: everything before the first number that is broken."""
    broken = {each.settlement for each in found}
    numbers = [each.number for each in links.settlements if each.name in broken]
    numbers += links.damaged.values()
    taken = {each.number for each in links.settlements} | set(links.damaged.values())
    numbers += [n for n in range(1, len(taken) + 1) if n not in taken][:1]
    first = min(numbers, default=len(taken) + 1)
    trusted = [each for each in links.settlements if each.number < first]
    doubtful = [each for each in links.settlements if each.number > first]
    unproved = []
    last = trusted[-1] if trusted else None
    if last and not links.vouched(last) and last.manifest["digest"] != digest:
        unproved.append(
            f"that {last.name} is what was published: nothing sound follows it; compare its "
            f"digest with what its run printed: {last.manifest['digest']}"
        )
    if trusted:
        unproved.append(USAGE)
    return Findings(
        Book(folder, links.settlements),
        rows,
        found,
        tuple(each.name for each in trusted),
        tuple(each.name for each in doubtful if each.name not in broken),
        tuple(unproved),
    )


class _Prover:
    """Proves settlement after settlement, and follows the ledger through them."""

    def __init__(self, links: Chain) -> None:
        self.rows = 0
        self._history: History | None = History()
        self._last = {each.month: each for each in links.settlements}
        self._damaged = links.damaged.values()
        self._newest = links.settlements[-1] if links.settlements else None
        self.lost = ""

    def prove(self, settlement: Settlement) -> list[Finding]:
        """Return everything wrong with the next settlement."""
        found: list[Finding] = []
        if any(number < settlement.number for number in self._damaged):
            self._lose(settlement)
        try:
            found += chain.written(settlement)
            found += chain.files(settlement, [table.name for table in tables_of(settlement)])
            self._prove(settlement, found)
        except SettlementError as error:
            self._lose(settlement)
            found.append(chain.refusal(settlement, error))
        except _UNHEARD_OF as error:
            self._lose(settlement)
            found.append(finding(settlement, "", f"{type(error).__name__}: {error}"))
        return list(dict.fromkeys(found))

    def _prove(self, settlement: Settlement, found: list[Finding]) -> None:
        prices, contracts = _rules(settlement, found)
        read = _read(settlement, found)
        if prices is None or len(read) < len(tables_of(settlement)):
            self._lose(settlement)
            return
        self.rows += sum(len(rows) for rows in read.values())
        stated = _statement(settlement, read)
        draft = _draft(settlement, stated, prices, contracts)
        found.extend(finding(settlement, "", what) for what in _proved(settlement, draft))
        if self._history:
            found += [finding(settlement, "", what) for what in self._posted(draft)]
            if self._last[settlement.month] is settlement:
                self._history.forget(settlement.month)

    def _lose(self, settlement: Settlement) -> None:
        """Give the ledger up, for what was posted by this settlement or before is not known."""
        self.lost = self.lost or settlement.name
        self._history = None

    def _posted(self, draft: Draft) -> list[str]:
        """Post the month again, and hold its entries against that and against the laws."""
        assert self._history is not None
        stated, history = draft.stated, self._history
        entries, adjustments = _posting(draft, history)
        said = _unlike(tables.ENTRIES, stated.entries, entries, "the ledger before them")
        if adjustments is not None and stated.adjustments is not None:
            basis = "what was debited before"
            said += _unlike(tables.ADJUSTMENTS, stated.adjustments, adjustments, basis)
        posted = Posted(draft.month, draft.revision, stated.invoices, stated.entries, draft.frozen)
        name = f"{draft.month} r{draft.revision}: "
        return said + [law.removeprefix(name) for law in history.post(posted, entries)]

    def left_open(self) -> list[Finding]:
        """Return the law of holds broken at the end."""
        if not self._history or not self._newest:
            return []
        return [finding(self._newest, "", law) for law in self._history.left_open()]


# ---------------------------------------------------------------- reading


def tables_of(settlement: Settlement) -> tuple[Table, ...]:
    """Return the tables that a settlement of its kind publishes."""
    more = [tables.ADJUSTMENTS] if settlement.revision > 1 else []
    if settlement.manifest["options"].get("contracts_sha256"):
        more.append(tables.CONTRACT_LINES)
    return (*tables.PUBLISHED, *more)


def _rules(
    settlement: Settlement, found: list[Finding]
) -> tuple[PriceBook | None, Contracts | None]:
    """Read the price book and the contracts; what is damaged is found, and None."""
    try:
        prices, contracts = settlement.price_book, settlement.contracts
    except SettlementError as error:
        found.append(chain.refusal(settlement, error))
        return None, None
    return prices, contracts


def _read(settlement: Settlement, found: list[Finding]) -> dict[Table, pd.DataFrame]:
    """Read the tables that are sound; the others are found."""
    read = {}
    for table in tables_of(settlement):
        file = f"{table.name}.parquet"
        if table.name not in settlement.manifest["tables"]:
            continue
        try:
            published = settlement.published(table)
            read[table] = frames.to_frame(table, published)
        except (WrongTable, pa.ArrowException) as error:
            found.append(finding(settlement, file, str(error)))
            continue
        except SettlementError as error:
            found.append(chain.refusal(settlement, error))
            continue
        found += [finding(settlement, file, what) for what in _stamps(settlement, published)]
        if settlement.manifest["tables"][table.name]["rows"] != len(published):
            found.append(finding(settlement, file, "the manifest's row count is not the table's"))
    return read


def _stamps(settlement: Settlement, published: pa.Table) -> Iterator[str]:
    """Every row of every table says the month and revision of its settlement."""
    for name, value in (("month", str(settlement.month)), ("revision", settlement.revision)):
        if not pc.all(pc.equal(published[name], value), min_count=0).as_py():
            yield f"a row of another {name}"


def _statement(settlement: Settlement, read: Mapping[Table, pd.DataFrame]) -> Statement:
    return Statement(
        settlement.manifest["rows"],
        read[tables.USAGE],
        read[tables.LINES],
        read[tables.INVOICES],
        read[tables.ENTRIES],
        read[tables.REJECTS],
        read.get(tables.ADJUSTMENTS),
        read.get(tables.CONTRACT_LINES),
    )


def _draft(
    settlement: Settlement, stated: Statement, prices: PriceBook, contracts: Contracts | None
) -> Draft:
    """Return what was published as the draft that it once was."""
    return Draft(
        settlement.month,
        settlement.revision,
        settlement.month.period(prices.zone),
        stated,
        tuple(InputFile(**file) for file in settlement.manifest["inputs"]),
        settlement.manifest["options"],
        prices,
        prices.version_for(settlement.month),
        contracts,
    )


# ---------------------------------------------------------------- proving


def _proved(settlement: Settlement, draft: Draft) -> Iterator[str]:
    """Work a settlement out again from its usage, by its own price book and contracts."""
    manifest, stated = settlement.manifest, draft.stated
    yield from _usage(stated, draft.version)
    yield from _priced(settlement, draft)
    yield from laws.broken(stated, draft.prices.currency)
    if manifest["rules_sha256"] != draft.version.digest:
        yield "the price book beside it is not the one in force"
    if manifest["totals"] != draft.totals:
        yield f"totals {manifest['totals']} ≠ {draft.totals}, the sums of the tables"
    if manifest["period"] != {"start": draft.period.start_text, "end": draft.period.end_text}:
        yield "the period is not the month's"
    yield from _inputs(draft.inputs, stated.rows)
    yield from _circumstances(settlement, draft)


def _usage(stated: Statement, version: Version) -> Iterator[str]:
    """Calls are counted for interfaces of the price book, toward an item that lists them."""
    if (stated.usage["calls"] <= 0).any():
        yield "usage without a call"
    pairs = stated.usage[["item", "interface"]].drop_duplicates()
    for item, interface in pairs.itertuples(index=False):
        if item not in version.listing(interface):
            yield f"usage of {interface!r} for {item!r}, which does not list it"


def _priced(settlement: Settlement, draft: Draft) -> Iterator[str]:
    """Price the usage again by the price book and the contracts that lie beside it."""
    stated, contracts = draft.stated, draft.contracts
    terms = contracts.in_force(draft.month) if contracts else None
    lines, contracted = repricing.rate(stated.usage, draft.version, terms)
    yield from _unlike(tables.LINES, stated.lines, lines, "usage and prices")
    if stated.contract_lines is not None and contracted is not None:
        basis = "usage, prices and contracts"
        yield from _unlike(tables.CONTRACT_LINES, stated.contract_lines, contracted, basis)
    if settlement.manifest["options"].get("terms_sha256") != (terms.digest if terms else None):
        yield "the contracts beside it do not say what was in force"
    invoices = invoicing.invoice(lines, draft.prices.currency)
    yield from _unlike(tables.INVOICES, stated.invoices, invoices, "lines")


def _posting(draft: Draft, history: History) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the entries and adjustments that a month's bills make where the ledger stands."""
    holds = frozen = frames.empty(ledger.HOLDS)
    if history.newest is None or draft.month >= history.newest:
        holds, frozen = history.open_holds, draft.frozen
    invoices, debited = draft.stated.invoices, history.debited(draft.month)
    if debited is None:
        return ledger.post(invoices, holds, frozen), None
    changed = ledger.adjustments(invoices, debited)
    adjusted = invoicing.adjust(draft.month, draft.revision, changed)
    return ledger.restate(invoices, debited, holds, frozen), adjusted


def _unlike(table: Table, stated: pd.DataFrame, due: pd.DataFrame, basis: str) -> list[str]:
    """Say where a table is not what it follows from."""
    found = difference.first(table, stated, due)
    if found is None:
        return []
    return [f"{table.name} do not follow from {basis}: {found.said('stated', 'due')}"]


def _inputs(inputs: Sequence[InputFile], rows: Mapping[str, int]) -> Iterator[str]:
    """The files recorded are files that can have had the rows that were read."""
    for file in inputs:
        if not file.file or file.size < _SMALLEST_FILE or file.rows < 1:
            has, size = count_of(file.rows, "row"), count_of(file.size, "byte")
            yield f"inputs: {file.file!r} cannot have {has} in {size}"
        if not _DIGEST.fullmatch(file.footer_sha256):
            yield f"inputs: {file.file!r} has no digest of a footer"
    names = [file.file.encode(errors="surrogatepass") for file in inputs]
    if any(one >= other for one, other in pairwise(names)):
        yield "inputs: a file is named twice, or out of order"
    if set(rows) != set(tables.ROWS):
        return  # a law says so
    recorded, in_month = sum(file.rows for file in inputs), buckets.in_month(rows)
    if not in_month <= recorded <= rows["read"] or bool(inputs) != bool(in_month):
        yield (
            f"inputs: {count_of(recorded, 'row')} in {count_of(len(inputs), 'file')} cannot "
            f"be all with some of the {in_month:,} rows of the month among {rows['read']:,}"
        )


def _circumstances(settlement: Settlement, draft: Draft) -> Iterator[str]:
    """When, by which program and under which options: what can be told of them."""
    manifest, options = settlement.manifest, settlement.manifest["options"]
    created = _instant(manifest["created_at"])
    if created is None:
        yield f"created_at {manifest['created_at']!r} is not an instant in UTC"
    elif not is_over(settlement.month, created, draft.prices.zone):
        yield f"created_at {manifest['created_at']}, before the month was over"
    if not _PROGRAM.fullmatch(manifest["program"]):
        yield f"program {manifest['program']!r} is not a version"
    for name in sorted(set(options) - _OPTIONS):
        yield f"an option that no run records: {name!r}"
    if "now" in options and _instant(options["now"] or "") != created:
        yield f"options.now {options['now']!r} is not created_at"
    if (options.get("reason") is not None or "reason" in options) and settlement.revision == 1:
        yield "a reason, though it is no revision"
    if (zone := options.get("naive_timestamps")) is not None:
        zone_named(zone)
    columns.mapping((options.get("columns") or {}).items())
    if "approved" in options and options["approved"] != gates.digest(draft):
        yield "approved are other figures than these"


def _instant(text: str) -> datetime | None:
    """Read an instant as a manifest writes it; None where it is none."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.utcoffset() is not None and not instant.utcoffset() else None
