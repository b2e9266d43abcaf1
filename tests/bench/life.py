"""What a long life costs: is month 120 as fast as month 2, and are `status` and `check` linear?

    python -m tests.bench.life [MONTHS] [ACCOUNTS] [FOLDER]

Months are settled into one book from a log that grows by a file a month and stays as a whole. A
quarter, a half, three quarters and the whole way through, `status`, `check` and a settlement that
is done already are measured. In the end the last month is settled again and again in copies of
the book as it was before, in turn with the second month of a book that has only one, so that
whatever else the machine does meets both. Of each the median seconds of wall and processor
and the peak of memory are printed.
"""

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from settlement import settle
from settlement.month import Month, months_from
from settlement.order import Order
from settlement.prices import PriceBook
from tests.processes import PROGRAM, ROOT, environment

FIRST = Month(2016, 1)
INTERFACES = ("CompareFace", "CreateFace", "SearchFaces")
TURNS = 5
"""How often the second and the last month are settled in turn."""
NOW = datetime(2026, 10, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds of wall and processor, and MB at its peak."""

    wall: float
    cpu: float
    memory: float

    def __str__(self) -> str:
        return f"{self.wall:6.2f} s  cpu {self.cpu:6.2f} s  {self.memory:5.0f} MB"


def write_log(logs: Path, month: Month, accounts: int) -> None:
    """Write a month's file: three calls for every account, in three interfaces."""
    logs.mkdir(exist_ok=True)
    many = accounts * len(INTERFACES)
    first = int(datetime(month.year, month.number, 3, tzinfo=UTC).timestamp()) * 1000
    names = np.char.zfill(np.arange(accounts).astype(str), 10)
    table = pa.table(
        {
            "request_id": np.char.add(f"{month}-", np.arange(many).astype(str)),
            "account_id": np.repeat(names, len(INTERFACES)),
            "interface": np.tile(np.array(INTERFACES), accounts),
            "timestamp": pa.array(first + np.arange(many), pa.timestamp("ms", "UTC")),
            "status_code": np.zeros(many, np.int32),
        }
    )
    pq.write_table(table, logs / f"{month}.parquet", compression="zstd")


def write_prices(path: Path) -> None:
    """The shipped price book, priced from the first call, so that every account has holds."""
    text = (ROOT / "data" / "price_book.toml").read_text("utf-8")
    text = text.replace('"2018-01"', '"2000-01"')
    path.write_text(text.replace("up_to = 10000, ", "up_to = 1, "), "utf-8")


def measured(*arguments: str, cwd: Path) -> Cost:
    """Run the program, and say what it took."""
    settings = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
    began = perf_counter()
    pid = os.fork()
    if pid == 0:
        os.chdir(cwd)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.execve(PROGRAM, [PROGRAM, *arguments], environment(**settings))
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"settle {' '.join(arguments)} failed")
    return Cost(perf_counter() - began, used.ru_utime + used.ru_stime, _megabytes(used))


def _megabytes(used: resource.struct_rusage) -> float:
    """The peak, which Linux tells in KiB and macOS in bytes."""
    return used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each."""
    return Cost(*(median(getattr(cost, name) for cost in costs) for name in Cost.__annotations__))


def live(folder: Path, months: Sequence[Month], accounts: int) -> Iterator[tuple[str, Cost]]:
    """Settle every month but the last; yield at quarters what looking takes."""
    prices = PriceBook.parse((folder / "prices.toml").read_bytes())
    quarters = {len(months) * part // 4 for part in (1, 2, 3)} | {len(months) - 1}
    for number, month in enumerate(months, 1):
        write_log(folder / "logs", month, accounts)
        if number == 2:
            copied(folder, folder.with_name("young"))
        if number < len(months):
            settle.run(Order(month, str(folder / "logs"), folder / "book", prices, NOW))
        if number in quarters:
            for words in (["status"], ["check"], ["run", str(month)], ["show", str(month)]):
                name = "again" if words[0] == "run" else words[0]
                yield f"{name} {number}", measured(*words, cwd=folder)


def copied(folder: Path, to: Path) -> Path:
    """Copy a log and a book by links: what is published never changes."""
    return Path(shutil.copytree(folder, to, copy_function=os.link))


def in_turn(folder: Path, months: Sequence[Month]) -> tuple[list[Cost], list[Cost]]:
    """Settle the second month of a young book and the last one of the old book, in turn."""
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    for _ in range(TURNS):
        for each, source, month in zip(
            costs, (folder.with_name("young"), folder), (months[1], months[-1]), strict=True
        ):
            place = copied(source, folder.with_name("place"))
            each.append(measured("run", str(month), cwd=place))
            shutil.rmtree(place)
    return costs


def main(months: str = "120", accounts: str = "10000", place: str | None = None) -> None:
    """Live in a folder that is removed again."""
    every = list(months_from(FIRST, _after(FIRST, int(months) - 1)))
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name) / "old"
        folder.mkdir()
        write_prices(folder / "prices.toml")
        for what, cost in live(folder, every, int(accounts)):
            print(f"{what:10} {cost}", flush=True)
        second, last = map(middle, in_turn(folder, every))
    print(f"month 2    {second}")
    print(
        f"month {months:<4} {last}   {last.wall / second.wall:.2f} × the time, "
        f"{last.cpu / second.cpu:.2f} × the processor, {last.memory / second.memory:.2f} × memory"
    )


def _after(month: Month, months: int) -> Month:
    for _ in range(months):
        month = month.next
    return month


if __name__ == "__main__":
    main(*sys.argv[1:])
