"""Rating: usage → lines. How many calls, in which tier, at which price, less the voucher.

One line per account and item called. In ``volume`` mode (阶梯到达) the month's calls pick
one tier and all of them cost its price; in ``graduated`` mode (阶梯累进) each band of calls
costs its own. The voucher (代金券) is the price of the first ``free_calls`` calls. Whole
columns at a time, in int64 units whose every product and sum is bounded.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, money, tables
from settlement.prices import Item, Version, graduated_cost

if TYPE_CHECKING:
    from settlement.money import Ints


def rate(usage: pd.DataFrame, version: Version) -> pd.DataFrame:
    """Price a month's usage by the version of the price book in force.

    Args:
        usage: `tables.USAGE`, calls per account, item and interface.
        version: the rules of the month.

    Returns:
        `tables.LINES`: one row per account and item, amounts in units of 1e-8, every digit
        kept. ``tier`` counts from 1; ``unit_price`` is -1 (published as null) where bands of
        several prices are added up.

    Raises:
        BadInput: an amount passes the largest one that is kept exactly.
    """
    frames.check(tables.USAGE, usage)
    line = ["account_id", "item"]
    starts = frames.starts(usage, line)
    calls = money.group_sums(usage["calls"].to_numpy(), starts, "the calls of a line")
    heads = usage[line].iloc[starts]
    priced = {
        name: np.zeros(len(starts), np.int64)
        for name in ("tier", "unit_price", "list_amount", "voucher_calls", "voucher_amount")
    }
    item_names = frames.arrow_text(heads["item"])
    which = pc.index_in(item_names, pa.array([item.code for item in version.items], "large_string"))
    _refuse_unpriced(item_names, which)
    which = which.to_numpy(zero_copy_only=False)
    for position, item in enumerate(version.items):
        rows = np.flatnonzero(which == position)
        for name, values in price(item, calls[rows]).items():
            priced[name][rows] = values
    amount = priced["list_amount"] - priced["voucher_amount"]
    return frames.frame(
        tables.LINES,
        {"account_id": heads["account_id"], "item": heads["item"], "calls": calls}
        | priced
        | {"amount": amount},
    )


def _refuse_unpriced(items: pa.Array, which: pa.Array) -> None:
    """Raise `WrongTable` where usage names an item the version lacks: it would cost nothing."""
    if which.null_count:
        unpriced = items.filter(which.is_null())[0].as_py()
        raise tables.WrongTable(f"usage: item {unpriced!r} is not in the price book")


def price(item: Item, calls: "Ints") -> "dict[str, Ints]":
    """Price one item's counts, one month of one account each.

    Returns:
        ``tier``, ``unit_price``, ``list_amount``, ``voucher_calls`` and ``voucher_amount``,
        one value per count, money in units.
    """
    free = np.minimum(calls, item.free_calls)
    if item.mode == "graduated":
        return {
            "tier": _tier(item, calls) + 1,
            "unit_price": np.full(len(calls), -1, np.int64),
            "list_amount": _graduated(item, calls),
            "voucher_calls": free,
            "voucher_amount": _graduated(item, free),
        }
    reached = _tier(item, calls if item.tier_basis == "gross" else calls - free)
    unit_price = np.array([tier.unit_price for tier in item.tiers], np.int64)[reached]
    return {
        "tier": reached + 1,
        "unit_price": unit_price,
        "list_amount": money.product(calls, unit_price),
        "voucher_calls": free,
        "voucher_amount": free * unit_price,
    }


def _tier(item: Item, basis: "Ints") -> "Ints":
    """Return the tier that each count reaches, from 0: open below, closed above."""
    return np.searchsorted(_bounds(item), basis, side="left")


def _bounds(item: Item) -> "Ints":
    return np.array([tier.up_to for tier in item.tiers[:-1]], np.int64)


def _graduated(item: Item, calls: "Ints") -> "Ints":
    """Return what the first ``calls`` calls cost, each band at its own price.

    The cost of the full bands below is worked out once, in Python integers, for it alone may
    pass the limit.
    """
    below = np.concatenate([[0], _bounds(item)])
    full = [graduated_cost(item, int(bound)) for bound in below]
    band = _tier(item, calls)
    beyond = np.array([cost > money.LIMIT for cost in full])[band]
    base = np.array([min(cost, money.LIMIT) for cost in full], np.int64)[band]
    prices = np.array([tier.unit_price for tier in item.tiers], np.int64)[band]
    rest = money.product(calls - below[band], prices)
    money.refuse_where(beyond | (rest > money.LIMIT - base), "a line")
    return base + rest
