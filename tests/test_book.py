"""A book as it is found: what is missing, in the way, or forged is said, never guessed around."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from settlement import publish, settle
from settlement.book import Book, Settlement, digest_of
from settlement.check import check
from settlement.errors import BadInput, CannotRead, CannotWrite
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from tests.processes import Forks

DATA = Path(__file__).parent.parent / "data"
PRICES = PriceBook.parse((DATA / "price_book.toml").read_bytes())


def order(book: Path, month: str) -> Order:
    now = datetime(2026, 4, 1, tzinfo=UTC)
    return Order(Month.parse(month), str(DATA / "logs"), book, PRICES, now)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book with the two shipped months."""
    book = tmp_path_factory.mktemp("settled") / "book"
    for month in ("2026-01", "2026-02"):
        settle.run(order(book, month))
    return book


@pytest.fixture
def book(settled: Path, tmp_path: Path) -> Path:
    """A copy of that book, to be spoiled."""
    return Path(shutil.copytree(settled, tmp_path / "book"))


def test_a_book_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Book.open(tmp_path / "none").settlements == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda month: month.symlink_to("/nowhere"),
        lambda month: month.write_text("a file in the place of a month"),
    ],
    ids=["a link to nowhere", "a file"],
)
def test_a_month_that_cannot_be_read_is_never_taken_for_unsettled(
    book: Path, spoil: Callable[[Path], Any]
) -> None:
    """Else the next run would settle on an empty book, and release no hold."""
    spoil(book / "2025-12")
    for act in (Book.open, lambda folder: settle.run(order(folder, "2026-02"))):
        with pytest.raises(CannotRead, match="2025-12"):
            act(book)
    assert any("2025-12" in problem for problem in check(book).problems)


@pytest.mark.parametrize(
    ("key", "value"),
    [("month", 7), ("number", "one"), ("inputs", {}), ("rows", None), ("previous", 3)],
)
def test_a_forged_manifest_is_refused_not_a_bug(book: Path, key: str, value: object) -> None:
    """Also one whose digest was worked out anew."""
    path = book / "2026-02" / "r1" / "settlement.json"
    manifest = json.loads(path.read_bytes()) | {key: value}
    path.write_text(json.dumps(manifest | {"digest": digest_of(manifest)}))
    with pytest.raises(BadInput, match=f"'{key}' is not what it must be"):
        Settlement.load(path.parent)
    assert check(book).problems


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m["inputs"][0].update(colour="red"), "colour"),
        (lambda m: m["rows"].pop("conflict"), "the buckets are"),
        (lambda m: m["rows"].update(billed=0), "≠"),
        (lambda m: m["totals"].update(payable="0.00"), "totals"),
        (lambda m: m["period"].update(start="1970-01-01T00:00:00Z"), "period"),
        (lambda m: m["tables"]["usage"].update(rows=1), "row count"),
    ],
)
def test_check_tells_of_a_manifest_that_says_otherwise(
    book: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = book / "2026-02" / "r1" / "settlement.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest | {"digest": digest_of(manifest)}))
    problems = check(book).problems
    assert any(says in problem for problem in problems), problems


def test_what_a_killed_run_left_is_cleared_away_files_too(book: Path) -> None:
    drafts = book / ".drafts"
    (drafts / "2026-02-r1-99").mkdir(parents=True)
    (drafts / "note.txt").write_text("left by somebody")
    publish.clear_drafts(book)
    assert list(drafts.iterdir()) == []


def test_a_place_where_no_book_can_be_is_refused_at_once() -> None:
    """Making a folder there fails as if it had just been removed, every time."""
    if not Path("/proc").is_dir():
        pytest.skip("no /proc on this system")
    with pytest.raises(CannotWrite), publish.locked(Path("/proc/book")):
        pass


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES, errno.EIO])
def test_a_folder_above_the_book_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It was there before; only where its disk fails is the book in danger."""
    above, flush = tmp_path.parent.stat(), os.fsync

    def fsync(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), above):
            raise OSError(code, os.strerror(code))
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if code != errno.EIO:
        assert settle.run(order(tmp_path / "book", "2026-01")).outcome == "published"
        return
    with pytest.raises(CannotWrite, match="nothing was published"):
        settle.run(order(tmp_path / "book", "2026-01"))


def test_a_full_output_is_said_in_one_line(book: Path, tmp_path: Path) -> None:
    """The month is published all the same; a traceback would say the opposite."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    command = f"settle status --book {book} > /dev/full 2> {tmp_path}/said"
    program = f"{sys.executable} -m settlement.cli"
    code = os.waitstatus_to_exitcode(os.system(command.replace("settle", program, 1)))
    assert code == 73
    said = (tmp_path / "said").read_text()
    assert said.startswith("settle: standard output: cannot write")
    assert said.count("\n") == 1


def test_an_error_of_something_else_is_not_laid_on_the_output() -> None:
    """What it says is done would not be; Arrow's errors of storage name no file and no code."""
    program = """
import click
from settlement import shell

@click.command()
def broken() -> None:
    raise OSError("AWS Error NETWORK_CONNECTION")

shell.main(broken, "settle", [])
"""
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.endswith("OSError: AWS Error NETWORK_CONNECTION\n")
    assert "standard output" not in run.stderr


@pytest.mark.parametrize("command", ["run 2026-02", "check", "ingest", "status"])
def test_a_disk_that_does_not_tell_whether_there_is_a_book_is_said(
    fork: Forks, command: str
) -> None:
    """The longest of names cannot even be asked for; neither can any on a broken disk."""
    book = "b" * 300
    done = fork(*command.split(), "--book", book, cwd=DATA.parent, SETTLE_NOW="2026-04-01T00:00Z")
    assert done.code in {73, 74}
    assert done.err.count("\n") == 1
    assert book in done.err


def test_a_disk_that_does_not_tell_whether_there_are_contracts_is_said(
    fork: Forks, tmp_path: Path
) -> None:
    (tmp_path / "contracts.csv").symlink_to("c" * 300)
    shutil.copy(DATA / "price_book.toml", tmp_path)
    done = fork("plan", "2026-02", "--prices", tmp_path / "price_book.toml", cwd=DATA.parent)
    assert (done.code, done.err.count("\n")) == (74, 1)
    assert "contracts.csv" in done.err


def test_a_settled_month_is_cleared_up_after_the_run_that_was_killed(book: Path) -> None:
    (book / ".drafts" / "2026-03-r1-99").mkdir(parents=True)
    (book / ".lock").touch()
    done = settle.run(order(book, "2026-02"))
    assert done.outcome == "settled already"
    assert sorted(child.name for child in book.iterdir()) == ["2026-01", "2026-02"]


def test_what_another_run_is_writing_is_not_cleared_up(book: Path) -> None:
    with publish.locked(book):
        (book / ".drafts" / "2026-03-r1-99").mkdir(parents=True)
        assert settle.run(order(book, "2026-02")).outcome == "settled already"
        assert (book / ".drafts" / "2026-03-r1-99").exists()
        publish.clear_drafts(book)
