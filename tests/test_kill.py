"""Killed at any point, a run leaves the book as before or complete, and the next run works.

A kill cannot be caught, so these are real ones, of the installed program with all its threads, at
random moments of the whole run. After each, the book must be one of two, and prove itself. Kills
at every call that it makes, one after another, are in ``tests/faults``.
"""

import random
import shutil
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from settlement import settle as settling
from settlement.book import Book
from settlement.check import check
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from tests import small_logs
from tests.processes import ROOT, start, tables_of

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
