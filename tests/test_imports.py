"""Imports point one way, and what a person waits for starts without the heavy libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module imports only from lines above its own, wherever in it the import stands.
LAYERS = """
errors buckets disk inputs lean terminal words operations.cron operations.redaction
report columns
operations.messages
progress
spark.cluster
month money scan.thrift counting.parallel
scan.footers
sheets operations.values
operations.settings
operations.config operations.variables
prices
tables
decimals
frames
difference contracts
rating invoicing ledger
repricing
laws
scan.texts scan.memory
scan.arrays
scan.stamps
scan.scratch
scan.hashing scan.headers scan.indices scan.pieces scan.sorting counting.finder
scan.pages
counting.keys
dedup
scan.names scan.sizes
scan.boundary scan.kinds
scan.logfiles
scan.opening
scan.finding
scan.decoding
scan.cache scan.rows
calls days spark.forms
counting.rejects counting.tally counting.notes counting.plan
counting.reading
counting.repetitions
counting.digesting usage
spark.engine
book
sample.calls
sample.columns
sample.writing
sample.shipped
sample.__main__
chain draft late
changes exports publish gates
check recount
show.explain show.pricelist diff whatif
show.accounts show.diffs
ingest order journal
gathering
settle
operations.attempts
operations.metrics operations.hooks
operations.watch
show.plans catchup
show.whatifs
shell
operations.telling
operations.rounds operations.stop
operations.service
commands.completing
commands.shared
commands.attempting commands.keeping commands.looking commands.sampling commands.serving
commands.settings
commands.settling
cli
"""
LAYER = {
    name: depth for depth, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()
}
FOR_JOBS = {"shell", "commands.serving"}
"""All that ``jobs`` may know: they are doors to commands."""
LIGHT = ("errors", "month", "money", "prices", "book", "cli")
HEAVY = {"pandas", "numpy", "pyarrow"}


def modules(package: str) -> dict[str, Path]:
    """Return the modules of a package by their names in it, ``scan.pages`` say."""
    top = ROOT / package
    return {
        ".".join(path.relative_to(top).with_suffix("").parts): path
        for path in top.rglob("*.py")
        if path.name != "__init__.py"
    }


def imported(path: Path, package: str) -> Iterator[str]:
    """Yield every module of a package that a file imports, in functions too."""
    known = modules(package)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == package and rest and not rest.startswith("__"):
                yield rest if rest in known else rest.rpartition(".")[0]


def test_every_module_has_its_layer() -> None:
    assert set(modules("settlement")) == set(LAYER)


@pytest.mark.parametrize("name", sorted(modules("settlement")))
def test_a_module_imports_only_from_the_layers_above(name: str) -> None:
    path = modules("settlement")[name]
    wrong = [other for other in imported(path, "settlement") if LAYER[other] >= LAYER[name]]
    assert not wrong
    assert not list(imported(path, "jobs"))
    assert not list(imported(path, "tests"))


def test_nothing_imports_the_command_line() -> None:
    paths = [*modules("settlement").values(), *modules("jobs").values()]
    assert not [path.name for path in paths if "cli" in imported(path, "settlement")]


@pytest.mark.parametrize("name", sorted(modules("jobs")))
def test_the_jobs_know_nothing_but_when_and_what_to_call(name: str) -> None:
    assert set(imported(modules("jobs")[name], "settlement")) <= FOR_JOBS


@pytest.mark.parametrize("name", LIGHT)
def test_what_a_person_waits_for_starts_without_heavy_libraries(name: str) -> None:
    code = f"import sys, settlement.{name}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


def test_a_count_does_without_pandas() -> None:
    code = """
import sys
from pathlib import Path
from settlement import usage
from settlement.month import Month
from settlement.prices import PriceBook
from settlement.scan.finding import find

prices = PriceBook.parse(Path("data/price_book.toml").read_bytes())
month = Month.parse("2026-01")
period = month.period(prices.zone)
found = usage.count(find("data/logs"), period, prices.version_for(month))
print(found.rows["billed"] > 0, "pandas" in sys.modules, len(found.usage) == len(found.calls))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["True", "False", "True"]
