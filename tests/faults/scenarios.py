"""The commands that are disturbed, the books they begin with, and what they must come to."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults import running
from tests.small import PRICE_BOOK

State = dict[str, bytes]
REPORTS, CACHE = ".runs", ".cache"


def settled(book: Path) -> State:
    """Return every file of every settlement of a book: all that must never be torn."""
    return {
        str(path.relative_to(book)): path.read_bytes()
        for folder in sorted(book.glob("[0-9]*/r*"))
        for path in [folder, *sorted(folder.rglob("*"))]
        if path.is_file()
    }


def listed(book: Path) -> list[str]:
    """Return everything that lies in a book but reports of runs and the cache."""
    return sorted(
        str(path.relative_to(book))
        for path in book.rglob("*")
        if path.relative_to(book).parts[0] not in {REPORTS, CACHE}
    )


def digested(book: Path) -> State:
    """Return every entry of a book's cache; memos are made when next there is a new file."""
    return {
        str(path.relative_to(book)): path.read_bytes()
        for path in sorted((book / CACHE).rglob("*"))
        if path.suffix == ".entry" or path.name.startswith(".new-")
    }


@dataclass(frozen=True)
class Scenario:
    """A command, the book that it finds, and the book that it leaves undisturbed.

    ``finally_`` is a command that must work once the disturbed one has been given again.
    """

    name: str
    world: Path
    arguments: tuple[str, ...]
    begins: str
    ends: str

    @property
    def before(self) -> Path:
        """The book it begins with; there may be none."""
        return self.world / "books" / self.begins

    @property
    def after(self) -> Path:
        """The book it leaves."""
        return self.world / "books" / self.ends

    @property
    def makes_cache(self) -> bool:
        """Whether its outcome is the cache, and not a settlement."""
        return self.arguments[0] == "ingest"

    def command(self, sandbox: Path) -> list[str]:
        """Return the command for a book in a folder of its own."""
        return self.given(self.arguments, sandbox)

    def given(self, arguments: tuple[str, ...], sandbox: Path) -> list[str]:
        """Return any command for that book."""
        filled = [each.replace("WORLD", str(self.world)) for each in arguments]
        return [*filled, "--book", str(sandbox / "book")]

    def prepare(self, sandbox: Path) -> Path:
        """Make a sandbox with the book it begins with; return it."""
        sandbox.mkdir(parents=True)
        (sandbox / "tmp").mkdir()
        if self.before.exists():
            shutil.copytree(self.before, sandbox / "book")
        return sandbox

    @cache  # noqa: B019  # there are five of them
    def states(self) -> tuple[State, State]:
        """Return the settlements before and after."""
        return settled(self.before), settled(self.after)


def _reading(logs: str = "logs") -> tuple[str, ...]:
    paths = ("--logs", f"WORLD/{logs}", "--prices", "WORLD/prices.toml")
    return (*paths, "--threads", "1")


JANUARY = ("run", "2026-01", *_reading())
FEBRUARY = ("run", "2026-02", *_reading())
REVISION = ("run", "2026-02", "--revise", "--reason", "late calls", *_reading("logs-late"))
INGEST = ("ingest", *_reading())
CHECK = ("check",)


def make(world: Path) -> dict[str, Scenario]:
    """Write logs and prices, settle them undisturbed, and return the scenarios by name."""
    (world / "books").mkdir(parents=True)
    (world / "prices.toml").write_text(PRICE_BOOK, encoding="utf-8")
    _write_log(world / "logs" / "2026-01.parquet", "2026-01", "a")
    _write_log(world / "logs" / "2026-02.parquet", "2026-02", "b")
    shutil.copytree(world / "logs", world / "logs-late")
    _write_log(world / "logs-late" / "late.parquet", "2026-02", "late")
    scenarios = {
        name: Scenario(name, world, arguments, begins, ends)
        for name, arguments, begins, ends in (
            ("first month", JANUARY, "none", "one"),
            ("second month", FEBRUARY, "one", "two"),
            ("revision", REVISION, "two", "three"),
            ("ingest", INGEST, "one", "digested"),
            ("with a cache", FEBRUARY, "digested", "two-digested"),
        )
    }
    for scenario in scenarios.values():
        sandbox = scenario.prepare(world / "making" / scenario.ends)
        done = running.run(scenario.command(sandbox), sandbox)
        assert (done.code, done.err) == (0, ""), done
        shutil.move(sandbox / "book", scenario.after)
    return scenarios


def _write_log(path: Path, month: str, prefix: str) -> None:
    """Write a file of calls: some doubled, one that lies in the month before."""
    path.parent.mkdir(exist_ok=True)
    year, number = map(int, month.split("-"))
    middle = datetime(year, number, 15, tzinfo=UTC)
    ids = [f"{prefix}-{n}" for n in range(6)]
    table = pa.table(
        {
            "request_id": [*ids, ids[0], ids[1]],
            "account_id": ["alpha", "alpha", "beta", "beta", "gamma", "alpha", "alpha", "beta"],
            "interface": ["Detect"] * 8,
            "timestamp": pa.array([middle] * 8, pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, path, row_group_size=4)
