"""Years of the service under a clock that runs fast, disturbed at random; then the reckoning.

    python -m tests.soak --months 36 --seed 1

Real processes all the way: the service is killed and stopped at random moments and started
again, the machine is off over the first days of a month, the clock jumps, runs by hand hold the
book or race for it, logs come late or broken and are mended, and files turn up after their
month was settled. In the end every month must have been settled once and in order, with a
revision where a file came afterwards and nowhere else; the book must prove itself; and usage,
lines, invoices, what was debited and what is held must be those of a book that was settled
undisturbed.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from settlement import ledger, tables
from settlement.book import Book
from settlement.month import Month
from settlement.operations import attempts
from tests.clockwork import PATIENCE, Clock, Service
from tests.processes import settle, start

ZONE = ZoneInfo("America/New_York")  # where the tick of 01:30 is an hour that exists twice
FIRST = Month(2023, 1)
PRICES = """
currency = "USD"
timezone = "America/New_York"
[[version]]
effective_from = "2020-01"
freeze = { factor = "1.20" }
[[version.item]]
code = "detection"
name = "人脸检测"
interfaces = ["Detect"]
free_calls = 3
tiers = [{ up_to = 4, unit_price = "0" }, { up_to = 20, unit_price = "0.0333" }, { unit_price = "0.02" }]
[[version.item]]
code = "comparison"
name = "人脸比对"
interfaces = ["Compare"]
tiers = [{ unit_price = "0.125" }]
[[version]]
effective_from = "2024-03"
freeze = { factor = "1.10", base = "list" }
[[version.item]]
code = "detection"
name = "人脸检测"
interfaces = ["Detect"]
mode = "graduated"
tiers = [{ up_to = 10, unit_price = "0.05" }, { unit_price = "0.0111" }]
[[version.item]]
code = "comparison"
name = "人脸比对"
interfaces = ["Compare"]
tiers = [{ unit_price = "0.13" }]
"""  # noqa: E501
WEEKS = (1, 8, 15, 22)
ROWS = 60
OPTIONS = (
    *("--at", "01:30", "--first-month", str(FIRST), "--auto-revise-below", "1000000"),
    *("--retry-first", "0.2s", "--retry-factor", "1.5", "--retry-longest", "1s"),
    *("--stop-within", "5s", "--threads", "1"),
)


class Soak:
    """A service, its log and its clock, and what has been done to it so far."""

    def __init__(self, folder: Path, seed: int, kills: float) -> None:
        self.chance, self.kills = random.Random(seed), kills
        self.logs, self.book = folder / "logs", folder / "book"
        self.prices = folder / "prices.toml"
        self.prices.write_text(PRICES, "utf-8")
        self.logs.mkdir()
        self.done: Counter[str] = Counter()
        self.revised: list[Month] = []
        self.month = FIRST
        self.paths = {
            "SETTLE_LOGS": str(self.logs),
            "SETTLE_BOOK": str(self.book),
            "SETTLE_PRICES": str(self.prices),
        }
        self.clock = Clock(folder / "clock", self.at(FIRST, 1, 12).isoformat())
        self.started: Service | None = None

    # ------------------------------------------------------------ the service

    @property
    def service(self) -> Service:
        assert self.started
        return self.started

    def start(self) -> None:
        """Start the service; perhaps it dies while it starts, and is started again."""
        self.started = Service(self.clock, *OPTIONS, **self.paths)
        self.done["starts"] += 1
        if self.chance.random() < self.kills / 2:
            time.sleep(self.chance.uniform(0.2, 2.5))
            self.end()
            self.start()

    def end(self, how: signal.Signals | None = None) -> None:
        """End the service with a signal, by chance which; it must leave as it should."""
        how = how or self.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        code = self.service.stop(how)
        allowed = {-how} if how == signal.SIGKILL else {0, 128 + how, -how}
        assert code in allowed, (code, self.service.said[-20:])
        assert not [line for line in self.service.said if "a bug" in line], self.service.said
        self.service.close()
        self.done[how.name] += 1

    def idle(self) -> None:
        """Wait until the service has done what there is to do by its clock."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            said = [line for line in self.service.said if "next tick at " in line]
            if said and datetime.fromisoformat(said[-1].split()[-1]) > self.clock.now:
                return
            self.service.until("next tick at ")
        raise AssertionError(self.service.said[-20:])

    def to(self, instant: datetime) -> None:
        """Let time pass up to an instant; perhaps the service dies soon after."""
        self.clock.set(instant)
        if self.chance.random() < self.kills:
            time.sleep(self.chance.uniform(0, 0.5))
            self.end()
            self.start()
        self.idle()

    # ------------------------------------------------------------ the months

    @staticmethod
    def at(month: Month, day: int, hour: float = 2.0) -> datetime:
        """An instant of a month, by its days (which may run on into the next) and hours."""
        local = datetime(month.year, month.number, 1, tzinfo=ZONE) + timedelta(days=day - 1)
        return (local + timedelta(hours=hour)).astimezone(UTC)

    def write(self, month: Month, *weeks: int) -> None:
        """Let files of a month arrive, those of some weeks or of all."""
        for week in weeks or WEEKS:
            self.put(calls(month, week), f"{month}-{week:02d}.parquet")

    def put(self, table: pa.Table, name: str) -> None:
        """Let a file arrive, at once and whole."""
        pq.write_table(table, self.logs / f".{name}")
        (self.logs / f".{name}").replace(self.logs / name)

    def settled(self, month: Month, revision: int = 1) -> bool:
        return any(each.revision >= revision for each in Book.open(self.book).revisions(month))

    def until_settled(self, month: Month, revision: int = 1, day: int = 1) -> int:
        """Let days pass until a month is settled; return the day of the month after."""
        for passed in range(day, day + 6):
            if passed > day:
                self.to(self.at(month.next, passed))
            self.idle()
            if self.settled(month, revision):
                return passed
        raise AssertionError(f"{month} r{revision} is missing: {self.service.said[-20:]}")

    def live(self, happening: "Callable[[Soak, Month], None]") -> None:
        """Live through a month, and whatever happens to it until it is settled."""
        month = self.month
        self.idle()
        happening(self, month)
        while self.month <= month:
            self.month = self.month.next

    def pass_month(self, month: Month, *weeks: int) -> None:
        """Let a month pass by, with the files of these weeks arriving when they are complete."""
        for week in weeks:
            day = {1: 9, 8: 16, 15: 23}.get(week)
            if day:
                self.to(self.at(month, day, 12))
            else:
                self.to(self.at(month.next, 1, 0.25))
            self.write(month, week)


def calls(month: Month, week: int) -> pa.Table:
    """The calls of a week, always the same, some delivered twice; a few of the week before."""
    draw = random.Random(f"{month} {week}")
    start = Soak.at(month, week, 0)
    rows = [
        {
            "request_id": f"{month}-{week}-{number}",
            "account_id": f"{draw.randrange(8):04d}",
            "interface": draw.choice(["Detect", "Detect", "Compare"]),
            "timestamp": start + timedelta(minutes=draw.randrange(7 * 24 * 60 - 120)),
        }
        for number in range(ROWS)
    ]
    rows += draw.sample(rows, 3)
    if week > 1:
        rows += calls(month, week - 7).slice(0, 2).to_pylist()
    kinds = {"request_id": pa.string(), "account_id": pa.string(), "interface": pa.string()}
    return pa.Table.from_pylist(rows, pa.schema(kinds | {"timestamp": pa.timestamp("us", "UTC")}))


# ---------------------------------------------------------------- what happens


def quiet(soak: Soak, month: Month) -> None:
    """Nothing out of the ordinary."""
    soak.pass_month(month, *WEEKS)
    soak.to(soak.at(month.next, 1))
    soak.until_settled(month)


def machine_off(soak: Soak, month: Month) -> None:
    """The machine is off over the first days, and another one is started on day 4."""
    soak.pass_month(month, 1, 8, 15)
    soak.end()
    soak.write(month, 22)
    soak.clock.set(soak.at(month.next, 4, 9))
    soak.start()
    soak.until_settled(month, day=4)
    soak.done["machine off on day 1-3"] += 1


def late_log(soak: Soak, month: Month) -> None:
    """The whole log comes, as one file, after the first tick, which tries until it is there."""
    soak.to(soak.at(month, 20, 12))
    soak.to(soak.at(month.next, 1))
    soak.service.until("trying again in ")
    soak.put(pa.concat_tables([calls(month, week) for week in WEEKS]), f"{month}.parquet")
    wait_for(lambda: soak.settled(month))
    soak.idle()
    soak.done["late logs"] += 1


def late_file(soak: Soak, month: Month) -> None:
    """A file comes when its month is settled, which is revised then."""
    soak.pass_month(month, 1, 15, 22)
    soak.to(soak.at(month.next, 1))
    day = soak.until_settled(month)
    soak.write(month, 8)
    soak.to(soak.at(month.next, day + 1))
    soak.until_settled(month, revision=2, day=day + 1)
    soak.revised.append(month)
    soak.done["late files"] += 1


def very_late_file(soak: Soak, month: Month) -> None:
    """A file comes when the next month is settled too."""
    late_to_be = 15
    soak.pass_month(month, 1, 8, 22)
    soak.to(soak.at(month.next, 1))
    soak.until_settled(month)
    quiet(soak, month.next)
    soak.write(month, late_to_be)
    soak.to(soak.at(month.next.next, 7))
    soak.until_settled(month, revision=2, day=38)
    soak.revised.append(month)
    soak.month = month.next.next
    soak.done["late files"] += 1


def broken_file(soak: Soak, month: Month) -> None:
    """The last file is cut off, which refuses the month until it is mended two days later."""
    soak.pass_month(month, 1, 8, 15)
    path = soak.logs / f"{month}-22.parquet"
    pq.write_table(calls(month, 22), soak.logs / ".whole")
    path.write_bytes((soak.logs / ".whole").read_bytes()[:-60])
    (soak.logs / ".whole").unlink()
    soak.to(soak.at(month.next, 1))
    soak.to(soak.at(month.next, 2))
    assert not soak.settled(month)
    soak.write(month, 22)
    soak.to(soak.at(month.next, 3))
    soak.until_settled(month, day=3)
    soak.done["broken files"] += 1


def held_by_hand(soak: Soak, month: Month) -> None:
    """A run by hand is stopped while it holds the book; the service waits until it is over."""
    soak.pass_month(month, *WEEKS)
    instant = soak.at(month.next, 1)
    with start("run", month, **soak.paths, SETTLE_NOW=instant.isoformat()) as manual:
        lock = soak.book / ".lock"
        while manual.poll() is None and not (lock.exists() and lock.stat().st_size):
            time.sleep(0.001)
        manual.send_signal(signal.SIGSTOP)
        if manual.poll() is None and lock.exists():
            soak.clock.set(instant)
            soak.service.until("another run holds the book")
            soak.done["conflicts"] += 1
        manual.send_signal(signal.SIGCONT)
        _, said = manual.communicate(timeout=PATIENCE)
        assert manual.returncode == 0, said
    soak.done["runs by hand"] += 1
    soak.to(instant)
    soak.until_settled(month)


def race_by_hand(soak: Soak, month: Month) -> None:
    """Runs by hand and the tick want the same month at the same time."""
    soak.pass_month(month, *WEEKS)
    instant = soak.at(month.next, 1)
    runs = [start("run", month, **soak.paths, SETTLE_NOW=instant.isoformat()) for _ in range(2)]
    time.sleep(soak.chance.uniform(0, 1.5))
    soak.to(instant)
    for manual in runs:
        _, said = manual.communicate(timeout=PATIENCE)
        assert manual.returncode in {0, 75}, said
        soak.done["conflicts"] += manual.returncode == 75
        soak.done["runs by hand"] += 1
    soak.until_settled(month)


def clock_forward(soak: Soak, month: Month) -> None:
    """The clock jumps over three months' ends at once, as after a long sleep."""
    soak.to(soak.at(month, 20, 12))
    last = month.next.next
    for each in (month, month.next, last):
        soak.write(each)
    soak.to(soak.at(last.next, 5))
    soak.until_settled(last, day=5)
    soak.month = last.next
    soak.done["clock jumps"] += 1


def clock_back(soak: Soak, month: Month) -> None:
    """The clock is put back by weeks when the month is settled, and forward again."""
    quiet(soak, month)
    soak.to(soak.at(month, 3, 12))
    time.sleep(0.1)
    soak.to(soak.at(month, 9, 12))
    soak.to(soak.at(month.next, 3))
    soak.done["clock jumps"] += 2


HAPPENINGS: tuple[tuple[Callable[[Soak, Month], None], int], ...] = (
    (late_log, 1),
    (held_by_hand, 1),
    (broken_file, 1),
    (late_file, 1),
    (machine_off, 1),
    (clock_forward, 3),
    (race_by_hand, 1),
    (very_late_file, 2),
    (clock_back, 1),
    (quiet, 1),
)
"""What may happen, and how many months it takes."""


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---------------------------------------------------------------- the whole


def soak(folder: Path, months: int, seed: int, kills: float) -> dict[str, int]:
    """Live through months, then judge; return what was done and found, counted.

    Args:
        folder: an empty folder.
        months: how many months to live through.
        seed: of everything that is drawn.
        kills: how probable a kill or a stop is after each step of the clock.
    """
    began = time.monotonic()
    it = Soak(folder, seed, kills)
    last = FIRST
    for _ in range(months - 1):
        last = last.next
    it.start()
    try:
        deck: list[tuple[Callable[[Soak, Month], None], int]] = []
        while it.month <= last:
            deck = deck or [*HAPPENINGS[:4], *it.chance.sample(HAPPENINGS[4:], 6)]
            left = (last.year - it.month.year) * 12 + last.number - it.month.number + 1
            happening, length = deck.pop(0)
            if length <= left:
                it.live(happening)
        it.idle()
        it.end(signal.SIGTERM)
    finally:
        if it.started:
            it.started.close()
    judge(it, last)
    it.done |= {"seconds": round(time.monotonic() - began)}
    return {"months": months} | dict(sorted(it.done.items()))


def judge(it: Soak, last: Month) -> None:
    """Every month once, in order; the book proves itself, and says what an undisturbed one says."""
    book = Book.open(it.book)
    months = [FIRST]
    while months[-1] < last:
        months.append(months[-1].next)
    assert [each.month for each in book.settlements if each.revision == 1] == months
    again = sorted(each.month for each in book.settlements if each.revision > 1)
    assert again == sorted(it.revised)
    assert all(each.revision <= 2 for each in book.settlements)
    checked = settle("check", "--book", it.book, "--json")
    assert (checked.code, checked.json["problems"]) == (0, []), checked.out
    assert not list(it.book.glob(".drafts/*"))
    assert not (it.book / ".lock").exists()

    undisturbed = it.book.with_name("undisturbed")
    paths: dict[str, Any] = it.paths | {"SETTLE_BOOK": str(undisturbed)}
    now = it.clock.now.isoformat()
    run = settle("run", f"{FIRST}..{last}", "--json", **{"SETTLE_NOW": now, **paths})
    assert run.code == 0, run.err
    other = Book.open(undisturbed)
    assert sorted(book.months) == sorted(other.months) == months
    for month in months:
        for table in (tables.USAGE, tables.LINES, tables.INVOICES):
            same(book.months[month].table(table), other.months[month].table(table))
        same(*(debits(each, month) for each in (book, other)))
    same(book.open_holds(), other.open_holds())
    for report in attempts.reports(it.book):
        assert report.outcome not in {attempts.RUNNING, attempts.FAILED}, report
        it.done[f"attempts {report.outcome}"] += 1
    it.done["settlements"] = len(book.settlements)
    it.done["revisions"] = len(again)


def debits(book: Book, month: Month) -> pd.DataFrame:
    """What was debited for a month, over all its revisions."""
    posted = [each.table(tables.ENTRIES) for each in book.revisions(month)]
    return ledger.net_debits(posted)


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Compare two tables whose rows may be in another order, revisions aside."""
    pd.testing.assert_frame_equal(in_order(left), in_order(right))
    assert len(left)


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    kept = frame.drop(columns="revision", errors="ignore")
    return kept.sort_values(list(kept.columns)).reset_index(drop=True)


def main() -> None:
    """Soak in a folder of its own, and say what was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--months", type=int, default=36)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=float, default=0.3, help="after each step of the clock")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    done = soak(folder, given.months, given.seed, given.kills)
    for name, count in done.items():
        sys.stdout.write(f"{count:7,d} {name}\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
