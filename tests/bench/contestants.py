"""One piece of work in a process of its own: a way to count a log, or a month to publish.

    python -m tests.bench.contestants NAME --log FOLDER --result FILE [--every-row]

Every way applies the filters of the price book, status and bounds of the month, and reads the
needed columns only. What it found is written as an Arrow file (account, interface, calls), and
what the work took is printed as JSON: CPU and wall seconds with the libraries imported, before
anything is written.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from settlement.month import Month, Period
from settlement.prices import PriceBook, Version
from tests.bench.logs import MONTH, PRICES
from tests.bench.measure import THREADS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Clock:
    """Takes the time and the CPU seconds of this process between entering and leaving."""

    told: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> None:
        self._began = time.perf_counter(), _cpu_seconds()

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._began
        self.told |= {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Work:
    """What is to be counted: a log, and whether each id once or every row."""

    log: Path
    once: bool
    accounts: int = 0

    @property
    def prices(self) -> PriceBook:
        """The price book of the billing document."""
        return PriceBook.parse(PRICES.read_bytes())

    @property
    def version(self) -> Version:
        """The rules in force, with or without de-duplication."""
        version = self.prices.version_for(Month.parse(MONTH))
        return replace(version, deduplicate=self.once)

    @property
    def period(self) -> Period:
        """The month's instants."""
        return Month.parse(MONTH).period(self.prices.zone)

    @property
    def statuses(self) -> list[int]:
        """The statuses that are charged."""
        return [int(status) for status in self.version.billable_status or ()]

    @property
    def columns(self) -> list[str]:
        """The columns that must be read."""
        return ["request_id"] * self.once + ["account_id", "interface", "timestamp", "status_code"]


def settlement(work: Work, clock: Clock) -> "pa.Table":
    """Count as `settle run` does: find the log and count it through the seam."""
    from settlement import lean

    lean.start()
    from settlement import usage
    from settlement.scan import finding

    version, period = work.version, work.period
    with clock:
        counted = usage.count(finding.find(str(work.log)), period, version, threads=THREADS)
    clock.told |= {"rows": counted.rows, "lines": len(counted.calls)}
    return counted.calls


def duckdb(work: Work, clock: Clock) -> "pa.Table":
    """Count in DuckDB by its fastest form: the distinct ids with account and interface."""
    return _duckdb(
        work,
        clock,
        "select account_id, interface, count(*) calls from "
        "(select distinct request_id, account_id, interface from calls) group by all",
    )


def duckdb_exact(work: Work, clock: Clock) -> "pa.Table":
    """Count in DuckDB by the rule itself: of each id the earliest row, then the smallest."""
    return _duckdb(
        work,
        clock,
        "select decode(won.a) account_id, decode(won.i) interface, count(*) calls from "
        "(select min(struct_pack(t := timestamp, a := encode(account_id), i := encode(interface)))"
        " won from calls group by request_id) group by all",
    )


def _duckdb(work: Work, clock: Clock, once: str) -> "pa.Table":
    import duckdb as engine
    import pyarrow as pa

    every = "select account_id, interface, count(*) calls from calls group by all"
    spill = Path(tempfile.mkdtemp(prefix="spill-", dir=work.log.parent))
    with engine.connect() as connection, clock:
        connection.execute(f"set threads={THREADS}; set temp_directory='{spill}'")
        connection.execute("set timezone='UTC'; set preserve_insertion_order=false")
        start, end = (f"timestamptz '{text}'" for text in _texts(work.period))
        statuses = ", ".join(map(str, work.statuses))
        connection.execute(
            "create view calls as select * from "
            f"read_parquet('{work.log}/*.parquet', hive_partitioning=false) "
            f"where timestamp >= {start} and timestamp < {end} and status_code in ({statuses})"
        )
        found: pa.Table = connection.execute(once if work.once else every).to_arrow_table()
        limit = connection.execute("select current_setting('memory_limit')").fetchone()
    shutil.rmtree(spill)
    clock.told["memory_limit"] = limit[0] if limit else ""
    return found


def polars(work: Work, clock: Clock) -> "pa.Table":
    """Count in Polars by its fastest form: streaming, unique in three columns."""
    import polars as pl
    import pyarrow as pa

    start, end = (datetime.fromtimestamp(t, UTC) for t in (work.period.start, work.period.end))
    at, status = pl.col("timestamp"), pl.col("status_code")
    with clock:
        calls = pl.scan_parquet(f"{work.log}/*.parquet", hive_partitioning=False)
        calls = calls.filter((at >= start) & (at < end) & status.is_in(work.statuses))
        if work.once:
            calls = calls.select("request_id", "account_id", "interface").unique()
        grouped = calls.group_by("account_id", "interface").agg(pl.len().alias("calls"))
        found: pa.Table = grouped.collect(engine="streaming").to_arrow()
    return found


def floor(work: Work, clock: Clock) -> None:
    """Decode the needed columns with pyarrow, two row groups at a time, and drop them."""
    import pyarrow.parquet as pq

    def decode(task: tuple[Path, int]) -> int:
        path, group = task
        file = pq.ParquetFile(path, read_dictionary=["account_id", "interface"])
        rows: int = file.read_row_group(group, columns=work.columns, use_threads=False).num_rows
        return rows

    with clock, ThreadPoolExecutor(THREADS) as pool:
        tasks = [
            (path, group)
            for path in sorted(work.log.glob("*.parquet"))
            for group in range(pq.read_metadata(path).num_row_groups)
        ]
        clock.told["rows"] = {"read": sum(pool.map(decode, tasks))}


def publish(work: Work, clock: Clock) -> None:
    """Settle a month whose usage is in memory already: price, invoice, post, publish.

    The month before, of the same usage, is settled first, so that there are holds to release.
    """
    from settlement import lean

    lean.start()
    calls = _calls(work)
    clock.told["lines"] = len(calls)
    settle_counted = _settling(work, calls)
    settle_counted(Month.parse(MONTH).previous)
    with clock:
        settle_counted(Month.parse(MONTH))


def _settling(work: Work, calls: "pa.Table") -> Callable[[Month], None]:
    """Return what settles a month with given usage standing in behind the seam."""
    from unittest.mock import patch

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from settlement import settle, tables
    from settlement import usage as seam
    from settlement.order import Order

    log = work.log / "log.parquet"
    kinds = dict.fromkeys(work.columns, pa.string()) | {"timestamp": pa.timestamp("us", "UTC")}
    pq.write_table(pa.schema(kinds).empty_table(), log)
    rows = dict.fromkeys(tables.ROWS, 0)
    rows["read"] = rows["billed"] = pc.sum(calls["calls"]).as_py()
    none = tables.REJECTS.counted.empty_table()

    def run(month: Month) -> None:
        order = Order(month, str(log), work.log / "book", work.prices, datetime.now(UTC))
        with patch.object(seam, "count", lambda *_, **__: seam.Counted(calls, rows, none, (), 0)):
            settle.run(order)

    return run


def _calls(work: Work) -> "pa.Table":
    """Draw usage of 2.5 interfaces an account on average, as a count gives it."""
    import numpy as np
    import pyarrow as pa

    from settlement.tables import USAGE

    version = work.version
    interfaces = sorted({name for item in version.items for name in item.interfaces})
    pairs = sorted((str(version.bearing(name)), name) for name in interfaces)
    rng = np.random.default_rng(2026)
    drawn = rng.integers(0, work.accounts * len(pairs), work.accounts * 3)
    drawn = np.unique(drawn)
    drawn = drawn[np.sort(rng.permutation(len(drawn))[: work.accounts * 5 // 2])]
    account, pair = np.divmod(drawn, len(pairs))
    names = pa.array([f"{number:010d}" for number in range(work.accounts)])
    return pa.table(
        {
            "account_id": names.take(pa.array(account)),
            "item": pa.array([item for item, _ in pairs]).take(pa.array(pair)),
            "interface": pa.array([name for _, name in pairs]).take(pa.array(pair)),
            "calls": rng.integers(1, 60_000, len(drawn)),
        }
    ).cast(USAGE.counted)


def _texts(period: Period) -> tuple[str, str]:
    return period.start_text, period.end_text


COUNTING: dict[str, Callable[[Work, Clock], "pa.Table"]] = {
    "settlement": settlement,
    "duckdb": duckdb,
    "duckdb-exact": duckdb_exact,
    "polars": polars,
}
OTHER: dict[str, Callable[[Work, Clock], None]] = {"floor": floor, "publish": publish}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do one contestant's work."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.contestants")
    parser.add_argument("name", choices=[*COUNTING, *OTHER])
    parser.add_argument("--log", type=Path, required=True, help="the log; or a folder to work in")
    parser.add_argument("--result", type=Path)
    parser.add_argument("--accounts", type=int, default=0)
    parser.add_argument("--every-row", action="store_true", help="the log has each call once")
    chosen = parser.parse_args(arguments)
    work, clock = Work(chosen.log, not chosen.every_row, chosen.accounts), Clock()
    if chosen.name in OTHER:
        OTHER[chosen.name](work, clock)
    else:
        found = COUNTING[chosen.name](work, clock)
        if chosen.result:
            _write(found, chosen.result)
    print(json.dumps(clock.told), flush=True)


def _write(found: "pa.Table", path: Path) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, found.schema) as writer:
        writer.write_table(found)


if __name__ == "__main__":
    main()
    os._exit(0)  # as `settle` leaves: what libraries would still clear up is nobody's work
