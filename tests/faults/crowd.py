"""Many processes at once, killed at random, with readers among them.

Sixteen processes are told to settle the same month, or several months, over and over; some are
killed at a random moment, and another takes the place of each. It ends when every month is
settled and a run of each has been told so. Meanwhile readers look at the book without pause,
the way people do: by `settle show` and `settle export`, and by files, through DuckDB and pandas.
What is expected is what one process, undisturbed, comes to.
"""

import glob
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from settlement.month import Month
from tests.faults import running
from tests.faults.running import Ran
from tests.faults.scenarios import listed, settled
from tests.small import PRICE_BOOK, write_month

AT_ONCE = 16
PATIENCE = 300.0
"""Seconds after which a crowd is stuck."""
LOSERS = {0, 2, 75}
"""Exit codes: done, the month before is not settled yet, another run holds the book."""


@dataclass
class Tally:
    """What a crowd did, and what is wrong."""

    runs: int = 0
    killed: int = 0
    published: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def sum(cls, tallies: "list[Tally]") -> "Tally":
        """Add up what several did."""
        total = cls()
        for each in tallies:
            total.runs += each.runs
            total.killed += each.killed
            total.published += each.published
            total.codes += each.codes
            total.reads += each.reads
            total.wrong += each.wrong
        return total


@dataclass(frozen=True)
class Crowd:
    """A world of some months, and the book that one process makes of it.

    A book may begin with any month, so the first of several is settled beforehand.
    """

    world: Path
    months: tuple[str, ...]

    @classmethod
    def make(cls, world: Path, count: int) -> "Crowd":
        """Write the logs, and settle them one month after another."""
        months, month = [], Month(2026, 1)
        for _ in range(count):
            months.append(str(month))
            month = month.next
        world.mkdir(parents=True)
        (world / "prices.toml").write_text(PRICE_BOOK, encoding="utf-8")
        for name in months:
            write_month(world / "logs", name)
        crowd = cls(world, tuple(months))
        crowd = cls(world, tuple(months))
        for number, name in enumerate(months):
            if number == 1:
                shutil.copytree(world / "book", world / "begun")
            ran = running.run(crowd.command("run", name, book=world / "book"), world)
            assert ran.code == 0, ran.err
        return crowd

    def command(self, verb: str, *arguments: str, book: Path) -> list[str]:
        """Return a command on a book; ``run`` needs the logs, too."""
        reading = ["--logs", str(self.world / "logs"), "--prices", str(self.world / "prices.toml")]
        return [verb, *arguments, *(reading if verb == "run" else []), "--book", str(book)]

    def rush(self, sandbox: Path, chance: random.Random, kills: float, tries: int) -> Tally:
        """Let the crowd loose on a new book, and look at what it leaves.

        Args:
            sandbox: a folder that is not there yet.
            chance: where the chances come from.
            kills: the share of processes to be killed.
            tries: runs that take turns in each place, at the least.
        """
        sandbox.mkdir()
        book, tally = sandbox / "book", Tally()
        if len(self.months) > 1:
            shutil.copytree(self.world / "begun", book)
        stop = sandbox / "stop"
        readers = [_fork(sandbox, name, self, book, stop) for name in READERS]
        try:
            self._settle(sandbox, chance, kills, tries * AT_ONCE, tally)
        finally:
            stop.touch()
        for name, reader in zip(READERS, readers, strict=True):
            code = running.end(reader)
            said = (sandbox / f"{name}.said").read_text() if code == 0 else ""
            tally.reads[name] += int(said or 0)
            if code:
                tally.wrong.append(f"{name}: {(sandbox / f'{name}.wrong').read_text()}")
        self._look(sandbox, tally)
        shutil.rmtree(sandbox)
        return tally

    def _settle(
        self, sandbox: Path, chance: random.Random, kills: float, least: int, tally: Tally
    ) -> None:
        """Keep sixteen processes at it until every month has been said to be settled.

        Nor is it enough before one was killed; as ``usual`` is low at first, that is soon.
        """
        book, usual = sandbox / "book", 0.1
        deadline = time.monotonic() + PATIENCE
        alive: dict[int, tuple[str, float, float]] = {}
        told: set[str] = set()
        done = False
        while alive or not done:
            if time.monotonic() > deadline:
                tally.wrong.append(f"stuck: {len(alive)} processes, {sorted(told)} are settled")
                for child in alive:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                return
            is_killed = bool(tally.killed) or not kills
            done = len(told) == len(self.months) and tally.runs >= least and is_killed
            while len(alive) < AT_ONCE and not done:
                month = chance.choice([m for m in self.months if m not in told] or self.months)
                now = time.monotonic()
                end = now + chance.random() * usual if chance.random() < kills else deadline
                child = running.begin(self.command("run", month, book=book), sandbox)
                alive[child] = month, now, end
                tally.runs += 1
            for child, (month, began, end) in list(alive.items()):
                gone, status = os.waitpid(child, os.WNOHANG)
                if gone:
                    del alive[child]
                    ran = running.left(child, os.waitstatus_to_exitcode(status), sandbox)
                    if ran.code == 0:
                        told.add(month)
                    if ran.code != -signal.SIGKILL:
                        usual += (time.monotonic() - began - usual) / 8
                    _count(ran, tally)
                elif time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.002)

    def _look(self, sandbox: Path, tally: Tally) -> None:
        """See that each month is settled once, as it should be, and nothing is left over."""
        book, expected = sandbox / "book", settled(self.world / "book")
        found = settled(book)
        if found != expected:
            tally.wrong.append(f"not the book of one process: {sorted(set(found) ^ set(expected))}")
        checked = running.run(self.command("check", book=book), sandbox)
        if checked.code:
            tally.wrong.append(f"check: {checked.err or checked.out}")
        last = running.run(self.command("run", self.months[-1], book=book), sandbox)
        if last.code or "settled already" not in last.out:
            tally.wrong.append(f"the next run: {last}")
        if set(listed(book)) != set(listed(self.world / "book")):
            tally.wrong.append(f"left over: {set(listed(book)) ^ set(listed(self.world / 'book'))}")


def _count(ran: Ran, tally: Tally) -> None:
    tally.codes[ran.code] += 1
    tally.killed += ran.code == -signal.SIGKILL
    tally.published += "published in" in ran.out
    if ran.code not in {*LOSERS, -signal.SIGKILL}:
        tally.wrong.append(f"a run ends with {ran.code}: {ran.err}")
    elif ran.code == 2 and "is not settled yet" not in ran.err:
        tally.wrong.append(f"a run ends with 2: {ran.err}")
    elif ran.code > 0 and len(ran.err.splitlines()) != 1:
        tally.wrong.append(f"a run says {ran.err!r}")


# ---------------------------------------------------------------- readers


def _fork(sandbox: Path, name: str, crowd: Crowd, book: Path, stop: Path) -> int:
    """Fork a reader, which reads until it is stopped; it leaves with 1 at what must not be."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        own = sandbox / name
        own.mkdir()
        times = 0
        while not stop.exists():
            times += READERS[name](crowd, book, own)
        (sandbox / f"{name}.said").write_text(str(times))
        code = 0
    except BaseException as error:
        (sandbox / f"{name}.wrong").write_text(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(code)


def _months(book: Path) -> list[str]:
    return sorted(path.parent.name for path in _globbed(book, "*/r*"))


def _globbed(book: Path, pattern: str) -> list[Path]:
    """Glob as shells do: `Path.glob` looks into ``.drafts``, too, and stumbles when it goes."""
    return [book / name for name in glob.glob(pattern, root_dir=book)]  # noqa: PTH207


def _show(crowd: Crowd, book: Path, own: Path) -> int:
    for month in _months(book):
        ran = running.run(crowd.command("show", month, book=book), own)
        assert (ran.code, ran.err) == (0, ""), ran
        alone = crowd.world / "book"
        expected = running.run(crowd.command("show", month, book=alone), own)
        assert ran.out.replace(str(book), str(alone)) == expected.out, ran.out
    return len(_months(book))


def _export(crowd: Crowd, book: Path, own: Path) -> int:
    for month in _months(book)[-1:]:
        out = own / "out"
        for place, to in ((book, out), (crowd.world / "book", own / "expected")):
            ran = running.run(crowd.command("export", month, "--out", str(to), book=place), own)
            assert (ran.code, ran.err) == (0, ""), ran
        for table in ("invoices", "lines", "entries"):
            name = f"{table}.csv"
            assert (out / name).read_bytes() == (own / "expected" / name).read_bytes(), name
        shutil.rmtree(out)
        shutil.rmtree(own / "expected")
    return len(_months(book)[-1:])


def _pandas(crowd: Crowd, book: Path, _: Path) -> int:
    import pandas as pd

    for path in _globbed(book, "*/r*/*.parquet"):
        expected = crowd.world / "book" / path.relative_to(book)
        assert path.read_bytes() == expected.read_bytes(), path
        assert pd.read_parquet(path).equals(pd.read_parquet(expected)), path
    return len(_months(book))


def _duckdb(crowd: Crowd, book: Path, _: Path) -> int:
    import duckdb

    if not _months(book):
        return 0
    with duckdb.connect() as connection:
        connection.execute("set threads to 1")
        found = {}
        for table, column in (("lines", "amount"), ("invoices", "amount"), ("usage", "calls")):
            found[table] = connection.execute(
                f"select month, count(*), sum({column}) from '{book}/*/r*/{table}.parquet' "
                "group by month order by month"
            ).fetchall()
    seen = [month for month, _, _ in found["lines"]]
    known = sorted(seen)
    assert len(set(known)) == len(known) <= len(crowd.months), known
    sums = {str(total) for rows in (found["lines"], found["invoices"]) for _, _, total in rows}
    assert sums == {"1.50000000"}, found
    assert {(rows, calls) for _, rows, calls in found["usage"]} == {(2, 3)}, found
    return 1


READERS: dict[str, Callable[[Crowd, Path, Path], int]] = {
    "settle show": _show,
    "settle export": _export,
    "pandas": _pandas,
    "DuckDB": _duckdb,
}
