"""A run of months: in order, up to the first refusal, and again from where it stopped."""

from pathlib import Path

import pytest

from settlement.book import Book
from settlement.month import Month
from tests.drawn import rows
from tests.processes import Finished, Forks
from tests.small import write_month, write_world

NOW = "2026-06-02T00:00:00Z"


class World:
    """A log of some months, and the commands in its folder."""

    def __init__(self, folder: Path, fork: Forks, *months: str) -> None:
        self.folder, self.fork = write_world(folder, *months), fork

    def __call__(self, arguments: str) -> Finished:
        paths = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
        return self.fork(*arguments.split(), cwd=self.folder, SETTLE_NOW=NOW, **paths)

    @property
    def settled(self) -> str:
        """The settlements in order of publication."""
        return " ".join(f"{s.month}" for s in Book.open(self.folder / "book").settlements)


SPRING = ("2026-01", "2026-02", "2026-03", "2026-04")


def test_a_run_of_months_is_settled_in_order_a_line_each(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, *SPRING)
    done = world("run 2026-01..2026-04")
    assert (done.code, done.err) == (0, "")
    assert [line.partition(",")[0] for line in done.out.splitlines()] == [
        f"{month} r1: published" for month in SPRING
    ]
    assert world.settled == " ".join(SPRING)
    again = world("run 2026-01..2026-04")
    assert (again.code, again.err) == (0, "")
    assert [line.partition(",")[0] for line in again.out.splitlines()] == [
        f"{month} r1: settled already" for month in SPRING
    ]


def test_it_stops_at_the_first_refusal_and_resumes(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, "2026-01", "2026-02", "2026-04")
    done = world("run 2026-01..2026-04 --json")
    assert done.code == 66
    assert done.err.startswith("settle: logs: no call in 2026-03 among 9 rows")
    assert [month["month"] for month in done.json["months"]] == ["2026-01", "2026-02"]
    assert world.settled == "2026-01 2026-02"

    write_month(world.folder / "logs", "2026-03")
    done = world("run 2026-01..2026-04 --json")
    assert (done.code, done.err) == (0, "")
    assert [(month["month"], month["outcome"]) for month in done.json["months"]] == [
        ("2026-01", "settled already"),
        ("2026-02", "settled already"),
        ("2026-03", "published"),
        ("2026-04", "published"),
    ]


def test_it_stops_at_a_month_that_would_come_out_otherwise(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, *SPRING)
    assert world("run 2026-01..2026-02").code == 0
    (world.folder / "logs" / "2026-02.parquet").unlink()
    done = world("run 2026-01..2026-04 --allow-empty")
    assert done.code == 4
    assert world.settled == "2026-01 2026-02"


def test_months_older_than_the_newest_are_debited_only(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, *SPRING)
    assert world("run 2026-04").code == 0
    held = Book.open(world.folder / "book").open_holds()
    done = world("run 2026-01..2026-04 --json")
    assert (done.code, done.err) == (0, "")
    assert world.settled == "2026-04 2026-01 2026-02 2026-03"
    assert [tuple(month["totals"][name] for name in MOVES) for month in done.json["months"]] == [
        ("0.00", "1.50", "0.00"),
        ("0.00", "1.50", "0.00"),
        ("0.00", "1.50", "0.00"),
        ("0.00", "1.50", "1.80"),  # settled before the others
    ]
    assert Book.open(world.folder / "book").open_holds().equals(held)
    assert world("check").code == 0


MOVES = ("unfrozen", "debited", "frozen")


def test_a_gap_before_the_run_is_refused_or_allowed(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, *SPRING)
    assert world("run 2026-01").code == 0
    refused = world("run 2026-03..2026-04")
    assert refused.code == 2
    assert "2026-02 is not settled yet" in refused.err
    assert world.settled == "2026-01"
    assert world("run 2026-03..2026-04 --allow-gap").code == 0
    assert world("run 2026-01..2026-04").code == 0
    assert world.settled == "2026-01 2026-03 2026-04 2026-02"
    assert world("check").code == 0


def test_a_run_of_months_can_be_revised(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, *SPRING)
    assert world("run 2026-01..2026-03").code == 0
    dearer = (world.folder / "prices.toml").read_text(encoding="utf-8").replace('"0.5"', '"0.6"')
    (world.folder / "prices.toml").write_text(dearer, encoding="utf-8")
    done = world("run 2026-01..2026-03 --revise --reason dearer --json")
    assert [(month["month"], month["revision"]) for month in done.json["months"]] == [
        ("2026-01", 2),
        ("2026-02", 2),
        ("2026-03", 2),
    ]
    assert world("check").code == 0


RANGES = """
given              says
---
2026-03..2026-01   ends·before·it·begins
2026-01..          not·a·month
..2026-01          not·a·month
2026-01..2026-13   no·such·month
2026-01...2026-02  not·a·month
2026-01-2026-02    not·a·month
"""


@pytest.mark.parametrize(("given", "says"), rows(RANGES)[1:])
def test_what_is_no_run_of_months_is_refused(
    tmp_path: Path, fork: Forks, given: str, says: str
) -> None:
    world = World(tmp_path, fork, "2026-01")
    done = world(f"run {given}")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert says.replace("·", " ") in done.err


def test_one_month_as_a_run_is_a_run(tmp_path: Path, fork: Forks) -> None:
    world = World(tmp_path, fork, "2026-01")
    assert [month["month"] for month in world("run 2026-01..2026-01 --json").json["months"]] == [
        str(Month(2026, 1))
    ]
