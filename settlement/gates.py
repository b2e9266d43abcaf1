"""Gates: limits beyond which nobody's figures are published unseen.

A run without a person at it stops before publishing where a month looks unlike the one
before: the total, an account, an item, the rejected rows. What stopped it is a list that a
person can judge, and a digest of these very figures. The same order with that digest
publishes them; given with any other figures it stops again.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, money, tables
from settlement.buckets import in_month, rejected
from settlement.draft import Draft
from settlement.prices import canonical_json
from settlement.words import count_of

SHOWN = 10
"""How many accounts a person is shown, the largest first."""


@dataclass(frozen=True)
class Limits:
    """What is published unseen; None or False is no limit.

    Attributes:
        total: by how many percent what is payable may differ from the month before.
        account: a factor and an amount in units: an account may not owe more than that many
            times its last bill and more than the amount. Without a bill in the month before,
            its last bill is 0.
        items: whether every item that had revenue must have some again.
        rejects: the largest share of the month's rows that may be rejected.
        adjustments: what a revision's adjustments, whatever their sign, may add up to, in
            units; they must stay below.
    """

    total: Fraction | None = None
    account: tuple[Fraction, int] | None = None
    items: bool = False
    rejects: Fraction | None = None
    adjustments: int | None = None

    @property
    def compare_months(self) -> bool:
        """Whether a month must be held against the one before."""
        return self.total is not None or self.account is not None or self.items


@dataclass(frozen=True)
class Before:
    """The month that a draft is held against: its name, `tables.LINES`, `tables.INVOICES`."""

    name: str
    lines: pd.DataFrame
    invoices: pd.DataFrame


def crossed(limits: Limits, draft: Draft, before: Before | None) -> list[str]:
    """Return the limits that a draft crosses, as lines for a person; none where it is fine."""
    lines: list[str] = []
    rows = draft.stated.rows
    if limits.rejects is not None:
        lines += rejects(limits.rejects, rows)
    if limits.adjustments is not None and draft.stated.adjustments is not None:
        lines += adjustments(limits.adjustments, draft.stated.adjustments)
    if before is None:
        return lines
    if limits.total is not None:
        lines += total(limits.total, before, draft.stated.invoices)
    if limits.items:
        lines += items(before, draft.stated.lines)
    if limits.account is not None:
        lines += accounts(*limits.account, before, draft.stated.invoices)
    return lines


def total(percent: Fraction, before: Before, invoices: pd.DataFrame) -> Iterator[str]:
    """Say whether what is payable differs from the month before by more than a percentage."""
    was = money.exact_sum(before.invoices["payable"].to_numpy())
    now = money.exact_sum(invoices["payable"].to_numpy())
    if abs(now - was) * 100 > percent * was:
        by = f"{_decimal(Fraction(100 * (now - was), was))} %" if was else "from nothing"
        yield (
            f"payable {money.grouped(was)} in {before.name} → {money.grouped(now)}: {by}, "
            f"the limit is {_decimal(percent)} %"
        )


def items(before: Before, lines: pd.DataFrame) -> Iterator[str]:
    """Name the items that had revenue in the month before and have none."""
    had, have = _revenue(before.lines), _revenue(lines)
    for item, amount in had.items():
        if amount > 0 and have.get(item, 0) == 0:
            yield f"item {item}: {money.grouped(amount)} in {before.name} → nothing"


def _revenue(lines: pd.DataFrame) -> dict[str, int]:
    amounts = pa.table(
        {
            "item": frames.arrow_text(lines["item"]),
            "amount": lines["amount"].to_numpy(),
        }
    )
    sums = amounts.group_by("item").aggregate([("amount", "sum")]).sort_by("item")
    return dict(zip(sums["item"].to_pylist(), sums["amount_sum"].to_pylist(), strict=True))


def accounts(
    factor: Fraction, amount: int, before: Before, invoices: pd.DataFrame
) -> Iterator[str]:
    """Name the accounts that owe more than a factor of their last bill, and than an amount."""
    account = frames.arrow_text(invoices["account_id"])
    where = pc.index_in(account, frames.arrow_text(before.invoices["account_id"]))
    had = np.append(before.invoices["payable"].to_numpy(), 0)
    last = had[where.fill_null(len(had) - 1).to_numpy(zero_copy_only=False)]
    owed = invoices["payable"].to_numpy()
    large = np.flatnonzero(owed > amount)
    # Exact at any size: Python's integers for the few that are above the amount.
    most = last[large].astype(object) * factor.numerator // factor.denominator
    over = large[owed[large].astype(object) > most]
    order = over[np.argsort(last[over] - owed[over], kind="stable")]
    for row in order[:SHOWN]:
        yield (
            f"account {account[row].as_py()}: {money.grouped(int(last[row]))} in {before.name} → "
            f"{money.grouped(int(owed[row]))}, more than {_decimal(factor)} times that "
            f"and than {money.grouped(amount)}"
        )
    if len(order) > SHOWN:
        yield f"… and {count_of(len(order) - SHOWN, 'more account')}"


def rejects(share: Fraction, rows: Mapping[str, int]) -> Iterator[str]:
    """Say whether a larger share of the month's rows is rejected than may be."""
    some, of = rejected(rows), in_month(rows)
    if some > share * of:
        yield (
            f"{rejected_of(rows)}: {_decimal(Fraction(100 * some, of), 4)} %, "
            f"the limit is {_decimal(100 * share, 8)} %"
        )


def adjustments(below: int, changed: pd.DataFrame) -> Iterator[str]:
    """Say whether a revision's adjustments add up to an amount or more."""
    moved = money.exact_sum(changed["adjustment"].abs().to_numpy())
    if moved >= below:
        yield (
            f"{count_of(len(changed), 'adjustment')} of {money.grouped(moved)} in all, not below "
            f"{money.grouped(below)}"
        )


def rejected_of(rows: Mapping[str, int], named: str = "rows") -> str:
    """Say how many of the month's rows were rejected."""
    of = f"of {in_month(rows):,} {named}"
    return count_of(rejected(rows), f"{of} is rejected", f"{of} are rejected")


def _decimal(value: Fraction, digits: int = 2) -> str:
    """Write a ratio, rounded to so many decimals, without idle zeros."""
    return money.text(round(value * 10**digits) * money.UNITS_PER_ONE // 10**digits, 0)


def digest(draft: Draft) -> str:
    """Return a digest of a draft's figures: what an approval is bound to.

    It covers month, revision, totals, and every value of usage, lines and invoices; not when
    or by which program they were worked out, nor the files they came from.
    """
    stated = draft.stated
    figures = {
        "month": str(draft.month),
        "revision": draft.revision,
        "totals": draft.totals,
        "tables": {
            table.name: _digest_of(rows)
            for table, rows in (
                (tables.USAGE, stated.usage),
                (tables.LINES, stated.lines),
                (tables.INVOICES, stated.invoices),
            )
        },
    }
    return hashlib.sha256(canonical_json(figures)).hexdigest()


def _digest_of(rows: pd.DataFrame) -> str:
    """Digest a table column by column: names, integers, and texts with their lengths."""
    hashing = hashlib.sha256()
    for name, values in rows.items():
        hashing.update(f"{name} {len(values)}\n".encode())
        for part in _bytes(values):
            hashing.update(part)
    return hashing.hexdigest()


def _bytes(values: "pd.Series[Any]") -> Iterator[Any]:
    if values.dtype != "str":
        yield np.ascontiguousarray(values.to_numpy(), np.int64)
        return
    texts = frames.arrow_text(values)
    offsets = np.frombuffer(texts.buffers()[1] or b"\0" * 8, np.int64)
    offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
    yield np.diff(offsets)
    if len(texts):
        yield memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]]
