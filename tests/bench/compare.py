"""Counting side by side: this program, DuckDB, Polars, and the floor, on the same files.

    make bench [ROWS=20000000] [RUNS=3] [CASES="once count …"]

Contestants are processes of their own with two threads each on two cores, and take turns
(A B C A B C …), so that a slow minute of the machine strikes all of them. Their results must
be equal, or the benchmark fails. The logs hold re-deliveries but no conflicts, because the
peers' fastest forms charge an id twice whose rows differ; the case ``exact`` has conflicts, and
there DuckDB counts by the rule itself. The *floor* decodes the needed columns and drops them.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.bench import measure, report
from tests.bench.logs import CACHE, MONTH, ROOT, Log, Made, ensure, warm
from tests.bench.measure import Cost, cost, python

SETTLE = Path(sys.executable).with_name("settle")
COUNTERS = ("settlement", "duckdb", "polars", "floor")
RUNS = ("settle run", "settle run, digested")
_ACCOUNTS = 1_000_000


@dataclass(frozen=True)
class Case:
    """One comparison: on which log (None: none), by whom; the first is what it is about."""

    title: str
    log: Log | None
    contestants: tuple[str, ...] = COUNTERS
    once: bool = True


_BASE = Log(rows=0)
CASES: dict[str, Case] = {
    "once": Case("each id once", _BASE),
    "count": Case("every row (`deduplicate = false`)", _BASE, once=False),
    "snappy": Case("each id once, snappy files", Log(0, codec="snappy")),
    "binary16": Case("each id once, ids binary(16)", Log(0, ids="binary16")),
    "hex32": Case("each id once, ids of 32 hex digits", Log(0, ids="hex32")),
    "variable": Case("each id once, ids of 16–32 digits", Log(0, ids="variable")),
    "accounts": Case("each id once, 1 M accounts", Log(0, accounts=_ACCOUNTS)),
    "groups-1m": Case("each id once, row groups of 1 Mi rows", Log(0, files=4)),
    "groups-120k": Case("each id once, row groups of 122,880 rows", Log(0, group_rows=122_880)),
    "exact": Case(
        "conflicts too, by the rule", Log(0, conflicts=True), ("settlement", "duckdb-exact")
    ),
    "run": Case("counting alone, and the whole `settle run`", _BASE, ("settlement", "settle run")),
    "ingested": Case("`settle run`, and with all files but the last digested", _BASE, RUNS),
    "publish": Case("1 M accounts: usage in memory → published book", None, ("publish",)),
    "startup": Case("start-up", None, ("settle --help", "settle status")),
}


class Unequal(Exception):
    """Contestants found different things."""


def compare(
    case: Case, runs: int, wanted: Sequence[str], cache: Path, made: Made | None
) -> dict[str, Any]:
    """Run the contestants of a case in turns, and return what is recorded of it."""
    names = [name for name in case.contestants if name in wanted or name not in COUNTERS]
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    found: dict[str, Any] = {}
    with _digested(made, cache) if made and RUNS[1] in names else nullcontext() as digested:
        for _ in range(runs):
            with _scratch(cache) as scratch:
                for name in names:
                    costs[name].append(_cost(name, case, scratch, made, digested))
                found = _found(scratch)
                _require_equal(found)
    contestants = {name: measure.described(each) for name, each in costs.items()}
    return {
        "title": case.title,
        "log": made.describe() if made else None,
        "contestants": contestants,
        "found": next(iter(found.values()), None),
        "equal": len(found),
    }


def _cost(name: str, case: Case, scratch: Path, made: Made | None, digested: Path | None) -> Cost:
    """Run one contestant once, in a folder of its own."""
    own = scratch / name.replace(" ", "-").replace(",", "")
    own.mkdir()
    if digested and name == RUNS[1]:
        shutil.copytree(digested, own / "book", copy_function=os.link)
    if made:  # virtual machines may take memory back meanwhile
        warm(made.folder)
        warm(own, "**/*.*")
    if name.startswith("settle "):
        command = "run" if name in RUNS else name.removeprefix("settle ")
        return cost(_settle(command, own, made))
    log = made.folder if made else own
    options: list[str | Path] = ["--log", log, "--result", own / "result.arrow"]
    options += [] if case.once else ["--every-row"]
    options += ["--accounts", str(_ACCOUNTS)] if name == "publish" else []
    measured = cost(python("tests.bench.contestants", name, *options))
    # What is published is measured alone: drawing the usage and the month before are not its work.
    return Cost.of_work(measured.told, measured.peak) if name == "publish" else measured


def _settle(command: str, scratch: Path, made: Made | None) -> list[str | Path]:
    """The command line of this program: a run into a new book, its help, or a book's status."""
    if command == "run" and made:
        book = scratch / "book"
        options: list[str | Path] = ["--logs", made.folder, "--book", book, "--threads", "2"]
        return [SETTLE, "run", MONTH, *options]
    if command == "status":
        book = scratch / "book"
        logs = ROOT / "data" / "logs"
        cost([SETTLE, "run", "2026-01", "--logs", logs, "--book", book])
        return [SETTLE, "status", "--book", book]
    return [SETTLE, command]


@contextmanager
def _digested(made: Made, cache: Path) -> Iterator[Path]:
    """A book that holds nothing but what all files of a log, less the last one, came to."""
    with _scratch(cache) as scratch:
        logs, book = scratch / "logs", scratch / "book"
        logs.mkdir()
        for path in sorted(made.folder.glob("*.parquet"))[:-1]:
            os.link(path, logs / path.name)
        _say(f"digesting all files of {made.folder.name} but the last")
        cost([SETTLE, "ingest", MONTH, "--logs", logs, "--book", book, "--threads", "2"])
        yield book


def _found(scratch: Path) -> dict[str, Any]:
    """Return what each contestant that leaves a result found."""
    results = {
        path.relative_to(scratch).parts[0]: str(path)
        for place in ("*/result.arrow", f"*/book/{MONTH}/r1/usage.parquet")
        for path in sorted(scratch.glob(place))
    }
    if not results:
        return {}
    told = cost(python("tests.bench.results", *results.values())).told
    return {name: told[path] for name, path in results.items()}


def _require_equal(found: Mapping[str, Any]) -> None:
    first = next(iter(found), "")
    for other in found:
        if found[other] != found[first]:
            raise Unequal(f"{first} found {found[first]}, {other} {found[other]}")


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def present(contestants: Sequence[str]) -> list[str]:
    """Return the contestants that can take part; say who cannot."""
    missing = [name for name in ("duckdb", "polars") if name in contestants and not find_spec(name)]
    for name in missing:
        _say(f"{name} is not installed and does not take part: make bench installs it")
    return [name for name in contestants if name not in missing]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), metavar="CASE", default=None)
    parser.add_argument("--contestants", nargs="*", choices=COUNTERS, default=COUNTERS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where logs and results lie")
    parser.add_argument("--json", type=Path, help="default: result.json in the cache")
    parser.add_argument("--markdown", type=Path, help="write the table as Markdown too")
    parser.add_argument(
        "--drop", action="store_true", help="delete each log when no later case needs it"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print the table, and write it."""
    chosen = _parser().parse_args(arguments)
    measure.prepare()
    wanted = present(chosen.contestants)
    cache = chosen.cache.resolve()
    result: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": chosen.rows,
        "runs": chosen.runs,
        "threads": measure.THREADS,
        "machine": measure.machine(),
        "versions": measure.versions(),
        "cases": {},
    }
    print(report.heading(result))
    names = list(chosen.cases or CASES)
    while names:
        name = names.pop(0)
        case = CASES[name]
        made = _made(case.log.with_rows(chosen.rows), cache) if case.log else None
        try:
            done = compare(case, chosen.runs, wanted, cache, made)
        except (Unequal, measure.Failed) as error:
            sys.exit(f"{name}: {error}")
        result["cases"][name] = done
        print(report.shown(done), flush=True)
        if made and chosen.drop and case.log not in {CASES[later].log for later in names}:
            shutil.rmtree(made.folder)
        _write(chosen.json or cache / "result.json", json.dumps(result, indent=1) + "\n")
    if chosen.markdown:
        _write(chosen.markdown, report.markdown(result))


def _made(log: Log, cache: Path) -> Made:
    if not log.folder(cache).exists():
        _say(f"making {log.name} …")
    made = ensure(log, cache)
    _say(f"{'made' if made.new else 'found'} {made.folder}: {made.size / 1e6:,.0f} MB")
    return made


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
