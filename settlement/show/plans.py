"""Showing a plan: what a run would publish, and how it differs from the month before."""

import dataclasses
from typing import Any

from settlement import __version__, changes, money, tables
from settlement.changes import Change
from settlement.diff import Diff, Side, compare
from settlement.report import aligned, grouped, safe, seconds, summary
from settlement.settle import Planned
from settlement.show import diffs
from settlement.words import count_of


def described(planned: Planned, *, with_diff: bool = True) -> dict[str, Any]:
    """Return a plan as JSON values, money as text: what `settle plan --json` prints.

    Without its diff, which looks at every account and item, ``diff`` is null.
    """
    draft = planned.draft
    change, diff = change_of(planned), diff_of(planned) if with_diff else None
    return {
        "outcome": outcome(planned),
        "month": str(draft.month),
        "revision": draft.revision,
        "period": {"start": draft.period.start_text, "end": draft.period.end_text},
        "rows": dict(draft.stated.rows),
        "totals": draft.totals,
        "inputs": [dataclasses.asdict(file) for file in draft.inputs],
        "difference": planned.difference or None,
        "crossed": planned.crossed,
        "approval": planned.approval or None,
        "diff": diffs.described(diff) if diff else None,
        "change": _change_described(change) if change else None,
        "seconds": planned.seconds,
        "skipped": planned.skipped,
    } | _contracts_described(planned)


def _contracts_described(planned: Planned) -> dict[str, Any]:
    """Return what contracts price and what the price book alone would; empty without any."""
    rows = planned.draft.stated.contract_lines
    if rows is None:
        return {}
    amounts = {
        name: money.text(money.exact_sum(rows[name].to_numpy()))
        for name in ("book_amount", "amount")
    }
    return {"contracts": {"lines": len(rows)} | amounts}


def shown(planned: Planned) -> str:
    """Return a plan for a person."""
    draft = planned.draft
    statement = {
        "revision": draft.revision,
        "rows": draft.stated.rows,
        "totals": draft.totals,
    }
    parts = [
        f"{draft.month}: {outcome(planned)}",
        summary(statement, draft.prices.currency.code),
    ]
    if planned.crossed:
        parts += ["limits at which a run would stop, and the command that lets it pass"]
        parts += [f"  {safe(line)}" for line in (*planned.crossed, planned.approval)]
    if diff := diff_of(planned):
        parts += [f"against {diff.before.name}, which stands", diffs.shown(diff)]
    change = change_of(planned)
    parts.append(_change_shown(change) if change else "no earlier month to compare with")
    if contracted := _contracts_described(planned):
        said = contracted["contracts"]
        parts.append(
            f"contracts price {count_of(said['lines'], 'line')}: {grouped(said['amount'])} where "
            f"the price book alone says {grouped(said['book_amount'])}"
        )
    parts.append(f"took     {seconds(planned.seconds)}")
    return "\n".join(parts)


def outcome(planned: Planned) -> str:
    """Say in words what a run would do."""
    if planned.standing is None:
        return "would be published; nothing was written"
    if planned.difference:
        return f"settled as {planned.standing.name}, now different: {planned.difference}"
    return f"settled as {planned.standing.name}, and would come out the same"


def diff_of(planned: Planned) -> Diff | None:
    """Compare a plan with the settlement of the month that stands, where it would differ."""
    if planned.standing is None or not planned.difference:
        return None
    return compare(Side.of(planned.standing), Side.planned(planned.draft, __version__))


def change_of(planned: Planned) -> Change | None:
    """Compare a plan's invoices with those of the settled month before, if there is one."""
    if planned.before is None:
        return None
    before = planned.before.table(tables.INVOICES)
    return changes.against(str(planned.before.month), before, planned.draft.stated.invoices)


def _change_described(change: Change) -> dict[str, Any]:
    return {
        "against": change.against,
        "payable_before": money.text(change.payable_before, 2),
        "payable_after": money.text(change.payable_after, 2),
        "new_accounts": change.new_accounts,
        "new_payable": money.text(change.new_payable, 2),
        "vanished_accounts": change.vanished_accounts,
        "vanished_payable": money.text(change.vanished_payable, 2),
        "largest": [
            {
                "account_id": movement.account_id,
                "before": money.text(movement.before, 2),
                "after": money.text(movement.after, 2),
                "change": money.text(movement.after - movement.before, 2),
            }
            for movement in change.largest
        ],
    }


def _change_shown(change: Change) -> str:
    moved = change.payable_after - change.payable_before
    rows = [
        ("payable", money.grouped(change.payable_before), money.grouped(change.payable_after)),
        ("new accounts", f"{change.new_accounts:,}", money.grouped(change.new_payable)),
        (
            "vanished accounts",
            f"{change.vanished_accounts:,}",
            money.grouped(-change.vanished_payable),
        ),
    ]
    largest = [
        (
            safe(movement.account_id),
            money.grouped(movement.before),
            money.grouped(movement.after),
            money.signed(movement.after - movement.before),
        )
        for movement in change.largest
    ]
    parts = [
        f"against {change.against} ({money.signed(moved)})",
        aligned(rows, right=[1, 2], indent="  "),
    ]
    if largest:
        parts += ["largest movements", aligned(largest, right=[1, 2, 3], indent="  ")]
    return "\n".join(parts)
