"""Showing one account of a settlement: its invoice, its lines, its entries."""

from collections.abc import Sequence
from typing import Any

from settlement import money, tables
from settlement.book import Settlement
from settlement.report import aligned, safe
from settlement.show.explain import nothing_of, of_account


def find(revisions: Sequence[Settlement], account: str) -> dict[str, Any]:
    """Return an account's invoice, lines and entries as JSON values, money as text.

    Args:
        revisions: every settlement of the month, oldest first: invoice and lines are those
            of the newest, entries those of all, for they add up.
        account: who pays.

    Raises:
        MissingInput: the account has neither an invoice nor an entry in any of them.
    """
    settlement = revisions[-1]
    found: dict[str, Any] = {
        "month": str(settlement.month),
        "revision": settlement.revision,
        "account_id": account,
    }
    found["invoice"] = next(iter(_rows(settlement, tables.INVOICES, account)), None)
    found["lines"] = _rows(settlement, tables.LINES, account)
    found["entries"] = [
        {"revision": each.revision} | row
        for each in revisions
        for row in _rows(each, tables.ENTRIES, account)
    ]
    if found["invoice"] is None and not found["entries"]:
        raise nothing_of(account, settlement)
    return found


def _rows(settlement: Settlement, table: tables.Table, account: str) -> list[dict[str, Any]]:
    rows = of_account(settlement, table, account).drop(columns="account_id")
    return [
        {str(name): _value(table, str(name), value) for name, value in row.items()}
        for row in rows.to_dict("records")
    ]


def _value(table: tables.Table, name: str, value: Any) -> Any:
    column = next(column for column in table.columns if column.name == name)
    if not column.kind.is_money:
        return value if value == value else None  # noqa: PLR0124 - null text reads as NaN
    if column.nullable and value < 0:
        return None
    digits = {tables.Kind.PRICE: 4, tables.Kind.PAYABLE: 2}.get(column.kind, 8)
    return money.text(value, digits)


def shown(found: dict[str, Any]) -> str:
    """Return what `find` found, for a person."""
    parts = [f"{found['month']} r{found['revision']}, account {safe(found['account_id'])}"]
    if found["invoice"]:
        parts += ["invoice 账单", aligned(list(map(_pair, found["invoice"].items())), [1], "  ")]
    for heading, key in (("lines 明细", "lines"), ("entries 资金", "entries")):
        if rows := found[key]:
            cells = [tuple(rows[0])] + [tuple(map(_cell, row.values())) for row in rows]
            parts += [heading, aligned(cells, range(1, len(rows[0])), "  ")]
    return "\n".join(parts)


def _pair(pair: tuple[str, Any]) -> tuple[str, str]:
    return pair[0], _cell(pair[1])


def _cell(value: Any) -> str:
    return "" if value is None else safe(str(value))
