"""The plan of a count: which row groups are read, and which of them as one."""

from pathlib import Path

import pytest

from settlement.counting import plan as module
from settlement.counting.plan import Plan
from settlement.scan.cache import Digests
from settlement.scan.finding import find
from settlement.scan.stamps import Clock
from settlement.usage import count
from tests.logs import PERIOD, VERSION, call, write

AFTER = (PERIOD.end - PERIOD.start) * 10**6
"""The next month's first instant, as `call` takes it."""


def tasks(folder: Path) -> list[tuple[str, int, int, int]]:
    """Row groups, rows, and positions and rows of the file that they begin with."""
    plan = Plan.of(find(str(folder)), Clock(PERIOD), Digests())
    return [
        (str(task.group), task.group.rows, task.position, task.group.first_row)
        for task in plan.tasks
    ]


def written(folder: Path) -> None:
    """Two files, in row groups of two rows; the third of the first is of the next month."""
    rows = [call(n, timestamp=AFTER + n if n in {4, 5} else n) for n in range(11)]
    write(folder / "a.parquet", rows, row_group_size=2)
    write(folder / "b.parquet", [call(n) for n in range(20, 25)], row_group_size=2)


def test_small_row_groups_in_a_row_are_one_task(tmp_path: Path) -> None:
    written(tmp_path)
    assert tasks(tmp_path) == [
        ("0 … 1", 4, 0, 0),
        ("3 … 5", 5, 4, 6),  # none of the month lies between
        ("0 … 2", 5, 9, 0),  # none is of two files
    ]


@pytest.mark.parametrize(
    ("bound", "value", "expected"),
    [
        ("_MOST_GROUPS", 2, ["0 … 1", "3 … 4", "5", "0 … 1", "2"]),
        ("_MOST_ROWS", 3, ["0", "1", "3", "4 … 5", "0", "1 … 2"]),
    ],
)
def test_a_task_has_only_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, expected: list[str]
) -> None:
    written(tmp_path)
    whole = count(find(str(tmp_path)), PERIOD, VERSION)
    monkeypatch.setattr(module, bound, value)
    assert [group for group, *_ in tasks(tmp_path)] == expected
    parts = count(find(str(tmp_path)), PERIOD, VERSION)
    assert parts.usage.equals(whole.usage)
    assert parts.rows == whole.rows
    assert whole.rows["billed"] == 14


def test_row_groups_that_are_read_by_pages_stay_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [call(n) for n in range(20_010)], row_group_size=10_000)
    assert [group for group, *_ in tasks(tmp_path)] == ["0", "1", "2"]
