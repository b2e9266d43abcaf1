"""`settle check` as it is typed: what it prints, and with which exit code it ends."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from settlement.check import USAGE
from tests.processes import Finished, Forks
from tests.small import write_world

NOW = {"SETTLE_NOW": "2026-04-02T02:00:00Z"}


class Place:
    """A world of three settled months."""

    def __init__(self, folder: Path, fork: Forks) -> None:
        self.folder, self.fork = folder, fork

    def __call__(self, arguments: str, **settings: str) -> Finished:
        paths = {
            "SETTLE_LOGS": "logs",
            "SETTLE_BOOK": "book",
            "SETTLE_PRICES": "prices.toml",
        }
        return self.fork(*arguments.split(), cwd=self.folder, **(paths | NOW | settings))

    @property
    def digest(self) -> str:
        """The newest settlement's."""
        manifest = self.folder / "book" / "2026-03" / "r1" / "settlement.json"
        return str(json.loads(manifest.read_bytes())["digest"])


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, fork: Forks) -> Place:
    folder = tmp_path_factory.mktemp("settled")
    write_world(folder, "2026-01", "2026-02", "2026-03")
    place = Place(folder, fork)
    assert place("run 2026-01..2026-03").code == 0
    return place


@pytest.fixture
def place(settled: Place, tmp_path: Path) -> Place:
    return Place(Path(shutil.copytree(settled.folder, tmp_path / "place")), settled.fork)


def test_a_sound_book_says_what_is_not_proved_and_what_would(settled: Place) -> None:
    done = settled("check")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "book: sound, 3 settlements, 34 rows",
        (
            "  not proved: that 2026-03 r1 is what was published: nothing sound follows it; "
            f"compare its digest with what its run printed: {settled.digest}"
        ),
        f"  not proved: {USAGE}",
    ]


def test_the_digest_and_a_recount_prove_the_rest(settled: Place) -> None:
    done = settled(f"check --digest {settled.digest} --recount")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "book: sound, 3 settlements, 34 rows",
        "  counted again: 2026-03 r1, 1 file, 3 rows; not read: 2 other files in the log",
        "  not proved: the usage of the other 2 settlements",
    ]
    older = settled("check --recount 2026-01 --prices prices.toml --json").json
    assert (older["sound"], older["recounted"]["settlement"]) == (True, "2026-01 r1")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("check --digest 12", 2, "'12' is not a digest"),
        ("check --recount 2026-13", 2, "2026-13"),
        ("check --recount 2027-01", 66, "the month is not settled"),
        ("check --recount --logs nowhere", 66, "nowhere: no such path"),
        ("check --recount --prices nowhere", 66, "nowhere: no price book"),
        ("check --book nowhere", 66, "nowhere: no book"),
        ("check --book prices.toml", 66, "prices.toml: is not a folder"),
        ("check --book logs", 65, "does not belong into the book"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    settled: Place, arguments: str, code: int, says: str
) -> None:
    done = settled(arguments)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert "Traceback" not in done.err


def test_everything_wrong_is_a_line_of_its_own_and_what_holds_is_said(place: Place) -> None:
    for path in ("2026-02/r1/lines.parquet", "2026-02/r1/usage.parquet"):
        with (place.folder / "book" / path).open("r+b") as file:
            file.write(b"spoiled")
    (place.folder / "book" / "notes\x1b[31m.txt").touch()
    done = place("check")
    assert (done.code, done.out) == (65, "")
    assert done.err.splitlines() == [
        "book: 3 problems",
        "  notes\\x1b[31m.txt: does not belong into the book",
        "  2026-02/r1/usage.parquet: its digest is not the manifest's",
        "  2026-02/r1/lines.parquet: its digest is not the manifest's",
        "  to be trusted, before all that is wrong: 2026-01 r1",
        "  sound but for what came before: 2026-03 r1",
        f"  not proved: {USAGE}",
        "  not proved: the ledger from 2026-02 r1 on",
    ]
    found = place("check --json")
    assert found.code == 65
    assert [each["settlement"] for each in found.json["findings"]] == ["", *["2026-02 r1"] * 2]
    assert found.json["trusted"] == ["2026-01 r1"]


def test_a_log_that_says_otherwise_is_named_with_both_values(place: Place) -> None:
    """The same file by name, size and footer: only its rows can tell."""
    path = place.folder / "logs" / "2026-03.parquet"
    raw = path.read_bytes()
    assert raw.count(b"beta") >= 1
    at = raw.index(b"beta")
    path.write_bytes(raw[:at] + b"zeta" + raw[at + 4 :])
    done = place("check --recount 2026-03")
    assert done.code == 65, done
    assert (
        "  2026-03/r1: recount: 2 rows of usage, first 'beta' 'detection' 'Detect': "
        "a row in the book, no such row by the log"
    ) in done.err.splitlines()


def test_a_recount_that_cannot_be_made_hides_nothing(place: Place) -> None:
    with (place.folder / "book/2026-02/r1/usage.parquet").open("ab") as file:
        file.write(b"x")
    for log, says in (("nowhere", "nowhere: no such path"), ("prices.toml", "no .parquet file")):
        done = place(f"check --recount 2026-02 --logs {log}")
        assert (done.code, done.out) == (65, "")
        lines = done.err.splitlines()
        assert lines[:2] == [
            "book: 1 problem",
            "  2026-02/r1/usage.parquet: its digest is not the manifest's",
        ]
        assert lines[-1].startswith("  not proved: the usage of 2026-02, which was not counted")
        assert says in lines[-1]
    found = place("check --recount --logs nowhere --json")
    assert (found.code, len(found.json["findings"])) == (65, 1)
    assert "nowhere: no such path" in found.json["unproved"][-1]


@pytest.mark.parametrize("month", ["", "2026-01"])
def test_a_damaged_month_is_not_to_be_settled_again(
    tmp_path: Path, fork: Forks, month: str
) -> None:
    write_world(tmp_path, "2026-01")
    place = Place(tmp_path, fork)
    assert place("run 2026-01").code == 0
    (tmp_path / "book/2026-01/r1/settlement.json").write_text("{}")
    done = place(f"check --recount {month}")
    assert (done.code, done.out) == (65, "")
    assert "no settlement that can be read; restore what is damaged" in done.err.splitlines()[-1]
    assert "settle run" not in done.err
    assert done.err.startswith("book: 1 problem\n  2026-01/r1/settlement.json: ")


def test_a_recount_reads_the_columns_under_the_names_of_then(tmp_path: Path, fork: Forks) -> None:
    write_world(tmp_path, "2026-01")
    path = tmp_path / "logs" / "2026-01.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["rid", *table.column_names[1:]]), path)
    place = Place(tmp_path, fork)
    assert place("run 2026-01 --column request_id=rid").code == 0
    done = place("check --recount")
    assert (done.code, done.err) == (0, "")
    assert "  counted again: 2026-01 r1, 1 file, 3 rows" in done.out.splitlines()


def test_an_export_into_a_link_that_leads_round_is_refused(place: Place) -> None:
    (place.folder / "loop").symlink_to("loop")
    (place.folder / "inside").symlink_to("book")
    done = place("export 2026-01 --out loop")
    assert (done.code, done.out, done.err.count("\n")) == (73, "", 1)
    assert done.err.startswith("settle: loop: cannot write")
    assert "lies in the book" in place("export 2026-01 --out inside/x").err


WAYS = """
    --logs=ftp://host/x     65  ftp://host/x: no address of a call log
    --logs=                 2   '--logs': empty; name a folder, file, glob or URL
    --logs=linked           66  linked/x.parquet: is a link to nowhere; remove it
    --book=file             73  file: is not a folder; move it away, or name another book
    --book=file/inside      73  file: is not a folder; move it away
    --book=dangling         73  dangling: is a link to nowhere; move it away
    --book=drafts           73  drafts/.drafts: is not a folder; move it away
    --book=months           74  months/2025-12: is not a folder; move it away
    --prices=logs           74  logs: is a folder; name the file in it
"""


@pytest.mark.parametrize(
    ("option", "code", "says"),
    [
        (line.split()[0], line.split()[1], line.split(None, 2)[2])
        for line in WAYS.split("\n")
        if line
    ],
)
def test_what_is_in_the_way_is_named_with_its_cure(
    tmp_path: Path, fork: Forks, option: str, code: str, says: str
) -> None:
    """One line: what, where, and what to do; the file is never taken for a bug of ours."""
    write_world(tmp_path, "2026-01")
    for folder in ("drafts", "months", "linked"):
        (tmp_path / folder).mkdir()
    for file in ("file", "drafts/.drafts", "months/2025-12"):
        (tmp_path / file).write_text("in the way")
    for link in ("dangling", "linked/x.parquet"):
        (tmp_path / link).symlink_to("/nowhere")
    done = Place(tmp_path, fork)(f"run 2026-01 {option}")
    assert (done.code, done.out) == (int(code), "")
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "show 2026-01", "diff 2026-01", "plan 2026-01"])
def test_a_book_that_is_a_file_is_named_by_every_reader(settled: Place, command: str) -> None:
    done = settled(f"{command} --book prices.toml")
    assert (done.code, done.out) == (74, "")
    assert done.err == (
        "settle: prices.toml: is not a folder; move it away, or name another book\n"
    )
