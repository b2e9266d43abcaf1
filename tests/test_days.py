"""Days without a row: found from footers where they tell, from timestamps where they do not."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import days
from settlement.month import Month
from settlement.scan import finding
from tests.drawn import rows
from tests.logs import MONTH
from tests.processes import Finished, Forks, holds_nothing
from tests.small import write_world

SHANGHAI = ZoneInfo("Asia/Shanghai")
HOUR = 3600
UTC_MICROSECONDS = pa.timestamp("us", "UTC")


def write(
    path: Path,
    stamps: Sequence[int | None],
    kind: pa.DataType = UTC_MICROSECONDS,
    **how: object,
) -> None:
    """Write a file of nothing but timestamps, given in hours since the month began."""
    path.parent.mkdir(exist_ok=True, parents=True)
    start = MONTH.period(SHANGHAI).start
    seconds = [None if hour is None else start + hour * HOUR for hour in stamps]
    column = pa.array(seconds, pa.timestamp("s", "UTC"))
    if kind.tz is None:
        column = column.cast(pa.timestamp("s"))
    pq.write_table(pa.table({"timestamp": column.cast(kind)}), path, **how)


def missing(folder: Path, naive: str | None = None, month: Month = MONTH) -> list[int]:
    log = finding.find(str(folder))
    naive_zone = ZoneInfo(naive) if naive else None
    found = days.missing(log, month, SHANGHAI, naive_zone, threads=2)
    assert all((day.year, day.month) == (month.year, month.number) for day in found)
    return [day.day for day in found]


# Each file's rows by day; a · is a file without statistics, a row group is one file.
DRAWN = """
name                          files                    missing
---
every_day_its_file            1 2 3 4                  ·
a_day_without_a_file          1 2 4                    3
what_is_before_and_after      5 6                      ·
one_file_spans_all            1-2-3-4                  ·
a_gap_inside_a_file           1-2-5                    3,4
a_gap_that_another_file_fills 1-2-5 3 4                ·
no_statistics                 ·1-2-4                   3
no_statistics_fill_a_gap      1 3 ·2                   ·
a_single_day                  7                        ·
"""


@pytest.mark.parametrize("row", rows(DRAWN)[1:], ids=lambda row: row[0])
def test_days_without_rows_are_found(tmp_path: Path, row: list[str]) -> None:
    *files, expected = row[1:]
    for number, file in enumerate(files):
        hours = [24 * (int(day) - 1) + 12 for day in file.removeprefix("·").split("-")]
        write(tmp_path / f"{number}.parquet", hours, write_statistics=not file.startswith("·"))
    assert missing(tmp_path) == ([] if expected == "·" else list(map(int, expected.split(","))))


def test_days_begin_in_the_billing_zone(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 23])  # both on the first, though of two days in UTC
    write(tmp_path / "b.parquet", [48])
    assert missing(tmp_path) == [2]


def test_rows_of_other_months_and_missing_timestamps_fill_no_day(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [-24, -1, 30, None, 24 * 4, 24 * 28 + 5])
    assert missing(tmp_path) == [3, 4]


def test_a_month_without_rows_lacks_none(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [-24 * 3, 24 * 40])
    write(tmp_path / "b.parquet", [None])
    assert missing(tmp_path) == []


def test_wall_clock_times_are_read_in_their_zone(tmp_path: Path) -> None:
    # 02:00, 26:00 and 74:00 UTC after the month's first instant, which is 16:00 UTC.
    write(tmp_path / "a.parquet", [2, 26, 74], pa.timestamp("ms"))
    assert missing(tmp_path, naive="UTC") == [3]
    assert missing(tmp_path, naive="Asia/Shanghai") == [2]


def test_a_day_that_clocks_skip_is_not_missing(tmp_path: Path) -> None:
    samoa, month = ZoneInfo("Pacific/Apia"), Month.parse("2011-12")
    assert date(2011, 12, 30) not in month.days(samoa)
    assert len(month.days(samoa)) == 30
    stamps = [datetime(2011, 12, day, 12, tzinfo=samoa).astimezone(UTC) for day in (29, 31)]
    pq.write_table(pa.table({"timestamp": pa.array(stamps)}), tmp_path / "a.parquet")
    assert days.missing(finding.find(str(tmp_path)), month, samoa) == ()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(-60, 24 * 28 + 60), min_size=1, max_size=6), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_the_answer_is_that_of_looking_at_every_row(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[list[int], bool]], unit: str
) -> None:
    folder = tmp_path_factory.mktemp("log")
    for number, (hours, statistics) in enumerate(files):
        how = {"write_statistics": statistics, "row_group_size": 3}
        write(folder / f"{number}.parquet", hours, pa.timestamp(unit, "UTC"), **how)
    had = {hour // 24 + 1 for hours, _ in files for hour in hours if 0 <= hour < 24 * 28}
    between = range(min(had), max(had)) if had else range(0)
    assert missing(folder) == [day for day in between if day not in had]


def test_many_days_are_not_all_named() -> None:
    many = tuple(date(2026, 2, day) for day in range(1, 15))
    assert days.said(many[:2]) == "2026-02-01, 2026-02-02"
    assert days.said(many).endswith("2026-02-10 and 4 more")


# ---------------------------------------------------------------- whole runs


def run(fork: Forks, world: Path, command: str, **settings: str) -> Finished:
    places = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
    return fork(*command.split(), cwd=world, **places, **settings)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Calls on the 15th and the 17th, none on the 16th."""
    world = write_world(tmp_path, "2026-01")
    calls = pq.read_table(world / "logs" / "2026-01.parquet")
    late = pa.array([datetime(2026, 1, 17, tzinfo=UTC)] * 3)
    calls = calls.set_column(3, "timestamp", late).set_column(
        0, "request_id", pa.array(list("xyz"))
    )
    pq.write_table(calls, world / "logs" / "more.parquet")
    return world


def test_an_empty_day_is_warned_about(world: Path, fork: Forks) -> None:
    for command in ("plan", "run"):
        done = run(fork, world, f"{command} 2026-01")
        assert done.code == 0
        assert done.err == (
            "settle: warning: 2026-01: no row on 2026-01-16, between days that have some "
            "(Asia/Shanghai)\n"
        )


@pytest.mark.parametrize("settings", [{}, {"SETTLE_REQUIRE_DAYS": "1"}])
def test_an_empty_day_is_refused_where_days_are_required(
    world: Path, fork: Forks, settings: dict[str, str]
) -> None:
    option = "" if settings else " --require-days"
    done = run(fork, world, f"run 2026-01{option}", **settings)
    assert (done.code, done.out) == (65, "")
    assert "no row on 2026-01-16, between days that have some" in done.err
    assert holds_nothing(world / "book")


def test_a_file_that_is_gone_is_named(world: Path, fork: Forks) -> None:
    assert run(fork, world, "run 2026-01").code == 0
    (world / "logs" / "more.parquet").unlink()
    expected = "settle: warning: 2026-01 r1 was made from files that are gone: more.parquet"
    for command, code in (("run", 4), ("plan", 0), ("run --revise", 0)):
        name, *options = command.split()
        done = run(fork, world, " ".join([name, "2026-01", *options]))
        assert done.code == code
        assert expected in done.err.splitlines()
