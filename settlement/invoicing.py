"""Invoicing: lines → invoices. One per account: list − voucher = amount, rounded once."""

import pandas as pd
import pyarrow as pa

from settlement import money, tables
from settlement.money import Currency


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
    tables.check(tables.LINES, lines)
    starts = tables.starts(lines, ["account_id"])
    sums = {
        name: money.group_sums(lines[name].to_numpy(), starts, "an account's total")
        for name in ("list_amount", "voucher_amount", "amount")
    }
    money.total(sums["list_amount"])
    payable = money.round_half_up(sums["amount"], currency.minor_unit)
    money.total(payable)
    return tables.frame(
        tables.INVOICES,
        {"account_id": lines["account_id"].iloc[starts]}
        | sums
        | {
            "rounding": payable - sums["amount"],
            "payable": payable,
            "currency": pa.repeat(pa.scalar(currency.code, pa.large_string()), len(starts)),
        },
    )
