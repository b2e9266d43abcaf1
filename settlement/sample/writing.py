"""Writing a sample log: its files, several at a time, and what they hold."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

from settlement.errors import CannotWrite, WrongUsage
from settlement.month import Month
from settlement.sample.calls import (
    BUCKETS,
    NO_ROWS,
    Extras,
    Plan,
    Quota,
    extras_of,
    plan_of,
    rows_between,
)
from settlement.sample.columns import buckets_of, table_of

BILLING_ZONE = ZoneInfo("Asia/Shanghai")
ROW_GROUP = 1 << 20
LARGEST_LOG = 1 << 31
MOST_ACCOUNTS = 10**8


@dataclass(frozen=True)
class SampleSummary:
    """What was written.

    ``buckets`` tells what counting these files alone for their month must find, by the price
    book of the billing document (status 0 is charged); only buckets with rows are in it.
    """

    folder: Path
    month: Month
    files: int
    rows: int
    size: int
    buckets: Mapping[str, int]


@dataclass(frozen=True)
class _File:
    """A file that was written: its bytes, and its rows by bucket."""

    size: int
    buckets: Counter[str]


def write_sample(
    out: Path,
    month: Month,
    accounts: int,
    calls: int,
    seed: int,
    *,
    zone: ZoneInfo = BILLING_ZONE,
    quotas: Sequence[Quota] = (),
    days_per_file: int = 1,
    compact: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SampleSummary:
    """Write the call log of a month, one file per day, to ``out/month=YYYY-MM/``.

    The files hold ``calls`` calls of ``accounts`` accounts (their shares fall as 1, 1/2, 1/3, …)
    with the rhythm of days and weeks in ``zone``. 2 % fail, and half of those are retried with
    success under the same id; 0.5 % are delivered again, seconds to days later; a few ids come
    with another account or time; a few rows belong to the neighbouring months; one row in 20 000
    is malformed. Columns: the README of the data explains them.

    Args:
        out: the folder of the log; made where it is missing.
        month: the month of the calls.
        accounts: how many accounts the calls are spread over.
        calls: how many calls were made, beside re-deliveries, retries and the other extra rows.
        seed: the same arguments and seed give the same files, whatever the number of threads.
        zone: the billing zone.
        quotas: calls with a given account and item, a part of ``calls``.
        days_per_file: days in one file.
        compact: ids ordered by time (UUID version 7) and delta encodings, for a log that is kept
            in a repository; else random ids (version 4), the harder case.
        threads: at most so many; by default one per core, up to four.
        progress: told the number of rows of each file written, on the calling thread.

    Raises:
        WrongUsage: a number is out of bounds.
        CannotWrite: the month's folder is there already, or the file system refused.
    """
    _check_numbers(accounts, calls, seed, quotas)
    plan = plan_of(month, accounts, calls, seed, zone=zone, quotas=quotas, compact=compact)
    folder, draft = out / f"month={month}", out / f".month={month}"
    if folder.exists():
        raise CannotWrite(
            "there is a log already", where=str(folder), cure="remove it or choose another folder"
        )
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        files = _write_files(draft, plan, days_per_file, threads, progress)
        draft.rename(folder)
    except OSError as error:
        raise CannotWrite(
            error.strerror or str(error), where=str(folder), cure="check the path and free space"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    counted = sum((file.buckets for file in files), Counter[str]())
    return SampleSummary(
        folder=folder,
        month=month,
        files=len(files),
        rows=counted.total(),
        size=sum(file.size for file in files),
        buckets={bucket: counted[bucket] for bucket in BUCKETS if counted[bucket]},
    )


def _check_numbers(accounts: int, calls: int, seed: int, quotas: Sequence[Quota]) -> None:
    """Refuse numbers that no log can be made with."""
    for what, number, low, high in (
        ("accounts", accounts, 1, MOST_ACCOUNTS),
        ("calls", calls, 1, LARGEST_LOG),
        ("seed", seed, 0, 2**63),
    ):
        if not low <= number <= high:
            raise WrongUsage(f"{number} {what}", cure=f"give a number from {low} to {high}")
    if sum(quota.calls for quota in quotas) > calls:
        raise WrongUsage("the quotas are larger than the log", cure="give more calls")


def _write_files(
    draft: Path,
    plan: Plan,
    days_per_file: int,
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> list[_File]:
    """Write all files of the month to the draft, several at a time."""
    write = partial(_write_file, plan, extras_of(plan))
    firsts = plan.days[::days_per_file]
    hours = [hour for _, hour in firsts] + [len(plan.starts) - 1]
    files = []
    with ThreadPoolExecutor(max_workers=threads or min(os.cpu_count() or 1, 4)) as pool:
        futures = [
            pool.submit(write, draft / f"{first}.parquet", span)
            for (first, _), span in zip(firsts, pairwise(hours), strict=True)
        ]
        try:
            for future in as_completed(futures):
                files.append(future.result())
                if progress:
                    progress(files[-1].buckets.total())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return files


def _write_file(plan: Plan, extras: Extras, path: Path, hours: tuple[int, int]) -> _File:
    """Write the rows that are delivered in some hours to one file."""
    buckets: Counter[str] = Counter()
    delta = {"request_id": "DELTA_BYTE_ARRAY", "timestamp": "DELTA_BINARY_PACKED"}
    with pq.ParquetWriter(
        path,
        table_of(plan, NO_ROWS).schema,
        compression="zstd",
        compression_level=19 if plan.compact else 1,
        use_dictionary=["account_id", "interface", "status_code", "item"],
        column_encoding=delta if plan.compact else None,
        write_page_checksum=True,
        store_schema=False,  # or readers would see our dictionaries instead of plain text
    ) as writer:
        for first, end in _row_groups(plan, hours):
            rows = rows_between(plan, extras, first, end)
            writer.write_table(table_of(plan, rows), row_group_size=2 * ROW_GROUP)
            buckets += buckets_of(plan, rows)
    return _File(path.stat().st_size, buckets)


def _row_groups(plan: Plan, hours: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cut the calls of some hours into even ranges of at most a row group."""
    first, end = (int(plan.first_call[hour]) for hour in hours)
    parts = max(1, -(-(end - first) // ROW_GROUP))
    cuts = [first + (end - first) * part // parts for part in range(parts + 1)]
    return pairwise(cuts)
