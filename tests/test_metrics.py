"""Metrics: what Prometheus reads after runs that ended well and badly."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from settlement.operations import attempts, metrics
from tests.drawn import rows
from tests.processes import Finished, Forks
from tests.small import write_world

NOW = "2026-04-01T02:00:00+08:00"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path, "2026-01", "2026-02")


def settle(fork: Forks, world: Path, command: str, **settings: str) -> Finished:
    paths = "--logs logs --book book --prices prices.toml --metrics settle.prom"
    return fork(*command.split(), *paths.split(), cwd=world, SETTLE_NOW=NOW, **settings)


def families(world: Path) -> dict[str, Metric]:
    """What Prometheus' own parser reads in the file; nothing twice."""
    text = (world / "settle.prom").read_text("utf-8")
    found = list(text_string_to_metric_families(text))
    assert len({each.name for each in found}) == len(found)
    for each in found:
        assert each.type == "gauge"
        assert each.documentation.endswith(".")
        keys = [tuple(sorted(sample.labels.items())) for sample in each.samples]
        assert len(set(keys)) == len(keys) > 0
    return {each.name.removeprefix("settlement_"): each for each in found}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    (sample,) = (each for each in found[name].samples if each.labels == labels)
    return float(sample.value)


EXPECTED = """
metric                                labels                value
---
last_exit_code                        -                     0
last_outcome                          outcome=published     1
last_outcome                          outcome=refused       0
settlements                           -                     1
missing_months                        -                     2
settled_month_info                    month=2026-01,revision=1   1
settled_month_end_timestamp_seconds   -                     1769875200
rows                                  bucket=read           6
rows                                  bucket=billed         3
rows                                  bucket=outside_month  3
rows                                  bucket=rejected.unknown_interface  0
rejected_ratio                        -                     0
accounts                              -                     2
invoices                              -                     2
payable                               currency=CNY          1.5
frozen                                currency=CNY          1.8
"""


def test_a_published_month_is_measured(world: Path, fork: Forks) -> None:
    began = datetime.now(UTC).timestamp()
    assert settle(fork, world, "run 2026-01").code == 0
    found = families(world)
    for name, given, expected in rows(EXPECTED)[1:]:
        labels = dict(pair.split("=") for pair in given.split(",")) if given != "-" else {}
        assert value(found, name, **labels) == float(expected), (name, labels)
    for name in ("last_success_timestamp_seconds", "last_completion_timestamp_seconds"):
        assert began - 1 <= value(found, name) <= datetime.now(UTC).timestamp()
    assert value(found, "last_stage_seconds", stage="count") > 0
    assert value(found, "last_duration_seconds") >= value(found, "last_cpu_seconds") / 8 > 0
    assert value(found, "last_peak_memory_bytes") > 20e6
    # Money has all its digits, and anybody may read the file.
    text = (world / "settle.prom").read_text()
    assert 'settlement_payable{currency="CNY"} 1.50\n' in text
    assert stat.S_IMODE((world / "settle.prom").stat().st_mode) == 0o644
    assert [path.name for path in world.iterdir() if "prom" in path.name] == ["settle.prom"]


def test_a_failed_run_keeps_the_last_success(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "run 2026-01").code == 0
    before = families(world)
    (world / "settle.prom").unlink()  # nothing is remembered in it
    assert settle(fork, world, "run 2026-03").code == 2
    after = families(world)
    name = "last_success_timestamp_seconds"
    assert value(after, name) == value(before, name)
    assert value(after, "last_completion_timestamp_seconds") > value(after, name)
    assert value(after, "last_exit_code") == 2
    assert value(after, "last_outcome", outcome="refused") == 1
    assert value(after, "payable", currency="CNY") == 1.5
    for report in (world / "book" / ".runs").iterdir():
        report.unlink()
    assert settle(fork, world, "run 2026-03").code == 2
    # Without reports it is when the newest settlement was published; here by the clock given.
    assert value(families(world), name) == datetime.fromisoformat(NOW).timestamp()


def test_a_first_run_that_fails_is_measured_too(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "run 2025-11").code == 66
    found = families(world)
    assert value(found, "last_exit_code") == 66
    assert not {"last_success_timestamp_seconds", "payable", "settlements"} & set(found)


def test_a_damaged_book_is_measured_as_far_as_it_goes(world: Path, fork: Forks) -> None:
    assert settle(fork, world, "run 2026-01").code == 0
    (world / "book/2026-01/r1/settlement.json").write_text("{}")
    assert settle(fork, world, "run 2026-02").code == 65
    found = families(world)
    assert value(found, "last_exit_code") == 65
    assert "last_success_timestamp_seconds" in found
    assert "payable" not in found


def test_metrics_that_cannot_be_written_are_a_warning(world: Path, fork: Forks) -> None:
    (world / "settle.prom").mkdir()
    done = settle(fork, world, "run 2026-01")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("settle: warning: settle.prom: cannot write the metrics (")
    assert "published" in done.out
    assert [path.name for path in world.iterdir() if "prom" in path.name] == ["settle.prom"]


def test_labels_are_escaped() -> None:
    family = metrics.Family("x", "Meaning.", [({"a": 'say "\\hi"\n'}, "1")])
    (read,) = text_string_to_metric_families(str(family))
    assert read.samples[0].labels == {"a": 'say "\\hi"\n'}


@pytest.mark.parametrize("outcome", metrics.OUTCOMES)
def test_every_outcome_is_known(outcome: str) -> None:
    known = {*attempts.SUCCESSES, "nothing due", "refused", "stopped for review", "failed"}
    assert outcome in known | {"interrupted"}
