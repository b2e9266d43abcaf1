"""Contract prices from outside: beside the price book, in the settlement, explained, revised."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests import small_logs
from tests.processes import ROOT, Finished, Forks, environment, holds_nothing, snapshot

MONTHS = {
    "2026-01": "0042 CompareFace 10_001\n0050 CompareFace 10_001\n0060 DetectFace 10_001",
    "2026-02": "0042 CompareFace 10_001\n0050 CompareFace 10_001",
}
CONTRACTS = """account_id,item,from,to,tiers,discount,free_calls,freeze_factor
0042,*,2026-01,2026-02,,0.15,,1.5
0050,face-comparison,2026-01,,10000:0;:0.001,,2000,
0099,*,2026-01,,,0.5,,
"""
# 0042: 10 001 × 0.0032 × 0.85 = 27.20272, less 1000 × 0.00272; 0050: (10 001 − 2000) × 0.001.
PAYABLE = {"0042": "24.48", "0050": "8.00", "0060": "4.50"}
FROZEN = {"0042": "36.72", "0050": "9.60", "0060": "5.40"}


class World:
    """A folder with a price book, a log of two months, a book, and perhaps contracts."""

    def __init__(self, folder: Path, fork: Forks) -> None:
        self.folder, self.fork = folder, fork
        shutil.copy(ROOT / "data" / "price_book.toml", folder / "prices.toml")
        for month, drawing in MONTHS.items():
            table = small_logs.made(month, small_logs.drawn_calls(drawing))
            small_logs.write(table, folder / "logs" / f"{month}.parquet")

    def contracts(self, text: str = CONTRACTS, name: str = "contracts.csv") -> Path:
        path = self.folder / name
        path.write_text(text, "utf-8")
        return path

    def __call__(self, arguments: str, **settings: str) -> Finished:
        places = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
        return self.fork(*arguments.split(), cwd=self.folder, **(places | settings))

    def done(self, arguments: str, **settings: str) -> Finished:
        finished = self(arguments, **settings)
        assert (finished.code, finished.err) == (0, ""), finished
        return finished

    def settlement(self, name: str = "2026-01/r1") -> Path:
        return self.folder / "book" / name

    def manifest(self, name: str = "2026-01/r1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.settlement(name) / "settlement.json").read_text("utf-8")
        )
        return found

    def column(self, table: str, name: str, place: str = "2026-01/r1") -> dict[str, str]:
        rows = pq.read_table(self.settlement(place) / f"{table}.parquet").to_pylist()
        return {row["account_id"]: str(row[name]) for row in rows}


@pytest.fixture
def world(tmp_path: Path, fork: Forks) -> World:
    return World(tmp_path, fork)


def test_contracts_beside_the_price_book_price_freeze_and_are_kept(world: World) -> None:
    path = world.contracts()
    world.done("run 2026-01")
    assert world.column("invoices", "payable") == PAYABLE
    entries = pq.read_table(world.settlement() / "entries.parquet").to_pylist()
    frozen = {e["account_id"]: str(e["amount"]) for e in entries if e["kind"] == "freeze"}
    assert frozen == FROZEN
    assert (world.settlement() / "contracts.csv").read_bytes() == path.read_bytes()
    manifest = world.manifest()
    assert manifest["options"]["contracts_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["tables"]["contract_lines"]["rows"] == 2
    published = pq.read_table(world.settlement() / "contract_lines.parquet").to_pylist()
    assert [(r["account_id"], r["item"], r["month"], r["revision"]) for r in published] == [
        ("0042", "face-comparison", "2026-01", 1),
        ("0050", "face-comparison", "2026-01", 1),
    ]
    assert [str(row["book_amount"]) for row in published] == ["28.80320000"] * 2
    assert [str(row["amount"]) for row in published] == ["24.48272000", "8.00100000"]
    assert [row["terms"] for row in published] == [
        "discount 0.15 (all items)",
        "tiers 10000:0;:0.001, free_calls 2000",
    ]
    assert "sound" in world.done("check").out


def test_the_month_after_has_the_terms_of_its_own_time(world: World) -> None:
    world.contracts()
    world.done("run 2026-01")
    world.done("run 2026-02")
    assert world.column("invoices", "payable", "2026-02/r1") == {"0042": "28.80", "0050": "8.00"}
    assert world.manifest("2026-02/r1")["totals"]["unfrozen"] == "51.72"
    assert "sound" in world.done("check").out


def test_plan_shows_what_run_publishes(world: World) -> None:
    world.contracts()
    planned = world.done("plan 2026-01 --json").json
    assert planned["contracts"] == {
        "lines": 2,
        "book_amount": "57.60640000",
        "amount": "32.48372000",
    }
    assert "contracts price 2 lines: 32.48372 where" in world.done("plan 2026-01").out
    assert "contracts priced 2 lines" in world.done("run 2026-01").out
    assert planned["totals"] == world.manifest()["totals"]


def test_without_contracts_nothing_speaks_of_them(world: World) -> None:
    world.done("run 2026-01")
    manifest = world.manifest()
    assert not {"contracts_sha256", "terms_sha256"} & set(manifest["options"])
    assert set(manifest["tables"]) == {"usage", "lines", "invoices", "entries", "rejects"}
    assert "contract" not in " ".join(path.name for path in world.settlement().iterdir())
    assert "contracts" not in world.done("plan 2026-01 --json").json


def test_explain_shows_the_terms_and_the_amount_without_them(world: World) -> None:
    world.contracts()
    world.done("run 2026-01")
    said = world.done("explain 2026-01 0042").out
    for part in (
        "by contract 合同价: discount 0.15 (all items)",
        "10,001 calls × 0.00272",
        "what the price book alone would charge 价目表价",
        "28.8032",
        "1.50 by contract × payable 24.48",
    ):
        assert part in said
    steps = world.done("explain 2026-01 0050 --json").json["sections"][0]["steps"]
    assert [(step["what"], step["result"]) for step in steps] == [
        ("calls", "10001"),
        ("terms", ""),
        ("tier", "2"),
        ("list", "10.001"),
        ("voucher", "-2.00"),
        ("amount", "8.001"),
        ("without", "28.8032"),
    ]
    assert "contract" not in world.done("explain 2026-01 0060").out


CHANGES = {
    "nothing": (CONTRACTS, "settled already"),
    "a row of another month": (CONTRACTS + "0042,*,2026-05,,,0.3,,\n", "settled already"),
    "the end of a span": (
        CONTRACTS.replace("2026-01,2026-02", "2026-01,2026-03"),
        "settled already",
    ),
    "the form of a number": (CONTRACTS.replace("0.15", "0.150"), "settled already"),
    "terms of an account without calls": (CONTRACTS.replace("0099,*", "0098,*"), "same outcome"),
    "a discount": (CONTRACTS.replace("0.15", "0.2"), "row of lines differs, first 0042"),
    "a freeze factor": (CONTRACTS.replace("1.5", "1.4"), "row of holds differs, first 0042"),
    "no contracts": (None, "rows of lines differ, first 0050"),
}


@pytest.mark.parametrize(("text", "outcome"), CHANGES.values(), ids=CHANGES)
def test_a_settled_month_notices_a_change_of_its_terms_and_of_no_others(
    world: World, text: str | None, outcome: str
) -> None:
    path = world.contracts()
    world.done("run 2026-01")
    before = snapshot(world.folder / "book")
    path.unlink()
    if text:
        world.contracts(text)
    again = world("run 2026-01")
    assert outcome in again.out + again.err
    assert again.code == (4 if "differ" in outcome else 0)
    assert snapshot(world.folder / "book") == before


def test_a_revision_posts_the_difference_that_contracts_make(world: World) -> None:
    world.done("run 2026-01")
    world.contracts()
    world.done("run 2026-01 --revise --reason contracts")
    assert world.column("invoices", "payable", "2026-01/r2") == PAYABLE
    assert world.column("adjustments", "adjustment", "2026-01/r2") == {
        "0042": "-4.32",
        "0050": "-20.80",
    }
    assert "sound" in world.done("check").out
    said = world.done("diff 2026-01").out
    assert said.count("contract changed") == 2
    assert "contracts" in said


def test_parquet_settles_alike(world: World) -> None:
    world.contracts()
    world.done("run 2026-01")
    rows = pd.read_csv(io.StringIO(CONTRACTS), dtype="str")
    rows.to_parquet(world.folder / "terms", index=False)
    other = {"SETTLE_BOOK": "other", "SETTLE_CONTRACTS": "terms"}
    world.done("run 2026-01", **other)
    place = world.folder / "other" / "2026-01" / "r1"
    assert (place / "contracts.parquet").read_bytes() == (world.folder / "terms").read_bytes()
    mine = world.manifest()
    theirs = json.loads((place / "settlement.json").read_text("utf-8"))
    assert theirs["tables"] == mine["tables"]
    assert theirs["options"]["terms_sha256"] == mine["options"]["terms_sha256"]
    assert "sound" in world.done("check", **other).out


DAMAGES = {
    "altered": lambda path: path.write_text(path.read_text("utf-8").replace("0.15", "0.14")),
    "missing": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("contracts.parquet")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_check_finds_contracts_that_are_not_those_published(world: World, damage: Any) -> None:
    world.contracts()
    world.done("run 2026-01")
    damage(world.settlement() / "contracts.csv")
    checked = world("check")
    assert checked.code == 65
    assert "contracts" in checked.err


def test_check_finds_contracts_where_none_were_published(world: World) -> None:
    world.done("run 2026-01")
    (world.settlement() / "contracts.csv").write_text(CONTRACTS, "utf-8")
    checked = world("check")
    assert checked.code == 65
    assert "contracts.csv: was not published there" in checked.err


REFUSED = {
    "absent": ("run 2026-01 --contracts nowhere.csv", 66, "nowhere.csv: no such contracts file"),
    "a folder": ("run 2026-01 --contracts logs", 74, "logs: is a folder"),
    "both": ("run 2026-01", 78, "both contracts.csv and contracts.parquet"),
    "both, planned": ("plan 2026-01", 78, "keep one of them, or name it with --contracts"),
    "wrong": ("run 2026-01 --contracts wrong.csv", 65, "wrong.csv, row 2, column discount: '15%'"),
    "wrong, listed": ("prices --contracts wrong.csv", 65, "wrong.csv, row 2, column discount"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals_are_one_line_and_publish_nothing(
    world: World, arguments: str, code: int, message: str
) -> None:
    world.contracts()
    world.contracts(name="contracts.parquet")
    world.contracts("account_id,from,discount\n0042,2026-01,15%\n", "wrong.csv")
    refused = world(arguments)
    assert refused.code == code
    assert message in refused.err
    assert refused.err.count("\n") == 1
    assert holds_nothing(world.folder / "book")


def test_contracts_are_refused_before_the_log_is_read(world: World) -> None:
    world.contracts("account_id,from,discount\n0042,2026-01,15%\n")
    log = world.folder / "logs" / "2026-01.parquet"
    damaged = bytearray(log.read_bytes())
    damaged[8:400] = bytes(392)
    log.write_bytes(damaged)
    assert "contracts.csv, row 2" in world("run 2026-01").err
    world.contracts()
    assert "2026-01.parquet" in world("run 2026-01").err


def test_one_of_both_may_be_named(world: World) -> None:
    world.contracts()
    world.contracts(name="contracts.parquet")
    world.done("run 2026-01 --contracts contracts.csv")
    assert world.column("invoices", "payable") == PAYABLE


def test_prices_counts_the_contracts(world: World) -> None:
    world.contracts()
    said = world.done("prices", SETTLE_NOW="2026-03-02T00:00:00Z").out
    assert "contracts.csv: 3 rows for 3 accounts, 2 of them in force in 2026-02" in said
    found = world.done("prices --json").json["contracts"]
    assert (found["rows"], found["accounts"]) == (3, 3)


def test_the_job_settles_by_contract(world: World) -> None:
    world.contracts()
    done = subprocess.run(
        [sys.executable, "-m", "jobs.once", "--first-month", "2026-01"],
        cwd=world.folder,
        env=environment(
            SETTLE_LOGS="logs",
            SETTLE_PRICES="prices.toml",
            SETTLE_BOOK="book",
            SETTLE_NOW="2026-02-02T00:00:00Z",
            PYTHONPATH=str(ROOT),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert world.column("invoices", "payable") == PAYABLE
