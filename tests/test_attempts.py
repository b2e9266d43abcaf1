"""Reports of runs: published, refused, interrupted and killed ones, read from where they lie."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from settlement.errors import BadInput, CannotRead, MissingInput, StoppedForReview
from settlement.operations import attempts, messages, redaction
from settlement.operations.attempts import Attempt, Report
from settlement.progress import unheard
from tests.drawn import rows
from tests.processes import Finished, Forks, environment, start
from tests.small import write_world

NOW = {"SETTLE_NOW": "2026-03-01T02:00:00+08:00"}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path, "2026-01", "2026-02")


def settle(fork: Forks, world: Path, command: str, **settings: str) -> Finished:
    paths = ["--logs", "logs", "--book", "book", "--prices", "prices.toml"]
    return fork(*command.split(), *paths, cwd=world, **NOW, **settings)


def newest(world: Path) -> Report:
    return attempts.reports(world / "book")[0]


def ended(book: Path, error: BaseException) -> Report:
    """The report of an attempt that this ends."""
    attempt = Attempt(book, "2026-01", {}, unheard)
    attempt.begin()
    return attempt.failed(error)


# ---------------------------------------------------------------- every attempt reports


def test_a_published_month_leaves_everything_known_of_its_run(world: Path, fork: Forks) -> None:
    done = settle(fork, world, "run 2026-01 --json", SETTLE_THREADS="1").json
    (path,) = (world / "book" / ".runs").iterdir()
    said = json.loads(path.read_text("utf-8"))
    assert said == newest(world).json
    assert re.fullmatch(r"20\d{6}T\d{6}Z-[0-9a-f]{6}", said["id"])
    assert path.name == f"{said['id']}.json"
    assert (said["outcome"], said["exit_code"], said["month"]) == ("published", 0, "2026-01")
    assert (said["revision"], said["digest"]) == (1, done["digest"])
    assert said["rows"] == done["rows"]
    assert said["inputs"]["files"] == 2
    assert said["inputs"]["rows"] == 6
    assert list(said["stages"]) == ["find", "days", "count", "rate", "review", "publish"]
    assert said["command"][1:4] == ["run", "2026-01", "--json"]
    assert (said["options"]["threads"], said["options"]["allow_gap"]) == (1, False)
    assert said["started"] < said["finished"]
    assert 0 < sum(said["stages"].values()) <= said["seconds"] < 100
    assert 20e6 < said["peak_memory_bytes"] < 4e9
    assert said["refusal"] is None


OUTCOMES = """
command                       outcome             exit  says
---
run_2026-01                   settled_already     0     -
run_2026-03                   refused             2     not_over
run_2026-02_--max-rejects_0   published           0     -
run_--revise_--reason_x       settled_already     0     -
run_2025-01_--allow-gap       refused             66    no_call_in_2025-01
run_2026-02_--prices_no.toml  refused             66    no_price_book
"""


@pytest.mark.parametrize("row", rows(OUTCOMES)[1:], ids=" ".join)
def test_every_run_says_what_it_came_to(world: Path, fork: Forks, row: list[str]) -> None:
    command, outcome, code, says = (cell.replace("_", " ") for cell in row)
    assert settle(fork, world, "run 2026-01").code == 0
    if "--revise" in command:
        assert settle(fork, world, "run 2026-02").code == 0
    if "no.toml" in command:
        done = fork(*command.split(), "--book", "book", cwd=world, **NOW)
    else:
        done = settle(fork, world, command)
    report = newest(world)
    assert (done.code, report.exit_code, report.outcome) == (int(code), int(code), outcome)
    if says == "-":
        assert report.refusal is None
    else:
        assert report.refusal
        assert says in report.refusal
        assert f"settle: {report.refusal}\n" == done.err


def test_a_count_that_is_refused_reports_how_far_it_came(world: Path, fork: Forks) -> None:
    book = (world / "prices.toml").read_text()
    (world / "prices.toml").write_text(book.replace('["Detect"]', '["Other"]'))
    done = settle(fork, world, "run 2026-01")
    assert done.code == 65
    report = newest(world)
    assert (report.outcome, report.error) == ("refused", "BadInput")
    assert report.rows["rejected.unknown_interface"] == 3
    assert list(report.stages) == ["find", "days", "count"]
    assert [f"  {line}" for line in report.details] == done.err.splitlines()[1:]


def test_each_month_of_a_run_of_months_is_an_attempt(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "run 2026-01..2026-03").code == 2
    third, second, first = attempts.reports(world / "book")
    assert [each.month for each in (first, second, third)] == ["2026-01", "2026-02", "2026-03"]
    assert [second.id, third.id] == [f"{first.id}.002", f"{first.id}.003"]
    assert third.outcome == "refused"


def test_a_stop_for_review_is_no_refusal(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "run 2026-01").code == 0
    limit = "run 2026-02 --limit-account 0:0.5"
    assert settle(fork, world, limit).code == 3
    assert newest(world).outcome == "stopped for review"
    command = newest(world).details[-1]
    assert command.startswith("settle run 2026-02 ")
    *_, refusal, rest = fork("runs", "--limit", "1", "--book", "book", cwd=world).out.splitlines()
    assert refusal.endswith("run the last line below")
    shows = rest.partition("lines below it are shown by: settle ")[2]
    assert command in fork(*shows.split(), cwd=world).out


@pytest.mark.parametrize("command", ["run 2026-13", "run 2026-01 --reason x", "run 2026-04"])
def test_a_wrong_command_makes_no_book(world: Path, fork: Forks, command: str) -> None:
    assert settle(fork, world, command).code == 2
    assert not (world / "book").exists()


def test_a_plan_is_no_attempt(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "plan 2026-01").code == 0
    assert not (world / "book").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs a file there")
def test_a_report_that_cannot_be_written_is_a_warning(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "run 2026-01").code == 0
    shutil.rmtree(world / "book" / ".runs")
    (world / "book" / ".runs").write_text("a file in its place")
    done = settle(fork, world, "run 2026-02")
    assert done.code == 0
    assert "2026-02 r1: published" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("settle: warning: book/.runs: cannot keep the report of this run")
    assert settle(fork, world, "run 2026-04").err.startswith("settle: warning: ")
    assert fork("check", "--book", "book", cwd=world).code == 0


# ---------------------------------------------------------------- signals


@pytest.fixture(scope="module")
def long_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of so many files that a run is still on when a signal comes."""
    world = write_world(tmp_path_factory.mktemp("long"), "2026-02")
    (world / "book").mkdir()
    for number in range(1500):
        shutil.copyfile(world / "logs/2026-02.parquet", world / "logs" / f"{number}.parquet")
    return world


def signalled(world: Path, number: int) -> tuple[int, Report, Report]:
    """A run that gets a signal: its exit code, its report before and after."""
    known = {report.id for report in attempts.reports(world / "book")}
    options = ["--logs", world / "logs", "--book", world / "book"]
    running = start("run", "2026-02", *options, "--prices", world / "prices.toml", **NOW)
    deadline = time.monotonic() + 60
    found: list[Report] = []
    while not found and time.monotonic() < deadline:
        time.sleep(0.005)
        found = [each for each in attempts.reports(world / "book") if each.id not in known]
    before = found[0]
    running.send_signal(number)
    running.communicate(timeout=60)
    return running.returncode, before, attempts.report(world / "book", before.id)


def test_an_interrupted_run_says_so(long_world: Path) -> None:
    code, before, after = signalled(long_world, signal.SIGTERM)
    assert (before.outcome, before.finished, before.exit_code) == ("running", None, None)
    assert (code, after.outcome, after.exit_code) == (143, "interrupted", 143)
    assert after.refusal == "SIGTERM"


def test_a_killed_run_is_told_from_one_that_runs(long_world: Path, fork: Forks) -> None:
    code, before, after = signalled(long_world, signal.SIGKILL)
    assert (code, before.outcome, after.outcome) == (-signal.SIGKILL, "running", "killed")
    listed = fork("runs", "--book", long_world / "book", "--limit", 1).out
    assert f"{after.id}  2026-02  killed" in listed
    whole = fork("runs", after.id, "--book", long_world / "book").out
    assert "ended    not recorded: it was killed, its machine went down, or the disk was full" in (
        whole.splitlines()
    )


def test_a_report_is_whole_at_any_time(tmp_path: Path) -> None:
    """A reader beside many attempts sees each of them running, or ended; never killed."""
    script = (
        "import sys; from pathlib import Path\n"
        "from settlement.operations import messages\n"
        "from settlement.operations.attempts import Attempt\n"
        "for _ in range(200):\n"
        "    messages.begin_run()\n"
        "    attempt = Attempt(Path(sys.argv[1]), '2026-01', {}, print)\n"
        "    attempt.begin()\n"
        "    attempt.failed(ValueError('x'))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, env=environment()
    ) as writer:
        seen = set()
        while writer.poll() is None:
            seen |= {report.outcome for report in attempts.reports(tmp_path)}
    assert writer.returncode == 0
    assert "failed" in seen
    assert seen <= {"failed", "running"}


# ---------------------------------------------------------------- one report


def test_what_ends_a_run_is_told_apart(tmp_path: Path) -> None:
    class Stopped(BaseException):
        exit_code = 143

    cases = [
        (BadInput("bad", where="a"), "refused", 65, "a: bad"),
        (StoppedForReview("see"), "stopped for review", 3, "see"),
        (ZeroDivisionError("oh"), "failed", 1, "oh"),
        (Stopped("SIGTERM"), "interrupted", 143, "SIGTERM"),
        (KeyboardInterrupt(), "interrupted", 130, "KeyboardInterrupt"),
    ]
    for error, outcome, code, says in cases:
        report = ended(tmp_path, error)
        assert (report.outcome, report.exit_code, report.refusal) == (outcome, code, says)
        assert bool(report.traceback) == (outcome == "failed")


def test_old_reports_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "KEPT", 3)
    left = tmp_path / ".runs" / ".new-of-a-killed-run"
    left.parent.mkdir()
    left.write_text("half")
    os.utime(left, (0, 0))
    ids = []
    for _ in range(5):
        messages.begin_run()
        ids.append(ended(tmp_path, ValueError()).id)
    # Which of those of one second are the oldest, nobody knows.
    assert {report.id for report in attempts.reports(tmp_path)} == set(sorted(ids)[2:])
    assert not left.exists()


def test_a_report_is_found_by_how_its_id_begins(tmp_path: Path) -> None:
    (tmp_path / ".runs").mkdir()
    report = ended(tmp_path, ValueError())
    assert attempts.report(tmp_path, report.id[:12]) == report
    with pytest.raises(MissingInput, match=f"no run 'x'; .*: settle runs --book {tmp_path}$"):
        attempts.report(tmp_path, "x")
    again = ended(tmp_path, ValueError())
    assert again.id == f"{report.id}.002"
    assert attempts.report(tmp_path, report.id) == report
    with pytest.raises(BadInput, match="2 runs begin with it"):
        attempts.report(tmp_path, report.id[:12])


def test_what_is_no_report_is_left_out(tmp_path: Path) -> None:
    report = ended(tmp_path, ValueError())
    for name, text in {"0": "", "1": "{}", "2": "[]", "3": '{"id": "3"}'}.items():
        (tmp_path / ".runs" / f"{name}.json").write_text(text)
    (tmp_path / ".runs" / "4.json").mkdir()
    assert attempts.reports(tmp_path) == [report]
    for name in ("1", "4"):
        with pytest.raises(BadInput, match="not the report of a run"):
            attempts.report(tmp_path, name)


def test_a_report_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    report = ended(tmp_path, ValueError())
    (tmp_path / ".runs" / "loop.json").symlink_to("loop.json")
    for read in (attempts.reports, lambda book: attempts.report(book, "loop")):
        with pytest.raises(CannotRead, match=r"loop\.json"):
            read(tmp_path)
    assert attempts.report(tmp_path, report.id) == report


def test_a_lock_says_that_a_run_is_on(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "2026-01", {}, unheard)
    attempt.begin()
    (path,) = (tmp_path / ".runs").iterdir()
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    attempt.failed(ValueError())
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


# ---------------------------------------------------------------- shown


def test_runs_are_listed_and_shown(world: Path, fork: Forks) -> None:
    told = fork("runs", "--book", "book", cwd=world)
    assert (told.code, told.out) == (0, "book: no book there, no run has been recorded\n")
    (world / "book").mkdir()
    told = fork("runs", "--book", "book", cwd=world)
    assert (told.code, told.out) == (0, "book: no run has been recorded\n")
    settle(fork, world, "run 2026-01")
    settle(fork, world, "run 2026-04")
    lines = fork("runs", "--book", "book", cwd=world).out.splitlines()
    assert lines[0].split() == ["run", "month", "outcome", "exit", "seconds"]
    assert len(lines) == 4
    refused = next(line for line in lines if "refused" in line)
    assert lines[lines.index(refused) + 1].startswith("  2026-04: the month is not over")
    only = fork("runs", "--month", "2026-01", "--json", "--book", "book", cwd=world).json
    assert [each["outcome"] for each in only["runs"]] == ["published"]
    name = only["runs"][0]["id"]
    shown = fork("runs", name, "--book", "book", cwd=world).out
    assert shown.startswith(f"{name}: 2026-01 r1 published, exit code 0\n")
    assert "read     2 files, 6 rows, " in shown
    assert fork("runs", name, "--json", "--book", "book", cwd=world).json == only["runs"][0]
    assert fork("runs", "nothing", "--book", "book", cwd=world).code == 66


# ---------------------------------------------------------------- no secrets

REDACTED = """
said                                     written
---
logs/2026-02                             logs/2026-02
s3://key:secret@bucket/logs?region=x     s3://…@bucket/logs?…
cannot_read_https://h/p?sig=abc;_look    cannot_read_https://h/p?…_look
a@b_and_s3://bucket/logs                 a@b_and_s3://bucket/logs
"""


@pytest.mark.parametrize("row", rows(REDACTED)[1:], ids=lambda row: row[0])
def test_urls_lose_their_secrets(row: list[str]) -> None:
    said, written = (cell.replace("_", " ") for cell in row)
    assert redaction.text(said) == written


def test_secret_options_are_named_only() -> None:
    words = "settle run --conf a.key=s3cret --ping=https://hc/s3cret --on-success s3cret --json"
    said = redaction.command(words.split())
    assert said == ["settle", "run", "--conf", "…", "--ping=…", "--on-success", "…", "--json"]
    assert "s3cret" not in str(redaction.options({"conf": ("k=s3cret",), "ping": "s3cret"}))


def test_no_secret_is_in_a_report(world: Path, fork: Forks) -> None:
    settings = {"SETTLE_PING": "http://s3cret@127.0.0.1:9/s3cret", "SETTLE_ON_FAILURE": "false x3"}
    done = fork(
        *["run", "2026-01", "--book", "book", "--prices", "prices.toml", "--notify-seconds", "5"],
        *("--logs", "foo://key:s3cret@bucket/x?key=s3cret"),
        cwd=world,
        **NOW,
        **settings,
    )
    assert done.code
    for path in (world / "book" / ".runs").iterdir():
        assert "s3cret" not in path.read_text("utf-8")
    warnings = [line for line in done.err.splitlines() if "warning" in line]
    assert "s3cret" not in str(warnings)
