"""Small call logs for tests: rows as tuples, files as dictionaries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from settlement.month import Month, Period
from settlement.prices import PriceBook, Version

PRICES = """
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2000-01"
billable_status = ["0"]
unbilled_interfaces = ["HealthCheck"]
freeze = { factor = "1.20" }
shared = { CreateFace = "verify" }
[[version.item]]
code = "detect"
name = "检测"
interfaces = ["DetectFace"]
tiers = [{ unit_price = "1" }]
[[version.item]]
code = "verify"
name = "验证"
interfaces = ["CreateFace", "VerifyFace"]
tiers = [{ unit_price = "1" }]
[[version.item]]
code = "search"
name = "搜索"
interfaces = ["CreateFace", "SearchFaces"]
tiers = [{ unit_price = "1" }]
"""
BOOK = PriceBook.parse(PRICES.encode())
MONTH = Month.parse("2026-02")
PERIOD: Period = MONTH.period(BOOK.zone)
VERSION: Version = BOOK.version_for(MONTH)
START = PERIOD.start * 10**6
"""The month's first instant, in microseconds."""
SCHEMA: dict[str, pa.DataType] = {
    "request_id": pa.string(),
    "account_id": pa.string(),
    "interface": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "status_code": pa.int32(),
    "item": pa.string(),
}
Row = tuple[Any, ...]


def version(**changes: str) -> Version:
    """The rules with some lines replaced, such as ``deduplicate="false"``."""
    lines = [line for line in PRICES.splitlines() if line.partition(" =")[0] not in changes]
    at = lines.index('effective_from = "2000-01"')
    lines[at:at] = [f"{key} = {value}" for key, value in changes.items() if value]
    return PriceBook.parse("\n".join(lines).encode()).version_for(MONTH)


def table(rows: Sequence[Row], types: Mapping[str, pa.DataType] = SCHEMA) -> pa.Table:
    """Rows of (request_id, account_id, interface, µs since the month began, status, item)."""
    arrays = []
    for n, (name, kind) in enumerate(types.items()):
        cells = [row[n] if n < len(row) else None for row in rows]
        if name == "timestamp":
            cells = [None if cell is None else cell + START for cell in cells]
            arrays.append(pa.array(cells, pa.timestamp("us", "UTC")).cast(kind))
        else:
            arrays.append(array(cells, kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(list(types.items())))


def array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Cells in a type; a dictionary's values and codes too."""
    if pa.types.is_dictionary(kind):
        return pa.array(cells, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(cells, kind)


def write(path: Path, rows: Sequence[Row] | pa.Table, **options: Any) -> Path:
    """Write rows as a file of the log, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"write_page_checksum": True} | options
    pq.write_table(rows if isinstance(rows, pa.Table) else table(rows), path, **options)
    return path


def call(number: int, **changes: Any) -> Row:
    """A good call, with some cells changed."""
    cells = {
        "request_id": f"r{number}",
        "account_id": "007",
        "interface": "DetectFace",
        "timestamp": number,
        "status_code": 0,
        "item": None,
    }
    return tuple((cells | changes).values())
