"""Try every fault, print what came of it, and leave with 1 if anything is wrong.

python -m tests.faults                    all of it: what `make faults` does
python -m tests.faults --quick            the part that the test suite tries
python -m tests.faults --only crashes     one kind: crashes, power, crowd
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests import processes
from tests.faults import crashes, power, running, scenarios
from tests.faults.crashes import FAULTS, KILL, Outcome, Point
from tests.faults.crowd import Crowd, Tally
from tests.faults.power import Found
from tests.faults.scenarios import Scenario
from tests.faults.sweep import spread
from tests.faults.verdict import Judge

KINDS = ("crashes", "power", "crowd")
BUDGETS, QUICK_BUDGETS = (200, 20), (3, 1)
"""States of a disk that are tried at each place where power is lost: at once, and after a kill."""
QUICK_POWER = {"first month"}
ROUNDS = 10
"""Crowds of each kind."""
TRIES, QUICK_TRIES = 6, 3
"""Runs that take turns in each place of a crowd."""


def main() -> int:
    """Do what was asked on the command line; return the exit code."""
    asked = _parser().parse_args()
    if why := running.why_not():
        print(f"nothing tried: {why}", file=sys.stderr)
        return 77
    processes.warm_up()
    began = time.monotonic()
    result: dict[str, Any] = {"quick": asked.quick}
    with tempfile.TemporaryDirectory(prefix="faults-world-") as folder:
        known = scenarios.make(Path(folder) / "world")
        if "crashes" in asked.only:
            result["crashes"] = _crashes(known, Path(folder), asked)
        if "power" in asked.only:
            result["power"] = _power(known, Path(folder), asked)
        if "crowd" in asked.only:
            result["crowd"] = _crowd(Path(folder), asked)
    result["seconds"] = round(time.monotonic() - began)
    wrong = [each for kind in KINDS for each in result.get(kind, {}).get("wrong", ())]
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for each in wrong[:40]:
        print("WRONG", each)
    print(f"{len(wrong)} wrong, in {result['seconds']} s")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the part that the suite tries")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--scenarios", nargs="+", metavar="NAME", help="some of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    return parser


# ---------------------------------------------------------------- crashes


def _crashes(known: dict[str, Scenario], folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    tasks = []
    found: dict[str, list[Point]] = {}
    for name, scenario in known.items():
        if not asked.scenarios or name in asked.scenarios:
            found[name] = crashes.points(scenario, folder / "undisturbed" / "0")
            tasks += [
                (scenario, point, fault)
                for fault in asked.faults
                for point in found[name]
                if not asked.quick or _is_quick(scenario, point, fault)
            ]
    if asked.quick:
        tasks = tasks[::3]
    outcomes = list(spread(_disturb, tasks, asked.jobs))
    _print_crashes(found, outcomes)
    return {
        "points": {name: len(each) for name, each in found.items()},
        "changing": {name: sum(p.changes for p in each) for name, each in found.items()},
        "calls": dict(Counter(point.call for each in found.values() for point in each)),
        "runs": [[*key, n] for key, n in sorted(_counted(outcomes).items())],
        "wrong": [
            f"{each.scenario}, {each.fault} at {each.point}: {what}"
            for each in outcomes
            for what in each.wrong
        ],
    }


def _is_quick(scenario: Scenario, point: Point, fault: str) -> bool:
    """Choose the calls that change a disk, and those whose refusal nobody thinks of."""
    if (scenario.name, fault) == ("second month", "EIO"):
        return point.call == "newfstatat" or (point.call, point.file) == ("close", "tmp/nameless")
    return point.changes and (scenario.name, fault) in {
        *(("revision", KILL), ("second month", "ENOSPC"), ("ingest", "EIO")),
    }


def _disturb(task: tuple[Scenario, Point, str], sandbox: Path, judge: Judge) -> Outcome:
    return crashes.disturb(*task, sandbox, judge)


def _counted(outcomes: Iterable[Outcome]) -> Counter[tuple[str, str, str, int]]:
    return Counter((each.scenario, each.fault, each.book, each.code) for each in outcomes)


def _print_crashes(found: dict[str, list[Point]], outcomes: list[Outcome]) -> None:
    print(
        f"{'':14} {'points':>7} {'fault':>8} {'tried':>6} {'before':>7} {'after':>6} {'wrong':>6}"
    )
    for name, each in found.items():
        for fault in FAULTS:
            mine = [o for o in outcomes if (o.scenario, o.fault) == (name, fault)]
            if mine:
                books = Counter(o.book for o in mine)
                wrong = sum(bool(o.wrong) for o in mine)
                print(
                    f"{name:14} {len(each):7} {fault:>8} {len(mine):6} {books['before']:7} "
                    f"{books['after']:6} {wrong:6}"
                )


# ---------------------------------------------------------------- power


def _power(known: dict[str, Scenario], folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Lose power in every scenario, and after a kill where a month is settled."""
    budget, second_budget = QUICK_BUDGETS if asked.quick else BUDGETS
    found: dict[str, list[Found]] = {}
    print(f"{'power lost':28} {'changes':>7} {'states':>7} {'before':>7} {'after':>6} {'wrong':>6}")
    for name, scenario in known.items():
        if (asked.scenarios and name not in asked.scenarios) or (
            asked.quick and name not in QUICK_POWER
        ):
            continue
        recorded = power.record(scenario, scenario.prepare(folder / "recorded"))
        places = len(list(power.places(recorded)))
        losses = power.losses(scenario, recorded, budget)
        found[name] = _print_power(name, places, spread(power.judge, list(losses), asked.jobs))
        if not scenario.makes_cache:
            again = power.second_losses(scenario, recorded, folder / "again", second_budget)
            key = f"{name}, after a kill"
            found[key] = _print_power(key, places, spread(power.judge, list(again), asked.jobs))
    return {
        "states": {name: len(each) for name, each in found.items()},
        "books": {name: dict(Counter(o.book for o in each)) for name, each in found.items()},
        "wrong": [
            f"{name}, power lost at {each.at}: {what}"
            for name, every in found.items()
            for each in every
            for what in each.wrong
        ],
    }


def _print_power(name: str, places: int, outcomes: Iterable[Found]) -> list[Found]:
    every = list(outcomes)
    books = Counter(each.book for each in every)
    wrong = sum(bool(each.wrong) for each in every)
    print(
        f"{name:28} {places:7} {len(every):7} {books['before']:7} {books['after']:6} {wrong:6}",
        flush=True,
    )
    return every


# ---------------------------------------------------------------- crowd


def _crowd(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Let crowds loose on one month and on several, again and again."""
    rounds, tries = (1, QUICK_TRIES) if asked.quick else (ROUNDS, TRIES)
    result: dict[str, Any] = {"wrong": []}
    print(
        f"{'16 at once':12} {'rounds':>6} {'runs':>6} {'killed':>7} {'published':>9} {'reads':>7}"
    )
    for name, months in (("one month", 1), ("six months", 6)):
        crowd = Crowd.make(folder / name, months)
        tallies = [
            crowd.rush(folder / f"{name} {n}", random.Random(f"{name} {n}"), 0.4, tries)
            for n in range(rounds)
        ]
        total = Tally.sum(tallies)
        print(
            f"{name:12} {rounds:6} {total.runs:6} {total.killed:7} {total.published:9} "
            f"{total.reads.total():7}",
            flush=True,
        )
        result[name] = {
            "rounds": rounds,
            "runs": total.runs,
            "killed": total.killed,
            "published": total.published,
            "codes": {str(code): n for code, n in sorted(total.codes.items())},
            "reads": dict(total.reads),
        }
        result["wrong"] += [f"{name}: {what}" for what in total.wrong]
    return result


if __name__ == "__main__":
    sys.exit(main())
