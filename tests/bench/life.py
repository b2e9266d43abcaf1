"""What a long life costs: is month 120 as fast as month 2, and are `status` and `check` linear?

    python -m tests.bench.life [MONTHS] [ACCOUNTS] [FOLDER]

Every month is settled by a process of its own into one book, from a log that grows by a file a
month and stays as a whole, as finance keeps it. Then `status`, `check` and a settlement that is
done already are measured at a quarter, half, three quarters and the whole of the book. Of a few
months the seconds of wall and processor and the peak of memory are printed, and what they are
of month 2.
"""

import os
import resource
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

from settlement.month import Month, months_from
from tests.processes import PROGRAM, ROOT, environment

FIRST = Month(2016, 1)
INTERFACES = ("CompareFace", "CreateFace", "SearchFaces")
AROUND = 5
"""Of how many months around one the median is taken: a single process tells little."""


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
    """Settle month after month; yield what each took, and at quarters what looking takes."""
    quarters = {len(months) * part // 4 for part in (1, 2, 3, 4)}
    for number, month in enumerate(months, 1):
        write_log(folder / "logs", month, accounts)
        yield f"run {number}", measured("run", str(month), cwd=folder)
        if number in quarters:
            for words in (["status"], ["check"], ["run", str(month)], ["show", str(month)]):
                name = "again" if words[0] == "run" else words[0]
                yield f"{name} {number}", measured(*words, cwd=folder)


def report(costs: dict[str, Cost], months: int) -> Iterator[str]:
    """Say what months cost, beside month 2, and what looking costs at the quarters."""
    runs = [costs[f"run {number}"] for number in range(1, months + 1)]
    second = middle(runs[1 : 1 + AROUND])
    yield f"month 2    {second}"
    for number in (months // 4, months // 2, months * 3 // 4, months):
        cost = middle(runs[max(number - AROUND, 1) : number])
        yield (
            f"month {number:<4} {cost}   {cost.wall / second.wall:.2f} × the time, "
            f"{cost.cpu / second.cpu:.2f} × the processor, {cost.memory / second.memory:.2f} × "
            "the memory"
        )
    for name, cost in costs.items():
        if not name.startswith("run"):
            yield f"{name:10} {cost}"


def main(months: str = "120", accounts: str = "10000", place: str | None = None) -> None:
    """Live in a folder that is removed again."""
    every = list(months_from(FIRST, _after(FIRST, int(months) - 1)))
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        write_prices(folder / "prices.toml")
        costs = dict(live(folder, every, int(accounts)))
    print("\n".join(report(costs, len(every))))


def _after(month: Month, months: int) -> Month:
    for _ in range(months):
        month = month.next
    return month


if __name__ == "__main__":
    main(*sys.argv[1:])
