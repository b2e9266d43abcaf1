"""The command line from outside: real processes, real files, exit codes, what is left behind."""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement import cli
from tests import small_logs
from tests.processes import (
    PROGRAM,
    ROOT,
    Finished,
    Forks,
    environment,
    holds_nothing,
    settle,
    snapshot,
    start,
)

PRICE_BOOK = ROOT / "data" / "price_book.toml"
COMMANDS = (
    "run",
    "plan",
    "status",
    "show",
    "diff",
    "explain",
    "export",
    "check",
    "prices",
    "sample",
)
MONTHS = {
    "2026-01": """
        0100000042  CompareFace  10_001
        0100000050  CompareFace  10_801
        0100000099  DetectFace      700
    """,
    "2026-02": """
        0100000042  CompareFace  20_000
        0100000060  CompareFace  11_000
        0100000099  DetectFace      700
    """,
    "2026-03": """
        0100000042  CompareFace     500
    """,
}


@dataclass(frozen=True)
class Place:
    """A folder with a price book, a log of three months, and a book that holds the first."""

    folder: Path
    fork: Forks

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def book(self) -> Path:
        return self.folder / "book"

    @property
    def prices(self) -> Path:
        return self.folder / "prices.toml"

    def __call__(self, arguments: str, **settings: str) -> Finished:
        """Run a command here; paths come from the environment."""
        places = {
            "SETTLE_LOGS": "logs",
            "SETTLE_BOOK": "book",
            "SETTLE_PRICES": "prices.toml",
        }
        return self.fork(*arguments.split(), cwd=self.folder, **(places | settings))


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, fork: Forks) -> Place:
    """The place that every test begins with; tests copy it."""
    place = Place(tmp_path_factory.mktemp("settled"), fork)
    shutil.copy(PRICE_BOOK, place.prices)
    for month, drawing in MONTHS.items():
        table = small_logs.made(month, small_logs.drawn_calls(drawing))
        small_logs.write(table, place.logs / month / "calls.parquet", compression="zstd")
    done = place("run 2026-01")
    assert (done.code, done.err) == (0, ""), done
    return place


@pytest.fixture
def place(settled: Place, tmp_path: Path) -> Place:
    """A copy of the settled place, times of change included."""
    folder = tmp_path / "place"
    shutil.copytree(settled.folder, folder)
    return Place(folder, settled.fork)


# ---------------------------------------------------------------- refusals


def february(place: Place) -> Path:
    return place.logs / "2026-02" / "calls.parquet"


def rewritten(change: Callable[[pa.Table], pa.Table], **how: Any) -> Callable[[Place], None]:
    """A setup that rewrites February's file."""

    def setup(place: Place) -> None:
        path = february(place)
        small_logs.write(change(pq.read_table(path)), path, **how)

    return setup


def cells(name: str, kind: pa.DataType, *values: Any) -> Callable[[Place], None]:
    return rewritten(lambda table: small_logs.with_cells(table, name, values, kind))


def without(name: str) -> Callable[[Place], None]:
    return rewritten(lambda table: table.drop_columns([name]))


def doubled(name: str) -> Callable[[Place], None]:
    return rewritten(lambda table: table.append_column(name, table[name]))


def moved_to(folder: str) -> Callable[[Place], None]:
    def setup(place: Place) -> None:
        (place.logs / folder).mkdir()
        february(place).rename(place.logs / folder / "calls.parquet")

    return setup


def priced(old: str, new: str) -> Callable[[Place], None]:
    """A setup that edits the price book."""

    def setup(place: Place) -> None:
        text = place.prices.read_text(encoding="utf-8")
        assert old in text
        place.prices.write_text(text.replace(old, new, 1), encoding="utf-8")

    return setup


def cut_short(place: Place) -> None:
    raw = february(place).read_bytes()
    february(place).write_bytes(raw[: len(raw) // 2])


def bit_flipped(place: Place) -> None:
    """Turn one bit within a page whose checksum was written with it."""
    path = february(place)
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", write_page_checksum=True, use_dictionary=False)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"0100000042", raw.index(b"0100000042") + 1000) + 5] ^= 1  # past the statistics
    path.write_bytes(raw)


def encrypted(*, plaintext_footer: bool) -> Callable[[Place], None]:
    def setup(place: Place) -> None:
        table = pq.read_table(february(place))
        small_logs.write_encrypted(table, february(place), plaintext_footer=plaintext_footer)

    return setup


def no_log_files(place: Place) -> None:
    for path in place.logs.rglob("*.parquet"):
        path.rename(path.with_suffix(".parquet.part"))


def no_february(place: Place) -> None:
    february(place).unlink()


def book_is_a_file(place: Place) -> None:
    shutil.rmtree(place.book)
    place.book.write_text("not a folder\n")


def book_under_a_file(place: Place) -> None:
    book_is_a_file(place)
    (place.folder / "out").write_text("not a folder\n")


def prices_is_a_folder(place: Place) -> None:
    place.prices.unlink()
    place.prices.mkdir()


def manifest_edited(place: Place) -> None:
    path = place.book / "2026-01" / "r1" / "settlement.json"
    path.write_text(path.read_text().replace('"28.80"', '"28.81"').replace("60.16", "60.17"))


def table_edited(place: Place) -> None:
    path = place.book / "2026-01" / "r1" / "entries.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def nothing(place: Place) -> None:
    """All is as it was settled."""


NOW = {"SETTLE_NOW": "2026-04-02T02:00:00Z"}
ITEM_3 = 'interfaces = ["CompareFace"]'
REFUSED: list[tuple[Callable[[Place], None], str, int, str]] = [
    # setup, command, exit code, what the line says
    # a command that cannot be meant so
    (nothing, "run 2026-13", 2, "2026-13 · no such month"),
    (nothing, "run 2026-1", 2, "2026-1 · YYYY-MM"),
    (nothing, "run 202602", 2, "202602 · YYYY-MM"),
    (nothing, "run February", 2, "February · YYYY-MM"),
    (nothing, "show ２０２６-01", 2, "YYYY-MM"),
    (nothing, "run 2026-02 --alow-gap", 2, "--alow-gap · --allow-gap"),
    (nothing, "run 2026-02 --max-rejects 2", 2, "--max-rejects · from 0 to 1"),
    (nothing, "run 2026-02 --max-rejects nan", 2, "--max-rejects · from 0 to 1"),
    (nothing, "run 2026-02 --threads 0", 2, "--threads"),
    (nothing, "run 2026-02 2026-03", 2, "2026-03"),
    (nothing, "setle 2026-02", 2, "setle"),
    (nothing, "explain 2026-01", 2, "ACCOUNT"),
    (nothing, "export 2026-01", 2, "--out"),
    (nothing, "sample --out more --month 2026-03 --accounts 0", 2, "--accounts"),
    # a month that is not over, a gap
    (nothing, "run 2026-04", 2, "2026-04 · not over · 2026-04-30T16:00:00Z · Asia/Shanghai"),
    (nothing, "plan 2026-04", 2, "2026-04 · not over"),
    (nothing, "run 2026-03", 2, "2026-03 · 2026-02 is not settled · --allow-gap"),
    (nothing, "plan 2026-03", 2, "2026-03 · 2026-02 is not settled · --allow-gap"),
    # the price book
    (priced('currency = "CNY"', "currency ="), "run 2026-02", 65, "prices.toml · TOML"),
    (priced('"CNY"', '"KWD"'), "run 2026-02", 65, "prices.toml · KWD"),
    (priced('"Asia/Shanghai"', '"Asia/Shanghia"'), "run 2026-02", 65, "prices.toml · Shanghia"),
    (priced("free_calls", "free_cals"), "run 2026-02", 65, "free_cals · free_calls"),
    (priced("up_to = 3000000,", "up_to = 9000,"), "run 2026-02", 65, "face-detection · up_to"),
    (priced('"0.0005"', "0.0005"), "run 2026-02", 65, "face-detection · unit_price"),
    (priced('"0.0005"', '"-0.0005"'), "run 2026-02", 65, "face-detection · unit_price"),
    (priced('"0.0005"', '"5e-4"'), "run 2026-02", 65, "face-detection · unit_price"),
    (priced('"0.0005"', '"10000"'), "run 2026-02", 65, "face-detection · unit_price"),
    (priced("{                   unit", "{ up_to = 9, unit"), "run 2026-02", 65, "last tier"),
    (priced('CreateFace = "', 'DeleteFace = "'), "run 2026-02", 65, "CreateFace · shared"),
    (priced("interfaces = []", 'interfaces = ["CompareFace"]'), "run 2026-02", 65, "unbilled"),
    (priced('status     = ["0"]', "status     = []"), "run 2026-02", 65, "billable_status · empty"),
    (priced("\n[[version]]", "\n[version]"), "prices", 65, "prices.toml"),
    (priced("free_calls", "free_cals"), "prices", 65, "free_cals · free_calls"),
    (nothing, "run 2017-12", 65, "2017-12 · 2018-01 · effective_from"),
    (nothing, "plan 2017-12", 65, "2017-12 · 2018-01"),
    (nothing, "run 2026-02 --prices none.toml", 66, "none.toml · --prices"),
    (prices_is_a_folder, "run 2026-02", 74, "prices.toml"),
    (priced('"CNY"', '"USD"'), "run 2026-02", 78, "currency · USD · CNY"),
    (priced('"Asia/Shanghai"', '"Asia/Tokyo"'), "run 2026-02", 78, "timezone · Tokyo · Shanghai"),
    (priced('"CNY"', '"USD"'), "plan 2026-02", 78, "currency · USD · CNY"),
    # the columns of the log
    (without("request_id"), "run 2026-02", 65, "2026-02/calls.parquet · request_id · missing"),
    (without("account_id"), "run 2026-02", 65, "2026-02/calls.parquet · account_id · missing"),
    (without("interface"), "run 2026-02", 65, "2026-02/calls.parquet · interface · missing"),
    (without("timestamp"), "run 2026-02", 65, "2026-02/calls.parquet · timestamp · missing"),
    (without("status_code"), "run 2026-02", 65, "2026-02/calls.parquet · status_code · missing"),
    (without("status_code"), "plan 2026-02", 65, "2026-02/calls.parquet · status_code · missing"),
    (cells("request_id", pa.float64(), 1.5), "run 2026-02", 65, "calls.parquet · request_id"),
    (cells("account_id", pa.float64(), 42.0), "run 2026-02", 65, "calls.parquet · account_id"),
    (cells("interface", pa.int64(), 3), "run 2026-02", 65, "calls.parquet · interface"),
    (cells("timestamp", pa.int64(), 17), "run 2026-02", 65, "calls.parquet · timestamp"),
    (cells("timestamp", pa.string(), "now"), "run 2026-02", 65, "calls.parquet · timestamp"),
    (cells("timestamp", pa.date32(), 20500), "run 2026-02", 65, "calls.parquet · timestamp"),
    (cells("status_code", pa.bool_(), True), "run 2026-02", 65, "calls.parquet · status_code"),
    (cells("timestamp", pa.timestamp("us"), 17), "run 2026-02", 65, "zone · --naive-timestamps"),
    (doubled("request_id"), "run 2026-02", 65, "calls.parquet · request_id · twice"),
    (doubled("account_id"), "run 2026-02", 65, "calls.parquet · account_id · twice"),
    (doubled("timestamp"), "run 2026-02", 65, "calls.parquet · timestamp · twice"),
    (moved_to("item=face-search"), "run 2026-02", 65, "item=face-search · calls.parquet"),
    (moved_to("item="), "run 2026-02", 65, "item= · calls.parquet"),
    # its files
    (
        rewritten(lambda table: small_logs.not_utf8(table, "account_id")),
        "run 2026-02",
        65,
        "2026-02/calls.parquet · account_id",
    ),
    (
        rewritten(lambda table: small_logs.not_utf8(table, "interface")),
        "run 2026-02",
        65,
        "2026-02/calls.parquet · interface",
    ),
    (
        rewritten(lambda table: small_logs.not_utf8(table, "request_id")),
        "run 2026-02",
        65,
        "2026-02/calls.parquet · request_id",
    ),
    (cut_short, "run 2026-02", 65, "2026-02/calls.parquet · truncated"),
    (bit_flipped, "run 2026-02", 65, "2026-02/calls.parquet"),
    (encrypted(plaintext_footer=False), "run 2026-02", 65, "2026-02/calls.parquet · encrypted"),
    (encrypted(plaintext_footer=True), "run 2026-02", 65, "2026-02/calls.parquet · encrypted"),
    (nothing, "run 2026-02 --logs nowhere", 66, "nowhere"),
    (nothing, "run 2026-02 --logs logs/*.csv", 66, "logs/*.csv"),
    (nothing, "plan 2026-02 --logs nowhere", 66, "nowhere"),
    (no_log_files, "run 2026-02", 66, "logs · .parquet"),
    (no_february, "run 2026-02", 66, "logs · 2026-02 · --allow-empty"),
    (no_february, "plan 2026-02", 66, "logs · 2026-02 · --allow-empty"),
    # what is not settled
    (nothing, "show 2026-02", 66, "2026-02 · 2026-01 · settle run 2026-02"),
    (nothing, "explain 2026-02 0100000042", 66, "2026-02 · settle run 2026-02"),
    (nothing, "export 2026-02 --out out", 66, "2026-02 · settle run 2026-02"),
    (nothing, "run 2026-02 --revise", 66, "2026-02 · settle run 2026-02"),
    (nothing, "show 2026-01 100000042", 66, "2026-01 · 100000042 · leading zeros"),
    (nothing, "explain 2026-01 100000042", 66, "2026-01 · 100000042 · leading zeros"),
    (nothing, "show --book nowhere", 66, "nowhere: no book; name it with --book · settle run"),
    (nothing, "show 2026-01 --book bok", 66, "bok: no book; name it with --book · --book bok"),
    (nothing, "diff 2026-01 --book logs", 66, "logs: no month is settled yet; name it with --book"),
    # a book that cannot be written, or is not what was published
    (book_is_a_file, "run 2026-02", 73, "book"),
    (book_under_a_file, "run 2026-02 --book book/within", 73, "book"),
    (book_under_a_file, "sample --out out --month 2026-03 --calls 5", 73, "out"),
    (book_is_a_file, "status", 74, "book"),
    (
        manifest_edited,
        "run 2026-02",
        65,
        "2026-01/r1/settlement.json · backup, then run: settle check --book book",
    ),
    (
        manifest_edited,
        "show 2026-01",
        65,
        "2026-01/r1/settlement.json · backup, then run: settle check --book book",
    ),
    (table_edited, "run 2026-02", 65, "2026-01/r1/entries.parquet · backup · check --book book"),
    (
        table_edited,
        "export 2026-01 --out out",
        65,
        "2026-01/r1/entries.parquet · backup · check --book book",
    ),
    # another outcome
    (priced('"0.0032"', '"0.0031"'), "run 2026-01", 4, "2026-01 r1 · 31.3632 → 30.3831 · --revise"),
]


CASES = [f"{command} → {code}: {says}" for _, command, code, says in REFUSED]


@pytest.mark.parametrize(("setup", "command", "code", "says"), REFUSED, ids=CASES)
def test_a_refusal_is_one_line_and_writes_nothing(
    place: Place, setup: Callable[[Place], None], command: str, code: int, says: str
) -> None:
    setup(place)
    before = snapshot(place.folder)
    done = place(command, **NOW)
    assert_refused(done, code, says)
    assert snapshot(place.folder) == before


@pytest.mark.parametrize(
    "setup", [no_february, cut_short, without("status_code"), priced("free_calls", "free_cals")]
)
def test_a_refusal_leaves_nothing_but_its_report(
    place: Place, setup: Callable[[Place], None]
) -> None:
    setup(place)
    done = place("run 2026-02 --book new/book", **NOW)
    assert done.code in {65, 66}
    assert holds_nothing(place.folder / "new" / "book")


def assert_refused(done: Finished, code: int, says: str) -> None:
    """One line on stderr: where, what, what to do."""
    assert done.code == code, done
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("settle: ")
    assert "; " in line
    for part in says.split(" · "):
        assert part in line


@pytest.mark.parametrize(
    "given",
    [
        "tomorrow",
        "",
        "2026-04-02",
        "2026-04-02T02:00:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59Z",
    ],
)
@pytest.mark.parametrize("command", ["run 2026-02", "run", "plan", "status", "show"])
def test_a_malformed_clock_is_refused(place: Place, given: str, command: str) -> None:
    before = snapshot(place.folder)
    assert_refused(place(command, SETTLE_NOW=given), 78, "SETTLE_NOW")
    assert snapshot(place.folder) == before


def test_too_many_rejects_are_counted_and_the_first_ten_shown(place: Place) -> None:
    table = pq.read_table(february(place))
    rejected = {7 + 100 * n: "NoSuchInterface" for n in range(12)}
    interfaces = [rejected.get(n, cell) for n, cell in enumerate(table["interface"].to_pylist())]
    small_logs.write(
        table.set_column(2, "interface", pa.array(interfaces)), place.logs / "2026-02/calls.parquet"
    )
    before = snapshot(place.folder)
    done = place("run 2026-02", **NOW)
    line, *beneath = done.err.splitlines()
    assert done.code == 65
    assert "12 of 31,700 rows of 2026-02 are rejected" in line
    assert "--max-rejects" in line
    assert "12 rejected.unknown_interface" in beneath[0]
    assert len(beneath) == 11
    for shown, row in zip(beneath[1:], list(rejected)[:10], strict=True):
        assert f"2026-02/calls.parquet row {row}: unknown_interface" in shown
        assert "'NoSuchInterface'" in shown
        assert "2026-02-02T" in shown
    assert snapshot(place.folder) == before
    # 12 of 31 700 are a share of 0.000378…; exactly at the limit is not above it.
    assert place("run 2026-02 --max-rejects 0.000378", **NOW).code == 65
    assert place("plan 2026-02 --max-rejects 0.000378", **NOW).code == 65
    assert place("run 2026-02 --max-rejects 12/31700", **NOW).code == 0
    manifest = place("show 2026-02 --json").json
    assert manifest["rows"]["rejected.unknown_interface"] == 12
    assert manifest["tables"]["rejects"]["rows"] == 12


def test_a_rejected_row_shows_what_is_null_and_what_is_empty(place: Place) -> None:
    table = pq.read_table(february(place))
    accounts = table["account_id"].to_pylist()
    accounts[7], accounts[107] = None, ""
    small_logs.write(
        table.set_column(1, "account_id", pa.array(accounts)), place.logs / "2026-02/calls.parquet"
    )
    shown = place("run 2026-02 --max-rejects 0", **NOW).err.splitlines()[2:]
    assert [line.split(", ")[1] for line in shown] == ["account_id null", "account_id ''"]
    said = place("run 2026-02 --max-rejects 0 --log-format json", **NOW).err.splitlines()[-1]
    assert json.loads(said)["details"][1:] == [line.strip() for line in shown]
    assert ", timestamp '2026-02-02T" in shown[0]


def test_the_counts_of_a_refusal_add_up_and_rows_without_a_time_stand_apart(place: Place) -> None:
    table = pq.read_table(february(place))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for n in (3, 4):
        columns["timestamp"][n] = None
    for n in (5, 6, 7):
        columns["account_id"][n] = None
    columns["interface"][8] = "NoSuchInterface"
    changed = pa.table(columns, schema=table.schema)
    small_logs.write(changed, place.logs / "2026-02/calls.parquet")
    line, counts, *_ = place("run 2026-02", **NOW).err.splitlines()
    assert ": 4 of 31,698 rows of 2026-02 are rejected; " in line
    among, besides = counts.split("; ")
    assert sum(int(each.split()[0]) for each in among.split(", ")) == 4
    assert besides == "besides, 2 rejected.missing_timestamp, of no known month"


def test_a_held_book_is_refused_naming_the_holder(place: Place) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from settlement.publish import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, place.book],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        encoding="utf-8",
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        before = snapshot(place.book)
        done = place("run 2026-02", **NOW)
        assert_refused(done, 75, f"book · process {holder.pid}")
        assert snapshot(place.book) == before
        assert place("status").code == 0
        assert place("plan 2026-02", **NOW).code == 0
        assert place("run 2026-01", **NOW).code == 0
        holder.stdin.close()
    assert place("run 2026-02", **NOW).code == 0


# ---------------------------------------------------------------- what is allowed


def test_a_gap_can_be_allowed(place: Place) -> None:
    assert place("run 2026-03 --allow-gap", **NOW).code == 0
    status = place("status --json", **NOW).json
    assert [each["month"] for each in status["settled"]] == ["2026-01", "2026-03"]
    assert status["missing"] == ["2026-02"]
    # The month that was left out is only debited: its holds have moved on.
    assert place("run 2026-02", **NOW).code == 0
    totals = place("show 2026-02 --json").json["totals"]
    assert (totals["unfrozen"], totals["debited"], totals["frozen"]) == ("0.00", "92.80", "0.00")
    assert place("check").code == 0


def test_an_empty_month_gives_every_hold_back(place: Place) -> None:
    no_february(place)
    assert place("run 2026-02 --allow-empty", **NOW).code == 0
    totals = place("show 2026-02 --json").json["totals"]
    assert totals["unfrozen"] == place("show 2026-01 --json").json["totals"]["frozen"] == "72.19"
    assert (totals["accounts"], totals["debited"], totals["frozen"]) == (0, "0.00", "0.00")
    assert place("check").code == 0


def test_naive_timestamps_are_read_in_the_named_zone(place: Place) -> None:
    path = february(place)
    table = pq.read_table(path)
    local = pa.compute.local_timestamp(
        table["timestamp"].cast(pa.timestamp("us", "America/New_York"))
    )
    small_logs.write(table.set_column(3, "timestamp", local), path)
    assert place("run 2026-02 --naive-timestamps America/New_York", **NOW).code == 0
    manifest = place("show 2026-02 --json").json
    assert manifest["totals"]["payable"] == "92.80"
    assert manifest["options"]["naive_timestamps"] == "America/New_York"
    rejects = place("run 2026-02 --naive-timestamps Mars/Olympus", **NOW)
    assert_refused(rejects, 78, "Mars/Olympus")


def test_before_the_first_settlement_status_names_the_book(place: Place) -> None:
    (place.folder / "fresh").mkdir()
    for book, says in (("fresh", ""), ("bok", "no book there, ")):
        done = place(f"status --book {book}")
        assert (done.code, done.out) == (0, f"{book}: {says}no month is settled yet\n")


# ---------------------------------------------------------------- again


def test_settling_again_writes_nothing_at_all(place: Place) -> None:
    before = snapshot(place.folder, folders_too=True)
    for settings in (NOW, {"SETTLE_NOW": "2027-01-01T00:00:00Z"}, {"SETTLE_THREADS": "1"}):
        done = place("run 2026-01", **settings)
        assert (done.code, done.err) == (0, "")
        assert "settled already" in done.out
    assert snapshot(place.folder, folders_too=True) == before
    assert place("run 2026-01 --json").json["outcome"] == "settled already"


def test_a_changed_file_with_the_same_calls_is_the_same_outcome(place: Place) -> None:
    path = place.logs / "2026-01" / "calls.parquet"
    table = pq.read_table(path)
    small_logs.write(table.slice(5000), path)
    small_logs.write(table.slice(0, 5000), place.logs / "late" / "calls.parquet")
    before = snapshot(place.folder, folders_too=True)
    done = place("run 2026-01")
    assert (done.code, done.err) == (0, "")
    assert "same outcome" in done.out
    assert snapshot(place.folder, folders_too=True) == before


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        # the row that changed most comes first; where no money moved, the column that changed
        (
            priced('"0.0032"', '"0.0031"'),
            "invoices differ, first 0100000050: payable 31.36 → 30.38",
        ),
        (priced('factor = "1.20"', 'factor = "1.10"'), "holds · 0100000050 · 37.63 → 34.50"),
        (lambda place: _add_call(place, "0100000099", "DetectFace"), "detection: calls 700 → 701"),
        (lambda place: _add_call(place, "0100000007"), "lines · 0100000007 · calls nothing → 1"),
        (lambda place: _add_call(place, "0100000007"), "list_amount nothing → 0.00"),
        (lambda place: _add_call(place, "0100000042"), "usage · 10,001 → 10,002"),
        (lambda place: _add_call(place, "0100000007"), "usage · 0100000007 · 0 → 1"),
    ],
)
def test_another_outcome_is_refused_and_says_what_changed(
    place: Place, setup: Callable[[Place], None], says: str
) -> None:
    setup(place)
    before = snapshot(place.folder)
    assert_refused(place("run 2026-01"), 4, f"2026-01 · {says} · --revise")
    assert snapshot(place.folder) == before
    planned = place("plan 2026-01 --json")
    assert planned.code == 0
    for part in says.split(" · "):
        assert part in planned.json["difference"]


CURES = """
refused              →  code  cure                            →  says
run 2026-01          →  4     run 2026-01 --revise            →  2026-01 r2: published
show 2026-02         →  66    run 2026-02                     →  2026-02 r1: published
diff 2026-02         →  66    run 2026-02                     →  2026-02 r1: published
run 2026-02 --revise →  66    run 2026-02                     →  2026-02 r1: published
"""


@pytest.mark.parametrize("case", CURES.strip().splitlines()[1:])
def test_a_cure_is_typed_as_it_is_printed(place: Place, case: str) -> None:
    """Without the environment, and with paths that are not the defaults."""
    refused, (code, *cure), says = (cell.split() for cell in case.split("→"))
    _add_call(place, "0100000042")
    options = shlex.split(f"--logs {place.logs} --book '{place.folder / 'the book'}'")
    options += ["--prices", str(place.prices)]
    place.book.rename(place.folder / "the book")
    typed = options if refused[0] == "run" else options[2:4]
    done = place.fork(*refused, *typed, cwd=place.folder, **NOW)
    assert done.code == int(code)
    printed = shlex.split(done.err.partition(": settle ")[2].replace("TEXT", "late"))
    assert printed[:2] == cure[:2]
    assert set(cure) | set(typed) <= set(printed)
    rest = [] if refused[0] == "run" else [*options[:2], *options[4:]]
    again = place.fork(*printed, *rest, cwd=place.folder, **NOW)
    assert again.out.startswith(" ".join(says)), again


def _add_call(place: Place, account: str, interface: str = "CompareFace") -> None:
    late = small_logs.made("2026-01", {(account, interface): 1}, "late-")
    small_logs.write(late, place.logs / "late.parquet")


def test_a_revision_posts_the_difference_and_leaves_what_was_published(place: Place) -> None:
    before = snapshot(place.book)
    _add_call(place, "0100000042")
    done = place("run 2026-01 --revise --reason late --json", **NOW)
    assert (done.code, done.err) == (0, "")
    assert (done.json["revision"], done.json["number"]) == (2, 2)
    assert {
        path: facts for path, facts in snapshot(place.book).items() if "r2" not in path
    } == before
    shown = place("show 2026-01 0100000042 --json").json
    assert shown["invoice"]["payable"] == "28.81"
    # The entries of all revisions add up, so all are shown, and exported.
    assert [(e["revision"], e["kind"], e["amount"]) for e in shown["entries"]] == [
        (1, "debit", "28.80"),
        (1, "freeze", "34.56"),
        (2, "unfreeze", "34.56"),
        (2, "debit", "0.01"),
        (2, "freeze", "34.57"),
    ]
    why = place("explain 2026-01 0100000042").out
    assert "payable 28.81, debited before 28.80 补扣, document 2026-01-r2-S0000001" in why
    assert place("export 2026-01 --out csv").code == 0
    exported = (place.folder / "csv" / "entries.csv").read_text("utf-8-sig")
    assert exported.count(",0100000042,") == 5
    documents = (place.folder / "csv" / "adjustments.csv").read_text("utf-8-sig").splitlines()
    assert documents[1:] == ["2026-01,2,0100000042,28.80,28.81,0.01,2026-01-r2-S0000001"]
    assert " 72.20 " in place("status").out
    assert place("check").code == 0
    again = place("run 2026-01 --revise --reason late", **NOW)
    assert (again.code, "settled already" in again.out) == (0, True)
    assert place("run 2026-02 --json", **NOW).json["totals"]["unfrozen"] == "72.20"
    assert place("check").code == 0


def test_what_a_revision_moved_is_said_to_be_its_own(place: Place) -> None:
    def moved(out: str) -> dict[str, str]:
        rows = [line.split() for line in out.splitlines() if line.endswith(" CNY")]
        return {" ".join(row[:-3]): row[-2] for row in rows}

    assert moved(place("show 2026-01").out)["debited"] == "60.16"
    _add_call(place, "0100000042")
    said = {
        "payable": "60.17",
        "unfrozen by r2": "34.56",
        "debited by r2": "0.01",
        "frozen by r2": "34.57",
    }
    assert said.items() <= moved(place("plan 2026-01 --revise", **NOW).out).items()
    assert said.items() <= moved(place("run 2026-01 --revise", **NOW).out).items()
    shown = moved(place("show 2026-01").out)
    assert said.items() <= shown.items()
    assert "debited" not in shown


# ---------------------------------------------------------------- plan


def test_a_plan_shows_what_a_run_publishes_and_writes_nothing(place: Place) -> None:
    before = snapshot(place.folder)
    planned = place("plan 2026-02 --json", **NOW).json
    assert snapshot(place.folder) == before
    ran = place("run 2026-02 --json", **NOW).json
    for key in ("month", "revision", "period", "rows", "totals", "inputs"):
        assert planned[key] == ran[key], key
    fresh = place("plan 2026-01 --book elsewhere --json").json
    assert fresh["change"] is None
    assert not (place.folder / "elsewhere").exists()


def test_a_plan_shows_the_change_against_the_month_before(place: Place) -> None:
    change = place("plan 2026-02 --json", **NOW).json["change"]
    drawing = """
        account     before  after  change
        0100000042   28.80  60.80   32.00
        0100000060    0.00  32.00   32.00
        0100000050   31.36   0.00  -31.36
    """
    header, *drawn = (line.split() for line in drawing.strip().splitlines())
    keys = ["account_id", *header[1:]]
    assert [[row[key] for key in keys] for row in change["largest"]] == drawn
    del change["largest"]
    assert change == {
        "against": "2026-01",
        "payable_before": "60.16",
        "payable_after": "92.80",
        "new_accounts": 1,
        "new_payable": "32.00",
        "vanished_accounts": 1,
        "vanished_payable": "31.36",
    }
    shown = place("plan 2026-02", **NOW).out
    assert "against 2026-01 (+32.64)" in shown
    assert re.search(r"0100000050 +31\.36 +0\.00 +-31\.36", shown)


# ---------------------------------------------------------------- what is published


MANIFEST = {
    "number": int,
    "month": str,
    "revision": int,
    "period": {"start": str, "end": str},
    "rows": {
        "read": int,
        "billed": int,
        "duplicate": int,
        "conflict": int,
        "outside_month": int,
        "unbilled_interface": int,
        "unbillable_status": int,
        "rejected.missing_timestamp": int,
        "rejected.missing_request_id": int,
        "rejected.missing_account_id": int,
        "rejected.unknown_interface": int,
        "rejected.wrong_item": int,
        "rejected.missing_status": int,
    },
    "totals": {
        "accounts": int,
        "list_amount": str,
        "voucher_amount": str,
        "amount": str,
        "rounding": str,
        "payable": str,
        "unfrozen": str,
        "debited": str,
        "credited": str,
        "frozen": str,
    },
    "tables": {
        name: {"rows": int, "sha256": str}
        for name in ("usage", "lines", "invoices", "entries", "rejects")
    },
    "inputs": [
        {"file": str, "size": int, "modified_ns": int, "rows": int, "footer_sha256": str},
    ],
    "rules_sha256": str,
    "prices_sha256": str,
    "program": str,
    "created_at": str,
    "digest": str,
}


def shape(value: Any) -> Any:
    """What a JSON value is made of; a list by its first element, which all must be like."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        parts = [shape(part) for part in value]
        assert all(part == parts[0] for part in parts)
        return parts[:1]
    return type(value)


def manifest_of(place: Place, month: str) -> dict[str, Any]:
    found = json.loads((place.book / month / "r1" / "settlement.json").read_bytes())
    assert isinstance(found, dict)
    return found


def test_the_manifest_has_every_key_and_no_other(place: Place) -> None:
    place("run 2026-02", **NOW)
    for number, month in enumerate(("2026-01", "2026-02"), 1):
        manifest = manifest_of(place, month)
        assert manifest["number"] == number
        previous, options = manifest.pop("previous"), manifest.pop("options")
        assert shape(manifest) == MANIFEST
        assert (previous is None) == (number == 1)
        assert options["naive_timestamps"] is None
    # What the settlement does not depend on, and yet was said, is kept there too.
    assert options == {
        "naive_timestamps": None,
        "now": "2026-04-02T02:00:00Z",
    }
    assert manifest["period"] == {"start": "2026-01-31T16:00:00Z", "end": "2026-02-28T16:00:00Z"}
    assert [file["file"] for file in manifest["inputs"]] == ["2026-02/calls.parquet"]


PUBLISHED = {
    "usage": """
        month string | revision int16 | account_id string | item string | interface string
        | calls int64
    """,
    "lines": """
        month string | revision int16 | account_id string | item string | calls int64 | tier int16
        | unit_price decimal128(18, 8) null | list_amount decimal128(24, 8) | voucher_calls int64
        | voucher_amount decimal128(24, 8) | amount decimal128(24, 8)
    """,
    "invoices": """
        month string | revision int16 | account_id string | list_amount decimal128(24, 8)
        | voucher_amount decimal128(24, 8) | amount decimal128(24, 8)
        | rounding decimal128(24, 8) | payable decimal128(18, 2) | currency string
    """,
    "entries": """
        month string | revision int16 | account_id string | sequence int16 | kind string
        | amount decimal128(18, 2) | hold_month string null
    """,
    "rejects": """
        month string | revision int16 | file string | row int64 | reason string
        | request_id string null | account_id string null | interface string null
        | timestamp string null | status_code string null | item string null
    """,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_have_the_declared_columns(settled: Place, name: str) -> None:
    path = settled.book / "2026-01" / "r1" / f"{name}.parquet"
    schema = pq.read_schema(path)
    drawn = [" ".join(part.split()) for part in PUBLISHED[name].split("|")]
    found = [f"{field.name} {field.type}{' null' if field.nullable else ''}" for field in schema]
    assert found == drawn
    assert has_page_checksums(path)


def has_page_checksums(path: Path) -> bool:
    """Whether a change of any data page is noticed when the file is read."""
    raw = path.read_bytes()
    metadata = pq.ParquetFile(path).metadata
    if not metadata.num_rows:
        return True
    for n in range(metadata.num_columns):
        column = metadata.row_group(0).column(n)
        start = column.dictionary_page_offset or column.data_page_offset
        damaged = bytearray(raw)
        damaged[start + column.total_compressed_size - 1] ^= 1
        with pytest.raises(OSError, match="CRC checksum"):
            pq.read_table(pa.BufferReader(bytes(damaged)), page_checksum_verification=True)
    return True


def test_pandas_and_duckdb_read_the_whole_book(place: Place) -> None:
    place("run 2026-02", **NOW)
    frames = [pd.read_parquet(path) for path in sorted(place.book.glob("*/r*/lines.parquet"))]
    lines = pd.concat(frames)
    glob = str(place.book / "*/r*/lines.parquet")
    query = "select month, account_id, calls, amount from read_parquet(?) order by all"
    with duckdb.connect() as db:
        found = db.execute(query, [glob]).fetchall()
    drawing = """
        2026-01  0100000042  10001  28.80320000
        2026-01  0100000050  10801  31.36320000
        2026-01  0100000099    700   0.00000000
        2026-02  0100000042  20000  60.80000000
        2026-02  0100000060  11000  32.00000000
        2026-02  0100000099    700   0.00000000
    """
    drawn = [line.split() for line in drawing.strip().splitlines()]
    assert [written(row) for row in found] == drawn
    columns = ["month", "account_id", "calls", "amount"]
    assert [written(row) for row in lines[columns].to_numpy().tolist()] == drawn


def written(row: Sequence[Any]) -> list[str]:
    """Cells as drawn: a decimal never in exponents."""
    return [f"{cell:f}" if isinstance(cell, Decimal) else str(cell) for cell in row]


# ---------------------------------------------------------------- explain, --json, environment


def test_explain_answers_why_28_80(settled: Place) -> None:
    done = settled("explain 2026-01 0100000042")
    assert done.code == 0
    for pattern in (
        r"人脸比对 face-comparison",
        r"calls +CompareFace 10,001 +10,001",
        r"tier .*10,000 < calls ≤ 3,000,000.* 0\.0032 +2",
        r"list +10,001 calls × 0\.0032 +32\.0032",
        r"voucher +1,000 free calls × 0\.0032 +-3\.20",
        r"amount +list − voucher +28\.8032",
        r"rounding .* -0\.0032",
        r"payable .* 28\.80$",
        r"1 debit .* 28\.80$",
        r"2 freeze +1\.20 × payable 28\.80.* 34\.56$",
    ):
        assert re.search(pattern, done.out, re.MULTILINE), pattern


@pytest.mark.parametrize(
    "command",
    [
        "run 2026-02",
        "run 2026-01",
        "plan 2026-02",
        "status",
        "show 2026-01",
        "show 2026-01 0100000042",
        "show 2026-01 0100000099",
        "explain 2026-01 0100000042",
        "export 2026-01 --out out",
        "check",
        "prices",
        "sample --out more --month 2026-03 --accounts 20 --calls 1000 --seed 3",
    ],
)
def test_json_is_one_object_with_money_as_text(place: Place, command: str) -> None:
    done = place(f"{command} --json", **NOW)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert isinstance(found, dict)
    found.pop("seconds", None)
    assert not list(floats(found))


def floats(value: Any) -> Any:
    """Every number of a JSON value that is not whole."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from floats(part)


def test_options_come_from_the_environment_too(place: Place) -> None:
    done = place(
        "run",
        SETTLE_MONTH="2026-03",
        SETTLE_ALLOW_GAP="1",
        SETTLE_ALLOW_EMPTY="true",
        SETTLE_MAX_REJECTS="0.5",
        SETTLE_NAIVE_TIMESTAMPS="Asia/Shanghai",
        SETTLE_THREADS="1",
        SETTLE_JSON="1",
        **NOW,
    )
    assert done.code == 0
    assert done.json["month"] == "2026-03"
    assert done.json["options"]["naive_timestamps"] == "Asia/Shanghai"
    made = place(
        "sample",
        SETTLE_OUT="made",
        SETTLE_MONTH="2026-05",
        SETTLE_ACCOUNTS="20",
        SETTLE_CALLS="1000",
        SETTLE_SEED="3",
        SETTLE_JSON="1",
    )
    assert made.code == 0
    assert made.json["rows"] > 1000
    assert_refused(place("run", SETTLE_MONTH="2026-3"), 2, "2026-3")


def test_options_that_are_no_variables_are_the_ones_that_help_names() -> None:
    """A variable that makes a revision of every run would be a trap."""
    without = {
        (name, option.opts[0])
        for name, command in cli.settle.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.envvar
    }
    assert without == {
        *(("run", "--revise"), ("run", "--reason"), ("plan", "--revise"), ("check", "--recount")),
        *(("runs", "--month"), ("runs", "--limit")),
    }
    named = "--revise, --reason, --recount, and --month and --limit of runs"
    assert named in " ".join((cli.settle.help or "").split())
    assert named in (ROOT / "README.md").read_text("utf-8").replace("`", "")


def test_a_month_left_out_is_the_one_that_last_ended(place: Place) -> None:
    """The clock says February; in the billing zone it is March."""
    done = place("run --json", SETTLE_NOW="2026-02-28T16:00:00Z")
    assert done.json["month"] == "2026-02"
    assert done.json["created_at"] == "2026-02-28T16:00:00Z"
    again = place("run --json", SETTLE_NOW="2026-02-28T15:59:59Z")
    assert (again.json["month"], again.json["outcome"]) == ("2026-01", "settled already")


# ---------------------------------------------------------------- the program as a process


def test_the_installed_program_settles_and_refuses(tmp_path: Path) -> None:
    book = tmp_path / "book"
    done = settle("run", "2026-01", "--book", book, cwd=ROOT)
    assert (done.code, done.err) == (0, "")
    assert "payable" in done.out
    assert_refused(settle("run", "2026-04", "--book", book, cwd=ROOT), 2, "2026-02 · --allow-gap")
    explained = settle("explain", "2026-01", "0100000042", "--book", book, cwd=ROOT)
    assert "28.8032" in explained.out
    assert (book / "2026-01" / "r1" / "settlement.json").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_no_function_of_ours_and_the_columns(fork: Forks, command: str) -> None:
    said = " ".join(fork(*command.split(), "--help").out.split())
    assert not re.search(r"[A-Z]_OF\b", said)
    assert "--logs" not in said or "--logs PATH|URL " in said
    assert "--column" not in said or "(request_id, account_id, interface, timestamp" in said
    assert "results are printed all the same" in said


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(fork: Forks, command: str) -> None:
    done = fork(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    if command:
        assert f"  settle {command}" in done.out.partition("Example")[2]
    else:
        assert "  settle run 2026-02" in done.out.partition("Example")[2]
        for each in COMMANDS:
            assert re.search(rf"^  {each} ", done.out, re.MULTILINE)


HEAVY = ("numpy", "pandas", "pyarrow", "apscheduler", "duckdb")


@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["status"], ["status", "--json"], ["show"]]
)
def test_light_commands_import_nothing_heavy(settled: Place, command: list[str]) -> None:
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules],"
        " file=sys.stderr))\n"
        "from settlement.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        env=environment(SETTLE_BOOK=str(settled.book), SETTLE_NOW="2026-02-20T00:00:00Z"),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stderr == "[]\n"


LEAVING = """
import atexit, os
import click
from settlement import shell

class Library:
    def __del__(self):
        os.abort()

library = Library()
atexit.register(lambda: print("left"))
shell.main(click.Command("said", callback=lambda: click.echo("said")), "settle", [])
"""


def test_what_libraries_do_when_they_are_taken_down_does_not_matter() -> None:
    """Arrow's threads abort the process now and then, after all was done and said."""
    command = [sys.executable, "-c", LEAVING]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\nleft\n", "")


@pytest.mark.parametrize("command", [["prices"], ["status"], ["show", "2026-01"]])
def test_a_closed_pipe_is_no_bug(settled: Place, command: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [PROGRAM, *command],
        env=environment(SETTLE_BOOK=str(settled.book), SETTLE_PRICES=str(settled.prices)),
        stdout=write,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode not in {0, 1}


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that takes a while to count: one file, linked under many names of other inodes."""
    folder = tmp_path_factory.mktemp("long")
    calls = {(f"{n:010}", "CompareFace"): 200 for n in range(1000)}
    small_logs.write(small_logs.made("2026-01", calls), folder / "0.parquet", compression="none")
    for n in range(1, 40):
        shutil.copy(folder / "0.parquet", folder / f"{n}.parquet")
    return folder


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_during_the_count_leaves_nothing(
    tmp_path: Path, long_log: Path, number: int, code: int
) -> None:
    book = tmp_path / "book"
    running = start(
        "run", "2026-01", "--logs", long_log, "--book", book, "--prices", PRICE_BOOK, "--threads", 1
    )
    deadline = time.monotonic() + 60
    while not (book / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.1)
    assert running.poll() is None
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("settle: ")
    assert holds_nothing(book)


def test_a_lock_of_the_dead_does_not_hold(place: Place) -> None:
    """What a killed run leaves is a file nobody locks."""
    (place.book / ".lock").write_text("process 1 on elsewhere\n")
    with (place.book / ".lock").open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        assert place("run 2026-02", **NOW).code == 75
    assert place("run 2026-02", **NOW).code == 0
