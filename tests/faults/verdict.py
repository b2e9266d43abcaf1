"""What must hold after any fault, whatever it was.

The settlements are, byte for byte, those from before or those from after. `settle check` finds
nothing. The command, given again, works; it says "settled already" where the disturbed one had
come through; it leaves the very book that an undisturbed one leaves, and nothing beside it.
"""

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import running
from tests.faults.running import Hangs, Ran
from tests.faults.scenarios import CHECK, FEBRUARY, Scenario, digested, listed, settled

BEFORE, AFTER = "before", "after"


@dataclass
class Judge:
    """Judges sandboxes; one that is like another before it is not judged twice."""

    known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def judge(self, scenario: Scenario, sandbox: Path) -> tuple[str, list[str]]:
        """Return which book it is, and what is wrong; the sandbox is used up."""
        which = state_of(scenario, sandbox)
        if not which:
            return "torn", [f"neither before nor after: {_differing(scenario, sandbox)}"]
        known = f"{scenario.name} {_fingerprint(sandbox / 'book')}"
        if known not in self.known:
            self.known[known] = tuple(_wrong(scenario, sandbox, which))
        return which, list(self.known[known])


def state_of(scenario: Scenario, sandbox: Path) -> str:
    """Tell whether the settlements are those from before or after; empty if neither."""
    before, after = scenario.states()
    found = settled(sandbox / "book")
    if scenario.makes_cache:
        is_made = digested(sandbox / "book") == digested(scenario.after)
        return (AFTER if is_made else BEFORE) if found == before else ""
    return AFTER if found == after else BEFORE if found == before else ""


def _wrong(scenario: Scenario, sandbox: Path, which: str) -> Iterable[str]:
    """Yield what is wrong with a book that is as before or after."""
    try:
        if settled(sandbox / "book"):
            checked = running.run(scenario.given(CHECK, sandbox), sandbox)
            yield from _refused("check", checked, which)
        again = running.run(scenario.command(sandbox), sandbox)
        yield from _refused("the next run", again, which)
        if not scenario.makes_cache:
            said = "settled already" if which == AFTER else "published in"
            if said not in again.out:
                yield f"the next run does not say {said!r}: {again.out!r}"
        elif digested(sandbox / "book") != digested(scenario.after):
            yield "the next ingest does not leave the same cache"
        yield from _unlike(scenario.after, sandbox / "book")
        if scenario.makes_cache:
            second = running.run(scenario.given(FEBRUARY, sandbox), sandbox)
            yield from _refused("a run with that cache", second, which)
            yield from _unlike(scenario.world / "books" / "two", sandbox / "book")
        yield from _refused("check", running.run(scenario.given(CHECK, sandbox), sandbox), which)
    except Hangs:
        yield "a command hangs"


def _refused(what: str, ran: Ran, which: str) -> Iterable[str]:
    if ran.code:
        yield f"{what}, {which}, ends with {ran.code}: {ran.err or ran.out}"


def _unlike(expected: Path, book: Path) -> Iterable[str]:
    if settled(book) != settled(expected):
        yield "the book is not what an undisturbed run leaves"
    if extra := set(listed(book)) ^ set(listed(expected)):
        yield f"it is not cleared up: {sorted(extra)}"


def _differing(scenario: Scenario, sandbox: Path) -> str:
    found, after = settled(sandbox / "book"), scenario.states()[1]
    wrong = [name for name in sorted(found | after) if found.get(name) != after.get(name)]
    return ", ".join(wrong) or "files beyond those"


def _fingerprint(book: Path) -> str:
    """Digest the whole tree, with any process's number left out of names."""
    digest = hashlib.sha256()
    for path in sorted(book.rglob("*")):
        name = str(path.relative_to(book))
        if name.startswith(".drafts/"):
            name = name.replace(name.split("/")[1].rpartition("-")[2], "PID")
        contents = path.read_bytes() if path.is_file() and path.name != ".lock" else b""
        digest.update(repr((name, path.is_dir(), contents)).encode())
    return digest.hexdigest()


def clear(sandbox: Path) -> None:
    """Remove a sandbox."""
    shutil.rmtree(sandbox)
