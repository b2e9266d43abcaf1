"""Invoicing: lines → invoices. One per account: list − voucher = amount, rounded once."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, money, tables
from settlement.money import Currency
from settlement.month import Month


def invoice(lines: pd.DataFrame, currency: Currency) -> pd.DataFrame:
    """Add up each account's lines and round the sum, once, to what is payable.

    Args:
        lines: `tables.LINES`.
        currency: its minor unit is what ``payable`` is rounded to, half up.

    Returns:
        `tables.INVOICES`: one row per account with lines; ``rounding`` is payable − amount.

    Raises:
        BadInput: an account's or the month's total passes the largest amount.
    """
    frames.check(tables.LINES, lines)
    starts = frames.starts(lines, ["account_id"])
    sums = {
        name: money.group_sums(lines[name].to_numpy(), starts, "an account's total")
        for name in ("list_amount", "voucher_amount", "amount")
    }
    money.total(sums["list_amount"])
    payable = money.round_half_up(sums["amount"], currency.minor_unit)
    money.total(payable)
    return frames.frame(
        tables.INVOICES,
        {"account_id": lines["account_id"].iloc[starts]}
        | sums
        | {
            "rounding": payable - sums["amount"],
            "payable": payable,
            "currency": pa.repeat(pa.scalar(currency.code, pa.large_string()), len(starts)),
        },
    )


def adjust(month: Month, revision: int, difference: pd.DataFrame) -> pd.DataFrame:
    """Number the documents of a revision: a supplementary bill or a credit note an account.

    Args:
        month: the month revised.
        revision: its new revision, 2 or more.
        difference: account_id, previous_payable, payable, adjustment (see
            `ledger.adjustments`), sorted by account, none 0.

    Returns:
        `tables.ADJUSTMENTS`. A document is named by month, revision, kind (``S`` for a
        supplementary bill 补账单, ``C`` for a credit note 贷项通知单) and its place, from 1.
    """
    text = pa.large_string()
    place = pc.utf8_lpad(pa.array(np.arange(1, len(difference) + 1)).cast(text), 7, "0")
    more = pa.array(difference["adjustment"].to_numpy() > 0)
    stem = f"{month}-r{revision}-"
    kind = pc.if_else(more, pa.scalar(f"{stem}S", text), pa.scalar(f"{stem}C", text))
    document = pc.binary_join_element_wise(kind, place, pa.scalar("", text))
    columns = {str(name): values for name, values in difference.items()}
    return frames.frame(tables.ADJUSTMENTS, columns | {"document": document})
