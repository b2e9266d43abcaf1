"""Settling a month: the one straight line from the call log to the book.

    call log → usage → lines → invoices → entries → book

First everything is gathered (price book, book, log), then decided by pure functions into a
draft, and only then acted upon, by one publication. ``run`` and ``plan`` share all but the
last step, so a plan shows what a run would publish.
"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import pandas as pd
import pyarrow as pa

from settlement import (
    changes,
    frames,
    gates,
    gathering,
    invoicing,
    late,
    laws,
    ledger,
    money,
    publish,
    repricing,
    tables,
    whatif,
)
from settlement.book import Book, Settlement, is_folder
from settlement.draft import Draft
from settlement.errors import (
    BadConfig,
    BadInput,
    OtherOutcome,
    StoppedForReview,
    WrongUsage,
)
from settlement.gates import Before
from settlement.journal import Journal
from settlement.laws import Statement
from settlement.month import is_over, months_between
from settlement.operations import messages
from settlement.order import Order
from settlement.progress import Progress, Warn, silent, unheard
from settlement.scan.decoding import touching
from settlement.scan.logfiles import CallLog, InputFile
from settlement.usage import Counted
from settlement.whatif import Effect


@dataclass(frozen=True)
class Done:
    """What a run came to.

    ``outcome`` is ``published``; ``settled already`` where nothing had changed since; or
    ``same outcome`` where something had, and counting again gave the same month.
    """

    outcome: str
    settlement: Settlement
    seconds: dict[str, float]
    skipped: int


@dataclass(frozen=True)
class Planned:
    """What a run would publish, the settlement that stands, and the month before.

    ``crossed`` are the limits at which a run would stop, ``approval`` the command that lets
    these very figures pass, empty where none is.
    """

    draft: Draft
    standing: Settlement | None
    before: Settlement | None
    difference: str
    crossed: list[str]
    approval: str
    seconds: dict[str, float]
    skipped: int


def run(
    order: Order,
    progress: Progress = silent,
    warn: Warn = unheard,
    journal: Journal | None = None,
) -> Done:
    """Settle a month and publish it; do nothing where it is settled with the same outcome.

    Raises:
        WrongUsage: the month is not over, or an earlier month must be settled first.
        MissingInput: there is no log, no call in the month, or no settlement to revise.
        BadInput: the log or the price book is refused, or too many rows are rejected.
        BadConfig: currency or time zone differ from what the book was settled in.
        BookHeld: another run holds the book.
        OtherOutcome: the month is settled, and settling it now would give another outcome.
        StoppedForReview: a limit is crossed, or the figures are not those approved.
        CannotWrite: the file system refused; nothing was published.
    """
    messages.about(order.month)
    done = _settle(order, progress, warn, journal or Journal())
    if done.outcome != "published":
        publish.make_good(done.settlement)
    return done


def _settle(order: Order, progress: Progress, warn: Warn, journal: Journal) -> Done:
    """Settle a month, or find that it stands."""
    _check_month(order)
    book = Book.open(order.book) if is_folder(order.book) else Book(order.book, ())
    _check_book(order, book)
    if order.revise:
        book.settlement(order.month, order.given)
    log = gathering.find(order, journal)
    if order.month in book.months and not order.revise:
        # Nothing will be published, so the book need not be held, nor even be writable.
        return _again(order, book, log, journal, progress, warn)
    with publish.locked(order.book):
        book = Book.open(order.book, book)
        standing = book.months.get(order.month)
        if standing and not order.revise:  # published by another run meanwhile
            return _again(order, book, log, journal, progress, warn)
        _check_book(order, book)
        if standing and _is_unchanged(order, log, standing, journal):
            return Done("settled already", standing, journal.seconds, log.skipped)
        gathering.warn_of_gone(standing, log, warn)
        draft = _decide(order, book, gathering.count(order, log, journal, progress, warn), journal)
        if standing and not changes.differs(draft, standing, book):
            return _same(order, draft, standing, journal, log)
        with journal.stage("review"):
            draft = _reviewed(order, draft, book)
        with journal.stage("publish"):
            settlement = publish.publish(book, draft, order.now)
    return Done("published", settlement, journal.seconds, log.skipped)


def _again(
    order: Order, book: Book, log: CallLog, journal: Journal, progress: Progress, warn: Warn
) -> Done:
    """Settle a settled month: the outcome must be that which stands."""
    standing = book.months[order.month]
    if _is_unchanged(order, log, standing, journal):
        return Done("settled already", standing, journal.seconds, log.skipped)
    gathering.warn_of_gone(standing, log, warn)
    draft = _decide(order, book, gathering.count(order, log, journal, progress, warn), journal)
    difference = changes.difference(draft, standing, book)
    if difference:
        raise _other_outcome(order, standing, difference)
    return _same(order, draft, standing, journal, log)


def _same(order: Order, draft: Draft, standing: Settlement, journal: Journal, log: CallLog) -> Done:
    """Say that the month stands, and let its files be no news any more."""
    if _goes_by_same(order, standing):
        late.remember(standing, draft.inputs)
    return Done("same outcome", standing, journal.seconds, log.skipped)


def plan(order: Order, progress: Progress = silent, warn: Warn = unheard) -> Planned:
    """Work out what `run` would publish, and write nothing. Raises what `run` raises."""
    messages.about(order.month)
    journal = Journal()
    _check_month(order)
    book = Book.open(order.book)
    if order.revise:
        book.settlement(order.month, order.given)
    _check_book(order, book)
    log = gathering.find(order, journal)
    standing = book.months.get(order.month)
    gathering.warn_of_gone(standing, log, warn)
    draft = _decide(order, book, gathering.count(order, log, journal, progress, warn), journal)
    return _planned(order, draft, book, journal, log.skipped)


def _planned(order: Order, draft: Draft, book: Book, journal: Journal, skipped: int) -> Planned:
    """Put a draft beside what stands and the month before."""
    standing = book.months.get(order.month)
    crossed = _crossed(order, draft, book)
    return Planned(
        draft,
        standing,
        book.before(order.month),
        changes.difference(draft, standing, book) if standing else "",
        crossed,
        _approval(order, draft) if crossed else "",
        journal.seconds,
        skipped,
    )


@dataclass(frozen=True)
class WhatIf:
    """What other rules would do to a settled month: the plan, and its effect on the bills.

    ``held`` is what the bills hold for the next month, before and after, in units; None
    where a later month is settled, for then their holds are released already.
    """

    planned: Planned
    effect: Effect
    held: tuple[int, int] | None


def asks_what_if(order: Order) -> bool:
    """Tell whether a plan can be answered from what is settled: only what calls cost differs."""
    standing = Book.open(order.book).months.get(order.month)
    if standing is None or order.revise:
        return False
    version = order.prices.version_for(order.month)
    old = standing.price_book.version_for(order.month)
    differs = version.digest != standing.manifest["rules_sha256"]
    return differs and whatif.counting_of(version) == whatif.counting_of(old)


def what_if(order: Order) -> WhatIf:
    """Price the usage of a settled month by other rules; read no log and write nothing.

    Raises:
        MissingInput: the month is not settled.
        BadConfig: currency or time zone differ from what the book was settled in.
        BadInput: the rules would charge other calls, which only a count can tell.
    """
    book = Book.open(order.book)
    standing = book.settlement(order.month, order.given)
    _check_book(order, book)
    version = order.prices.version_for(order.month)
    old = whatif.counting_of(standing.price_book.version_for(order.month))
    new = whatif.counting_of(version)
    for name, value in new.items():
        if value != old[name]:
            raise BadInput(
                f"{name} of {order.month} differs, so that other calls would be charged",
                where="price book",
                cure=f"count the log anew: {order.again('plan', '--revise')}",
            )
    draft = _decide(replace(order, revise=True), book, _stored(standing), Journal())
    held = None
    if book.newest_month == order.month:
        before = money.exact_sum(book.open_holds()["amount"].to_numpy())
        moved = ledger.moved(draft.stated.entries)
        held = (before, before + moved["frozen"] - moved["unfrozen"])
    return WhatIf(
        _planned(order, draft, book, Journal(), 0),
        whatif.effect(
            (standing.table(tables.LINES), draft.stated.lines),
            (standing.table(tables.INVOICES), draft.stated.invoices),
        ),
        held,
    )


def _stored(standing: Settlement) -> Counted:
    """Return what was counted for a settlement, as it was published."""
    return Counted(
        pa.Table.from_pandas(standing.table(tables.USAGE), preserve_index=False),
        dict(standing.manifest["rows"]),
        pa.Table.from_pandas(standing.table(tables.REJECTS), preserve_index=False),
        tuple(InputFile(**file) for file in standing.manifest["inputs"]),
        0,
    )


def _check_month(order: Order) -> None:
    """Refuse a month that is not over, or that no version of the price book covers."""
    order.prices.version_for(order.month)
    if not is_over(order.month, order.now, order.prices.zone):
        end = order.month.period(order.prices.zone).end_text
        raise WrongUsage(
            "the month is not over",
            where=str(order.month),
            cure=f"it ends at {end} ({order.prices.timezone})",
        )


def _check_book(order: Order, book: Book) -> None:
    """Refuse another currency or zone than the book's, and a gap before the month."""
    if book.settlements:
        settled = book.settlements[-1].price_book
        for name, old, new in (
            ("currency", settled.currency.code, order.prices.currency.code),
            ("timezone", settled.timezone, order.prices.timezone),
        ):
            if old != new:
                raise BadConfig(
                    f"{name} is {new}, but the book was settled in {old}",
                    where="price book",
                    cure=f"write {name} = {old!r}, or begin another book",
                )
    newest = book.newest_month
    if newest and not order.allow_gap:
        missing = months_between(newest, order.month)
        if missing:
            raise WrongUsage(
                f"{missing[0]} is not settled yet",
                where=str(order.month),
                cure=f"settle {missing[0]} first, or pass --allow-gap",
            )


def _decide(order: Order, book: Book, counted: Counted, journal: Journal) -> Draft:
    """Turn the counts into a draft that obeys the laws."""
    with journal.stage("rate"):
        version = order.prices.version_for(order.month)
        lines, contract_lines = repricing.rate(counted.usage, version, order.terms)
        invoices = invoicing.invoice(lines, order.prices.currency)
        entries, adjustments = _post(order, book, invoices)
        stated = Statement(
            counted.rows,
            counted.usage,
            lines,
            invoices,
            entries,
            counted.rejects,
            adjustments,
            contract_lines,
        )
        _refuse_broken(laws.broken(stated, order.prices.currency))
    return Draft(
        order.month,
        len(book.revisions(order.month)) + 1,
        order.month.period(order.prices.zone),
        stated,
        counted.inputs,
        order.recorded,
        order.prices,
        version,
        order.contracts,
    )


def _post(
    order: Order, book: Book, invoices: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Post the month, or, if it was settled before, the difference and its adjustments.

    Holds move with the newest month alone: those of an older one have moved on already.
    """
    holds = frozen = frames.empty(ledger.HOLDS)
    newest = book.newest_month
    posted = [each.table(tables.ENTRIES) for each in book.revisions(order.month)]
    if newest is None or order.month >= newest:
        rule = order.prices.version_for(order.month).freeze
        holds = ledger.open_holds(posted, newest) if posted else book.open_holds()
        own = order.terms.factors if order.terms else None
        frozen = ledger.freeze(order.month, invoices, rule, order.prices.currency, own)
    adjustments = None
    if posted:
        debited = ledger.net_debits(posted)
        entries = ledger.restate(invoices, debited, holds, frozen)
        adjustments = invoicing.adjust(
            order.month, len(posted) + 1, ledger.adjustments(invoices, debited)
        )
        due = adjustments.rename(columns={"adjustment": "amount"})
    else:
        entries = ledger.post(invoices, holds, frozen)
        due = invoices[["account_id", "payable"]].rename(columns={"payable": "amount"})
    _refuse_broken(laws.broken_posting(entries, holds, due, frozen))
    return entries, adjustments


def _reviewed(order: Order, draft: Draft, book: Book) -> Draft:
    """Return a draft that may be published: no limit is crossed, or it is approved."""
    crossed = _crossed(order, draft, book)
    if not crossed and order.approve is None:
        return draft
    if order.approve == gates.digest(draft):
        return replace(draft, options={**draft.options, "approved": order.approve})
    what = "a limit is crossed" if len(crossed) == 1 else f"{len(crossed)} limits are crossed"
    raise StoppedForReview(
        "these are not the figures that were approved" if order.approve else what,
        where=f"{draft.month} r{draft.revision}",
        cure="nothing was published; if these figures are right, run the last line below",
        details=[*crossed, _approval(order, draft)],
    )


def _crossed(order: Order, draft: Draft, book: Book) -> list[str]:
    """Return the limits that a draft crosses, as lines."""
    earlier = book.before(order.month)
    before = None
    if earlier and order.limits.compare_months:
        before = Before(earlier.name, earlier.table(tables.LINES), earlier.table(tables.INVOICES))
    return gates.crossed(order.limits, draft, before)


def _approval(order: Order, draft: Draft) -> str:
    """Return the command that publishes these very figures."""
    revise = ["--revise"] if order.revise else []
    reason = [f"--reason {shlex.quote(order.reason)}"] if revise and order.reason else []
    return order.again("run", *revise, *reason, "--approve", gates.digest(draft))


def _refuse_broken(broken: list[str]) -> None:
    if broken:
        raise AssertionError("a law is broken, nothing was published: " + " · ".join(broken))


def _is_unchanged(order: Order, log: CallLog, standing: Settlement, journal: Journal) -> bool:
    """Tell whether files, options and rules are those the month was settled from."""
    if not _goes_by_same(order, standing):
        return False
    with journal.stage("compare"):
        period = order.month.period(order.prices.zone)
        touched = touching(log, period, order.naive_zone)
        return [asdict(file) for file in touched] == list(standing.manifest["inputs"])


def _goes_by_same(order: Order, standing: Settlement) -> bool:
    """Tell whether options, rules and terms are those the month was settled by."""
    manifest = standing.manifest
    if manifest["rules_sha256"] != order.prices.version_for(order.month).digest:
        return False
    for name in ("naive_timestamps", "columns"):
        if manifest["options"].get(name) != order.options.get(name):
            return False
    return _same_terms(order, manifest["options"])


def _same_terms(order: Order, options: Mapping[str, object]) -> bool:
    """Tell whether the contracts say what they said, by the file or by the month's terms."""
    if order.contracts and order.contracts.digest == options.get("contracts_sha256"):
        return True
    digest = order.terms.digest if order.terms else None
    return options.get("terms_sha256") == digest


def _other_outcome(order: Order, standing: Settlement, difference: str) -> OtherOutcome:
    return OtherOutcome(
        f"settled as {standing.name}, and would come out otherwise now: {difference}",
        where=str(standing.month),
        cure=f"if that is right, run: {order.again('run', '--revise', '--reason TEXT')}",
    )
