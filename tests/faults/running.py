"""Running a command in a fork of this process, with strace looking on or interfering.

The process that forks must have a single thread; whoever runs the tests may have many, so the
harness is a program of its own (``python -m tests.faults``).
"""

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults import calls
from tests.faults.calls import Call
from tests.processes import become

NOW = "2026-12-02T02:00:00Z"
PATIENCE = 60.0
"""Seconds after which a command hangs."""
WHOLE = 1 << 20
"""Bytes of what is written that a full trace keeps."""


@dataclass(frozen=True)
class Ran:
    """What a command left, and the calls that strace saw."""

    code: int
    out: str
    err: str
    calls: tuple[Call, ...] = ()


class Hangs(Exception):
    """A command did not end."""


def why_not() -> str:
    """Say why nothing can be traced here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else f"strace does not work here: {done.stderr.strip()}"


def run(arguments: Sequence[str], sandbox: Path) -> Ran:
    """Run a command to its end."""
    child = begin(arguments, sandbox)
    return left(child, end(child), sandbox)


def left(child: int, code: int, sandbox: Path) -> Ran:
    """Return what a process that has ended wrote."""
    out, err = (_taken(sandbox / f"{child}.{name}") for name in ("out", "err"))
    return Ran(code, out, err)


def trace(
    arguments: Sequence[str],
    sandbox: Path,
    *,
    inject: str | None = None,
    only: str = "%file,%desc",
    data: bool = False,
) -> Ran:
    """Run a command under strace.

    Args:
        arguments: the command.
        sandbox: a folder of its own; temporary files go to ``tmp`` in it.
        inject: what strace does at a call, such as ``fsync:signal=KILL:when=2``.
        only: the calls to be seen.
        data: keep what is written whole.
    """
    child = begin(arguments, sandbox, waiting=True)
    log = sandbox / f"{child}.trace"
    seen = ["-f", "-y", "-xx", "-s", str(WHOLE if data else 0), "-e", f"trace={only}"]
    how = ["-e", f"inject={inject}"] if inject else []
    tracer = subprocess.Popen(
        ["strace", *seen, "-e", "signal=none", *how, "-o", str(log), "-p", str(child)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with tracer:
        assert tracer.stderr is not None
        ready, _, _ = select.select([tracer.stderr], [], [], PATIENCE)
        said = os.read(tracer.stderr.fileno(), 4096).decode() if ready else ""
        if "attached" not in said:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise RuntimeError(f"strace does not attach: {said}")
        os.kill(child, signal.SIGUSR1)
        try:
            code = end(child)
        finally:
            tracer.wait(PATIENCE)
    return replace(left(child, code, sandbox), calls=tuple(calls.read(_taken(log))))


def begin(arguments: Sequence[str], sandbox: Path, *, waiting: bool = False) -> int:
    """Fork a process that runs a command, at once or when it gets SIGUSR1; return its id."""
    (sandbox / "tmp").mkdir(parents=True, exist_ok=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    child = os.fork()
    if child:
        return child
    try:
        _in_order()
        tempfile.tempdir = None
        if waiting:
            signal.sigwait({signal.SIGUSR1})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        request: dict[str, Any] = {
            "arguments": list(arguments),
            "environment": {"PATH": os.environ["PATH"], "HOME": str(sandbox), "TZ": "UTC"}
            | {"SETTLE_NOW": NOW, "TMPDIR": str(sandbox / "tmp")},
            "folder": str(sandbox),
            "out": str(sandbox / f"{os.getpid()}.out"),
            "err": str(sandbox / f"{os.getpid()}.err"),
        }
        become(request)
    finally:
        os._exit(1)


def end(child: int) -> int:
    """Wait for a process that was begun; raises `Hangs` after having killed it."""
    deadline = time.monotonic() + PATIENCE
    pause = 0.001
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise Hangs


def _in_order() -> None:
    """Run the tasks of every pool one after another, in the thread that submits them."""

    def submit(_: ThreadPoolExecutor, task: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(task(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    ThreadPoolExecutor.submit = submit  # type: ignore[assignment]


def _taken(path: Path) -> str:
    """Read a file and remove it."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    path.unlink(missing_ok=True)
    return text
