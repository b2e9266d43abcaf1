"""Attempts: what each try to settle a month came to, kept beside the book in ``BOOK/.runs``.

Published, refused, failed or interrupted: every attempt leaves one file, ``<id>.json``, named
by the id of its run, which sorts by time. Where one run settles several months the second is
``<id>.002``. It is written when the attempt begins, and put anew when it ends. As long as the
attempt lives it holds a lock on its file, which the operating system takes away from a killed
one: a report that still says ``running`` while nobody locks it is of a run that was killed,
or, where the disk was full, could not put its end.

Reports are news, not books: nothing that is settled depends on them, any may be removed, the
oldest go by themselves, and one that cannot be written is a warning.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from settlement import __version__
from settlement.book import RUNS, cannot_read, is_folder, on_book
from settlement.disk import flush_folder
from settlement.errors import (
    BadInput,
    CannotRead,
    CannotWrite,
    MissingInput,
    SettlementError,
    StoppedForReview,
)
from settlement.operations import messages, redaction

if TYPE_CHECKING:
    from settlement.journal import Journal
    from settlement.progress import Warn
    from settlement.settle import Done

KEPT = 1000
"""How many reports a book keeps, the newest."""
RUNNING, KILLED = "running", "killed"
SUCCESSES = ("published", "settled already", "same outcome")
REFUSED, REVIEW = "refused", "stopped for review"
FAILED, INTERRUPTED = "failed", "interrupted"
_NEW = ".new-"
_STALE = 86_400.0
_WRONG_COMMAND = {2, 78}
"""Exit codes of commands that cannot be meant so: no book is made to report them in."""


_DISK = {CannotWrite.exit_code, CannotRead.exit_code}


@dataclass(frozen=True)
class Report:
    """What an attempt came to.

    Attributes:
        id: its name; the lines that the run has said begin with it.
        month: the month to settle; None where it was refused before that was known.
        outcome: one of `SUCCESSES`, `REFUSED`, `REVIEW`, `FAILED` (a bug), `INTERRUPTED`,
            `RUNNING` or `KILLED`.
        exit_code: with which a command ends after it; None while it runs.
        started: when it began by the clock of the machine; ISO, UTC. So ``finished``.
        seconds: how long it took; ``cpu_seconds`` of all its threads, and the most memory the
            process had.
        command: the words of the command line; ``options``: every option in force.
        inputs: files, rows and bytes of the log that was found.
        rows: the buckets, once counted.
        stages: seconds of each stage.
        revision: which was published, or stands; ``digest`` likewise.
        refusal: the line that said why not; ``details``: the lines beneath.
        error: the kind of exception; ``traceback``: where, if it was a bug.
    """

    id: str
    month: str | None
    outcome: str
    exit_code: int | None
    started: str
    finished: str | None
    seconds: float | None
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    book: str
    command: list[str]
    options: dict[str, Any]
    host: str
    pid: int
    program: str
    inputs: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    revision: int | None = None
    digest: str | None = None
    refusal: str | None = None
    details: list[str] = field(default_factory=list)
    error: str | None = None
    traceback: list[str] = field(default_factory=list)

    @property
    def json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @property
    def succeeded(self) -> bool:
        """Whether the month is settled after it."""
        return self.outcome in SUCCESSES


class Attempt:
    """A try to settle a month, from its beginning to its end; reports itself."""

    def __init__(self, book: Path, month: object, options: Mapping[str, Any], warn: "Warn") -> None:
        self._book, self._warn = book, warn
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._held: int | None = None
        messages.run_id()  # made now, it says when this began
        _forget_peak()
        now = datetime.now(UTC)
        self._report = Report(
            id="",
            month=None if month is None else str(month),
            outcome=RUNNING,
            exit_code=None,
            started=_instant(now),
            finished=None,
            seconds=None,
            cpu_seconds=None,
            peak_memory_bytes=None,
            book=str(book),
            command=redaction.command(sys.argv),
            options=redaction.options(options),
            host=socket.gethostname(),
            pid=os.getpid(),
            program=__version__,
        )

    def begin(self) -> None:
        """Say that it runs, in a book that is there; a book that is not may be made at its end.

        What ends before it has begun, such as a command without a price book, makes none.
        """
        self._report = replace(self._report, id=_free_id(self._book / RUNS))
        if _has_folder(self._book):
            self._write(self._report)

    def done(self, done: "Done", journal: "Journal") -> Report:
        """Report a month that is settled."""
        return self._end(
            journal,
            outcome=done.outcome,
            exit_code=0,
            revision=done.settlement.revision,
            digest=str(done.settlement.manifest["digest"]),
        )

    def failed(self, error: BaseException, journal: "Journal | None" = None) -> Report:
        """Report whatever ended it instead."""
        is_bug = isinstance(error, Exception) and not isinstance(error, SettlementError)
        where = traceback.format_exception(error) if is_bug else []
        return self._end(
            journal,
            outcome=_outcome(error),
            exit_code=_exit_code(error),
            refusal=redaction.text(str(error)) or type(error).__name__,
            details=[redaction.text(line) for line in getattr(error, "details", ())],
            error=type(error).__name__,
            traceback=[redaction.text(line) for line in "".join(where).splitlines()],
        )

    def _end(self, journal: "Journal | None", **came_to: Any) -> Report:
        inputs: dict[str, int] = {}
        if journal and "find" in journal.seconds:
            counts = (journal.files, journal.file_rows, journal.file_bytes)
            inputs = dict(zip(("files", "rows", "bytes"), counts, strict=True))
        report = replace(
            self._report,
            id=self._report.id or _free_id(self._book / RUNS),
            finished=_instant(datetime.now(UTC)),
            seconds=round(time.perf_counter() - self._began, 6),
            cpu_seconds=round(time.process_time() - self._cpu, 6),
            peak_memory_bytes=_peak(),
            inputs=inputs,
            rows=dict(journal.rows) if journal else {},
            stages={n: round(s, 6) for n, s in journal.seconds.items()} if journal else {},
            **came_to,
        )
        makes_book = self._report.id and report.exit_code not in _WRONG_COMMAND
        if makes_book or _has_folder(self._book):
            self._write(report)
        if self._held is not None:
            with contextlib.suppress(OSError):  # the lock goes with it, whatever a disk says
                os.close(self._held)
            self._held = None
        return report

    def _write(self, report: Report) -> None:
        """Put the report in place, locked while it says ``running``; warn where that fails."""
        folder = self._book / RUNS
        aside = folder / f"{_NEW}{report.id}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with aside.open("xb") as file:
                if report.outcome == RUNNING:
                    self._held = os.dup(file.fileno())
                    fcntl.flock(self._held, fcntl.LOCK_EX)
                written = json.dumps(report.json, indent=1, ensure_ascii=False) + "\n"
                file.write(written.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(folder / f"{report.id}.json")
            flush_folder(folder)
            _forget_old(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            if report.outcome == RUNNING or report.exit_code in _DISK:
                return  # the end of the run says so, or the run is refused for that itself
            self._warn(f"{folder}: cannot keep the report of this run ({error.strerror or error})")


def _free_id(folder: Path) -> str:
    """Return the id of the run under way, numbered where it has reported before."""
    run = messages.run_id()
    ids = [run, *(f"{run}.{number:03d}" for number in range(2, KEPT))]
    return next((each for each in ids if not os.path.lexists(folder / f"{each}.json")), ids[-1])


def _has_folder(book: Path) -> bool:
    """Tell whether a book is there; what a disk does not tell, the run itself will refuse."""
    try:
        return is_folder(book)
    except CannotRead:
        return False


def _outcome(error: BaseException) -> str:
    if isinstance(error, StoppedForReview):
        return REVIEW
    if isinstance(error, SettlementError):
        return REFUSED
    return FAILED if isinstance(error, Exception) else INTERRUPTED


def _exit_code(error: BaseException) -> int:
    """Return the exit code of what ended a run; a signal and a refusal know theirs."""
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    return 1 if isinstance(error, Exception) else 130


def _instant(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _forget_peak() -> None:
    """Have the process's peak of memory begin anew, where Linux lets it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    """Return the most memory that the process has had, in bytes."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _forget_old(folder: Path) -> None:
    """Remove the oldest reports beyond those kept, and what killed runs left half-written."""
    for old in _ids(folder)[KEPT:]:
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{old}.json").unlink()
    for left in folder.glob(f"{_NEW}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


# ---------------------------------------------------------------- reading


def reports(book: Path) -> list[Report]:
    """Return the reports of a book, the newest first; what is no report is left out.

    Raises:
        CannotRead: the file system refused to read.
    """
    found = []
    for name in ids(book):
        with contextlib.suppress(BadInput, FileNotFoundError):  # removed meanwhile
            found.append(_read(book / RUNS / f"{name}.json"))
    return sorted(found, key=lambda each: (each.started, each.id), reverse=True)


def report(book: Path, name: str) -> Report:
    """Return the report whose id is, or alone begins with, a name.

    Raises:
        MissingInput: there is none.
        BadInput: there are several, or it is no report.
        CannotRead: the file system refused to read.
    """
    found = [each for each in ids(book) if each.startswith(name)]
    if name in found:
        found = [name]
    if len(found) > 1:
        some = ", ".join(found[:3])
        raise BadInput(f"{len(found)} runs begin with it: {some}", where=name, cure="say more")
    try:
        return _read(book / RUNS / f"{found[0]}.json")
    except (FileNotFoundError, IndexError) as error:
        raise MissingInput(
            f"there is no run {name!r}",
            where=str(book),
            cure=f"list them with: {on_book('runs', book)}",
        ) from error


def ids(book: Path) -> list[str]:
    """Return the ids of a book's reports, the newest first; raises `CannotRead`."""
    try:
        return _ids(book / RUNS)
    except OSError as error:
        raise cannot_read(book / RUNS, error) from error


def _ids(folder: Path) -> list[str]:
    """Return the ids of all reports, the newest first."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        (name.removesuffix(".json") for name in names if name[0] != "." and name.endswith(".json")),
        reverse=True,
    )


def _read(path: Path) -> Report:
    """Read a report; one that says ``running`` and that nobody locks is of a killed run."""
    try:
        return _read_once(path) or _read(path)
    except FileNotFoundError:
        raise
    except (IsADirectoryError, ValueError, TypeError, KeyError) as error:
        raise BadInput("not the report of a run", where=str(path), cure="remove it") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def _read_once(path: Path) -> Report | None:
    """Read a report; return None where it was put anew meanwhile."""
    with path.open("rb") as file:
        said = json.loads(file.read())
        found = Report(**{each.name: said[each.name] for each in fields(Report)})
        if found.outcome != RUNNING:
            return found
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return found
        # Whoever wrote it let go; it has been put anew, unless that was a kill.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return replace(found, outcome=KILLED)
    return None
