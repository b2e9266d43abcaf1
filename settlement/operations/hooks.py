"""Hooks: who is told of a run, by a command of theirs or by a ping over HTTP.

A command is started without a shell, gets the report of the run as JSON on standard input, and
has a time limit at which it and what it started are killed. A ping says that a run began, and
how it ended, to a service that raises an alarm when nothing comes (as healthchecks does). None
of this may fail a run: whatever goes wrong is a warning, which never repeats the address of a
ping, for whoever knows that can send one.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from settlement.operations import attempts

if TYPE_CHECKING:
    from settlement.operations.attempts import Report
    from settlement.progress import Warn

State = Literal["start", "success", "fail"]
SECONDS = 30
"""How long a command or a ping may take, unless it is said."""
_STDERR = 2
_GRACE = 1.0
_LOOK = 0.01


@dataclass(frozen=True)
class Hooks:
    """Whom to tell: commands as lists of words, the address of a ping, seconds for each.

    ``on_success`` is told of a month that was published, not of one settled before;
    ``on_review`` of one that a person must look at; ``on_failure`` of any other that is not
    settled. Where ``ping`` holds ``{state}``, that becomes start, success or fail; otherwise
    ``/start`` and ``/fail`` are put after its path.
    """

    on_success: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    on_review: tuple[str, ...] = ()
    ping: str | None = None
    seconds: int = SECONDS

    def tell(self, report: "Report", warn: "Warn") -> None:
        """Run the command that an attempt is for, if any."""
        name, words = self._command(report)
        if not words:
            return
        said = json.dumps(report.json, ensure_ascii=False).encode("utf-8", "backslashreplace")
        try:
            wrong = _run(words, said, self.seconds)
        except (OSError, ValueError) as error:
            wrong = f"cannot be started ({getattr(error, 'strerror', None) or error})"
        if wrong:
            warn(f"{name}: the command {wrong}")

    def _command(self, report: "Report") -> tuple[str, Sequence[str]]:
        if report.outcome == attempts.REVIEW:
            return "on_review", self.on_review
        if not report.succeeded:
            return "on_failure", self.on_failure
        return "on_success", self.on_success if report.outcome == "published" else ()

    def send(self, state: State, warn: "Warn") -> None:
        """Send the ping of a state, if there is one to send."""
        if not self.ping:
            return
        wrong = _get(self.ping, state, self.seconds)
        if wrong:
            warn(f"ping: {state} was not delivered: {wrong}")


def address(ping: str, state: State) -> str:
    """Return where to send the ping of a state."""
    if "{state}" in ping:
        return ping.replace("{state}", state)
    if state == "success":
        return ping
    parts = urlsplit(ping)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{state}"))


def _run(words: Sequence[str], said: bytes, seconds: float) -> str:
    """Run a command to its end or its limit; return what went wrong, empty if nothing did.

    Its output goes to stderr: stdout is for results. A file is its input, so that one that does
    not read holds nobody up.
    """
    with tempfile.TemporaryFile() as given:
        given.write(said)
        given.seek(0)
        process = subprocess.Popen(
            words, stdin=given, stdout=_STDERR, start_new_session=True, env=os.environ
        )
        try:
            if not _wait(process, seconds):
                return f"took longer than {seconds} s and was killed"
        finally:
            _kill(process)
    code = process.returncode
    if code > 0:
        return f"ended with exit code {code}"
    return f"was ended by signal {-code}" if code else ""


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait for the end of a process, but leave it to be reaped: its group keeps its number."""
    limit = time.monotonic() + seconds
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, process.pid, how) is None:
        if time.monotonic() > limit:
            return False
        time.sleep(_LOOK)
    return True


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End whatever is left of a command's group, kindly at first, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if not _wait(process, 0):
            os.killpg(process.pid, signal.SIGTERM)
            _wait(process, _GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _get(ping: str, state: State, seconds: float) -> str:
    """Send a ping; return what went wrong, empty if nothing did.

    It is asked for in a thread that nobody waits for beyond the limit: looking up a name, or an
    answer that comes byte by byte, knows no limit of its own.
    """
    answer = [f"no answer within {seconds} s"]

    def ask() -> None:
        answer[0] = _asked(ping, state, seconds)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answer[0]


def _asked(ping: str, state: State, seconds: float) -> str:
    import urllib.error  # late: `settle --help` need not wait for them
    import urllib.request

    try:
        url = address(ping, state)
        if urlsplit(url).scheme not in {"http", "https"}:
            return "its address must begin with http:// or https://"
        with urllib.request.urlopen(url, timeout=seconds):  # noqa: S310  # looked at above
            return ""
    except urllib.error.HTTPError as error:
        return f"the answer is {error.code}"
    except Exception as error:  # noqa: BLE001  # http.client has errors of many kinds
        reason = getattr(error, "reason", error)
        return getattr(reason, "strerror", None) or type(reason).__name__
