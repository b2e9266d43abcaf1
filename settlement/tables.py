"""Every table, declared once: its columns, their kinds, and the key it is sorted by.

What a table is inside the program, and how it gets out of it and in again, is in `frames`.
"""

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa


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
        return self in DECIMALS


DECIMALS = {
    Kind.PRICE: pa.decimal128(18, 8),
    Kind.AMOUNT: pa.decimal128(24, 8),
    Kind.PAYABLE: pa.decimal128(18, 2),
}
_ARROW = {Kind.TEXT: pa.string(), Kind.INT16: pa.int16(), Kind.INT64: pa.int64()} | DECIMALS


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

    @property
    def counted(self) -> pa.Schema:
        """The schema in which a count gives it, where it holds no money."""
        return pa.schema(
            (each.name, pa.large_string() if each.kind is Kind.TEXT else _ARROW[each.kind])
            for each in self.columns
        )


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
