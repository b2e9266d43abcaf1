"""Showing what differs between two statements of a month: `diff` for people and programs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from settlement import money
from settlement.diff import Diff, Side
from settlement.inputs import Input, Moves
from settlement.report import MONEY, POSTED, aligned, grouped, label_of, safe
from settlement.words import count_of

SHOWN = 20
"""How many lines and accounts a person is shown, the largest changes first."""


def described(diff: Diff) -> dict[str, Any]:
    """Return a diff as JSON values, every line of it, money as text."""
    return {
        "before": diff.before.name,
        "after": diff.after.name,
        "inputs": described_moves(diff.moves),
        "rules": [
            {"rule": rule.rule, "before": rule.before, "after": rule.after} for rule in diff.rules
        ],
        "rows": _pairs(diff.before.rows, diff.after.rows),
        "lines": list(map(_line, _records(diff.lines))),
        "invoices": list(map(_invoice, _records(diff.invoices))),
        "totals": _pairs(_stated(diff.before), _stated(diff.after)),
        "posted": {name: diff.after.totals[name] for name in POSTED if name in diff.after.totals},
    }


def described_moves(moves: Moves) -> dict[str, Any]:
    """Return the files that came, went, changed or moved as JSON values."""
    return {
        "came": [dict(file) for file in moves.came],
        "went": [dict(file) for file in moves.went],
        "changed": [{"before": dict(old), "after": dict(new)} for old, new in moves.changed],
        "moved": [{"before": dict(old), "after": dict(new)} for old, new in moves.moved],
    }


def _stated(side: Side) -> dict[str, Any]:
    """Return the totals that can be compared; what was posted is the difference itself."""
    return {name: total for name, total in side.totals.items() if name not in POSTED}


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs between two flat objects."""
    names = dict.fromkeys([*before, *after])
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in names
        if before.get(name) != after.get(name)
    }


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a line's units into text; a tier or price that is not there is null."""
    line: dict[str, Any] = {name: row[name] for name in ("account_id", "item", "reason")}
    for name in ("calls", "voucher_calls"):
        line[name] = {"before": row[f"{name}_before"], "after": row[name]}
    line["tier"] = {"before": row["tier_before"] or None, "after": row["tier"] or None}
    line["unit_price"] = {
        when: _price(row[f"calls{name}"], row[f"unit_price{name}"])
        for when, name in (("before", "_before"), ("after", ""))
    }
    for name in ("list_amount", "voucher_amount", "amount"):
        line[name] = _amounts(row[f"{name}_before"], row[name], 8)
    return line


def _price(calls: int, price: int) -> str | None:
    return money.text(price, 4) if calls and price >= 0 else None


def _invoice(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "account_id": row["account_id"],
        "payable": _amounts(row["payable_before"], row["payable"], 2),
    }


def _amounts(before: int, after: int, digits: int) -> dict[str, str]:
    return {
        "before": money.text(before, digits),
        "after": money.text(after, digits),
        "change": money.text(after - before, digits),
    }


# ---------------------------------------------------------------- for a person


def shown(diff: Diff) -> str:
    """Return a diff for a person, the largest changes first."""
    reason = diff.after.options.get("reason")
    parts = list(_parts(diff)) or ["nothing differs"]
    return "\n".join([f"reason: {safe(reason)}", *parts] if reason else parts)


def _parts(diff: Diff) -> Iterator[str]:
    if files := list(_files(diff.moves)):
        yield "inputs"
        yield aligned(files, right=[2], indent="  ")
    if diff.rules:
        yield "rules"
        rules = [(rule.rule, f"{rule.before or '—'} → {rule.after or '—'}") for rule in diff.rules]
        yield aligned([(safe(name), safe(text)) for name, text in rules], indent="  ")
    if counts := list(_counts(diff)):
        yield "calls"
        yield aligned(counts, right=[1, 3], indent="  ")
    if len(diff.lines):
        yield _heading("lines", diff.lines)
        lines = [_line_shown(row) for row in _largest(diff.lines, "amount")]
        yield aligned(lines, right=[2, 4, 5, 7, 8, 10], indent="  ")
    if len(diff.invoices):
        yield _heading("bills", diff.invoices)
        bills = [_bill_shown(row) for row in _largest(diff.invoices, "payable")]
        yield aligned(bills, right=[1, 3, 4], indent="  ")
    if totals := list(_totals(diff)):
        yield "money"
        yield aligned(totals, right=[1, 3], indent="  ")


def _heading(what: str, rows: pd.DataFrame) -> str:
    more = f", the {SHOWN} largest changes are shown" if len(rows) > SHOWN else ""
    return f"{what}: {count_of(len(rows), 'differs', 'differ')}{more}"


def _largest(rows: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    change = (rows[name] - rows[f"{name}_before"]).abs()
    order = change.sort_values(ascending=False, kind="stable").index[:SHOWN]
    return _records(rows.loc[order])


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[Any, Any]] = rows.to_dict("records")
    return found


def _files(moves: Moves) -> Iterator[Sequence[str]]:
    for what, files in (("came", moves.came), ("went", moves.went)):
        for file in files:
            yield what, safe(file["file"]), _rows(file)
    for old, new in moves.changed:
        yield "changed", safe(new["file"]), f"{old['rows']:,} → {_rows(new)}"
    for old, new in moves.moved:
        yield "moved", safe(f"{old['file']} → {new['file']}"), _rows(new)


def _rows(file: Input) -> str:
    return count_of(file["rows"], "row")


def _counts(diff: Diff) -> Iterator[Sequence[str]]:
    old, new = diff.before.rows, diff.after.rows
    for bucket in new:
        if old.get(bucket, 0) != new[bucket]:
            yield label_of(bucket), f"{old.get(bucket, 0):,}", "→", f"{new[bucket]:,}"


def _line_shown(row: Mapping[str, Any]) -> Sequence[str]:
    return (
        safe(row["account_id"]),
        safe(row["item"]),
        f"{row['calls_before']:,}",
        "→",
        f"{row['calls']:,}",
        f"tier {row['tier_before'] or '—'}",
        "→",
        f"{row['tier'] or '—'}",
        money.grouped(row["amount_before"]),
        "→",
        money.grouped(row["amount"]),
        row["reason"],
    )


def _bill_shown(row: Mapping[str, Any]) -> Sequence[str]:
    old, new = row["payable_before"], row["payable"]
    return (
        safe(row["account_id"]),
        money.grouped(old),
        "→",
        money.grouped(new),
        money.signed(new - old),
    )


def _totals(diff: Diff) -> Iterator[Sequence[str]]:
    old, new = _stated(diff.before), _stated(diff.after)
    if old.get("accounts", 0) != new.get("accounts", 0):
        yield "accounts", f"{old.get('accounts', 0):,}", "→", f"{new.get('accounts', 0):,}"
    for name in (name for name in MONEY if name in old or name in new):
        before, after = (grouped(totals.get(name, "0.00")) for totals in (old, new))
        if before != after:
            yield MONEY[name][0], before, "→", after
    for name in POSTED:
        posted = grouped(diff.after.totals.get(name, "0.00"))
        if diff and posted != "0.00":
            yield f"{MONEY[name][0]} by {diff.after.name}", "", "", posted
