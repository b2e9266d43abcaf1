"""Late calls: seen without asking, told in one line, revised unasked only below an amount."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement import inputs, late
from settlement.book import Book
from settlement.scan import finding
from tests.processes import Finished, Forks
from tests.small import write_month, write_world
from tests.test_jobs import published, run_once, said


def file(name: str, contents: int, modified: int = 0) -> inputs.Input:
    return {
        "file": name,
        "size": contents,
        "modified_ns": modified,
        "rows": contents,
        "footer_sha256": str(contents),
    }


def test_files_of_equal_contents_move_one_by_one() -> None:
    before = [file("a", 1), file("b", 1), file("c", 2)]
    after = [file("c", 2, modified=9), file("x", 1), file("y", 1), file("z", 1)]
    moves = inputs.compare(before, after)
    assert len(moves.moved) == 2
    assert [each["file"] for each in moves.came] == ["z"]
    assert not moves.went
    assert not moves.changed


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """January and February are settled; the log has March too."""
    world = write_world(tmp_path, "2026-01", "2026-02", "2026-03")
    assert run_once(world, SETTLE_FIRST_MONTH="2026-01").returncode == 0
    return world


def add_late(world: Path, name: str = "late", month: int = 1, calls: int = 1) -> None:
    """Add a file of late calls by beta, 0.50 each, on the 20th of a month."""
    table = pa.table(
        {
            "request_id": [f"{name} {n}" for n in range(calls)],
            "account_id": ["beta"] * calls,
            "interface": ["Detect"] * calls,
            "timestamp": pa.array([datetime(2026, month, 20, tzinfo=UTC)] * calls),
        }
    )
    pq.write_table(table, world / "logs" / f"{name}.parquet")


def news(world: Path) -> list[str]:
    book, log = Book.open(world / "book"), finding.find(str(world / "logs"))
    return [str(each) for each in late.look(book, log)]


def test_what_was_read_and_what_is_of_other_months_is_no_news(world: Path) -> None:
    assert news(world) == []
    add_late(world, month=3)
    assert news(world) == []


def test_new_files_are_counted_by_month(world: Path) -> None:
    add_late(world, "a", 1, calls=2)
    add_late(world, "b", 1, calls=3)
    add_late(world, "c", 2)
    assert news(world) == [
        "2026-01: 2 new files, about 5 rows, may need a revision",
        "2026-02: 1 new file, about 1 row, may need a revision",
    ]


def test_a_changed_file_is_told_from_one_that_was_only_touched(world: Path) -> None:
    path = world / "logs" / "2026-01.parquet"
    os.utime(path)
    assert news(world) == []
    pq.write_table(pa.concat_tables([pq.read_table(path)] * 2), path)
    assert news(world) == ["2026-01: 1 changed file, about 6 rows, may need a revision"]


def test_a_file_that_is_gone_is_named_and_one_that_moved_is_not(world: Path) -> None:
    path = world / "logs" / "2026-01.parquet"
    path.rename(world / "logs" / "moved.parquet")
    assert news(world) == []
    (world / "logs" / "moved.parquet").unlink()
    assert news(world) == ["2026-01: gone since it was read: 2026-01.parquet"]


def test_a_file_of_two_months_is_news_of_both_by_its_share(world: Path) -> None:
    stamps = [datetime(2026, month, 8, tzinfo=UTC) for month in (1, 2)] * 50
    table = pq.read_table(world / "logs" / "2026-01.parquet").slice(0, 1)
    table = pa.concat_tables([table] * 100).set_column(3, "timestamp", pa.array(stamps))
    pq.write_table(table, world / "logs" / "both.parquet")
    told = news(world)
    assert [line.split()[:4] for line in told] == [
        ["2026-01:", "1", "new", "file,"],
        ["2026-02:", "1", "new", "file,"],
    ]
    assert sum(int(line.split("about ")[1].split()[0]) for line in told) in range(100, 103)


# ---------------------------------------------------------------- the same outcome


def deliver_again(world: Path) -> str:
    """Add a file with the rows of another; return how it is told."""
    table = pq.read_table(world / "logs" / "2026-01.parquet")
    pq.write_table(table.slice(0, 2), world / "logs" / "again.parquet")
    return "2026-01: 1 new file, about 2 rows, may need a revision"


def run(fork: Forks, world: Path, *options: str) -> Finished:
    paths = ["--logs", "logs", "--book", "book", "--prices", "prices.toml"]
    return fork("run", "2026-01", *options, *paths, cwd=world, SETTLE_NOW="2026-03-20T00:00:00Z")


@pytest.mark.parametrize("options", [(), ("--revise", "--reason", "late calls")])
def test_files_that_change_nothing_are_no_news_once_they_are_counted(
    world: Path, fork: Forks, options: tuple[str, ...]
) -> None:
    told = deliver_again(world)
    assert news(world) == [told]
    assert "2026-01 r1: same outcome, nothing to do" in run(fork, world, *options).out
    assert news(world) == []
    add_late(world)
    assert news(world) == ["2026-01: 1 new file, about 1 row, may need a revision"]
    (world / "logs" / "late.parquet").unlink()
    (world / "logs" / "again.parquet").unlink()
    assert news(world) == []


def test_files_that_are_gone_are_no_news_once_they_are_counted_without(
    world: Path, fork: Forks
) -> None:
    """As where many small files were made one."""
    path = world / "logs" / "2026-01.parquet"
    table = pq.read_table(path)
    for first, name in enumerate(("a", "b", "c")):
        pq.write_table(table.slice(first, 1), world / "logs" / f"{name}.parquet")
    path.unlink()
    assert "gone since it was read: 2026-01.parquet" in news(world)[0]
    assert "same outcome" in run(fork, world).out
    assert news(world) == []


@pytest.mark.parametrize("spoilt", ["", "{", "[]", '{"digest": "0"}', None])
def test_without_a_sound_note_they_are_news_again(
    world: Path, fork: Forks, spoilt: str | None
) -> None:
    told = deliver_again(world)
    run(fork, world)
    note = world / "book" / ".runs" / ".same-2026-01"
    note.unlink() if spoilt is None else note.write_text(spoilt)
    assert news(world) == [told]
    assert status(fork, world, "check").code == 0


def test_an_outcome_by_other_rules_is_not_noted(world: Path, fork: Forks) -> None:
    told = deliver_again(world)
    prices = (world / "prices.toml").read_text()
    (world / "prices.toml").write_text(prices.replace('name = "', 'name = "Other '))
    assert "same outcome" in run(fork, world).out
    assert news(world) == [told]


def test_a_file_delivered_twice_is_counted_by_one_round(world: Path) -> None:
    told = deliver_again(world)
    (line, settled, _due) = said(run_once(world, SETTLE_AUTO_REVISE_BELOW="5"))
    assert line == told
    assert settled.startswith("2026-01 r1: same outcome")
    assert said(run_once(world, SETTLE_AUTO_REVISE_BELOW="5")) == ["nothing is due"]


# ---------------------------------------------------------------- status


def status(fork: Forks, world: Path, command: str = "status", **settings: str) -> Finished:
    places = {"SETTLE_BOOK": "book", "SETTLE_NOW": "2026-03-20T00:00:00Z"}
    return fork(*command.split(), cwd=world, **(places | settings))


def test_status_looks_where_it_is_asked_to(world: Path, fork: Forks) -> None:
    add_late(world)
    line = "late: 2026-01: 1 new file, about 1 row, may need a revision"
    for command, settings in (
        ("status --logs logs", {}),
        ("status --late", {"SETTLE_LOGS": "logs"}),
        ("status", {"SETTLE_LOGS": "logs", "SETTLE_LATE": "1"}),
    ):
        done = status(fork, world, command, **settings)
        assert (done.code, done.out.splitlines()[-1]) == (0, line)
    assert "late" not in status(fork, world, SETTLE_LOGS="nowhere").out
    assert status(fork, world, "status --late").code == 66
    found = status(fork, world, "status --logs logs --json").json["late"]
    assert [(each["month"], each["new"], each["rows"]) for each in found] == [
        ("2026-01", ["late.parquet"], 1)
    ]
    assert "late" not in status(fork, world, "status --json").json


# ---------------------------------------------------------------- the daily round


def test_the_daily_round_tells_of_late_calls_and_changes_nothing(world: Path) -> None:
    add_late(world)
    for _ in range(2):
        told = run_once(world)
        assert told.returncode == 0
        assert said(told) == [
            "2026-01: 1 new file, about 1 row, may need a revision",
            "nothing is due",
        ]
    assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_late_calls_are_told_though_a_month_is_refused(world: Path) -> None:
    (world / "logs" / "2026-03.parquet").unlink()
    add_late(world)
    told = run_once(world, SETTLE_NOW="2026-04-02T00:00:00Z")
    assert told.returncode == 66
    first, last = said(told)
    assert first.startswith("2026-01: 1 new file")
    assert "no call in 2026-03" in last


def test_a_log_that_cannot_be_read_is_told_and_no_failure_where_nothing_is_due(
    world: Path,
) -> None:
    shutil.move(world / "logs", world / "elsewhere")
    told = run_once(world)
    assert told.returncode == 0
    assert said(told)[0].startswith("could not look for late calls: ")


@pytest.mark.parametrize(
    ("below", "settled"),
    [("1.01", ["2026-01 r1", "2026-02 r1", "2026-01 r2"]), ("1", ["2026-01 r1", "2026-02 r1"])],
)
def test_a_month_is_revised_unasked_only_below_the_amount(
    world: Path, below: str, settled: list[str]
) -> None:
    add_late(world, calls=2)  # 1.00 in all
    told = run_once(world, SETTLE_AUTO_REVISE_BELOW=below)
    assert told.returncode == 0
    assert published(world) == settled
    assert "2026-01: 1 new file, about 2 rows" in told.stderr
    again = run_once(world, "--auto-revise-below", below)
    if len(settled) == 3:
        assert "2026-01 r2: published" in told.stderr
        assert said(again) == ["nothing is due"]
        options = Book.open(world / "book").settlements[-1].manifest["options"]
        assert options["reason"].endswith("1 new file, about 2 rows, may need a revision")
    else:
        assert "1 adjustment of 1.00 in all, not below 1.00" in again.stderr
        assert "--revise --reason" in again.stderr


def test_nothing_is_revised_unasked_while_a_file_is_gone(world: Path) -> None:
    add_late(world)
    (world / "logs" / "2026-01.parquet").unlink()
    told = run_once(world, SETTLE_AUTO_REVISE_BELOW="1000")
    assert "2026-01: not revised unasked, because files are gone" in told.stderr
    assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_the_round_stops_for_review_and_says_what_lets_it_pass(world: Path) -> None:
    write_month(world / "logs", "2026-03")
    add_late(world, month=3, calls=1000)
    told = run_once(world, "--limit-total", "20", SETTLE_NOW="2026-04-02T00:00:00Z")
    assert told.returncode == 3
    warned, first, judged, command = said(told)
    assert warned.startswith("warning: 2026-03: no row on 2026-03-16")
    assert first.startswith("jobs.once: 2026-03 r1: a limit is crossed")
    assert judged.startswith("  payable 1.50 in 2026-02 r1 → 501.50")
    assert command.startswith(f"  settle run 2026-03 --logs {world}/logs --book {world}/book")
    assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_an_empty_day_is_warned_about_or_refused(world: Path) -> None:
    add_late(world, month=3)
    now = "2026-04-02T00:00:00Z"
    refused = run_once(world, SETTLE_NOW=now, SETTLE_REQUIRE_DAYS="1")
    assert refused.returncode == 65
    assert "no row on 2026-03-16, 2026-03-17, 2026-03-18, 2026-03-19" in refused.stderr
    told = said(run_once(world, SETTLE_NOW=now))
    assert told[0].startswith("warning: 2026-03: no row on 2026-03-16")
    assert told[1].startswith("2026-03 r1: published")
