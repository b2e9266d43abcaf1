"""The ledger: invoices and open holds → entries.

Once a month is settled, 120 % of the bill is frozen as the estimate for the next month. The
next settlement first unfreezes that hold, then debits the bill, then freezes anew:

    unfreeze   frozen    → available     each open hold, oldest first, whole
    debit      available → revenue       what is payable
    credit     revenue   → available     what was debited too much (revisions only)
    freeze     available → frozen        factor × base of the new bill

Nothing here is stored twice: a hold is a freeze entry not yet unfrozen, and `open_holds`
derives them from the entries.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, money, tables
from settlement.money import Currency
from settlement.month import Month
from settlement.prices import Freeze
from settlement.tables import Column, Kind, Table

if TYPE_CHECKING:
    from settlement.money import Ints

KINDS = ("unfreeze", "debit", "credit", "freeze")
"""The kinds of entry, in the order in which an account's are posted."""

HOLDS = Table(
    "holds",
    2,
    (
        Column("account_id", "账号"),
        Column("hold_month", "冻结账期"),
        Column("amount", "金额", Kind.PAYABLE),
    ),
)


_MOVES = pa.schema(
    {"account_id": pa.large_string(), "hold_month": pa.large_string(), "amount": pa.int64()}
)


def post(invoices: pd.DataFrame, holds: pd.DataFrame, frozen: pd.DataFrame) -> pd.DataFrame:
    """Write the entries of a month that is settled for the first time.

    Args:
        invoices: `tables.INVOICES`, the month's bills.
        holds: `HOLDS`, every open hold; all are released, also of accounts without a bill.
        frozen: `HOLDS`, the new holds (see `freeze`); empty for a month that is older than
            the newest settled one, whose holds have moved on.

    Returns:
        `tables.ENTRIES`; an entry of amount 0 is not written.
    """
    debits = pd.DataFrame({"account_id": invoices["account_id"], "amount": invoices["payable"]})
    return entries({"unfreeze": holds, "debit": debits, "freeze": frozen})


def restate(
    invoices: pd.DataFrame, debited: pd.DataFrame, holds: pd.DataFrame, frozen: pd.DataFrame
) -> pd.DataFrame:
    """Write the entries of a month that is stated anew: the difference, and nothing else.

    Args:
        invoices: `tables.INVOICES`, the month's bills as they are stated now.
        debited: account_id and amount, what all settlements of the month have debited less
            credited so far (see `net_debits`).
        holds: `HOLDS`, the month's own holds while they are open; empty once a later month
            is settled.
        frozen: `HOLDS`, the holds as they should be now; empty likewise.

    Returns:
        `tables.ENTRIES`. A hold that changes is unfrozen whole and frozen anew; one that
        does not has no entry. A vanished account gets its whole debit back.
    """
    difference = adjustments(invoices, debited)
    released, made = _unlike(holds, frozen)
    amount = difference["adjustment"]
    more = pd.DataFrame({"account_id": difference["account_id"], "amount": amount.clip(lower=0)})
    less = pd.DataFrame({"account_id": difference["account_id"], "amount": -amount.clip(upper=0)})
    return entries(
        {
            "unfreeze": released,
            "debit": more,
            "credit": less,
            "freeze": made,
        }
    )


def adjustments(invoices: pd.DataFrame, debited: pd.DataFrame) -> pd.DataFrame:
    """Compare what is payable with what has been debited, account by account.

    Returns:
        Columns account_id, previous_payable, payable and adjustment (their difference, in
        units), for the accounts whose adjustment is not 0, sorted by account.
    """
    text = [frames.arrow_text(rows["account_id"]) for rows in (debited, invoices)]
    accounts, (before, now) = _aligned(text)
    previous, payable = np.zeros((2, len(accounts)), np.int64)
    previous[before] = debited["amount"].to_numpy()
    payable[now] = invoices["payable"].to_numpy()
    rows = np.flatnonzero(payable != previous)
    return pd.DataFrame(
        {
            "account_id": pd.array(accounts.take(pa.array(rows)), dtype="str"),
            "previous_payable": previous[rows],
            "payable": payable[rows],
            "adjustment": payable[rows] - previous[rows],
        }
    )


def _aligned(keys: "Sequence[pa.Array]") -> "tuple[pa.Array, list[Ints]]":
    """Return the union of several keys, sorted, and the place in it of each key's values.

    Two statements of a month name mostly the same accounts in the same order, so that mostly
    nothing need be sorted, nor even looked up.
    """
    union = pa.array([], pa.large_string())
    for key in keys:
        if not key.equals(union):
            new = key.filter(pc.is_null(pc.index_in(key, union)))
            union = pa.concat_arrays([union, new]) if len(new) else union
            if not _is_ascending(union):
                union = pc.unique(union)
                union = union.take(pc.sort_indices(union))
    whole = np.arange(len(union))
    return union, [
        whole if key.equals(union) else pc.index_in(key, union).to_numpy().astype(np.int64)
        for key in keys
    ]


def _unlike(holds: pd.DataFrame, frozen: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the holds of a month that no longer stand as they are, and those standing newly."""
    union, (old, new) = _aligned(
        [frames.arrow_text(rows["account_id"]) for rows in (holds, frozen)]
    )
    before, after = np.zeros((2, len(union)), np.int64)
    before[old] = holds["amount"].to_numpy()
    after[new] = frozen["amount"].to_numpy()
    changed = before != after
    return holds[changed[old]], frozen[changed[new]]


def freeze(
    month: Month,
    invoices: pd.DataFrame,
    rule: Freeze,
    currency: Currency,
    own: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Work out the holds a month's bills make: factor × base, half up to the minor unit.

    Args:
        month: the month settled.
        invoices: `tables.INVOICES`.
        rule: the price book's factor and base.
        currency: its minor unit is what a hold is rounded to.
        own: account_id and freeze_factor (in units) of accounts with a factor of their own
            by contract, no account twice.

    Returns:
        `HOLDS`, one row per account whose hold is not 0.
    """
    base = invoices["payable" if rule.base == "payable" else "list_amount"].to_numpy()
    factor = rule.factor
    amount = money.scaled(base, factor.numerator, factor.denominator, currency.minor_unit)
    if own is not None and len(own):
        _freeze_by_contract(amount, invoices["account_id"], base, own, currency)
    money.total(amount, "the month's holds")
    some = np.flatnonzero(amount)
    return frames.frame(
        HOLDS,
        {
            "account_id": invoices["account_id"].iloc[some],
            "hold_month": pa.repeat(pa.scalar(str(month), pa.large_string()), len(some)),
            "amount": amount[some],
        },
    )


def _freeze_by_contract(
    amount: "Ints",
    accounts: "pd.Series[str]",
    base: "Ints",
    own: pd.DataFrame,
    currency: Currency,
) -> None:
    """Put the holds of accounts with a factor of their own in place, factor by factor."""
    known = frames.arrow_text(own["account_id"])
    place = pc.fill_null(pc.index_in(frames.arrow_text(accounts), known), -1).to_numpy()
    rows = np.flatnonzero(place >= 0)
    factors = own["freeze_factor"].to_numpy()[place[rows]]
    order = np.argsort(factors, kind="stable")
    rows, factors = rows[order], factors[order]
    bounds = np.flatnonzero(np.diff(factors)) + 1
    for some, factor in zip(np.split(rows, bounds), np.split(factors, bounds), strict=True):
        if len(some):
            amount[some] = money.scaled(
                base[some], int(factor[0]), money.UNITS_PER_ONE, currency.minor_unit
            )


def entries(movements: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Bring movements of several kinds into the order of posting and number them.

    Args:
        movements: per kind, rows of account_id, amount and (for holds) hold_month. Rows of
            amount 0 are left out.

    Returns:
        `tables.ENTRIES`: per account unfreeze (oldest hold first), debit or credit, freeze;
        ``sequence`` counts 1, 2, … without gaps.
    """
    kinds = [kind for kind in KINDS if kind in movements]
    parts = [_of_amount(movements[kind]) for kind in kinds]
    accounts, places = _aligned([frames.arrow_text(rows["account_id"]) for rows in parts])
    who = np.concatenate(places)
    rank = np.repeat([KINDS.index(kind) for kind in kinds], [len(rows) for rows in parts])
    order = np.argsort(who * len(KINDS) + rank, kind="stable")
    who = who[order]
    first = np.flatnonzero(np.diff(who, prepend=-1))
    sequence = np.arange(len(who)) - np.repeat(first, np.diff(first, append=len(who))) + 1
    if sequence.max(initial=0) > np.iinfo(np.int16).max:
        raise tables.WrongTable("an account has more entries than can be numbered")
    return frames.frame(
        tables.ENTRIES,
        {
            "account_id": accounts.take(pa.array(who)),
            "sequence": sequence,
            "kind": pa.array(KINDS, pa.large_string()).take(pa.array(rank[order])),
            "amount": np.concatenate([rows["amount"].to_numpy() for rows in parts])[order],
            "hold_month": pa.concat_arrays(map(_hold_months, parts)).take(pa.array(order)),
        },
    )


def _of_amount(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows without those of amount 0."""
    some = np.flatnonzero(rows["amount"].to_numpy())
    return rows if len(some) == len(rows) else rows.iloc[some]


def _hold_months(rows: pd.DataFrame) -> pa.Array:
    if "hold_month" not in rows:
        return pa.nulls(len(rows), pa.large_string())
    return frames.arrow_text(rows["hold_month"])


def open_holds(posted: Sequence[pd.DataFrame], month: Month | None = None) -> pd.DataFrame:
    """Derive the holds that are open after the entries posted: Σ freeze − Σ unfreeze.

    Args:
        posted: `tables.ENTRIES` of every settlement that made or released the holds in
            question, in any order.
        month: the holds of this month alone; of all if left out.

    Returns:
        `HOLDS`, one row per account and hold month whose hold is still open. A balance
        below 0 (released more than was frozen) is kept, for `laws` to refuse.
    """
    parts = [_hold_moves(rows, month) for rows in posted]
    months = pc.unique(pa.concat_tables([_MOVES.empty_table(), *parts])["hold_month"])
    if len(months) > 1 or months.null_count:
        return _added_up(pa.concat_tables(parts))
    sums = _summed(
        [part["account_id"].combine_chunks() for part in parts],
        [part["amount"].to_numpy() for part in parts],
    )
    held_in = months.take(pa.array(np.zeros(len(sums), np.int64)))
    return frames.frame(
        HOLDS,
        {"account_id": sums["account_id"], "hold_month": held_in, "amount": sums["amount"]},
    )


def _added_up(moves: pa.Table) -> pd.DataFrame:
    """Add up moves of several months' holds."""
    sums = moves.group_by(["account_id", "hold_month"]).aggregate([("amount", "sum")])
    sums = sums.filter(pc.not_equal(sums["amount_sum"], 0))
    sums = sums.sort_by([("account_id", "ascending"), ("hold_month", "ascending")])
    return frames.frame(
        HOLDS,
        {
            "account_id": sums["account_id"],
            "hold_month": sums["hold_month"],
            "amount": sums["amount_sum"].to_numpy(),
        },
    )


def _is_ascending(keys: pa.Array) -> bool:
    """Tell whether each key is greater than the one before."""
    return bool(pc.all(pc.less(keys[:-1], keys[1:]), min_count=0).as_py())


def _hold_moves(rows: pd.DataFrame, month: Month | None) -> pa.Table:
    """Return the freezes of some entries, and the unfreezes as negative amounts."""
    kind = frames.arrow_text(rows["kind"])
    sign = pc.subtract(
        pc.equal(kind, "freeze").cast(pa.int64()), pc.equal(kind, "unfreeze").cast(pa.int64())
    ).to_numpy()
    of_holds = np.flatnonzero(sign)
    held = rows.iloc[of_holds]
    moves = pa.table(
        {
            "account_id": frames.arrow_text(held["account_id"]),
            "hold_month": frames.arrow_text(held["hold_month"]),
            "amount": held["amount"].to_numpy() * sign[of_holds],
        }
    )
    return moves if month is None else moves.filter(pc.equal(moves["hold_month"], str(month)))


def net_debits(posted: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Add up debits − credits per account, in units; accounts whose sum is 0 are left out.

    Returns:
        Columns account_id and amount, sorted by account.
    """
    keys, amounts = [], []
    for rows in posted:
        kind = frames.arrow_text(rows["kind"])
        sign = pc.subtract(
            pc.equal(kind, "debit").cast(pa.int64()), pc.equal(kind, "credit").cast(pa.int64())
        ).to_numpy()
        moved = np.flatnonzero(sign)
        keys.append(frames.arrow_text(rows["account_id"].iloc[moved]))
        amounts.append(rows["amount"].to_numpy()[moved] * sign[moved])
    return _summed(keys, amounts)


def added(sums: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Add up what `net_debits` returned of several settlements, in the same form."""
    keys = [frames.arrow_text(each["account_id"]) for each in sums]
    return _summed(keys, [each["amount"].to_numpy() for each in sums])


def _summed(keys: "Sequence[pa.Array]", amounts: "Sequence[Ints]") -> pd.DataFrame:
    """Add up amounts by account; sums of 0 are left out."""
    accounts, places = _aligned(keys)
    sums = np.zeros(len(accounts), np.int64)
    for place, amount in zip(places, amounts, strict=True):
        np.add.at(sums, place, amount)
    some = np.flatnonzero(sums)
    return pd.DataFrame(
        {
            "account_id": pd.array(accounts.take(pa.array(some)), dtype="str"),
            "amount": sums[some],
        }
    )


def moved(posted: pd.DataFrame) -> dict[str, int]:
    """Add up entries by kind, in units: unfrozen, debited, credited, frozen."""
    kind = frames.arrow_text(posted["kind"])
    amount = posted["amount"].to_numpy()
    return {
        name: money.total(amount[pc.equal(kind, key).to_numpy(zero_copy_only=False)], name)
        for key, name in zip(KINDS, ("unfrozen", "debited", "credited", "frozen"), strict=True)
    }
