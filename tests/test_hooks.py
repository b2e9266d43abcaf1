"""Commands and pings: real processes, a real server, and what happens when they hang."""

import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from settlement.operations import hooks
from settlement.operations.attempts import Attempt
from settlement.operations.hooks import Hooks
from settlement.operations.watch import Telling
from settlement.progress import unheard
from tests.drawn import rows
from tests.processes import Finished, Forks
from tests.small import write_world

NOW = "2026-03-01T02:00:00+08:00"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path, "2026-01", "2026-02")


def settle(fork: Forks, world: Path, command: str, **settings: str) -> Finished:
    paths = ["--logs", "logs", "--book", "book", "--prices", "prices.toml"]
    settings = {"SETTLE_NOW": NOW, "NO_PROXY": "127.0.0.1"} | settings
    return fork(*shlex.split(command), *paths, cwd=world, **settings)


def writes(name: str) -> str:
    """A command that keeps what it is given in a file of this name, one after another."""
    script = f"import sys; open({name!r}, 'a').write(sys.stdin.read())"
    return shlex.join([sys.executable, "-c", script])


def told(world: Path) -> dict[str, str]:
    """Which commands ran, and the outcome that each was told."""
    return {
        name: json.loads((world / name).read_text())["outcome"]
        for name in ("on_success", "on_failure", "on_review")
        if (world / name).exists()
    }


ALL = {f"SETTLE_{name.upper()}": writes(name) for name in ("on_success", "on_failure", "on_review")}

TOLD = """
command                               exit  told
---
run_2026-01                           0     on_success=published
run_2025-12                           0     -
run_2026-03                           2     on_failure=refused
run_2026-01_--logs_no                 66    on_failure=refused
run_2026-01_--limit-rejects_0         0     on_success=published
run_2026-01_--limit-account_0:0       0     on_success=published
run_2026-01_--approve_x               3     on_review=stopped_for_review
"""


@pytest.mark.parametrize("row", rows(TOLD)[1:], ids=" ".join)
def test_each_outcome_has_its_command(world: Path, fork: Forks, row: list[str]) -> None:
    command, code, expected = row
    if expected == "-":
        command = "run_2026-01"
        assert settle(fork, world, "run 2026-01").code == 0  # then it is settled already
    if "--logs" in command:
        paths = ["--book", "book", "--prices", "prices.toml"]
        done = fork(*command.split("_"), *paths, cwd=world, SETTLE_NOW=NOW, **ALL)
    else:
        done = settle(fork, world, command.replace("_", " "), **ALL)
    assert done.code == int(code), done.err
    name, _, outcome = expected.partition("=")
    assert told(world) == ({} if expected == "-" else {name: outcome.replace("_", " ")})
    if told(world):
        # A wrong command makes no book to be reported in, but is told.
        for path in (world / "book" / ".runs").glob("*.json"):
            assert json.loads((world / name).read_text()) == json.loads(path.read_text("utf-8"))


def test_commands_come_from_the_settings_file_as_lists(world: Path, fork: Forks) -> None:
    words = shlex.split(writes("on_success"))
    (world / "settlement.toml").write_text(f"[notify]\non_success = {json.dumps(words)}\n")
    assert settle(fork, world, "run 2026-01").code == 0
    assert told(world) == {"on_success": "published"}


def test_no_shell_reads_a_command(world: Path, fork: Forks) -> None:
    argument = "$(touch hacked); `touch hacked` > hacked"
    script = "import sys; open('said', 'w').write(sys.argv[1])"
    command = shlex.join([sys.executable, "-c", script, argument])
    assert settle(fork, world, "run 2026-01", SETTLE_ON_SUCCESS=command).code == 0
    assert (world / "said").read_text() == argument
    assert not (world / "hacked").exists()


WRONG = """
command                       says
---
false                         ended_with_exit_code_1
no-such-command-here          cannot_be_started_(No_such_file_or_directory)
sh_-c_'kill_-9_$$'            was_ended_by_signal_9
"""


def test_a_command_has_the_environment_that_we_were_given(world: Path, fork: Forks) -> None:
    """Not what numpy is told, which would bind a command's own algebra to one thread."""
    script = "import os; open('had', 'w').write(os.environ.get('OPENBLAS_NUM_THREADS', 'none'))"
    has = shlex.join([sys.executable, "-c", script])
    assert settle(fork, world, "run 2026-01", SETTLE_ON_SUCCESS=has).code == 0
    assert (world / "had").read_text() == "none"
    settled = settle(fork, world, "run 2026-02", SETTLE_ON_SUCCESS=has, OPENBLAS_NUM_THREADS="7")
    assert settled.code == 0
    assert (world / "had").read_text() == "7"


@pytest.mark.parametrize("row", rows(WRONG)[1:], ids=lambda row: row[0])
def test_a_command_that_fails_is_a_warning(world: Path, fork: Forks, row: list[str]) -> None:
    command, says = (cell.replace("_", " ") for cell in row)
    done = settle(fork, world, "run 2026-01 --json", SETTLE_ON_SUCCESS=command)
    assert done.code == 0
    assert done.err == f"settle: warning: on_success: the command {says}\n"
    assert done.json["outcome"] == "published"


def test_what_a_command_prints_is_no_result(world: Path, fork: Forks) -> None:
    done = settle(fork, world, "run 2026-01 --json", SETTLE_ON_SUCCESS="echo hello")
    assert done.json["outcome"] == "published"
    assert done.err == "hello\n"


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("heeds", ["", "trap '' TERM; "], ids=["heeds", "ignores"])
def test_a_command_that_hangs_is_killed_with_its_children(
    world: Path, fork: Forks, heeds: str
) -> None:
    script = f"{heeds}sleep 300 & echo $! $$ > pids; while :; do sleep 1; done"
    began = time.monotonic()
    command = shlex.join(["sh", "-c", script])
    done = settle(fork, world, "run 2026-01", SETTLE_ON_SUCCESS=command, SETTLE_NOTIFY_SECONDS="1")
    assert time.monotonic() - began < 30
    assert done.code == 0
    assert done.err.splitlines()[-1] == (
        "settle: warning: on_success: the command took longer than 1 s and was killed"
    )
    pids = [int(pid) for pid in (world / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(map(alive, pids))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_what_a_command_leaves_behind_is_killed_too(tmp_path: Path) -> None:
    warnings: list[str] = []
    script = f"sleep 300 & echo $! > {tmp_path}/pid"
    report = Attempt(tmp_path, "2026-01", {}, unheard).failed(ValueError())
    Hooks(on_failure=("sh", "-c", script)).tell(report, warnings.append)
    assert warnings == []
    deadline = time.monotonic() + 10
    while alive(int((tmp_path / "pid").read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_service_that_tries_again_tells_a_refusal_once_a_day(tmp_path: Path) -> None:
    """However many others come between: one round may be refused two months."""
    script = f"echo told >> {tmp_path}/told"
    telling = Telling(Hooks(on_failure=("sh", "-c", script)))

    def told(*refusals: str, day: str = "2026-03-01") -> int:
        (tmp_path / "told").write_text("")
        for said in refusals:
            report = Attempt(tmp_path, "2026-01", {}, unheard).failed(ValueError(said))
            telling.tell(replace(report, started=f"{day}T02:00:00Z"), unheard)
        return (tmp_path / "told").read_text().count("told")

    assert told("no log", "no log", "no disk", "no log", "no disk") == 2
    assert told("no disk", "no log", "no log", day="2026-03-02") == 2
    assert len(telling.told) == 2


# ---------------------------------------------------------------- pings


class Server(ThreadingHTTPServer):
    """Notes every path that is asked for; answers as told, or never."""

    daemon_threads = True

    def __init__(self, answer: int | None) -> None:
        self.asked: list[str] = []
        self.answer, self.leave = answer, threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side has hung up, which is what it is to do."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        if self.server.answer is None:  # a byte now and then, so that no read takes too long
            while not self.server.leave.wait(0.2):
                self.wfile.write(b"H")
            return
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def server(answer: int | None = 200) -> Iterator[tuple[Server, str]]:
    """A server on this machine, and its address."""
    with Server(answer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running, f"http://127.0.0.1:{running.server_port}"
        finally:
            running.leave.set()
            running.shutdown()
            thread.join()


PINGS = """
command                exit  asked
---
run_2026-01            0     /t0ken/start_/t0ken
run_2026-01..2026-02   0     /t0ken/start_/t0ken
run_2026-03            2     /t0ken/start_/t0ken/fail
"""


@pytest.mark.parametrize("row", rows(PINGS)[1:], ids=lambda row: row[0])
def test_a_command_pings_when_it_begins_and_ends(world: Path, fork: Forks, row: list[str]) -> None:
    command, code, asked = row
    with server() as (running, url):
        done = settle(fork, world, command.replace("_", " "), SETTLE_PING=f"{url}/t0ken")
        assert done.code == int(code)
        assert running.asked == asked.split("_")
        if code == "0":  # settled already is done, too
            assert settle(fork, world, command.replace("_", " "), SETTLE_PING=url).code == 0
            assert running.asked[2:] == ["/start", "/"]


ADDRESSES = """
ping                          state    asked
---
https://h/p                   start    https://h/p/start
https://h/p/                  fail     https://h/p/fail
https://h/p                   success  https://h/p
https://h/p?key=a             fail     https://h/p/fail?key=a
https://h/push?status={state} success  https://h/push?status=success
"""


@pytest.mark.parametrize("row", rows(ADDRESSES)[1:], ids=" ".join)
def test_the_address_of_a_state(row: list[str]) -> None:
    ping, state, asked = row
    assert hooks.address(ping, state) == asked  # type: ignore[arg-type]


def test_a_ping_that_is_refused_is_a_warning_without_its_address(world: Path, fork: Forks) -> None:
    with server(503) as (_, url):
        done = settle(fork, world, "run 2026-01", SETTLE_PING=f"{url}/t0ken")
    assert done.code == 0
    assert done.err.splitlines() == [
        "settle: warning: ping: start was not delivered: the answer is 503",
        "settle: warning: ping: success was not delivered: the answer is 503",
    ]


@pytest.mark.parametrize(
    "ping", ["http://127.0.0.1:1/t0ken", "file:///etc/t0ken", "t0ken", "http://[t0ken"]
)
def test_a_ping_that_cannot_be_sent_is_a_warning(world: Path, fork: Forks, ping: str) -> None:
    done = settle(fork, world, "run 2026-01", SETTLE_PING=ping)
    assert done.code == 0
    assert len(done.err.splitlines()) == 2
    assert "t0ken" not in done.err


def test_a_server_that_hangs_holds_nobody_up(world: Path, fork: Forks) -> None:
    with server(None) as (running, url):
        began = time.monotonic()
        done = settle(fork, world, "run 2026-01", SETTLE_PING=url, SETTLE_NOTIFY_SECONDS="1")
        assert time.monotonic() - began < 30
    assert done.code == 0
    assert "published" in done.out
    assert running.asked == ["/start", "/"]
    for state, line in zip(("start", "success"), done.err.splitlines(), strict=True):
        assert line == f"settle: warning: ping: {state} was not delivered: no answer within 1 s"
