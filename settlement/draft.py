"""A draft: everything a settlement will say, before any of it is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from settlement import ledger, money
from settlement.contracts import Contracts
from settlement.laws import Statement
from settlement.month import Month, Period
from settlement.prices import PriceBook, Version
from settlement.tables import (
    ADJUSTMENTS,
    CONTRACT_LINES,
    ENTRIES,
    INVOICES,
    LINES,
    REJECTS,
    USAGE,
    Table,
)

if TYPE_CHECKING:
    from settlement.scan.logfiles import InputFile


@dataclass(frozen=True)
class Draft:
    """One month, stated, with what it was stated from."""

    month: Month
    revision: int
    period: Period
    stated: Statement
    inputs: "tuple[InputFile, ...]"
    options: Mapping[str, str | None]
    prices: PriceBook
    version: Version
    contracts: Contracts | None = None

    @property
    def tables(self) -> dict[Table, pd.DataFrame]:
        """Every table with its rows, in the order in which they are published."""
        stated = self.stated
        every = {
            USAGE: stated.usage,
            LINES: stated.lines,
            INVOICES: stated.invoices,
            ENTRIES: stated.entries,
            REJECTS: stated.rejects,
        }
        if stated.adjustments is not None:
            every[ADJUSTMENTS] = stated.adjustments
        if stated.contract_lines is not None:
            every[CONTRACT_LINES] = stated.contract_lines
        return every

    @property
    def frozen(self) -> pd.DataFrame:
        """The holds that the bills make (`ledger.HOLDS`), by price book and contracts."""
        rule, currency = self.version.freeze, self.prices.currency
        own = self.contracts.in_force(self.month).factors if self.contracts else None
        return ledger.freeze(self.month, self.stated.invoices, rule, currency, own)

    @property
    def totals(self) -> dict[str, Any]:
        """The month in one line: accounts, and money as text."""
        invoices = self.stated.invoices
        sums = {
            name: money.text(money.total(invoices[name].to_numpy()), 2 if name == "payable" else 8)
            for name in ("list_amount", "voucher_amount", "amount", "rounding", "payable")
        }
        moved = ledger.moved(self.stated.entries)
        return (
            {"accounts": len(invoices)}
            | sums
            | {name: money.text(amount, 2) for name, amount in moved.items()}
        )
