"""Hostile values: kept in the tables as they are, and harmless wherever they are shown.

Account ids, interfaces, request ids, items and file names come from outside. They may hold
whatever text can hold, and every command that shows them is tried: nothing reaches a terminal
that is not printable, JSON parses and gives them back, and a spreadsheet computes none of them.
"""

import csv
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.processes import Finished, Forks, settle
from tests.small_logs import SCHEMA

ACCOUNTS = (
    "line\nfeed\r\nand return",
    'says "hi", it\'s',
    "comma,semicolon;tab\t",
    "nul\0inside",
    "right-to-left \u202e\u2066\u200f marks",
    "../../../etc/passwd",
    "/absolute",
    ".",
    "..",
    "=1+cmd|' /C calc'!A0",
    "+1",
    "-5",
    "--json",
    "@sum",
    "\tled by a tab",
    "\rled by a return",
    "long " * 2048,
    "emoji 😀 and 👨\u200d👩\u200d👧",
    "normal form e\u0301",
    "normal form \u00e9",
    "\x1b[31mred\x1b[0m \x07 \x08",
    "C1 \x9b31m \x85 \x90",
    "separators \u2028 \u2029 \u00a0 \u3000",
    "\ufeffmarked",
    "tags \U000e0041 private \ue000 unassigned \u0378",
    "$(id) `id` %s {0} \\n \x7f",
    " spaces around ",
    "NULL",
    "nan",
    "007",
    "7",
)
INTERFACE = "Det\nect\x1b[2J\u202e,"
ITEM = "it\x1b[31mem\u202e,=\nx"
NAME = "na\x1b[31mme\u202e"
FILE = "we\x1b[31mird\n\u202e/1 =x\n.parquet"
NOW = {"SETTLE_NOW": "2026-04-01T00:00:00Z"}


class Place:
    """A folder with a hostile price book, contracts, log, and book."""

    def __init__(self, folder: Path, fork: Forks) -> None:
        self.folder, self.fork = folder, fork

    def __call__(self, *arguments: str, **settings: str) -> Finished:
        """Run a command here, and see that what it printed is harmless."""
        paths = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
        done = self.fork(*arguments, cwd=self.folder, **(paths | NOW | settings))
        assert "Traceback" not in done.err
        for stream in (done.out, done.err):
            harmful = {c for c in stream if not c.isprintable() and c != "\n"}
            assert not harmful, (arguments, harmful, stream)
        return done


def write_log(logs: Path, month: int, calls: int) -> None:
    """Write so many calls for every account, and three rows of an interface nobody knows."""
    names = [name for name in ACCOUNTS for _ in range(calls)] + ["who \x1b"] * 3
    known = len(names) - 3
    many = range(len(names))
    instant = datetime(2026, month, 10, tzinfo=UTC)
    table = pa.table(
        {
            "request_id": [f"{month} {n} \x1b]0;title\x07\u202e\n" for n in many],
            "account_id": names,
            "interface": [INTERFACE if n < known else "Unkn\x1bown\u202e" for n in many],
            "timestamp": pa.array([instant] * len(names), SCHEMA.field("timestamp").type),
            "status_code": pa.array([0] * len(names), pa.int32()),
        }
    )
    path = logs / FILE.replace("1", str(month))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_prices(path: Path, price: str = "1.5") -> None:
    def text(value: str) -> str:
        return json.dumps(value)  # TOML's escapes are JSON's

    path.write_text(
        f"""
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2020-01"
billable_status = ["0"]
unbilled_interfaces = [{text("un" + INTERFACE)}]
freeze = {{ factor = "1.20" }}
[[version.item]]
code = {text(ITEM)}
name = {text(NAME)}
interfaces = [{text(INTERFACE)}]
tiers = [{{ up_to = 1, unit_price = "2" }}, {{ unit_price = "{price}" }}]
""",
        encoding="utf-8",
    )


def write_contracts(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["account_id", "item", "from", "discount"])
        rows.writerows([name, ITEM, "2026-02", "0.1"] for name in ACCOUNTS if name in PLAIN)


PLAIN = {"+1", "007", "NULL", 'says "hi", it\'s', "emoji 😀 and 👨\u200d👩\u200d👧"}
"""Accounts that may stand in a contracts file."""


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, fork: Forks) -> Place:
    """Two months, the second by contracts and then revised."""
    place = Place(tmp_path_factory.mktemp("hostile"), fork)
    write_prices(place.folder / "prices.toml")
    write_log(place.folder / "logs", 1, 1)
    write_log(place.folder / "logs", 2, 2)
    assert place("run", "2026-01", "--max-rejects", "0.5").code == 0
    write_contracts(place.folder / "contracts.csv")
    assert place("run", "2026-02", "--max-rejects", "0.5").code == 0
    write_prices(place.folder / "prices.toml", "1.25")
    reason = "because \x1b[31mof\u202e\nthis"
    done = place("run", "2026-02", "--revise", "--reason", reason, "--max-rejects", "0.5")
    assert done.code == 0, done
    return place


def test_values_are_kept_in_the_tables_as_they_are(settled: Place) -> None:
    book = settled.folder / "book"
    for month in ("2026-01", "2026-02"):
        invoices = pq.read_table(book / month / "r1" / "invoices.parquet", partitioning=None)
        assert invoices["account_id"].to_pylist() == sorted(ACCOUNTS, key=str.encode)
    usage = pq.read_table(book / "2026-01" / "r1" / "usage.parquet", partitioning=None)
    assert set(usage["item"].to_pylist()) == {ITEM}
    assert set(usage["interface"].to_pylist()) == {INTERFACE}
    rejects = pq.read_table(book / "2026-01" / "r1" / "rejects.parquet", partitioning=None)
    assert rejects["file"].to_pylist() == [FILE] * 3
    assert rejects["interface"].to_pylist() == ["Unkn\x1bown\u202e"] * 3
    assert all("\x1b]0;title\x07\u202e\n" in name for name in rejects["request_id"].to_pylist())


def test_why_a_month_was_revised_is_shown(settled: Place) -> None:
    said = "because \\x1b[31mof\\u202e\\nthis"
    assert f"reason   {said}" in settled("show", "2026-02").out.splitlines()
    assert f"reason: {said}" in settled("diff", "2026-02").out.splitlines()
    described = settled("diff", "2026-02", "--json").json
    assert described["reason"] == "because \x1b[31mof\u202e\nthis"


COMMANDS = """
    status
    status --late
    show 2026-02
    diff 2026-02
    diff 2026-01 r0 r1
    check
    check --recount 2026-01
    prices
    plan 2026-01 --max-rejects 0.5 --contracts nothing.csv
    plan 2026-02 --what-if --prices dearer.toml
    plan 2026-02 --revise --max-rejects 0.5
    run 2026-02
    run 2026-01 --revise --limit-rejects 0.01 --max-rejects 0.5 --prices dearer.toml
    run 2026-02 --revise --max-rejects 0.5 --prices dearer.toml --limit-account 1:0
    run 2026-02 --max-rejects 0.5 --prices dearer.toml
    ingest 2026-02
    check --book broken
"""


@pytest.fixture(scope="module")
def other(settled: Place) -> Place:
    """More files to show: other prices, and a book that is broken."""
    write_prices(settled.folder / "dearer.toml", "3.75")
    (settled.folder / "nothing.csv").write_text("account_id,from,discount\n")
    broken = settled.folder / "broken"
    shutil.copytree(settled.folder / "book", broken)
    (broken / "stray \x1b[31m\u202e\n").touch()
    (broken / "2026-01" / "r1" / "added \x1b\n").touch()
    return settled


@pytest.mark.parametrize(
    "arguments", [line.split() for line in COMMANDS.strip().splitlines()], ids=" ".join
)
def test_no_command_prints_what_a_terminal_would_obey(other: Place, arguments: list[str]) -> None:
    """For people and for programs."""
    done = other(*arguments)
    assert done.out or done.err
    as_json = other(*arguments, "--json")
    assert as_json.code == done.code
    assert as_json.out == "" or as_json.json


@pytest.mark.parametrize(
    "arguments", ["show 2026-02 007", "explain 2026-02 007", "prices", "check"]
)
def test_a_terminal_that_knows_nothing_but_ascii_gets_ascii(other: Place, arguments: str) -> None:
    where = {"SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"} | NOW
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ascii_only["PYTHONIOENCODING"] = "ascii"  # whatever the tests are run with
    done = settle(*arguments.split(), cwd=other.folder, **where, **ascii_only)
    assert (done.code, done.err) == (0, "")
    assert done.out.isascii()
    assert all(c.isprintable() or c == "\n" for c in done.out)


@pytest.mark.parametrize("account", [name for name in ACCOUNTS if "\0" not in name])
def test_every_account_is_found_and_given_back_by_json(settled: Place, account: str) -> None:
    """But one with a NUL, which no command line can hold."""
    shown = settled("show", "2026-02", "--json", "--", account).json
    assert shown["account_id"] == account
    assert shown["invoice"]["payable"]
    assert shown["lines"][0]["item"] == ITEM


@pytest.mark.parametrize("account", [ACCOUNTS[0], ACCOUNTS[4], ACCOUNTS[16], ACCOUNTS[20]])
def test_an_account_is_shown_and_explained_in_plain_characters(
    settled: Place, account: str
) -> None:
    for command in ("show", "explain"):
        text = settled(command, "2026-02", "--", account)
        assert (text.code, text.err) == (0, "")
        assert settled(command, "2026-02", "--json", "--", account).json["account_id"] == account
    unknown = settled("explain", "2026-02", "--", account + "\x1b")
    assert (unknown.code, unknown.out) == (66, "")
    assert unknown.err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "explain"])
@pytest.mark.parametrize("account", ["-5", "--jsn"])
def test_an_account_that_looks_like_an_option_gets_a_hint(
    settled: Place, command: str, account: str
) -> None:
    refused = settled(command, "2026-02", account)
    assert refused.code == 2
    assert f"goes after --: settle {command} MONTH -- ACCOUNT" in refused.err
    assert refused.err.count("\n") == 1


def test_an_export_is_read_back_whole_and_computes_nothing(settled: Place) -> None:
    out = settled.folder / "csv"
    assert settled("export", "2026-02", "--out", "csv").code == 0
    assert settled("export", "2026-02", "--out", "csv", "--json").json["files"]
    tables = ["adjustments.csv", "entries.csv", "invoices.csv", "lines.csv"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*tables, "control.json"])
    for name in tables:
        with (out / name).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))[1:]
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell.lstrip("\0")[:1] in set("=+@\t\r")]
        assert not [c for c in cells if c.startswith("-") and c[1:2] not in set("0123456789")]
        accounts = {row[2].removeprefix("'") for row in rows}
        assert accounts == {name.removeprefix("'") for name in ACCOUNTS}
