"""Every table, declared once: its columns, their kinds, and the key it is sorted by.

Inside the program a table is a pandas frame without the ``month`` and ``revision`` columns:
text as ``str``, counts as integers, money as int64 units of 1e-8 (see `money`). Published,
it is Parquet with those two columns first and money as exact decimals. `check` stands on
every arrow between two steps; `to_arrow` and `to_frame` are the only way out and in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement.money import LIMIT
from settlement.month import Month

if TYPE_CHECKING:
    from settlement.money import Ints


class Kind(Enum):
    """What a column holds, and so its type inside and in the published file."""

    TEXT = "text"
    INT16 = "int16"
    INT64 = "int64"
    PRICE = "price"
    AMOUNT = "amount"
    PAYABLE = "payable"

    @property
    def is_money(self) -> bool:
        """Whether it holds units of 1e-8."""
        return self in _DECIMALS


_DECIMALS = {
    Kind.PRICE: pa.decimal128(18, 8),
    Kind.AMOUNT: pa.decimal128(24, 8),
    Kind.PAYABLE: pa.decimal128(18, 2),
}
_ARROW = {Kind.TEXT: pa.string(), Kind.INT16: pa.int16(), Kind.INT64: pa.int64()} | _DECIMALS
_UNITS_PER_CENT = 10**6
_NO_PRICE = -1
"""Stands for null in a nullable column of money inside the program: a graduated unit price."""


@dataclass(frozen=True)
class Column:
    """A column: its name for programs, its name for finance, its kind."""

    name: str
    label: str
    kind: Kind = Kind.TEXT
    nullable: bool = False

    @property
    def arrow(self) -> pa.Field:
        """The column as published."""
        return pa.field(self.name, _ARROW[self.kind], nullable=self.nullable)


@dataclass(frozen=True)
class Table:
    """A table: its columns in order, and how many of the first ones are its key."""

    name: str
    key_length: int
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """The columns inside the program."""
        return [column.name for column in self.columns]

    @property
    def key(self) -> list[str]:
        """The columns it is sorted by; no two rows share a key."""
        return self.names[: self.key_length]

    @property
    def published(self) -> pa.Schema:
        """The schema of the published file."""
        return pa.schema(column.arrow for column in (*STAMP, *self.columns))


STAMP = (Column("month", "账期"), Column("revision", "版本", Kind.INT16))
_ACCOUNT = Column("account_id", "账号")
_ITEM = Column("item", "计费项")
_AMOUNTS = (
    Column("list_amount", "原价金额", Kind.AMOUNT),
    Column("voucher_amount", "代金券金额", Kind.AMOUNT),
    Column("amount", "应计金额", Kind.AMOUNT),
)

USAGE = Table(
    "usage",
    3,
    (_ACCOUNT, _ITEM, Column("interface", "接口"), Column("calls", "调用次数", Kind.INT64)),
)
LINES = Table(
    "lines",
    2,
    (
        _ACCOUNT,
        _ITEM,
        Column("calls", "调用次数", Kind.INT64),
        Column("tier", "阶梯", Kind.INT16),
        Column("unit_price", "单价", Kind.PRICE, nullable=True),
        _AMOUNTS[0],
        Column("voucher_calls", "代金券抵扣次数", Kind.INT64),
        *_AMOUNTS[1:],
    ),
)
INVOICES = Table(
    "invoices",
    1,
    (
        _ACCOUNT,
        *_AMOUNTS,
        Column("rounding", "舍入差额", Kind.AMOUNT),
        Column("payable", "应付金额", Kind.PAYABLE),
        Column("currency", "币种"),
    ),
)
ENTRIES = Table(
    "entries",
    2,
    (
        _ACCOUNT,
        Column("sequence", "序号", Kind.INT16),
        Column("kind", "类型"),
        Column("amount", "金额", Kind.PAYABLE),
        Column("hold_month", "冻结账期", nullable=True),
    ),
)
REJECTS = Table(
    "rejects",
    2,
    (
        Column("file", "文件"),
        Column("row", "行", Kind.INT64),
        Column("reason", "原因"),
        *(
            Column(name, label, nullable=True)
            for name, label in (
                ("request_id", "请求编号"),
                ("account_id", "账号"),
                ("interface", "接口"),
                ("timestamp", "时间"),
                ("status_code", "状态码"),
                ("item", "计费项"),
            )
        ),
    ),
)
ADJUSTMENTS = Table(
    "adjustments",
    1,
    (
        _ACCOUNT,
        Column("previous_payable", "原应付金额", Kind.PAYABLE),
        Column("payable", "应付金额", Kind.PAYABLE),
        Column("adjustment", "调整金额", Kind.PAYABLE),
        Column("document", "单据号"),
    ),
)
"""What a revision bills in addition (补账单) or credits (贷项通知单)."""
CONTRACT_LINES = Table(
    "contract_lines",
    2,
    (
        _ACCOUNT,
        _ITEM,
        Column("calls", "调用次数", Kind.INT64),
        *(Column(f"book_{each.name}", f"价目表{each.label}", each.kind) for each in _AMOUNTS),
        *_AMOUNTS,
        Column("terms", "合同条款"),
    ),
)
"""The lines that contracts price, and what the price book alone would have charged."""
PUBLISHED = (USAGE, LINES, INVOICES, ENTRIES, REJECTS)


ROWS = (
    "read",
    "billed",
    "duplicate",
    "conflict",
    "outside_month",
    "unbilled_interface",
    "unbillable_status",
    "rejected.missing_timestamp",
    "rejected.missing_request_id",
    "rejected.missing_account_id",
    "rejected.unknown_interface",
    "rejected.wrong_item",
    "rejected.missing_status",
)
"""What a settlement tells of the log's rows: how many were read, and the bucket of each."""


class WrongTable(AssertionError):
    """A table is not what it was declared to be: a bug, or a damaged file."""


def frame(table: Table, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Make a table from columns of the right kinds, in the declared order.

    Text may come as any sequence or Arrow array of strings; numbers as integers. Raises
    `WrongTable` where a column is missing, superfluous, of another kind, or unsorted.
    """
    if set(columns) != set(table.names):
        raise WrongTable(f"{table.name}: columns {sorted(columns)}, not {sorted(table.names)}")
    series = {column.name: _series(column, columns[column.name]) for column in table.columns}
    if len({len(values) for values in series.values()}) > 1:
        raise WrongTable(f"{table.name}: columns of different lengths")
    made = pd.DataFrame(series)
    check(table, made)
    return made


def empty(table: Table) -> pd.DataFrame:
    """Return a table without rows."""
    return frame(table, {name: [] for name in table.names})


def check(table: Table, rows: pd.DataFrame) -> None:
    """Raise `WrongTable` unless rows are exactly the declared table, sorted, keys unique."""
    if list(rows.columns) != table.names:
        raise WrongTable(f"{table.name}: columns {list(rows.columns)}, not {table.names}")
    for column in table.columns:
        _check_column(table, column, rows[column.name])
    later = _follows(table, rows)
    if not later.all():
        row = int(np.flatnonzero(~later)[0])
        pair = rows[table.key].iloc[row : row + 2].values.tolist()
        raise WrongTable(f"{table.name}: key {pair[1]} does not follow {pair[0]}")


def _check_column(table: Table, column: Column, values: "pd.Series[Any]") -> None:
    expected = _inside(column.kind)
    if str(values.dtype) != expected:
        raise WrongTable(f"{table.name}.{column.name}: {values.dtype}, not {expected}")
    if not column.nullable and column.kind is Kind.TEXT and values.hasnans:
        raise WrongTable(f"{table.name}.{column.name}: null")


def _follows(table: Table, rows: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Tell for each row but the first whether its key is greater than the one before."""
    later = np.zeros(max(len(rows) - 1, 0), bool)
    undecided = ~later
    for name in table.key:
        values = rows[name]
        comparable = arrow_text(values) if values.dtype == "str" else pa.array(values.to_numpy())
        before, after = comparable[:-1], comparable[1:]
        later |= undecided & pc.less(before, after).to_numpy(zero_copy_only=False)
        undecided &= pc.equal(before, after).to_numpy(zero_copy_only=False)
    return later


def starts(rows: pd.DataFrame, names: Sequence[str]) -> "Ints":
    """Return the first row of each run of equal values in sorted rows."""
    if rows.empty:
        return np.zeros(0, np.int64)
    changed = np.zeros(len(rows), bool)
    changed[0] = True
    for name in names:
        values = arrow_text(rows[name])
        differs = pc.not_equal(values[:-1], values[1:])
        changed[1:] |= differs.to_numpy(zero_copy_only=False)
    return np.flatnonzero(changed)


def arrow_text(values: "pd.Series[Any]") -> pa.Array:
    """Return a text column as one Arrow array of large strings, without copying if it can."""
    array = pa.array(values, type=pa.large_string(), from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def to_arrow(table: Table, rows: pd.DataFrame, month: Month, revision: int) -> pa.Table:
    """Return rows as published: month and revision first, money as exact decimals."""
    check(table, rows)
    columns = [
        pa.array([str(month)], pa.string()).take(pa.array(np.zeros(len(rows), np.int32))),
        pa.array(np.full(len(rows), revision, np.int16)),
    ]
    columns += [_published(column, rows[column.name]) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.published)


def to_frame(table: Table, published: pa.Table) -> pd.DataFrame:
    """Return a published table as rows; raises `WrongTable` unless its schema is exact."""
    if not published.schema.equals(table.published):
        raise WrongTable(f"{table.name}: the file's columns are not the declared ones")
    for column in table.columns:
        if not column.nullable and published[column.name].null_count:
            raise WrongTable(f"{table.name}.{column.name}: null")
    return frame(
        table,
        {column.name: _from_published(column, published[column.name]) for column in table.columns},
    )


def batches(rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    """Yield rows in slices of at most ``size``, at least one slice."""
    for start in range(0, max(len(rows), 1), size):
        yield rows.iloc[start : start + size]


def decimals(amounts: "Ints", kind: Kind, nulls: "np.ndarray[Any, Any] | None" = None) -> pa.Array:
    """Return units as Arrow decimals of a kind of money, exactly and without a detour.

    A decimal128 is 16 bytes, little-endian two's complement: the int64 and its sign.
    """
    scaled = amounts
    if kind is Kind.PAYABLE:
        scaled, rest = np.divmod(amounts, _UNITS_PER_CENT)
        if rest.any():
            raise WrongTable("an amount is not whole in minor units")
    halves = np.empty((len(scaled), 2), np.int64)
    halves[:, 0] = scaled
    halves[:, 1] = scaled >> 63
    mask = None if nulls is None or not nulls.any() else pa.array(~nulls).buffers()[1]
    return pa.Array.from_buffers(_DECIMALS[kind], len(scaled), [mask, pa.py_buffer(halves)])


def _inside(kind: Kind) -> str:
    return {Kind.TEXT: "str", Kind.INT16: "int16"}.get(kind, "int64")


def _series(column: Column, values: Any) -> "pd.Series[Any]":
    if column.kind is not Kind.TEXT:
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise WrongTable(f"{column.name}: {array.dtype}, not whole numbers")
        whole = array.astype(_inside(column.kind), copy=False)
        if (whole != array).any():
            raise WrongTable(f"{column.name}: a number beyond {_inside(column.kind)}")
        return pd.Series(whole)
    if isinstance(values, pd.Series) and values.dtype == "str":
        return values.reset_index(drop=True)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, pa.large_string(), from_pandas=True)
    return pd.Series(pd.array(values.cast(pa.large_string()), dtype="str"))


def _published(column: Column, values: "pd.Series[Any]") -> pa.Array:
    if column.kind is Kind.TEXT:
        return arrow_text(values).cast(pa.string())
    numbers = values.to_numpy()
    if not column.kind.is_money:
        return pa.array(numbers)
    return decimals(numbers, column.kind, numbers == _NO_PRICE if column.nullable else None)


def _from_published(column: Column, values: pa.ChunkedArray) -> Any:
    if not column.kind.is_money:
        return values if column.kind is Kind.TEXT else values.to_numpy()
    return from_decimals(values, column.kind)


def from_decimals(values: pa.ChunkedArray, kind: Kind) -> "Ints":
    """Return published decimals as int64 units; null as -1. Raises `WrongTable` beyond int64."""
    array = values.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    halves = np.frombuffer(array.buffers()[1] or b"", np.int64).reshape(-1, 2)
    halves = halves[array.offset : array.offset + len(array)]
    low = halves[:, 0].copy()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if (halves[valid, 1] != low[valid] >> 63).any():
        raise WrongTable("an amount is larger than can be")
    if kind is Kind.PAYABLE:
        if len(low) and int(np.abs(low[valid]).max(initial=0)) > LIMIT // _UNITS_PER_CENT:
            raise WrongTable("an amount is larger than can be")
        low *= _UNITS_PER_CENT
    low[~valid] = _NO_PRICE
    return low
