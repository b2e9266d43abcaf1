"""Explaining a bill: every amount of one account derived in words and numbers."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from settlement import frames, money, tables
from settlement.book import Settlement
from settlement.contracts import Terms
from settlement.errors import MissingInput
from settlement.prices import Item, Version
from settlement.report import safe
from settlement.terminal import laid
from settlement.words import count_of

Record = dict[Hashable, Any]
"""One row of a table, by column."""


@dataclass(frozen=True)
class Step:
    """One step of a derivation: what it is, how it is worked out, what comes out.

    ``result`` is a plain number as text, empty where nothing comes out.
    """

    what: str
    how: str
    result: str


@dataclass(frozen=True)
class Section:
    """Some steps under a heading: an item, the invoice, the ledger."""

    heading: str
    steps: tuple[Step, ...]


def explain(revisions: Sequence[Settlement], account: str) -> list[Section]:
    """Derive every amount of an account's month: calls → tier → voucher → rounding → hold.

    Args:
        revisions: every settlement of the month, oldest first; the newest states what is
            owed, the entries of all of them are what was moved.
        account: who pays.

    Raises:
        MissingInput: the account has neither an invoice nor an entry in any of them.
    """
    settlement = revisions[-1]
    usage, lines, invoices = (
        of_account(settlement, table, account)
        for table in (tables.USAGE, tables.LINES, tables.INVOICES)
    )
    moved = [section for each in revisions for section in _ledger(each, account)]
    if invoices.empty and not moved:
        raise nothing_of(account, settlement)
    version = settlement.price_book.version_for(settlement.month)
    contracts = settlement.contracts
    terms = contracts.in_force_for(account, settlement.month) if contracts else None
    contracted = _contracted(settlement, account)
    sections = []
    for line in lines.to_dict("records"):
        item = version.item(line["item"])
        if terms and item.code in contracted:
            agreed = terms.for_item(account, item)
            lined = _by_contract(_line(agreed, line, usage), contracted[item.code])
        else:
            lined = _line(item, line, usage)
        sections.append(Section(_heading(item), tuple(lined)))
    bill: Record = invoices.to_dict("records")[0] if len(invoices) else {}
    if bill:
        sections.append(Section(f"invoice 账单 {settlement.month}", tuple(_invoice(bill, lines))))
    nothing = Section("ledger 资金", (Step("no entries", "nothing to move", ""),))
    return sections + (moved or [nothing])


def shown(sections: Sequence[Section]) -> str:
    """Return a derivation for a person: the steps of all sections in the same columns."""
    steps = [step for section in sections for step in section.steps]
    rows = [(safe(step.what), safe(step.how), _grouped(step.result)) for step in steps]
    lines = iter(laid(rows, right=[2], indent="  "))
    return "\n".join(
        line
        for section in sections
        for line in (safe(section.heading), *islice(lines, len(section.steps)))
    )


def _grouped(result: str) -> str:
    """Part the thousands of a count; amounts stand as they are worked with."""
    return f"{int(result):,}" if result.isdigit() else result


def nothing_of(account: str, settlement: Settlement) -> MissingInput:
    """Say that an account has no part in a month."""
    return MissingInput(
        f"no invoice and no entry for account {account!r}",
        where=settlement.name,
        cure="check the account; leading zeros matter",
    )


def _ledger(settlement: Settlement, account: str) -> list[Section]:
    """Derive an account's entries in one settlement; no section where it has none."""
    entries = of_account(settlement, tables.ENTRIES, account).to_dict("records")
    if not entries:
        return []
    bills = of_account(settlement, tables.INVOICES, account).to_dict("records")
    bill: Record = bills[0] if bills else {}
    if settlement.revision > 1:
        adjusted = of_account(settlement, tables.ADJUSTMENTS, account).to_dict("records")
        bill |= {name: row[name] for row in adjusted for name in ("previous_payable", "document")}
        bill.setdefault("payable", 0)
    contracts = settlement.contracts
    terms = contracts.in_force_for(account, settlement.month) if contracts else None
    rule = _freeze_rule(settlement.price_book.version_for(settlement.month), terms)
    steps = tuple(_entry(entry, rule, bill) for entry in entries)
    return [Section(f"ledger 资金, r{settlement.revision}", steps)]


def of_account(settlement: Settlement, table: tables.Table, account: str) -> pd.DataFrame:
    """Return one account's rows of a published table."""
    published = settlement.published(table)
    return frames.to_frame(table, published.filter(pc.equal(published["account_id"], account)))


def _heading(item: Item) -> str:
    return f"{item.name} {item.code}"


def _contracted(settlement: Settlement, account: str) -> dict[str, Record]:
    """Return one account's lines that contracts price, by item."""
    if tables.CONTRACT_LINES.name not in settlement.manifest["tables"]:
        return {}
    rows = of_account(settlement, tables.CONTRACT_LINES, account).to_dict("records")
    return {row["item"]: row for row in rows}


def _by_contract(lined: list[Step], row: Record) -> list[Step]:
    """Say in the derivation of a line which terms price it, and what it were without them."""
    calls, *steps = lined
    without = money.text(row["book_amount"], 2)
    return [
        calls,
        Step("terms", f"by contract 合同价: {row['terms']}", ""),
        *steps,
        Step("without", "what the price book alone would charge 价目表价", without),
    ]


def _line(item: Item, line: Record, usage: pd.DataFrame) -> list[Step]:
    """Derive one line: the calls, the tier they reach, the list amount, the voucher."""
    counted = usage[usage["item"] == item.code]
    counts = [f"{row.interface} {row.calls:,}" for row in counted.itertuples()]
    steps = [Step("calls", " + ".join(counts), f"{line['calls']}")]
    steps += _graduated(item, line) if item.mode == "graduated" else _volume(item, line)
    return [*steps, Step("amount", "list − voucher", money.text(line["amount"], 2))]


def _volume(item: Item, line: Record) -> list[Step]:
    calls, free = line["calls"], line["voucher_calls"]
    voucher = money.text(-line["voucher_amount"], 2)
    basis = calls if item.tier_basis == "gross" else calls - free
    price = money.text(line["unit_price"], 4)
    counted = "calls" if item.tier_basis == "gross" else f"calls − {free:,} free = {basis:,}"
    return [
        Step(
            "tier",
            f"{counted} in {_band(item, line['tier'])}: all of them at {price}",
            f"{line['tier']}",
        ),
        Step("list", f"{count_of(calls, 'call')} × {price}", money.text(line["list_amount"], 2)),
        Step("voucher", f"{count_of(free, 'free call')} × {price}", voucher),
    ]


def _graduated(item: Item, line: Record) -> list[Step]:
    calls, free = line["calls"], line["voucher_calls"]
    steps, below = [], 0
    for number, tier in enumerate(item.tiers[: line["tier"]], 1):
        upper = calls if tier.up_to is None else min(calls, tier.up_to)
        price = money.text(tier.unit_price, 4)
        how = f"{count_of(upper - below, 'call')} × {price}, {_band(item, number)}"
        steps.append(Step(f"band {number}", how, money.text((upper - below) * tier.unit_price, 2)))
        below = upper
    voucher = money.text(-line["voucher_amount"], 2)
    cost = count_of(free, "call costs", "calls cost")
    return [
        *steps,
        Step("list", "the bands together", money.text(line["list_amount"], 2)),
        Step("voucher", f"what the first {cost}, free of charge", voucher),
    ]


def _band(item: Item, tier: int) -> str:
    lower = (item.tiers[tier - 2].up_to or 0) if tier > 1 else 0
    upper = item.tiers[tier - 1].up_to
    return f"{lower:,} < calls ≤ {upper:,}" if upper is not None else f"{lower:,} < calls"


def _invoice(bill: Record, lines: pd.DataFrame) -> list[Step]:
    amounts = {name: money.text(bill[name], 2) for name in ("list_amount", "amount", "payable")}
    several = " + ".join(money.text(int(value), 2) for value in lines["amount"] if value) or "0.00"
    voucher = money.text(-bill["voucher_amount"], 2)
    return [
        Step("list", "the lines' list amounts", amounts["list_amount"]),
        Step("voucher", "the lines' vouchers 代金券", voucher),
        Step("amount", several, amounts["amount"]),
        Step("rounding", "half up to the minor unit", money.text(bill["rounding"], 2)),
        Step("payable", f"应付金额, {bill['currency']}", amounts["payable"]),
    ]


def _freeze_rule(version: Version, terms: Terms | None) -> tuple[str, str]:
    """Return the column that a hold is worked out from, and its factor in words."""
    base = "payable" if version.freeze.base == "payable" else "list_amount"
    own = terms.factors["freeze_factor"].tolist() if terms else []
    factor = own[0] if own else int(version.freeze.factor * money.UNITS_PER_ONE)
    return base, money.text(factor, 2) + (" by contract" if own else "")


def _entry(entry: Record, rule: tuple[str, str], bill: Record) -> Step:
    amount, kind = money.text(entry["amount"], 2), entry["kind"]
    if kind == "unfreeze":
        how = f"the hold of {entry['hold_month']} is given back 解冻"
    elif kind == "freeze":
        base, factor = rule
        held = money.text(bill.get(base, 0), 2)
        how = f"{factor} × {base.removesuffix('_amount')} {held}, held for the next month 冻结"
    elif "previous_payable" in bill:
        payable, before = (money.text(bill[name], 2) for name in ("payable", "previous_payable"))
        word = "补扣" if kind == "debit" else "退款"
        how = f"payable {payable}, debited before {before} {word}, document {bill['document']}"
    else:
        how = "what is payable 扣费"
    return Step(f"{entry['sequence']} {kind}", how, amount)
