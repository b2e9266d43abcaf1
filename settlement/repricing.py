"""Repricing: lines → lines, where a contract says so.

A line is priced by the contract row of its account and item, else by the account's row for
all items, else by the price book. What a row does not say stays as the price book has it;
mode and tier basis always do. Rows have tiers, discounts and free calls of their own, in any
number of combinations, so nothing is grouped: whole columns at a time, one tier after the
other, in int64 units whose every product and sum is bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, money, rating, tables
from settlement.contracts import TERMS, UNSAID, Terms
from settlement.prices import Tier, Version

if TYPE_CHECKING:
    from settlement.money import Ints

_LARGEST = 2**63 - 1
_AMOUNTS = ("list_amount", "voucher_amount", "amount")


def rate(
    usage: pd.DataFrame, version: Version, terms: Terms | None
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Price a month's usage by the price book and, where there are terms, by contract.

    Args:
        usage: `tables.USAGE`.
        version: the rules of the month.
        terms: what the contracts say in the month; None where there is no contracts file.

    Returns:
        `tables.LINES`, and `tables.CONTRACT_LINES` or, without a contracts file, None.

    Raises:
        BadInput: an amount passes the largest one that is kept exactly.
    """
    lines = rating.rate(usage, version)
    return reprice(lines, version, terms) if terms else (lines, None)


def reprice(
    lines: pd.DataFrame, version: Version, terms: Terms
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Price those lines anew that contracts have terms for.

    Args:
        lines: `tables.LINES`, as the price book alone prices them.
        version: the rules of the month.
        terms: what the contracts say in the month.

    Returns:
        `tables.LINES` with those lines priced by their terms, and `tables.CONTRACT_LINES`:
        these lines with both prices and the terms in text.

    Raises:
        BadInput: an amount passes the largest one that is kept exactly.
    """
    codes = [item.code for item in version.items]
    which = pc.index_in(frames.arrow_text(lines["item"]), pa.array(codes, pa.large_string()))
    which = which.to_numpy(zero_copy_only=False).astype(np.int64)
    term = _row_of_each(lines, which, terms, codes)
    some = np.flatnonzero(term != UNSAID)
    counts = _Counts.of(lines["calls"].to_numpy()[some], which[some], term[some], version, terms)
    priced = counts.price()
    priced["amount"] = priced["list_amount"] - priced["voucher_amount"]
    columns: dict[str, Any] = {str(name): values for name, values in lines.items()}
    for name, values in priced.items():
        column = lines[name].to_numpy(copy=True)
        column[some] = values
        columns[name] = column
    heads = lines.iloc[some]
    contracted = (
        {name: heads[name] for name in ("account_id", "item", "calls")}
        | {f"book_{name}": heads[name].to_numpy() for name in _AMOUNTS}
        | {name: priced[name] for name in _AMOUNTS}
        | {"terms": _shown(terms, term[some])}
    )
    return frames.frame(tables.LINES, columns), frames.frame(tables.CONTRACT_LINES, contracted)


def _row_of_each(lines: pd.DataFrame, which: "Ints", terms: Terms, codes: Sequence[str]) -> "Ints":
    """Return the row of terms that prices each line, `UNSAID` where the price book does.

    An item's own row beats the row for all items. Rows that only say how much to freeze
    price nothing.
    """
    starts = frames.starts(lines, ["account_id"])
    prices = (terms.rows[["tiers", "discount", "free_calls"]] != UNSAID).to_numpy().any(axis=1)
    rows = np.flatnonzero(prices)
    owned = frames.starts(terms.rows.iloc[rows], ["account_id"])
    known = frames.arrow_text(terms.rows["account_id"].iloc[rows[owned]])
    account = np.repeat(np.arange(len(owned)), np.diff(owned, append=len(rows)))
    items = frames.arrow_text(terms.rows["item"].iloc[rows])
    every = pa.array(["", *codes], pa.large_string())
    item = pc.fill_null(pc.index_in(items, every), len(every)).to_numpy().astype(np.int64)
    width = len(every) + 1
    keys = account * width + item
    order = np.argsort(keys)
    keys, rows = keys[order], rows[order]
    callers = frames.arrow_text(lines["account_id"].iloc[starts])
    caller = pc.fill_null(pc.index_in(callers, known), UNSAID).to_numpy().astype(np.int64)
    caller = np.repeat(caller, np.diff(starts, append=len(lines)))
    found = np.full(len(lines), UNSAID, np.int64)
    contracted = np.flatnonzero(caller != UNSAID)
    for wanted in (np.zeros(len(contracted), np.int64), which[contracted] + 1):
        key = caller[contracted] * width + wanted
        at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        hit = keys[at] == key
        found[contracted[hit]] = rows[at[hit]]
    return found


@dataclass(frozen=True)
class _Tariffs:
    """Several lists of tiers laid end to end: list ``n`` begins at ``first[n]``.

    ``lower`` and ``upper`` are the bounds of each tier (open below, closed above; the last
    one ends with the largest count there is).
    """

    first: "Ints"
    lower: "Ints"
    upper: "Ints"
    prices: "Ints"

    @classmethod
    def of(cls, lists: Sequence[Sequence[Tier]]) -> "_Tariffs":
        """Lay lists of tiers end to end."""
        upper = [_LARGEST if t.up_to is None else t.up_to for tiers in lists for t in tiers]
        lower = [0, *upper[:-1]]
        first = np.cumsum([0, *map(len, lists)])[:-1].astype(np.int64)
        bounds = np.array(lower, np.int64)
        bounds[first] = 0
        prices = np.array([t.unit_price for tiers in lists for t in tiers], np.int64)
        return cls(first, bounds, np.array(upper, np.int64), prices)


@dataclass(frozen=True)
class _Counts:
    """Counts to price, one month of one account and item each, with what prices them.

    ``begins`` is where a count's tiers begin in the tariffs; ``discount`` is the share off,
    in units; ``graduated`` and ``net`` are the mode and the tier basis of its item.
    """

    calls: "Ints"
    free: "Ints"
    begins: "Ints"
    discount: "Ints"
    graduated: "Ints"
    net: "Ints"
    tariffs: _Tariffs

    @classmethod
    def of(
        cls, calls: "Ints", item: "Ints", term: "Ints", version: Version, terms: Terms
    ) -> "_Counts":
        """Put terms in the place of what the price book says, where they say something."""
        items = version.items
        tariffs = _Tariffs.of([*(each.tiers for each in items), *terms.tariffs])
        own = {name: terms.rows[name].to_numpy()[term] for name in TERMS}
        tiers = np.where(own["tiers"] == UNSAID, item, own["tiers"] + len(items))
        free = np.array([each.free_calls for each in items], np.int64)[item]
        free = np.where(own["free_calls"] == UNSAID, free, own["free_calls"])
        return cls(
            calls,
            np.minimum(calls, free),
            tariffs.first[tiers],
            np.maximum(own["discount"], 0),
            np.array([each.mode == "graduated" for each in items])[item],
            np.array([each.tier_basis == "net" for each in items])[item],
            tariffs,
        )

    def price(self) -> "dict[str, Ints]":
        """Return what `rating.price` returns, one value per count."""
        tier = self._tier(np.where(self.net, self.calls - self.free, self.calls))
        unit_price = self._unit_price(np.arange(len(tier)), tier)
        unit_price[self.graduated] = 0
        list_amount = money.product(self.calls, unit_price)
        voucher_amount = self.free * unit_price
        banded = np.flatnonzero(self.graduated)
        list_amount[banded] = self._graduated(banded, self.calls)
        voucher_amount[banded] = self._graduated(banded, self.free)
        unit_price[banded] = -1
        return {
            "tier": tier + 1,
            "unit_price": unit_price,
            "list_amount": list_amount,
            "voucher_calls": self.free,
            "voucher_amount": voucher_amount,
        }

    def _tier(self, basis: "Ints") -> "Ints":
        """Return the tier that each count reaches, from 0: open below, closed above."""
        tier = np.zeros(len(basis), np.int64)
        rows, number = np.arange(len(basis)), 0
        while len(rows):
            rows = rows[basis[rows] > self.tariffs.upper[self.begins[rows] + number]]
            number += 1
            tier[rows] = number
        return tier

    def _unit_price(self, rows: "Ints", tier: "Ints | int") -> "Ints":
        return money.discounted(self.tariffs.prices[self.begins[rows] + tier], self.discount[rows])

    def _graduated(self, rows: "Ints", calls: "Ints") -> "Ints":
        """Return what the first calls of some counts cost, each band at its own price."""
        cost, places, number = np.zeros(len(calls), np.int64), rows, 0
        while len(rows):
            at = self.begins[rows] + number
            within = np.minimum(calls[rows], self.tariffs.upper[at]) - self.tariffs.lower[at]
            band = money.product(within, self._unit_price(rows, number))
            money.refuse_where(band > money.LIMIT - cost[rows], "a line")
            cost[rows] += band
            rows = rows[calls[rows] > self.tariffs.upper[at]]
            number += 1
        return cost[places]


def _shown(terms: Terms, rows: "Ints") -> pa.Array:
    """Write what prices a line: the terms, and whether they are for all items."""
    large, parts = partial(pa.scalar, type=pa.large_string()), []
    for name, text in zip(TERMS[:3], terms.texts(rows)[:3], strict=True):
        parts.append(pc.binary_join_element_wise(large(name), text, large(" ")))
    written = pc.binary_join_element_wise(*parts, large(", "), null_handling="skip")
    overall = pc.equal(frames.arrow_text(terms.rows["item"].iloc[rows]), "")
    return pc.if_else(overall, frames.joined([written, " (all items)"], ""), written)
