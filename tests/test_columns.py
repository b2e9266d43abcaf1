"""The log's own names for its columns: what is refused, recorded, and kept apart."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from settlement.book import Book
from settlement.columns import COLUMNS, mapping, renamed
from settlement.errors import BadConfig
from tests.processes import Finished, settle
from tests.small import write_world

OWN = {"request_id": "rid", "account_id": "客户", "timestamp": "ts"}
FLAGS = [word for name, own in OWN.items() for word in ("--column", f"{name}={own}")]
TABLE = "\n".join(f'{name} = "{own}"' for name, own in OWN.items())


def rename(world: Path, names: dict[str, str]) -> None:
    for path in (world / "logs").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns([names.get(n, n) for n in table.column_names]), path)


def run(world: Path, *arguments: object, **settings: str) -> Finished:
    fixed = {"SETTLE_NOW": "2026-03-01T02:00:00+08:00", "SETTLE_PRICES": "prices.toml"}
    fixed |= {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book"}
    return settle(*arguments, cwd=world, **(fixed | settings))


def test_what_is_not_named_is_called_as_here() -> None:
    names = mapping(OWN.items())
    assert list(names) == list(COLUMNS)
    assert renamed(names) == OWN
    assert names["interface"] == "interface"


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ("request=rid", "no column 'request'; did you mean 'request_id'?"),
        ("x=rid", "no column 'x'; there are request_id"),
        ("request_id=a account_id=a", "request_id and account_id are both read from 'a'"),
        ("request_id=account_id", "request_id and account_id are both read from 'account_id'"),
        ("item=a item=b", "it is 'a' too"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(tmp_path: Path, pairs: str, says: str) -> None:
    with pytest.raises(BadConfig) as refused:
        mapping(tuple(pair.split("=")) for pair in pairs.split())  # type: ignore[misc]
    assert says in str(refused.value)
    write_world(tmp_path, "2026-02")
    done = run(tmp_path, "plan", "2026-02", SETTLE_COLUMNS=pairs)
    assert (done.code, len(done.err.splitlines())) == (78, 1)
    assert says in done.err
    lines = [f'{name} = "{own}"' for name, own in (pair.split("=") for pair in pairs.split())]
    (tmp_path / "settlement.toml").write_text("[logs.columns]\n" + "\n".join(lines))
    assert run(tmp_path, "plan", "2026-02").code == 78


def test_flag_variable_and_file_name_columns_alike(tmp_path: Path) -> None:
    for name in ("plain", "flags", "variable", "file"):
        (tmp_path / name).mkdir()
        write_world(tmp_path / name, "2026-02")
        if name != "plain":
            rename(tmp_path / name, OWN)
    assert run(tmp_path / "file", "plan").code == 65
    (tmp_path / "file" / "settlement.toml").write_text(f"[logs.columns]\n{TABLE}", "utf-8")
    variable = " ".join(f"{name}={own}" for name, own in OWN.items())
    for name, arguments, settings in (
        ("plain", [], {}),
        ("flags", FLAGS, {}),
        ("variable", [], {"SETTLE_COLUMNS": variable}),
        ("file", [], {}),
    ):
        done = run(tmp_path / name, "run", *arguments, **settings)
        assert done.code == 0, done.err
        options = Book.open(tmp_path / name / "book").settlements[0].manifest["options"]
        assert options.get("columns") == (None if name == "plain" else OWN)
    tables = [
        (tmp_path / name / "book/2026-02/r1/lines.parquet").read_bytes()
        for name in ("plain", "flags", "variable", "file")
    ]
    assert len(set(tables)) == 1


MISSING = """
own names                      →  typed              →  says
request_id=Request_ID          →                     →  did you mean 'Request_ID'?
request_id=Request_ID          →                     →  --column request_id=Request_ID, or in [logs.
account_id=accountid           →                     →  --column account_id=accountid, or in [logs.
account_id=account-Id          →                     →  --column account_id=account-Id, or in [logs.
request_id=id_of_req           →  request_id=id_req  →  --column request_id=id_of_req, or in [logs.
request_id=rid account_id=who  →                     →  write it into the file, or move the file
request_id=rid account_id=who  →                     →  if it is one of 'rid', 'who', say so by --co
account_id=客户                →                     →  '客户', say so by --column account_id=COLUMN
"""


@pytest.mark.parametrize("case", MISSING.strip().splitlines()[1:])
def test_a_missing_column_may_have_another_name(tmp_path: Path, case: str) -> None:
    own, typed, says = (cell.strip() for cell in case.split("→"))
    write_world(tmp_path, "2026-02")
    rename(tmp_path, dict(pair.split("=") for pair in own.split()))
    done = run(tmp_path, "plan", "2026-02", SETTLE_COLUMNS=typed)
    assert (done.code, len(done.err.splitlines())) == (65, 1)
    assert says in done.err


def test_a_column_that_is_nowhere_is_to_be_written(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-02")
    for path in (tmp_path / "logs").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["request_id"]), path)
    done = run(tmp_path, "plan", "2026-02")
    assert done.err.endswith("write it into the file, or move the file out of the call log\n")


def test_settled_already_only_by_the_same_names(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-02")
    rename(tmp_path, OWN)
    assert run(tmp_path, "run", *FLAGS).code == 0
    assert "settled already" in run(tmp_path, "run", *FLAGS).out
    without = run(tmp_path, "run")
    assert without.code == 65
    assert "column 'request_id'" in without.err
    other = run(tmp_path, "run", *FLAGS, "--column", "item=what")
    assert (other.code, "same outcome" in other.out) == (0, True)


def test_what_is_digested_is_of_the_names(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-02")
    for path in (tmp_path / "logs").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("payer", table["request_id"]), path)
    payer = ("--column", "account_id=payer")
    assert run(tmp_path, "ingest", "2026-02").out.count("digested 1 file") == 1
    assert run(tmp_path, "ingest", "2026-02", *payer).out.count("digested 1 file") == 1
    planned = run(tmp_path, "plan", "2026-02", *payer, "--json").json
    assert planned["totals"]["accounts"] == 3


def test_late_calls_are_looked_for_by_the_names(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-01")
    rename(tmp_path, OWN)
    assert run(tmp_path, "run", "2026-01", *FLAGS).code == 0
    table = pq.read_table(tmp_path / "logs" / "2026-01.parquet")
    pq.write_table(table.slice(1), tmp_path / "logs" / "late.parquet")
    told = run(tmp_path, "status", "--late", *FLAGS)
    assert told.code == 0, told.err
    assert "2026-01: 1 new file" in told.out


def test_an_approval_spells_the_names(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-01", "2026-02")
    rename(tmp_path, OWN)
    assert run(tmp_path, "run", "2026-01", *FLAGS).code == 0
    stopped = run(tmp_path, "run", "2026-02", *FLAGS, "--limit-account", "0.5:0")
    assert stopped.code == 3
    assert "--column request_id=rid --column 'account_id=客户'" in stopped.err
