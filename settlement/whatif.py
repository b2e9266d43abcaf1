"""What if a settled month had been priced otherwise: two statements of the same usage.

No log is read: the calls are those that were settled, and only what they cost differs. So
other prices, tiers, free calls and freezes can be tried in a second. What decides which calls
are charged, and toward which item, must be the same in both (see `counting_of`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from settlement import money
from settlement.changes import LARGEST, Movement
from settlement.prices import Version

if TYPE_CHECKING:
    from settlement.money import Ints

BOUNDS = tuple(10**power * money.UNITS_PER_ONE for power in range(6))
"""Where the classes of changes end, in units: 1, 10, … 100 000; open below, closed above."""


@dataclass(frozen=True)
class Reached:
    """An item's tier: lines that reach it, their calls and amount (units), before and after."""

    item: str
    tier: int
    lines: tuple[int, int]
    calls: tuple[int, int]
    amount: tuple[int, int]


@dataclass(frozen=True)
class Class:
    """Accounts whose change lies above ``low`` and not above ``high`` (units; None is open).

    Falls are mirrored: not below ``low`` and below ``high``. 0 to 0 are those without change.
    """

    low: int | None
    high: int | None
    accounts: int
    change: int


@dataclass(frozen=True)
class Effect:
    """What other rules would do to a month, amounts in units as (before, after).

    ``raised`` and ``lowered`` count accounts; ``losers`` and ``winners`` are those whose
    payable rises and falls most.
    """

    list_amount: tuple[int, int]
    voucher_amount: tuple[int, int]
    payable: tuple[int, int]
    accounts: int
    raised: int
    lowered: int
    tiers: tuple[Reached, ...]
    winners: tuple[Movement, ...]
    losers: tuple[Movement, ...]
    classes: tuple[Class, ...]


def counting_of(version: Version) -> dict[str, object]:
    """Return what of the rules decides which calls are charged, and toward which item."""
    return {
        "billable_status": version.billable_status and sorted(version.billable_status),
        "deduplicate": version.deduplicate,
        "unbilled_interfaces": sorted(version.unbilled_interfaces),
        "interfaces": {item.code: sorted(item.interfaces) for item in version.items},
        "shared": dict(version.shared),
    }


def effect(
    lines: tuple[pd.DataFrame, pd.DataFrame], invoices: tuple[pd.DataFrame, pd.DataFrame]
) -> Effect:
    """Compare two ratings of the same usage.

    Args:
        lines: `tables.LINES` before and after, of the same accounts and items.
        invoices: `tables.INVOICES` before and after, of the same accounts.

    Raises:
        ValueError: they are not of the same usage.
    """
    for (before, after), key in ((lines, ["account_id", "item"]), (invoices, ["account_id"])):
        if not before[key].equals(after[key]):
            raise ValueError("not two ratings of the same usage")
    old, new = (rows["payable"].to_numpy() for rows in invoices)
    moved = new - old

    def both(name: str) -> tuple[int, int]:
        before, after = (money.exact_sum(rows[name].to_numpy()) for rows in invoices)
        return before, after

    def largest(sign: int) -> tuple[Movement, ...]:
        order = np.argsort(-sign * moved, kind="stable")[:LARGEST]
        accounts = invoices[0]["account_id"]
        return tuple(
            Movement(str(accounts.iloc[row]), int(old[row]), int(new[row]))
            for row in order
            if sign * moved[row] > 0
        )

    return Effect(
        both("list_amount"),
        both("voucher_amount"),
        both("payable"),
        len(moved),
        int((moved > 0).sum()),
        int((moved < 0).sum()),
        _tiers(*lines),
        largest(-1),
        largest(1),
        _classes(moved),
    )


def _tiers(before: pd.DataFrame, after: pd.DataFrame) -> tuple[Reached, ...]:
    """Add up lines by item and tier reached, in the order of codes."""
    columns = ["calls", "amount"]
    sums = [rows.groupby(["item", "tier"])[columns].sum() for rows in (before, after)]
    counts = [rows.groupby(["item", "tier"]).size() for rows in (before, after)]

    def pair(each: "list[pd.Series[int]]", key: tuple[str, int]) -> tuple[int, int]:
        old, new = (int(values.get(key, 0)) for values in each)
        return old, new

    return tuple(
        Reached(
            str(key[0]),
            int(key[1]),
            pair(counts, key),
            pair([each["calls"] for each in sums], key),
            pair([each["amount"] for each in sums], key),
        )
        for key in sorted({*sums[0].index, *sums[1].index})
    )


def _classes(moved: "Ints") -> tuple[Class, ...]:
    """Count changes by their size, from the greatest fall to the greatest rise."""
    size = np.searchsorted(np.array(BOUNDS, np.int64), np.abs(moved), side="left") + 1
    which = np.sign(moved) * size
    ends: list[int | None] = [0, *BOUNDS, None]
    found = []
    for number in range(int(which.min(initial=0)), int(which.max(initial=0)) + 1):
        rows = np.flatnonzero(which == number)
        near, far = ends[max(abs(number) - 1, 0)], ends[abs(number)]
        low, high = (near, far) if number >= 0 else (_negative(far), _negative(near))
        found.append(Class(low, high, len(rows), money.exact_sum(moved[rows])))
    return tuple(found)


def _negative(end: int | None) -> int | None:
    return None if end is None else -end
