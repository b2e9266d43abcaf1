"""Killed at any point, a run leaves the book as before or complete, and the next run works.

A kill cannot be caught, so these tests use real ones: at random moments of the whole run, and
just before each system call by which a settlement is published (strace makes the kernel send
the signal there). After each, the book must be one of two, and prove itself.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from itertools import count
from pathlib import Path

import pytest

from settlement import settle as settling
from settlement.book import Book
from settlement.check import check
from settlement.month import Month
from settlement.prices import PriceBook
from settlement.settle import Order
from tests import small_logs
from tests.processes import PROGRAM, ROOT, environment, start, tables_of

PRICE_BOOK = ROOT / "data" / "price_book.toml"
JANUARY, FEBRUARY = Month(2026, 1), Month(2026, 2)
NOW = "2026-03-02T02:00:00Z"
RANDOM_KILLS = 12


@dataclass(frozen=True)
class World:
    """A small log of two months, the book with the first settled, and with both."""

    logs: Path
    before: Path
    complete: dict[str, bytes]

    def order(self, book: Path, month: Month = FEBRUARY) -> Order:
        prices = PriceBook.parse(PRICE_BOOK.read_bytes())
        now = datetime.fromisoformat(NOW).astimezone(UTC)
        return Order(month, str(self.logs), book, prices, now, max_rejects=Fraction(0))

    def arguments(self, book: Path) -> list[str]:
        paths = ["--logs", str(self.logs), "--book", str(book), "--prices", str(PRICE_BOOK)]
        return ["run", "2026-02", *paths, "--threads", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Settle both months undisturbed, to know what any other way must come to."""
    folder = tmp_path_factory.mktemp("kill")
    for month in ("2026-01", "2026-02"):
        table = small_logs.made(month, {("0042", "CompareFace"): 10_001, ("0043", "DetectFace"): 9})
        small_logs.write(table, folder / "logs" / f"{month}.parquet", compression="zstd")
    world = World(folder / "logs", folder / "before", {})
    settling.run(world.order(world.before, JANUARY))
    shutil.copytree(world.before, folder / "complete")
    settling.run(world.order(folder / "complete"))
    return World(world.logs, world.before, tables_of(folder / "complete"))


def assert_recovers(world: World, book: Path) -> bool:
    """The book is as before or complete; settling again completes it. Return which it was."""
    was_complete = FEBRUARY in Book.open(book).months
    expected = world.complete if was_complete else tables_of(world.before)
    assert tables_of(book) == expected
    findings = check(book)
    assert (findings.problems, findings.settlements) == ((), 1 + was_complete)
    done = settling.run(world.order(book))
    assert done.outcome == ("settled already" if was_complete else "published")
    assert tables_of(book) == world.complete
    assert check(book).problems == ()
    drafts = book / ".drafts"
    assert not drafts.exists() or not list(drafts.iterdir())
    return was_complete


def test_killed_at_any_moment(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.before, tmp_path / "whole")
    began = time.monotonic()
    with start(*world.arguments(tmp_path / "whole"), SETTLE_NOW=NOW) as undisturbed:
        undisturbed.communicate()
    whole = time.monotonic() - began
    chance = random.Random(20260302)
    killed = attempt = 0
    while killed < RANDOM_KILLS and attempt < 5 * RANDOM_KILLS:
        attempt += 1
        book = tmp_path / str(attempt)
        shutil.copytree(world.before, book)
        began = time.monotonic()
        with start(*world.arguments(book), SETTLE_NOW=NOW) as running:
            # One in each part of the duration; imports take the first half, so later ones
            # are drawn more densely.
            time.sleep(whole * ((killed + chance.random()) / RANDOM_KILLS) ** 0.6)
            is_over = running.poll() is not None
            running.kill()
            running.communicate()
        assert running.returncode in {0, -signal.SIGKILL}
        assert_recovers(world, book)
        if is_over:  # the machine has become faster: what is measured follows
            whole = min(whole, time.monotonic() - began) * 0.9
        killed += running.returncode == -signal.SIGKILL
    assert killed == RANDOM_KILLS


CALLS = ("write", "fsync", "mkdir", "rename", "unlink", "pwrite64", "ftruncate", "rmdir")
"""The system calls by which a run changes anything on disk."""


def why_not_traced() -> str:
    """Say why system calls cannot be traced here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = traced("true")
    return "" if done.returncode == 0 else f"strace does not work here: {done.stderr.strip()}"


def traced(*command: str, kill: str = "write:when=65535") -> "subprocess.CompletedProcess[str]":
    """Run a command that is killed as it enters a system call, such as the second fsync."""
    call, _, when = kill.partition(":")
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:{when}"]
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, *inject, *command],
        env=environment(SETTLE_NOW=NOW),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )


UNTRACED = why_not_traced()


@pytest.mark.skipif(bool(UNTRACED), reason=UNTRACED)
def test_killed_before_each_call_that_changes_the_disk(world: World, tmp_path: Path) -> None:
    def kill_at_each(call: str) -> list[bool]:
        """Kill before the first, the second, … until a run survives; was the book complete?"""
        complete: list[bool] = []
        for n in count(1):
            book = tmp_path / f"{call}-{n}"
            shutil.copytree(world.before, book)
            done = traced(PROGRAM, *world.arguments(book), kill=f"{call}:when={n}")
            assert done.returncode in {0, -signal.SIGKILL}, done.stderr
            complete.append(assert_recovers(world, book))
            if done.returncode == 0:
                break
        return complete

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(CALLS, pool.map(kill_at_each, CALLS), strict=True))
    for call, complete in found.items():
        assert complete == sorted(complete), f"before a later {call} the book was less complete"
        assert complete[-1]
    # One rename is the commit: before it nothing is published, after it all is. The one before
    # and the one after put the run's report in place.
    assert found["rename"] == [False, False, True, True]
    # The first tries whether the folder for temporary files can be written.
    assert found["unlink"] == [False, True, True]
    # Seven files, the draft, and the folders on the way, of which two after the rename.
    assert found["fsync"].count(False) >= 10
    assert found["fsync"].count(True) == 3 + 2  # two of the report
    assert found["mkdir"].count(False) == 3 + 1  # reports have a folder of their own


AT_ONCE = """
import os, sys
import settlement.check, settlement.settle
from settlement.cli import main
read, write = os.pipe()
children = []
for n in range(8):
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until every child is there
        flags = os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(f"{sys.argv[1]}/{n}.out", flags), 1)
        os.dup2(os.open(f"{sys.argv[1]}/{n}.err", flags), 2)
        sys.argv[1:] = sys.argv[2:]
        main()
    children.append(child)
os.close(write)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.parametrize("is_new", [False, True], ids=["old book", "new book"])
def test_of_eight_at_once_one_publishes(world: World, tmp_path: Path, is_new: bool) -> None:
    book = tmp_path / "book"
    if not is_new:
        shutil.copytree(world.before, book)
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, str(tmp_path), *world.arguments(book)],
        env=environment(SETTLE_NOW=NOW),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    published = 0
    for each, code in enumerate(map(int, done.stdout.split())):
        out, err = (tmp_path / f"{each}.{name}" for name in ("out", "err"))
        published += "published in" in out.read_text()
        assert code in {0, 75}, err.read_text()
        assert len(err.read_text().splitlines()) == (1 if code else 0)
        assert ("another run holds the book" in err.read_text()) == bool(code)
    assert published == 1
    findings = check(book)
    assert (findings.problems, findings.settlements) == ((), 1 if is_new else 2)
    assert not (book / ".lock").exists()
