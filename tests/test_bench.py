"""The benchmark runs, at a small size, so that it cannot rot; what it compares must be equal."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bench import logs, report
from tests.bench.compare import CASES, SETTLE, Unequal, _digested, _require_equal
from tests.bench.generate import generate
from tests.bench.logs import IDS, Log
from tests.bench.measure import Failed, Spread, cost, python
from tests.bench.results import found
from tests.processes import ROOT

SMALL = 200_000


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for logs, shared by the tests."""
    return tmp_path_factory.mktemp("bench")


def bench(cache: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "tests.bench.compare", "--cache", str(cache), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((cache / "result.json").read_text("utf-8"))
    assert isinstance(result, dict)
    return result, done.stdout


def test_counts_are_compared_and_equal(cache: Path) -> None:
    options = ["--rows", str(SMALL), "--runs", "1", "--markdown", str(cache / "table.md")]
    options += ["--contestants", "settlement", "duckdb", "floor", "--cases", "once", "count"]
    result, shown = bench(cache, *options)
    assert list(result["cases"]) == ["once", "count"]
    once, every = result["cases"].values()
    for case in (once, every):
        assert list(case["contestants"]) == ["settlement", "duckdb", "floor"]
        assert case["equal"] == 2
        assert all(each["cpu"][0] > 0 for each in case["contestants"].values())
        assert case["log"]["bytes"] > 10 * SMALL
    repeated = every["found"]["calls"] - once["found"]["calls"]
    assert 0.004 < repeated / SMALL < 0.006
    assert "same result from 2" in shown
    assert (cache / "table.md").read_text("utf-8").count("\n| 0.2 M, ") == 2


def test_polars_finds_the_same(cache: Path) -> None:
    pytest.importorskip("polars")
    options = ["--rows", str(SMALL), "--runs", "1", "--cases", "once"]
    result, _ = bench(cache, *options, "--contestants", "settlement", "polars")
    assert result["cases"]["once"]["equal"] == 2


def test_conflicts_are_counted_by_the_rule_too(cache: Path) -> None:
    result, _ = bench(cache, "--rows", "50000", "--runs", "1", "--cases", "exact")
    case = result["cases"]["exact"]
    assert case["equal"] == 2
    rows = case["contestants"]["settlement"]["told"]["rows"]
    assert rows["conflict"] == 1
    assert rows["duplicate"] > 200


def test_a_digested_log_is_settled_alike_from_what_was_digested(cache: Path) -> None:
    result, _ = bench(cache, "--rows", "50000", "--runs", "1", "--cases", "ingested")
    case = result["cases"]["ingested"]
    assert case["equal"] == 2
    assert list(case["contestants"]) == ["settle run", "settle run, digested"]
    made = logs.ensure(Log(50000), cache)
    with _digested(made, cache) as book:
        options = ["--logs", str(made.folder), "--book", str(book), "--verbose"]
        command = [str(SETTLE), "run", logs.MONTH, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "27 of 28 files digested already" in done.stderr


@pytest.mark.parametrize("ids", IDS)
def test_a_log_is_what_its_description_says(tmp_path: Path, ids: str) -> None:
    log = Log(5000, ids=ids, codec="snappy", accounts=7, group_rows=100, files=2)
    generate(tmp_path, log)
    files = [pq.ParquetFile(path) for path in sorted(tmp_path.glob("*.parquet"))]
    assert [file.metadata.num_rows for file in files] == [2500, 2500]
    assert {file.metadata.row_group(0).num_rows for file in files} == {100}
    assert files[0].metadata.row_group(0).column(0).compression == "SNAPPY"
    rows = [row for file in files for row in file.read().to_pylist()]
    assert len({row["account_id"] for row in rows}) == 7
    by_id: dict[str | bytes, list[Any]] = {}
    for row in rows:
        by_id.setdefault(row["request_id"], []).append(row)
    assert 5000 * 0.994 < len(by_id) < 5000 * 0.996
    assert all(row == same[0] for same in by_id.values() for row in same)
    widths = {len(one) for one in by_id}
    assert widths == {"uuid": {36}, "hex32": {32}, "binary16": {16}}.get(ids, set(range(16, 33)))


def test_a_log_is_made_once_and_never_where_the_disk_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(1000, files=1)
    assert logs.ensure(log, tmp_path).new
    again = logs.ensure(log, tmp_path)
    assert not again.new
    assert again.size == sum(path.stat().st_size for path in again.folder.iterdir())
    full = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(SystemExit, match=r"1\.0 GB free, and 2,000 rows may take"):
        logs.ensure(Log(2000), tmp_path)
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_unequal_results_and_failures_are_told() -> None:
    with pytest.raises(Unequal, match=r"a found .*, b "):
        _require_equal({"a": {"calls": 1}, "b": {"calls": 2}})
    with pytest.raises(Failed, match="exit 2"):
        cost(python("tests.bench.contestants", "nobody"))


def test_the_digest_of_a_result_is_that_of_its_rows_in_any_order(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {"account_id": ["b", "a"], "calls": [1, 2]}
    rows["interface"] = ["DetectFace", "CompareFace"]
    one, other, third = (tmp_path / f"{n}.parquet" for n in range(3))
    pq.write_table(pa.table(rows), one)
    pq.write_table(pa.table({name: cells[::-1] for name, cells in rows.items()}), other)
    pq.write_table(pa.table(rows | {"calls": [2, 1]}), third)
    assert found(one) == found(other)
    assert found(one)["digest"] != found(third)["digest"]
    assert (found(one)["lines"], found(one)["calls"]) == (2, 3)


def test_the_ratio_is_that_of_the_better_peer() -> None:
    figures = {"settlement": (2.0, 1.0), "duckdb": (6.0, 5.0), "polars": (8.0, 4.0)}
    contestants = {name: {"cpu": [cpu], "wall": [wall]} for name, (cpu, wall) in figures.items()}
    assert report.best({"contestants": contestants}) == (3.0, 4.0)
    assert report.best({"contestants": {"settlement": contestants["settlement"]}}) is None
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0)


def test_every_case_begins_with_what_it_is_about() -> None:
    for name, case in CASES.items():
        assert case.contestants[0] in {
            "settlement",
            "publish",
            "settle --help",
            "settle run",
        }, name


def test_growth_is_measured_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawing = tmp_path / "scale.svg"
    command = [sys.executable, "-m", "tests.bench.scale", "--cache", str(tmp_path)]
    command += [
        "--runs",
        "1",
        "--rows",
        "20000",
        "--rows-for-accounts",
        "20000",
        "--accounts",
        "100",
    ]
    command += ["--out", str(drawing)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(drawing.with_suffix(".json").read_text("utf-8"))
    assert [len(result[kind]) for kind in ("rows", "accounts", "published")] == [1, 1, 1]
    assert b"ns" in drawing.read_bytes()
    assert not list((tmp_path / "logs").iterdir())
