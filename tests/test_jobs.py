"""The jobs as real processes."""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from settlement import publish
from settlement.book import Book
from settlement.operations import attempts
from tests.drawn import rows
from tests.processes import PROGRAM, holds_nothing
from tests.small import write_month, write_world

ROOT = Path(__file__).parent.parent
NOW = "2026-03-01T02:00:00+08:00"
PATIENCE = 60.0


def environment(world: Path, **more: str) -> dict[str, str]:
    """The environment of a job that settles this world."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("SETTLE_")}
    return own | {
        "SETTLE_LOGS": str(world / "logs"),
        "SETTLE_BOOK": str(world / "book"),
        "SETTLE_PRICES": str(world / "prices.toml"),
        "SETTLE_NOW": NOW,
        **more,
    }


def run_once(world: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.once", *arguments],
        cwd=ROOT,
        env=environment(world, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("job", ["jobs.once", "jobs.scheduler"])
@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_a_job_shows_its_help_as_it_is_typed(job: str, asked: str) -> None:
    command = [sys.executable, "-m", job]
    done = subprocess.run([*command, asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Usage: python -m {job} [OPTIONS]\n")
    wrong = subprocess.run(
        [*command, "--bok", "x"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f" {job}: No such option" in wrong.stderr
    assert wrong.stderr.endswith(f"; see: python -m {job} --help\n")


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a round said, without the instant and the run that begin each line."""
    stamped = [line.split(" ", 2) for line in done.stderr.splitlines()]
    for instant, run, _ in stamped:
        datetime.strptime(instant, "%Y-%m-%dT%H:%M:%SZ")
        datetime.strptime(run[:-7], "%Y%m%dT%H%M%SZ")
    assert len({run for _, run, _ in stamped}) == 1
    return [line for _, _, line in stamped]


def published(world: Path) -> list[str]:
    """The settlements of the book in the order in which they were published."""
    return [settlement.name for settlement in Book.open(world / "book").settlements]


# ---------------------------------------------------------------- one round


def test_once_settles_what_is_due_in_order_and_then_nothing(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    first = run_once(world, "--first-month", "2026-01")
    lines = said(first)
    assert (first.returncode, first.stdout, len(lines)) == (0, "", 2)
    assert lines[0].startswith(
        "2026-01 r1: published, 3 of 6 calls billed, 2 accounts, payable 1.50 CNY, frozen 1.80 CNY"
    )
    assert lines[1].startswith("2026-02 r1: published")
    assert published(world) == ["2026-01 r1", "2026-02 r1"]

    again = run_once(world)
    assert (again.returncode, said(again)) == (0, ["nothing is due"])
    assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_once_digests_what_has_come_of_the_months_under_way(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-02", "2026-03")
    lines = said(run_once(world))
    assert lines[0].startswith("2026-02 r1: published")
    assert lines[1:] == ["digested 1 file, 3 rows (2026-03); kept 0, removed 0 entries"]
    assert len(list((world / "book/.cache/2026-03").glob("*.entry"))) == 1
    assert said(run_once(world)) == ["nothing is due"]


def test_once_reports_each_month_and_tells_a_day_on_which_nothing_is_due(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    told = {
        "SETTLE_METRICS": str(world / "settle.prom"),
        "SETTLE_ON_SUCCESS": f"sh -c 'echo told >> {world}/told'",
        "SETTLE_ON_FAILURE": f"sh -c 'echo failed >> {world}/told'",
    }
    assert run_once(world, "--first-month", "2026-01", **told).returncode == 0
    months = [report.month for report in attempts.reports(world / "book")]
    assert months == ["2026-02", "2026-01"]
    assert (world / "told").read_text() == "told\ntold\n"
    before = (world / "settle.prom").read_text().splitlines()
    assert 'settlement_last_outcome{outcome="published"} 1' in before
    assert run_once(world, **told).stderr.endswith("nothing is due\n")
    assert len(attempts.reports(world / "book")) == 2
    after = (world / "settle.prom").read_text().splitlines()
    assert 'settlement_last_outcome{outcome="nothing due"} 1' in after
    (success,) = (line for line in after if line.startswith("settlement_last_success"))
    assert success in before
    assert run_once(world, SETTLE_PRICES="nowhere.toml", **told).returncode == 66
    assert (world / "told").read_text() == "told\ntold\nfailed\n"
    assert attempts.reports(world / "book")[0].month is None


def test_once_takes_options_before_the_environment(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    done = run_once(
        world, "--logs", str(world / "logs"), SETTLE_LOGS="nowhere", SETTLE_FIRST_MONTH="2026-01"
    )
    assert done.returncode == 0
    assert published(world) == ["2026-01 r1", "2026-02 r1"]


def test_once_stops_at_a_month_without_calls_and_goes_on_from_there(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2025-12", "2026-02")
    stopped = run_once(world, SETTLE_FIRST_MONTH="2025-12")
    assert stopped.returncode == 66
    assert "no call in 2026-01" in stopped.stderr.splitlines()[-1]
    assert published(world) == ["2025-12 r1"]

    write_month(world / "logs", "2026-01")
    assert run_once(world).returncode == 0
    assert published(world) == ["2025-12 r1", "2026-01 r1", "2026-02 r1"]


REFUSALS = """
variable                 value                exit  says
---
SETTLE_LOGS              nowhere/at/all       66    nowhere/at/all
SETTLE_PRICES            nowhere.toml         66    nowhere.toml
SETTLE_PRICES            pyproject.toml       65    unknown_key
SETTLE_NOW               yesterday            78    SETTLE_NOW='yesterday'
SETTLE_NOW               2026-03-01T02:00:00  78    not_an_instant
SETTLE_FIRST_MONTH       2026-13              2     2026-13
SETTLE_MAX_REJECTS       half                 2     share
SETTLE_NAIVE_TIMESTAMPS  Mars/Olympus         78    Mars/Olympus
"""


@pytest.mark.parametrize("row", rows(REFUSALS)[1:], ids=" ".join)
def test_once_refuses_in_one_line_with_the_exit_code(tmp_path: Path, row: list[str]) -> None:
    variable, value, code, says = row
    world = write_world(tmp_path, "2026-02")
    refused = run_once(world, **{variable: value})
    assert refused.returncode == int(code), refused.stderr
    assert says.replace("_", " ") in refused.stderr.splitlines()[-1].replace("_", " ")
    assert "Traceback" not in refused.stderr
    assert holds_nothing(world / "book")


def test_once_leaves_a_held_book_alone(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-02")
    with publish.locked(world / "book"):
        assert run_once(world).returncode == 75
    assert run_once(world).returncode == 0


# ---------------------------------------------------------------- the service


DOORS = {"jobs": [sys.executable, "-m", "jobs.scheduler"], "settle": [PROGRAM, "serve"]}


@contextmanager
def service(
    world: Path, *arguments: str, door: str = "jobs", **more: str
) -> Iterator[tuple[subprocess.Popen[str], "queue.Queue[str]"]]:
    """The scheduler as a process, and its lines as they come; killed if a test leaves it."""
    process = subprocess.Popen(
        [*DOORS[door], *arguments],
        cwd=ROOT,
        env=environment(world, **more),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    lines: queue.Queue[str] = queue.Queue()
    pipe = process.stderr

    def read() -> None:
        for line in pipe:
            lines.put(line)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        pipe.close()


def until(lines: "queue.Queue[str]", text: str) -> list[str]:
    """Read lines up to the first that holds a text; fails if none comes in time."""
    read: list[str] = []
    while not read or text not in read[-1]:
        try:
            read.append(lines.get(timeout=PATIENCE))
        except queue.Empty:
            pytest.fail(f"no {text!r} in {read}")
    return read


@pytest.mark.parametrize(("stop", "door"), [(signal.SIGTERM, "jobs"), (signal.SIGINT, "settle")])
def test_service_settles_at_its_start_and_stops_when_told(
    tmp_path: Path, stop: int, door: str
) -> None:
    world = write_world(tmp_path, "2026-01", "2026-02")
    at = ("--at", "03:30")
    with service(world, *at, door=door, SETTLE_FIRST_MONTH="2026-01") as (process, lines):
        read = until(lines, "next tick at")
        assert published(world) == ["2026-01 r1", "2026-02 r1"]
        assert [line.split()[2] for line in read if "published" in line] == ["2026-01", "2026-02"]
        for line in read:
            datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%SZ")
        assert read[-1].endswith("T03:30:00+08:00\n")
        began = time.monotonic()
        process.send_signal(stop)
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("SETTLE_PRICES", "nowhere.toml", 66),
        ("SETTLE_NOW", "soon", 78),
        ("SETTLE_AT", "25:00", 2),
        ("SETTLE_AT", "0 2 30 2 *", 2),
        ("SETTLE_RETRY_FIRST", "0", 2),
        ("SETTLE_STOP_WITHIN", "soon", 2),
    ],
)
def test_service_does_not_start_misconfigured(
    tmp_path: Path, variable: str, value: str, code: int
) -> None:
    with service(write_world(tmp_path), **{variable: value}) as (process, _lines):
        assert process.wait(PATIENCE) == code


@pytest.mark.parametrize("module", ["once", "scheduler"])
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_interrupted_leaves_nothing(
    tmp_path: Path, module: str, stop: int, code: int
) -> None:
    world = write_world(tmp_path, "2026-02")
    original = world / "logs" / "2026-02.parquet"
    # So many files that the run is still on when the signal comes; links would be read once.
    for number in range(2000):
        shutil.copyfile(original, world / "logs" / f"{number}.parquet")
    process = subprocess.Popen(
        [sys.executable, "-m", f"jobs.{module}"],
        cwd=ROOT,
        env=environment(world, SETTLE_STOP_WITHIN="0"),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    lock = world / "book" / ".lock"
    while not (lock.exists() and lock.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert errors.splitlines()[-1].endswith("nothing was left half-written")
    assert holds_nothing(world / "book")
