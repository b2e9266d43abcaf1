"""Power lost after every change that a command makes, in every order that a disk allows.

The calls of the undisturbed command are traced with what they wrote, and done again on a `Disk`.
After each one that changes or flushes something the power may go: whatever may be left is
written out as a book, and judged. When the command has said that it is done, what is left must
be the book from after.

A *second* loss is tried, too: the command is killed at each change (the machine lives, so that
nothing is lost yet), is given again, comes to its end, and only then the power goes. What the
killed one had not flushed must have been made good by the one that says "settled".
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.faults import running, verdict
from tests.faults.calls import Call
from tests.faults.disk import Disk, Tree, tree_of, write
from tests.faults.scenarios import Scenario
from tests.faults.verdict import AFTER, Judge

BEGIN, END = "the beginning", "the end"


@dataclass(frozen=True)
class Loss:
    """What may be left on a disk: after how many changes, and whether the command was done."""

    scenario: Scenario
    at: str
    done: bool
    tree: frozenset[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Found:
    """What a loss came to."""

    scenario: str
    at: str
    book: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Recorded:
    """A command's calls on its sandbox, and the sandbox it began with."""

    begin: Tree
    calls: tuple[tuple[Call, tuple[str, ...]], ...]


def record(scenario: Scenario, sandbox: Path) -> Recorded:
    """Trace the command in a sandbox that is prepared, and used up."""
    begin = tree_of(sandbox)
    ran = running.trace(scenario.command(sandbox), sandbox, data=True)
    if ran.code:
        raise RuntimeError(f"{scenario.name} ends with {ran.code}: {ran.err}")
    calls = tuple(_inside(sandbox, ran.calls))
    verdict.clear(sandbox)
    return Recorded(begin, calls)


def _inside(sandbox: Path, calls: Iterable[Call]) -> Iterator[tuple[Call, tuple[str, ...]]]:
    for call in calls:
        paths = [Path(file) for file in call.files]
        if paths and all(path.is_relative_to(sandbox) for path in paths):
            inside = tuple(str(path.relative_to(sandbox)) for path in paths)
            if inside[0] == "." or inside[0].startswith("book"):
                yield call, inside


def losses(scenario: Scenario, recorded: Recorded, budget: int) -> Iterator[Loss]:
    """Yield what may be left after each change of the command, none twice."""
    chance = random.Random(scenario.name)
    disk, seen = Disk(recorded.begin), set()
    changes = _changes(disk, recorded)
    for at in changes:
        for tree in disk.losses(budget, chance):
            loss = Loss(scenario, at, at == END, frozenset(tree.items()))
            if (loss.tree, loss.done) not in seen:
                seen.add((loss.tree, loss.done))
                yield loss


def places(recorded: Recorded) -> Iterator[str]:
    """Yield where power may be lost."""
    yield from _changes(Disk(recorded.begin), recorded)


def _changes(disk: Disk, recorded: Recorded) -> Iterator[str]:
    """Do call after call; yield where after each that changed something, and at the end."""
    yield BEGIN
    for call, paths in recorded.calls:
        if disk.apply(call, list(paths)):
            yield f"{call.name} {call.number} on {paths[-1]}"
    yield END


def second_losses(
    scenario: Scenario, recorded: Recorded, sandbox: Path, budget: int
) -> Iterator[Loss]:
    """Yield what may be left at the end of a run after a killed one, for each place to kill."""
    chance = random.Random(scenario.name)
    for number in range(len(list(places(recorded))) - 1):
        disk = Disk(recorded.begin)
        at = list(islice(_changes(disk, recorded), number + 1))[-1]
        sandbox.mkdir()
        write(disk.now(), sandbox)
        again = record(scenario, sandbox)
        for _ in _changes(disk, again):
            pass
        for tree in disk.losses(budget, chance):
            yield Loss(scenario, f"{END}, a kill after {at}", True, frozenset(tree.items()))


def judge(loss: Loss, sandbox: Path, judging: Judge) -> Found:
    """Write out what is left, and judge it."""
    sandbox.mkdir()
    (sandbox / "tmp").mkdir()
    write(dict(loss.tree), sandbox)
    which, wrong = judging.judge(loss.scenario, sandbox)
    if loss.done and which != AFTER and not loss.scenario.makes_cache:
        wrong = [*wrong, "it was said to be done, and it is lost"]
    verdict.clear(sandbox)
    return Found(loss.scenario.name, loss.at, which, tuple(wrong))
