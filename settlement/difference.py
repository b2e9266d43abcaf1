"""The first difference of two tables: which row, which column, both values."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from settlement import money
from settlement.tables import Column, Kind, Table
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.money import Ints

_DIGITS = {Kind.PRICE: 4, Kind.AMOUNT: 8, Kind.PAYABLE: 2}


@dataclass(frozen=True)
class Difference:
    """How many rows of two tables differ, and the first one that does.

    Attributes:
        table: the name of both tables.
        rows: how many keys differ.
        key: the first of them, in the order of the tables.
        column: the first column in which it differs; empty where a side has no such row.
        one, other: the two values as text; ``no such row`` where there is none.
    """

    table: str
    rows: int
    key: tuple[str, ...]
    column: str
    one: str
    other: str

    def said(self, one: str, other: str) -> str:
        """Write it as a sentence; the sides have these names."""
        rows = f"{count_of(self.rows, 'row')} of {self.table}"
        column = f" {self.column}:" if self.column else ""
        key = " ".join(self.key)
        return f"{rows}, first {key}:{column} {self.one} {one}, {self.other} {other}"


def first(table: Table, one: pd.DataFrame, other: pd.DataFrame) -> Difference | None:
    """Return how two tables of one declaration differ; None where they are equal.

    Args:
        table: what both are declared to be.
        one: rows as `frames.check` wants them.
        other: rows likewise.
    """
    if one.equals(other):
        return None
    left, right = places(table, one, other)
    at, to = int(left[0]), int(right[0])
    side, where = (one, at) if at >= 0 else (other, to)
    key = tuple(_value(column, side, where) for column in table.columns[: table.key_length])
    rows = len(left)
    if at < 0 or to < 0:
        found, none = "a row", "no such row"
        sides = (none, found) if at < 0 else (found, none)
        return Difference(table.name, rows, key, "", *sides)
    for column in table.columns:
        values = _value(column, one, at), _value(column, other, to)
        if values[0] != values[1]:
            return Difference(table.name, rows, key, column.name, *values)
    raise AssertionError("rows that differ in no column")


def places(table: Table, one: pd.DataFrame, other: pd.DataFrame) -> "tuple[Ints, Ints]":
    """Return for each row that differs its place in both, -1 where it is not, by key."""
    left, right = _paired(table, one, other)
    both = (left >= 0) & (right >= 0)
    unlike = ~both
    for column in table.columns:
        unlike[both] |= _unlike(one[column.name], other[column.name], left[both], right[both])
    return left[unlike], right[unlike]


def _paired(table: Table, one: pd.DataFrame, other: pd.DataFrame) -> "tuple[Ints, Ints]":
    """Return for each key of either side its place in both, -1 where it is not, by key."""
    if one[table.key].equals(other[table.key]):  # as where prices alone differ; no need to merge
        return np.arange(len(one)), np.arange(len(one))
    left, right = (
        rows[table.key].assign(**{name: np.arange(len(rows))})
        for name, rows in (("one", one), ("other", other))
    )
    merged = left.merge(right, how="outer", on=table.key, sort=True)
    one_place, other_place = (
        merged[name].fillna(-1).to_numpy().astype(np.int64) for name in ("one", "other")
    )
    return one_place, other_place


def _unlike(one: "pd.Series[Any]", other: "pd.Series[Any]", left: "Ints", right: "Ints") -> Any:
    values = one.take(left).reset_index(drop=True), other.take(right).reset_index(drop=True)
    nulls = [each.isna().to_numpy() for each in values]
    differs = (values[0] != values[1]).fillna(value=True).to_numpy().astype(bool)
    return np.where(nulls[0] | nulls[1], nulls[0] != nulls[1], differs)


def _value(column: Column, rows: pd.DataFrame, place: int) -> str:
    value = rows[column.name].iloc[place]
    if pd.isna(value) or (column.nullable and column.kind.is_money and value < 0):
        return "nothing"
    if column.kind.is_money:
        return money.text(int(value), _DIGITS[column.kind])
    return repr(str(value)) if column.kind is Kind.TEXT else f"{value:,}"
