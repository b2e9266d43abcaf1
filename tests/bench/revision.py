"""How much longer a revision takes than the first settlement: it should be ≤ 1.5 times.

    python -m tests.bench.revision [ACCOUNTS] [FOLDER]

Usage is made in memory and handed over at the seam, in place of a counted log, so that what
is measured is everything after the count: rating, invoicing, the ledger, comparing with what
stands, and publishing. Revised is with a late call for one account in a hundred, for every
one, and with other prices, while the month's holds are open and after a later month is settled.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd
import pyarrow as pa

from settlement import frames, settle, tables, usage
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from settlement.usage import Counted
from tests.processes import ROOT
from tests.small import write_month

PRICES = re.sub(rb"billable_status.*", b"", (ROOT / "data" / "price_book.toml").read_bytes())
CALLED = {"face-comparison": ("CompareFace",), "face-search": ("CreateFace", "SearchFaces")}


def made(accounts: int) -> pd.DataFrame:
    """Usage of so many accounts, three interfaces each, a thousandth of them beyond a bound."""
    chance = np.random.default_rng(1)
    pairs = [(item, interface) for item, names in CALLED.items() for interface in names]
    names = np.char.zfill(np.arange(accounts).astype(str), 10)
    return frames.frame(
        tables.USAGE,
        {
            "account_id": np.repeat(names, len(pairs)).tolist(),
            "item": [item for item, _ in pairs] * accounts,
            "interface": [interface for _, interface in pairs] * accounts,
            "calls": 9_000 + chance.zipf(1.4, accounts * len(pairs)) % 1_000_000,
        },
    )


def handed_over(rows: pd.DataFrame) -> None:
    """Let every count come to this usage."""
    billed = int(rows["calls"].sum())
    buckets = dict.fromkeys(tables.ROWS, 0) | {"read": billed, "billed": billed}
    calls = pa.Table.from_pandas(rows, preserve_index=False)
    none = tables.REJECTS.counted.empty_table()
    usage.count = lambda *_args, **_options: Counted(calls, buckets, none, (), 0)


def later(rows: pd.DataFrame, every: int) -> pd.DataFrame:
    """The usage with more calls for one account in so many."""
    more = rows.copy()
    more.loc[np.arange(len(more)) // 3 % every == 0, "calls"] += 5_000
    return more


def timed(name: str, order: Order) -> None:
    """Settle, and say what it took and where."""
    wall, cpu = perf_counter(), process_time()
    done = settle.run(order)
    wall, cpu = perf_counter() - wall, process_time() - cpu
    stages = "  ".join(f"{stage} {seconds:.2f}" for stage, seconds in done.seconds.items())
    size = sum(path.stat().st_size for path in done.settlement.folder.iterdir())
    print(f"{name:40} {done.outcome:12} {wall:6.2f} s  cpu {cpu:6.2f} s  {size >> 20} MB  {stages}")


def measure(folder: Path, accounts: int) -> Iterator[tuple[str, Order]]:
    """Yield what to time, each once the usage it is to find is in place."""
    now = datetime(2027, 1, 1, tzinfo=UTC)
    write_month(folder / "logs", "2026-01")
    prices = PriceBook.parse(PRICES)
    month, after = Month(2026, 1), Month(2026, 2)
    order = Order(month, str(folder / "logs"), folder / "book", prices, now, allow_empty=True)
    revised = replace(order, revise=True, reason="measured")
    dearer = PriceBook.parse(PRICES.replace(b'"0.0032"', b'"0.0033"'))
    rows = made(accounts)
    handed_over(rows)
    yield "first settlement", order
    write_month(folder / "logs", "2026-02").rename(folder / "logs" / "late.parquet")
    (folder / "logs" / "2026-01.parquet").touch()
    handed_over(later(rows, 100))
    yield "one in a hundred more, holds open", revised
    handed_over(later(rows, 1))
    yield "all more, holds open", revised
    yield "other prices, holds open", replace(revised, prices=dearer)
    handed_over(later(rows, 2))
    yield "half less, holds open, other prices", replace(revised, prices=dearer)
    handed_over(rows)
    yield "the next month", replace(order, month=after)
    handed_over(later(rows, 100))
    yield "one in a hundred more, holds gone", revised
    yield "the same again, counted", revised


def main(accounts: str = "1000000", place: str | None = None) -> None:
    """Measure in a folder that is removed again."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for name, order in measure(Path(folder), int(accounts)):
            timed(name, order)


if __name__ == "__main__":
    main(*sys.argv[1:])
