"""Showing what other rules would do to a settled month."""

from typing import Any

from settlement import money
from settlement.changes import Movement
from settlement.money import signed
from settlement.report import aligned, safe
from settlement.settle import WhatIf
from settlement.show import plans
from settlement.whatif import Class, Reached
from settlement.words import count_of

WIDEST = 40
"""The longest bar, in characters."""
MONEY = (
    ("list amount", "原价", "list_amount"),
    ("vouchers", "代金券", "voucher_amount"),
    ("payable", "应付", "payable"),
)


def described(found: WhatIf) -> dict[str, Any]:
    """Return the plan as JSON values (see `plans`), and its effect under ``what_if``."""
    effect = found.effect
    what_if = {
        "against": name_of(found),
        **{name: _pair(getattr(effect, name), 8) for _, _, name in MONEY[:2]},
        "payable": _pair(effect.payable, 2),
        "held": _pair(found.held or (0, 0), 2),
        "accounts": {
            "all": effect.accounts,
            "raised": effect.raised,
            "lowered": effect.lowered,
        },
        "tiers": [_tier(each) for each in effect.tiers],
        "winners": [_movement(each) for each in effect.winners],
        "losers": [_movement(each) for each in effect.losers],
        "histogram": [_class(each) for each in effect.classes],
    }
    return plans.described(found.planned, with_diff=False) | {"what_if": what_if}


def name_of(found: WhatIf) -> str:
    """Name the settlement whose calls are priced again."""
    standing = found.planned.standing
    return standing.name if standing else ""


def _tier(each: Reached) -> dict[str, Any]:
    return {
        "item": each.item,
        "tier": each.tier,
        "lines": dict(zip(("before", "after"), each.lines, strict=True)),
        "calls": dict(zip(("before", "after"), each.calls, strict=True)),
        "amount": _pair(each.amount, 8),
    }


def _class(each: Class) -> dict[str, Any]:
    return {
        "from": None if each.low is None else money.text(each.low, 2),
        "to": None if each.high is None else money.text(each.high, 2),
        "accounts": each.accounts,
        "change": money.text(each.change, 2),
    }


def _pair(amounts: tuple[int, int], digits: int) -> dict[str, str]:
    before, after = amounts
    return {
        "before": money.text(before, digits),
        "after": money.text(after, digits),
        "change": money.text(after - before, digits),
    }


def _movement(each: Movement) -> dict[str, str]:
    return {"account_id": each.account_id} | _pair((each.before, each.after), 2)


def shown(found: WhatIf) -> str:
    """Return an effect for a person."""
    effect = found.effect
    rows = [(english, chinese, *_moved(getattr(effect, name))) for english, chinese, name in MONEY]
    rows += [("held", "冻结", *_moved(found.held))] if found.held else []
    pay = count_of(effect.raised, "pays", "pay")
    same = effect.accounts - effect.raised - effect.lowered
    parts = [
        f"{name_of(found)}: what if its calls were priced by these rules; no log was read",
        aligned(rows, right=[2, 4, 5], indent="  "),
        *([] if found.held else ["holds 冻结: released already, for a later month is settled"]),
        f"accounts: {pay} more, {effect.lowered:,} less, {same:,} the same",
        "per item and tier",
        aligned(_tiers_shown(found), right=[1, 2, 4, 5, 7, 8, 10], indent="  "),
    ]
    for heading, largest in (("pay less", effect.winners), ("pay more", effect.losers)):
        if largest:
            movements = [
                (safe(each.account_id), *_moved((each.before, each.after))) for each in largest
            ]
            parts += [heading, aligned(movements, right=[1, 3, 4], indent="  ")]
    parts += ["change per account", _bars(effect.classes)]
    return "\n".join(parts)


def _moved(amounts: tuple[int, int]) -> tuple[str, str, str, str]:
    before, after = amounts
    return money.grouped(before), "→", money.grouped(after), signed(after - before)


def _tiers_shown(found: WhatIf) -> list[tuple[str, ...]]:
    heads = ("item", "tier", "lines", "", "", "calls", "", "", "amount", "", "")
    rows: list[tuple[str, ...]] = [heads]
    for each in found.effect.tiers:
        lines, calls = ((f"{old:,}", "→", f"{new:,}") for old, new in (each.lines, each.calls))
        rows.append((safe(each.item), str(each.tier), *lines, *calls, *_moved(each.amount)[:3]))
    return rows


def _bars(classes: tuple[Class, ...]) -> str:
    """Draw how many accounts changed by how much."""
    most = max((each.accounts for each in classes), default=0)
    rows = []
    for each in classes:
        bar = "█" * -(-each.accounts * WIDEST // most) if most else ""
        rows.append((*_ends(each), f"{each.accounts:,}", signed(each.change), bar))
    return aligned(rows, right=[0, 2, 3, 4], indent="  ")


def _ends(each: Class) -> tuple[str, str, str]:
    if each.low == each.high:
        return "", "no change", ""
    low, high = (
        "" if end is None else ("+" if end > 0 else "") + f"{end // money.UNITS_PER_ONE:,}"
        for end in (each.low, each.high)
    )
    if each.low is None:
        return "", "below", high
    return (low, "to", high) if each.high is not None else ("", "above", low)
