"""What differs between two statements: a month now and as published, or two months."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from settlement import ledger, money, tables
from settlement.book import Book, Settlement
from settlement.decimals import NO_PRICE
from settlement.difference import places
from settlement.draft import Draft
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.money import Ints

LARGEST = 10


@dataclass(frozen=True)
class Movement:
    """An account's payable in one month and in another, in units."""

    account_id: str
    before: int
    after: int


@dataclass(frozen=True)
class Change:
    """How the bills of a month differ from those of another: totals and movements in units."""

    against: str
    payable_before: int
    payable_after: int
    new_accounts: int
    new_payable: int
    vanished_accounts: int
    vanished_payable: int
    largest: tuple[Movement, ...]


def against(name: str, before: pd.DataFrame, after: pd.DataFrame) -> Change:
    """Compare the invoices (`tables.INVOICES`) of two months account by account."""
    both = before[["account_id", "payable"]].merge(
        after[["account_id", "payable"]],
        how="outer",
        on="account_id",
        suffixes=("_before", "_after"),
        indicator=True,
    )
    # A left merge turns missing integers into floats; whole numbers come back as integers.
    old = _filled(before, both["account_id"])
    new = _filled(after, both["account_id"])
    is_new = (both["_merge"] == "right_only").to_numpy()
    is_gone = (both["_merge"] == "left_only").to_numpy()
    moved = new - old
    order = moved.abs().sort_values(ascending=False, kind="stable").index[:LARGEST]
    return Change(
        name,
        int(old.sum()),
        int(new.sum()),
        int(is_new.sum()),
        int(new[is_new].sum()),
        int(is_gone.sum()),
        int(old[is_gone].sum()),
        tuple(
            Movement(str(both["account_id"].iloc[row]), int(old.iloc[row]), int(new.iloc[row]))
            for row in order
            if moved.iloc[row] != 0
        ),
    )


def _filled(invoices: pd.DataFrame, accounts: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return each account's payable, 0 where it has no invoice, never as a float."""
    by_account = invoices.set_index("account_id")["payable"]
    return by_account.reindex(pd.Index(accounts), fill_value=0).reset_index(drop=True)


def differs(draft: Draft, standing: Settlement, book: Book) -> bool:
    """Tell whether a draft has another outcome than the settlement that stands.

    Asks the totals first: mostly they differ, and no table need be read.
    """
    names = ("accounts", "list_amount", "voucher_amount", "amount", "payable")
    totals, standing_totals = draft.totals, standing.manifest["totals"]
    if any(totals[name] != standing_totals[name] for name in names):
        return True
    return any(not old.equals(new) for _, old, new, _ in _outcomes(draft, standing, book))


def difference(draft: Draft, standing: Settlement, book: Book) -> str:
    """Say what differs between a draft and the settlement that stands; empty if nothing."""
    found = [_first(*pair) for pair in _outcomes(draft, standing, book)]
    return " · ".join(sentence for sentence in found if sentence)


def _outcomes(
    draft: Draft, standing: Settlement, book: Book
) -> Iterator[tuple[tables.Table, pd.DataFrame, pd.DataFrame, str]]:
    """Yield the tables of both that make an outcome, and a column to tell them apart by.

    The outcome is what is charged and held: usage, lines, invoices, and, while the month's
    own holds are open, what is frozen.
    """
    stated = draft.stated
    yield tables.USAGE, standing.table(tables.USAGE), stated.usage, "calls"
    yield tables.LINES, standing.table(tables.LINES), stated.lines, "amount"
    yield tables.INVOICES, standing.table(tables.INVOICES), stated.invoices, "payable"
    if book.newest_month == draft.month:
        yield ledger.HOLDS, book.open_holds(), draft.frozen, "amount"


def _first(table: tables.Table, old: pd.DataFrame, new: pd.DataFrame, by: str) -> str:
    """Name the row of a table that changed most, and how many changed; empty if none did.

    The most is told by a column; where that is the same in every row, the first row that
    changed is named, with the first column in which it did.
    """
    if old.equals(new):
        return ""
    left, right = places(table, old, new)
    before, after = _numbers(old, left, by), _numbers(new, right, by)
    most = int(np.abs(after - before).argmax())
    at, to = int(left[most]), int(right[most])
    if before[most] != after[most]:
        column = next(column for column in table.columns if column.name == by)
        changed = [(by, _said(column, before[most]), _said(column, after[most]))]
    else:
        cells = [(each.name, _cell(each, old, at), _cell(each, new, to)) for each in table.columns]
        changed = [each for each in cells[table.key_length :] if each[1] != each[2]]
    name, was, now = changed[0]
    key = " ".join((old if at >= 0 else new)[table.key].iloc[at if at >= 0 else to])
    one, more = f"row of {table.name} differs", f"rows of {table.name} differ"
    return f"{count_of(len(left), one, more)}, first {key}: {name} {was} → {now}"


def _numbers(rows: pd.DataFrame, place: "Ints", column: str) -> "Ints":
    """Return the values at these places; 0 for -1, where no row is."""
    return np.append(rows[column].to_numpy(), 0)[place]


def _cell(column: tables.Column, rows: pd.DataFrame, place: int) -> str:
    return _said(column, rows[column.name].iloc[place]) if place >= 0 else "nothing"


def _said(column: tables.Column, value: Any) -> str:
    if column.kind is tables.Kind.TEXT:
        return str(value)
    if column.nullable and value == NO_PRICE:
        return "nothing"
    return money.grouped(int(value)) if column.kind.is_money else f"{value:,}"
