"""The service as a real process whose clock a test sets: when it settles, retries and stops."""

import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from settlement import publish
from settlement.book import Book
from settlement.operations.service import Retry
from tests.clockwork import PATIENCE, Clock, Service, service
from tests.processes import ROOT, holds_nothing, settle
from tests.small import PRICE_BOOK, write_month, write_world

QUICK = ("--retry-first", "0.05s", "--retry-longest", "0.1s", "--retry-total", "1h")


def paths(world: Path) -> dict[str, str]:
    return {
        "SETTLE_LOGS": str(world / "logs"),
        "SETTLE_BOOK": str(world / "book"),
        "SETTLE_PRICES": str(world / "prices.toml"),
    }


def published(world: Path) -> list[str]:
    """The settlements of the book in the order in which they were published."""
    return [settlement.name for settlement in Book.open(world / "book").settlements]


def ticks(service: Service) -> int:
    return sum("tick: looking" in line for line in service.said)


def wait_until_a_run_begins(clock: Clock) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (clock.folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---------------------------------------------------------------- clocks


def test_a_machine_that_was_off_on_day_1_to_3_settles_when_it_starts(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02", "2026-03")
    clock = Clock(tmp_path / "clock", "2026-02-27T12:00:00+08:00")
    with service(clock, **paths(world)) as before:
        before.until("next tick at")
        assert published(world) == ["2026-01 r1"]
        assert before.stop() == 0
    clock.set("2026-03-04T09:17:00+08:00")
    with service(clock, **paths(world)) as after:
        assert after.until("next tick at")[-1].endswith("next tick at 2026-03-05T02:00:00+08:00\n")
        assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_a_start_before_the_tick_does_not_overtake_a_log_that_is_coming_in(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    clock = Clock(tmp_path / "clock", "2026-03-01T00:05:00+08:00")
    months = ("--first-month", "2026-01")
    with service(clock, *months, **paths(world)) as running:
        assert "next tick at 2026-03-01T02:00:00+08:00" in running.until("next tick at")[-1]
        assert published(world) == ["2026-01 r1"]
        running.tick(clock, "2026-03-01T02:00:00+08:00")
        assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_a_machine_that_slept_over_days_or_months_ticks_once_and_settles_all(
    tmp_path: Path,
) -> None:
    world = write_world(tmp_path, *(f"2026-{month:02d}" for month in range(1, 8)))
    clock = Clock(tmp_path / "clock", "2026-02-27T12:00:00+08:00")
    with service(clock, **paths(world)) as running:
        running.until("next tick at")
        said = running.tick(clock, "2026-03-04T09:17:00+08:00")
        assert said[-1].endswith("next tick at 2026-03-05T02:00:00+08:00\n")
        assert published(world) == ["2026-01 r1", "2026-02 r1"]
        running.tick(clock, "2026-08-09T09:17:00+08:00")
        assert published(world) == [f"2026-{month:02d} r1" for month in range(1, 8)]
        assert ticks(running) == 3


def test_a_night_on_which_clocks_go_back_has_one_tick(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-09", "2026-10")
    prices = PRICE_BOOK.replace("Asia/Shanghai", "America/New_York")
    (world / "prices.toml").write_text(prices)
    clock = Clock(tmp_path / "clock", "2026-10-31T12:00:00-04:00")
    with service(clock, "--cron", "30 1 * * *", **paths(world)) as running:
        first = running.until("next tick at")[-1]
        assert first.endswith("next tick at 2026-11-01T01:30:00-04:00\n")
        said = running.tick(clock, "2026-11-01T01:31:00-04:00")
        assert said[-1].endswith("next tick at 2026-11-02T01:30:00-05:00\n")
        for again in ("01:29", "01:31", "02:30"):
            clock.set(f"2026-11-01T{again}:00-05:00")
            time.sleep(0.1)
        running.tick(clock, "2026-11-02T01:31:00-05:00")
        assert ticks(running) == 3
        assert published(world) == ["2026-09 r1", "2026-10 r1"]


def test_a_clock_that_is_put_back_settles_nothing_again(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02", "2026-03")
    clock = Clock(tmp_path / "clock", "2026-03-01T03:00:00+08:00")
    with service(clock, **paths(world)) as running:
        running.until("next tick at")
        clock.set("2026-01-20T12:00:00+08:00")
        back = running.until("the clock went back")[-1]
        assert back.endswith("next tick at 2026-01-21T02:00:00+08:00\n")
        assert "nothing is due" in "".join(running.tick(clock, "2026-01-21T02:00:30+08:00"))
        running.tick(clock, "2026-04-01T02:00:30+08:00")
        assert published(world) == ["2026-02 r1", "2026-03 r1"]


def test_a_run_longer_than_the_interval_is_followed_by_one_more(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    clock = Clock(tmp_path / "clock", "2026-02-28T23:59:00+08:00")
    clock.pace("wait")
    with service(clock, "--cron", "* * * * *", **paths(world)) as running:
        wait_until_a_run_begins(clock)
        clock.set("2026-03-01T00:10:30+08:00")
        time.sleep(0.2)
        assert published(world) == []
        clock.pace("go")
        running.until("next tick at")
        assert published(world) == ["2026-01 r1"]
        said = running.until("2026-03-01T00:11:00+08:00\n")
        assert published(world) == ["2026-01 r1", "2026-02 r1"]
        running.tick(clock, "2026-03-01T00:11:00+08:00")
        assert (ticks(running), "".join(said).count("tick: ")) == (3, 1)


# ---------------------------------------------------------------- failures


def test_a_log_that_comes_late_is_settled_without_another_tick(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01")
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    with service(clock, *QUICK, **paths(world)) as running:
        said = running.until("next tick at")
        assert sum("refused: " in line and "no call in 2026-02" in line for line in said) == 1
        assert "trying again in 0.05 s; next tick at 2026-03-02T02:00:00+08:00" in said[-1]
        assert "trying again in 0.1 s" in running.until("next tick at")[-1]
        write_month(world / "logs", "2026-02")
        running.until("published")
        assert "trying again" not in running.until("next tick at")[-1]
        assert published(world) == ["2026-02 r1"]


def test_a_book_held_by_a_manual_run_is_settled_when_that_has_ended(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    now = "2026-03-01T02:00:00+08:00"
    manual = subprocess.Popen(
        [sys.executable, "-m", "tests.test_service", str(world / "book")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with manual:
        assert manual.stdout
        assert manual.stdout.readline() == b"held\n"
        with service(Clock(tmp_path / "clock", now), *QUICK, **paths(world)) as running:
            said = "".join(running.until("next tick at"))
            assert f"another run holds the book: process {manual.pid} on" in said
            assert "trying again in 0.05 s" in said
            manual.communicate(b"done\n")
            running.until("2026-02 r1: published")
    assert published(world) == ["2026-02 r1"]


def test_what_a_person_must_mend_waits_for_the_next_tick(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-02")
    whole = (world / "logs/2026-02.parquet").read_bytes()
    (world / "logs/2026-02.parquet").write_bytes(whole[:-9])
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    with service(clock, *QUICK, **paths(world)) as running:
        said = running.until("next tick at")
        assert "not trying again before the next tick at 2026-03-02T02:00:00+08:00" in said[-1]
        assert any("refused: " in line and "2026-02.parquet" in line for line in said)
        (world / "logs/2026-02.parquet").write_bytes(whole)
        time.sleep(0.3)
        assert published(world) == []
        running.tick(clock, "2026-03-02T02:00:00+08:00")
        assert published(world) == ["2026-02 r1"]


def test_retries_end_and_begin_anew_with_the_next_tick(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01")
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    few = ("--retry-first", "0.02s", "--retry-factor", "1", "--retry-total", "0.05s")
    with service(clock, *few, **paths(world)) as running:
        for day in (2, 3):
            running.until(f"not trying again before the next tick at 2026-03-{day:02d}T02:00:00")
            assert ticks(running) == 3 * (day - 1)
            clock.set(f"2026-03-{day:02d}T02:00:00+08:00")


def test_an_exit_inside_a_run_is_told_and_loses_no_month(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-02")
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    clock.pace("exit")
    with service(clock, **paths(world)) as running:
        said = "".join(running.until("next tick at"))
        assert "a bug, the next tick tries again" in said
        assert "SystemExit: 7" in said
        clock.pace("go")
        running.tick(clock, "2026-03-02T02:00:00+08:00")
        assert published(world) == ["2026-02 r1"]


def test_a_service_that_was_killed_goes_on_from_the_book(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02", "2026-03")
    clock = Clock(tmp_path / "clock", "2026-02-01T02:00:00+08:00")
    with service(clock, **paths(world)) as killed:
        killed.until("next tick at")
        clock.pace("wait")
        clock.set("2026-04-01T02:00:00+08:00")
        killed.until("tick: ")
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    clock.pace("go")
    with service(clock, **paths(world)) as restarted:
        restarted.until("next tick at")
        assert published(world) == ["2026-01 r1", "2026-02 r1", "2026-03 r1"]
    checked = settle("check", "--json", "--book", world / "book")
    assert (checked.code, checked.json["problems"]) == (0, [])


# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_run_under_way_may_finish_and_nothing_is_begun_after_it(
    tmp_path: Path, how: signal.Signals
) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    clock.pace("wait")
    months = ("--first-month", "2026-01")
    with service(clock, *months, "--stop-within", "1m", **paths(world)) as running:
        wait_until_a_run_begins(clock)
        running.process.send_signal(how)
        time.sleep(0.2)
        assert running.process.poll() is None
        clock.pace("go")
        said = running.rest()
        assert running.process.returncode == 0
        assert f"{how.name}: the run under way has ended; leaving" in said[-1]
    assert published(world) == ["2026-01 r1"]


@pytest.mark.parametrize(
    ("within", "signals"), [("0.2s", 1), ("0", 1), ("1m", 2)], ids=["late", "at once", "again"]
)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_takes_longer_is_abandoned(
    tmp_path: Path, within: str, signals: int, how: signal.Signals
) -> None:
    world = write_world(tmp_path, "2026-02")
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    clock.pace("wait")
    with service(clock, "--stop-within", within, **paths(world)) as running:
        wait_until_a_run_begins(clock)
        for _ in range(signals):
            running.process.send_signal(how)
            time.sleep(0.1)
        said = running.rest()
        assert running.process.returncode == 128 + how
        assert "nothing was left half-written" in said[-1]
    assert holds_nothing(world / "book")


def test_a_signal_between_ticks_ends_the_service_at_once(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-02")
    clock = Clock(tmp_path / "clock", "2026-03-01T02:00:00+08:00")
    with service(clock, **paths(world)) as running:
        running.until("next tick at")
        assert running.stop(signal.SIGINT) == 0
        assert "SIGINT while idle: leaving" in running.said[-1]


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (Retry(), [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600, 3600]),
        (Retry(1, 3, 10, 20), [1, 3, 9]),
        (Retry(1, 1, 1, 3), [1, 1, 1]),
        (Retry(1, 2, 10, 0), []),
    ],
    ids=["default", "grows", "even", "none"],
)
def test_delays_grow_up_to_the_longest_and_end(retry: Retry, delays: list[float]) -> None:
    assert list(islice(retry.delays(), 12)) == delays


@pytest.mark.parametrize("wrong", [(0, 2, 10, 20), (1, 0.5, 10, 20), (5, 2, 4, 20)])
def test_retries_without_a_pause_are_refused(wrong: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="first delay > 0"):
        Retry(*wrong)


def hold(book: Path) -> None:
    """Hold a book, as a run by hand does, until a line comes."""
    with publish.locked(book):
        print("held", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
