"""Every engine says the same of a call log, and what must be said (`tests.conformance`).

Spark is tried on two workers with an executor each, as processes of their own. With the whole
suite that takes minutes, so the gate tries what goes a way of its own there; `make test-spark`
tries everything.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from settlement import usage
from settlement.errors import WrongUsage
from settlement.spark import engine as spark
from settlement.spark.cluster import FIXED, Cluster, said
from tests import conformance, months
from tests.conformance import CASES, REFUSALS, Case, Engine, Refusal
from tests.logs import PRICES, call, write
from tests.processes import ROOT, settle, tables_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Older Sparks leave the socket of a failed query to the garbage collector."""
WHOLE = "SETTLE_TEST_SPARK" in os.environ
MASTER = os.environ.get("SETTLE_TEST_SPARK") or "local-cluster[2,1,1024]"
_QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # a JVM that lives for seconds
SETTINGS = {
    "spark.driver.extraJavaOptions": _QUICK,
    "spark.executor.extraJavaOptions": _QUICK,
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.ui.enabled": "false",
}
FEW: set[str] = {
    "of one id the earliest, then the bytewise smallest row is charged",
    "each row lands in the first bucket that fits",
    "every physical form means the same",
    "late files count wherever they lie; hidden names do not; folder names are no columns",
    "beyond the limit the first ten rejected rows are kept",
    "a log without rows is counted",
    "a log may have other names for its columns",
    "a column that was named is not there",
    "wall clock times are instants of the zone that was named",
    "a wall clock time that never was",
    "account_id that is not UTF-8",
    "a bit that fell over",
    "a column of another name",
    "timestamps without a zone",
}
"""What the gate tries on Spark: one of each kind."""


def missing() -> str:
    """What Spark lacks here; empty if nothing."""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed: make setup-spark"
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        return "Java is not installed"
    return ""


needs_spark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def on_spark() -> Iterator[Engine]:
    """Spark as an engine, on a cluster that runs as long as these tests."""
    if missing():
        pytest.skip(missing())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master(MASTER).config("spark.log.level", "OFF")
        for name, value in (SETTINGS | {"spark.ui.showConsoleProgress": "false"}).items():
            builder = builder.config(name, value)
        running = builder.getOrCreate()
    yield partial(spark.count, cluster=Cluster(MASTER))
    running.stop()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine of that name."""
    if request.param == "local":
        return usage.count
    found: Engine = request.getfixturevalue("on_spark")
    return found


def each_engine(name: str, cases: Sequence[Any]) -> pytest.MarkDecorator:
    """Every case on every engine; on Spark a few of them, unless all are asked for."""
    whole = pytest.mark.skipif(not WHOLE, reason="make test-spark")
    runs = [pytest.param("local", case, id=f"local-{case.name}") for case in cases]
    runs += [
        pytest.param(
            "spark", case, id=f"spark-{case.name}", marks=() if case.name in FEW else whole
        )
        for case in cases
    ]
    return pytest.mark.parametrize(("engine", name), runs, indirect=["engine"])


@each_engine("case", CASES)
def test_says_what_must_be_said(engine: Engine, case: Case, tmp_path: Path) -> None:
    conformance.conforms(engine, case, tmp_path)


@each_engine("refusal", REFUSALS)
def test_refuses_what_cannot_be_counted(engine: Engine, refusal: Refusal, tmp_path: Path) -> None:
    conformance.refuses(engine, refusal, tmp_path)


@pytest.mark.parametrize("engine", ["local", "spark"], indirect=True)
def test_agrees_with_the_naive_reference(engine: Engine, tmp_path: Path) -> None:
    conformance.agrees(engine, 1, tmp_path)


@settings(
    max_examples=20 if WHOLE else 1,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(history=months.histories())
def test_spark_and_local_agree_on_random_months(on_spark: Engine, history: months.History) -> None:
    with tempfile.TemporaryDirectory() as place:
        conformance.same_history(usage.count, on_spark, history, Path(place))


def test_the_few_are_cases() -> None:
    assert {case.name for case in CASES} | {refusal.name for refusal in REFUSALS} > FEW


# ---------------------------------------------------------------- the command line


def world(folder: Path) -> list[str]:
    """Write a price book and a log; return the options that name them."""
    (folder / "prices.toml").write_text(PRICES, encoding="utf-8")
    write(folder / "logs/0.parquet", [call(n % 40, account_id=str(n % 7)) for n in range(60)])
    write(folder / "logs/1.parquet", [call(50, status_code=5), call(51, interface="CreateFace")])
    return ["2026-02", "--logs", str(folder / "logs"), "--prices", str(folder / "prices.toml")]


@needs_spark
def test_a_month_settled_on_a_cluster_is_the_same_to_the_byte(tmp_path: Path) -> None:
    given = world(tmp_path)
    here = settle("run", *given, "--book", tmp_path / "here")
    conf = [word for item in SETTINGS.items() for word in ("--conf", "=".join(item))]
    cluster = ["--engine", "spark", "--master", "local[1]", *conf]
    there = settle("run", *given, "--book", tmp_path / "there", *cluster)
    assert (here.code, there.code) == (0, 0), there.err
    assert tables_of(tmp_path / "there") == tables_of(tmp_path / "here")
    assert len(tables_of(tmp_path / "there")) >= 5
    assert there.out.splitlines()[1:-3] == here.out.splitlines()[1:-3]


def test_without_spark_it_is_said_and_nothing_is_published(tmp_path: Path) -> None:
    given = world(tmp_path)
    (tmp_path / "without").mkdir()
    (tmp_path / "without/pyspark.py").write_text("raise ImportError('none here')\n")
    found = settle(
        *("run", *given, "--book", tmp_path / "book", "--engine", "spark"),
        PYTHONPATH=str(tmp_path / "without"),
    )
    assert found.code == 78
    assert "settlement[spark]" in found.err
    assert len(found.err.splitlines()) == 1
    assert not tables_of(tmp_path / "book")


def test_the_local_engine_never_imports_spark(tmp_path: Path) -> None:
    given = [*world(tmp_path), "--book", str(tmp_path / "book")]
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(sorted({'pyspark', 'py4j'} & set(sys.modules))))\n"
        f"sys.argv = ['settle', 'run', *{given!r}]\n"
        "from settlement.cli import main\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"
    assert tables_of(tmp_path / "book")


def test_settings_of_a_cluster_without_one_are_refused(tmp_path: Path) -> None:
    for option in ("--master", "--conf"):
        found = settle("run", *world(tmp_path), "--book", tmp_path / "book", option, "a=b")
        assert found.code == 2
        assert "--engine spark" in found.err


@pytest.mark.parametrize("setting", ["memory", "=1", *(f"{name}=x" for name in FIXED)], ids=str)
def test_a_setting_on_which_the_result_depends_is_refused(setting: str) -> None:
    with pytest.raises(WrongUsage):
        Cluster.of(None, [setting])


JAVA = """An error occurred while calling o22.getResult.
: org.apache.spark.SparkException: Exception thrown in awaitResult:
\tat org.apache.spark.util.SparkThreadUtils$.awaitResult(SparkThreadUtils.scala:70)
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "RuntimeError"),
        ("[NO_CLUSTER] none is there\nJVM stacktrace:", "[NO_CLUSTER] none is there"),
        (JAVA, "SparkException: Exception thrown in awaitResult:"),
        (JAVA + "Caused by: java.io.IOException: a bit fell\n\tat x", "IOException: a bit fell"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_the_root_of_what_spark_says_is_told(text: str, told: str) -> None:
    assert said(RuntimeError(text)) == told


def test_other_settings_pass() -> None:
    found = Cluster.of("yarn", ["spark.a=b=c", "spark.sql.ansi.enabled=True"])
    assert found.conf == {"spark.a": "b=c", "spark.sql.ansi.enabled": "True"}
    assert found.name == "yarn"
