"""The smallest world that can be settled: two accounts, one item, a few calls a month."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PRICE_BOOK = """
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2020-01"
freeze = { factor = "1.20" }
[[version.item]]
code = "detection"
name = "人脸检测"
interfaces = ["Detect"]
tiers = [{ unit_price = "0.5" }]
"""


def write_world(folder: Path, *months: str) -> Path:
    """Write a price book and a log of three calls in each month; return the folder."""
    (folder / "prices.toml").write_text(PRICE_BOOK)
    for month in months:
        write_month(folder / "logs", month)
    return folder


def write_month(logs: Path, month: str) -> Path:
    """Write a file of three calls on the 15th of a month, 1.50 in all."""
    logs.mkdir(exist_ok=True)
    year, number = map(int, month.split("-"))
    table = pa.table(
        {
            "request_id": [f"{month} {n}" for n in range(3)],
            "account_id": ["alpha", "alpha", "beta"],
            "interface": ["Detect"] * 3,
            "timestamp": pa.array([datetime(year, number, 15, tzinfo=UTC)] * 3),
        }
    )
    path = logs / f"{month}.parquet"
    pq.write_table(table, path)
    return path
