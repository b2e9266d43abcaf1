"""Killed before every file-system call, and every one of those calls failing.

A *point* is one call that a command makes on the book, its cache, temporary files, the log or
the prices. All of them are taken from a trace of the undisturbed command; strace then runs the
command again for each and interferes at that very call, which is looked at afterwards.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults import running, verdict
from tests.faults.calls import FILE_CALLS, HANDLE_CALLS, IGNORED, Call
from tests.faults.running import Hangs, Ran
from tests.faults.scenarios import Scenario
from tests.faults.verdict import AFTER, BEFORE, Judge

KILL = "SIGKILL"
ERRORS = ("ENOSPC", "EIO", "EACCES", "EINTR")
FAULTS = (KILL, *ERRORS)
CHANGING = frozenset(
    {
        *("write", "pwrite64", "ftruncate", "fsync", "fdatasync", "flock"),
        *("mkdir", "rename", "unlink", "unlinkat", "rmdir"),
    }
)
"""Calls that change a disk, or guard what does; an `openat` that creates is one too."""
REFUSALS = {73, 74}
_NAMED = (".parquet:", "settlement.toml:")
"""Names of files that are named without their folders."""
LOG_REFUSALS = {65, 66, *REFUSALS}


@dataclass(frozen=True)
class Point:
    """A call of the undisturbed command: which one of its name, and on what."""

    call: str
    number: int
    file: str
    changes: bool

    def __str__(self) -> str:
        return f"{self.call} {self.number} on {self.file}"


@dataclass(frozen=True)
class Outcome:
    """What a fault at a point came to; ``wrong`` says what must not be."""

    scenario: str
    fault: str
    point: Point
    code: int
    book: str
    wrong: tuple[str, ...]


def points(scenario: Scenario, sandbox: Path) -> list[Point]:
    """Trace the undisturbed command and return every point of it.

    The first time something is looked up that is known from then on, so it is traced until two
    traces say the same.
    """
    found: list[Point] = []
    for _ in range(5):
        scenario.prepare(sandbox)
        ran = running.trace(scenario.command(sandbox), sandbox)
        if ran.code or ran.err:
            raise RuntimeError(f"{scenario.name}, undisturbed, ends with {ran.code}: {ran.err}")
        before, found = found, list(_points(scenario, sandbox, ran.calls))
        verdict.clear(sandbox)
        if found == before:
            return found
    raise RuntimeError(f"{scenario.name} makes other calls each time")


def _points(scenario: Scenario, sandbox: Path, calls: Iterable[Call]) -> Iterator[Point]:
    for call in calls:
        file = _place(scenario, sandbox, call)
        if not file or call.name in IGNORED:
            continue
        if call.name not in FILE_CALLS | HANDLE_CALLS:
            raise RuntimeError(f"{call.name} on {file} is a call that nobody has thought of")
        changes = call.name in CHANGING or "O_CREAT" in call.arguments
        yield Point(call.name, call.number, file, changes)


def _place(scenario: Scenario, sandbox: Path, call: Call) -> str:
    """Return the file of a call, as it is called in any sandbox; empty where it is none of ours."""
    for file in call.files:
        if file == "(deleted)":
            return "tmp/nameless"
        for root in (sandbox, scenario.world):
            if file == str(root) or file.startswith(f"{root}/"):
                inside = file[len(str(root)) :].lstrip("/")
                if re.fullmatch(r"\d+\.(out|err|trace)", inside):
                    return ""
                inside = re.sub(r"/\.runs/.+", "/.runs/…", inside)
                inside = re.sub(r"(r\d+|\.new)-\d+", r"\1-PID", inside)
                return re.sub(r"^tmp/.+", "tmp/…", inside) or "."
    return ""


def disturb(scenario: Scenario, point: Point, fault: str, sandbox: Path, judge: Judge) -> Outcome:
    """Run the command with a fault at a point, and judge what is left."""
    scenario.prepare(sandbox)
    how = "signal=KILL" if fault == KILL else f"error={fault}"
    try:
        ran = running.trace(
            scenario.command(sandbox),
            sandbox,
            inject=f"{point.call}:{how}:when={point.number}",
            only=point.call,
        )
    except Hangs:
        verdict.clear(sandbox)
        return Outcome(scenario.name, fault, point, -1, "?", ("it hangs",))
    wrong = _missed(scenario, sandbox, ran, point)
    which, found = judge.judge(scenario, sandbox)
    wrong += found
    of_input = point.file.startswith(("logs", "prices", "contracts"))
    wrong += _said(scenario, sandbox, ran, fault, which, of_input=of_input)
    verdict.clear(sandbox)
    return Outcome(scenario.name, fault, point, ran.code, which, tuple(wrong))


def _missed(scenario: Scenario, sandbox: Path, ran: Ran, point: Point) -> list[str]:
    """See that the fault came at the call that was meant."""
    for call in ran.calls:
        if call.number == point.number:
            place = _place(scenario, sandbox, call)
            return [] if place == point.file else [f"it came at {call.name} on {place}"]
    return ["it came nowhere"]


def _said(
    scenario: Scenario, sandbox: Path, ran: Ran, fault: str, which: str, *, of_input: bool
) -> Iterator[str]:
    """Yield what is wrong with the exit code and the message."""
    if fault == KILL:
        if ran.code != -9:
            yield f"it survives with {ran.code}"
        return
    said = [line for line in ran.err.splitlines() if not line.startswith("settle: warning: ")]
    if "Traceback" in ran.err:
        yield f"a traceback: {ran.err.splitlines()[-1]}"
    elif ran.code == 0:
        if said:
            yield f"it says {ran.err!r}"
        if which != AFTER and not scenario.makes_cache:
            yield "it says that it is done, and it is not"
    elif ran.code not in (LOG_REFUSALS if of_input else REFUSALS):
        yield f"it ends with {ran.code}: {ran.err}"
    elif len(said) != 1:
        yield f"it says {ran.err!r}"
    elif not any(name in ran.err for name in (*_NAMED, str(sandbox), str(scenario.world))):
        yield f"it names no file: {ran.err!r}"
    elif which == AFTER and "nothing was published" in ran.err:
        yield f"it was published, and it says {ran.err!r}"
    elif which == BEFORE and "published, but" in ran.err:
        yield f"it was not published, and it says {ran.err!r}"
