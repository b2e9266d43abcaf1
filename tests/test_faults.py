"""Faults at many points, by the harness in ``tests/faults``; `make faults` tries all of them.

Here are a third of the points at which a disk is changed, a few states of a disk whose power was
lost, and two crowds; and, of the harness itself, that its disk forgets and that it reads strace.
"""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import calls
from tests.faults.calls import Call
from tests.faults.disk import Disk, Tree
from tests.processes import ROOT, environment

pytestmark = pytest.mark.timeout(900)
UNTRACED = 77


def tried(kind: str, folder: Path) -> dict[str, Any]:
    """Try the part of one kind that is quick; skip where nothing can be traced."""
    asked = ("--quick", "--only", kind, "--json", str(folder / "result.json"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *asked],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == UNTRACED:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "result.json").read_text("utf-8"))[kind]
    assert isinstance(result, dict)
    return result


def test_killed_before_a_call_or_refused_one_a_run_leaves_a_book_that_holds(tmp_path: Path) -> None:
    found = tried("crashes", tmp_path)
    books = {(scenario, fault, book) for scenario, fault, book, _, _ in found["runs"]}
    for scenario, fault in (
        *(("revision", "SIGKILL"), ("second month", "ENOSPC"), ("second month", "EIO")),
        ("ingest", "EIO"),
    ):
        # The commit lies among the points: there are some before it, and some after it.
        assert {(scenario, fault, "before"), (scenario, fault, "after")} <= books
    assert sum(n for *_, n in found["runs"]) > 40


def test_power_lost_takes_nothing_that_was_said_to_be_settled(tmp_path: Path) -> None:
    found = tried("power", tmp_path)
    assert set(found["books"]["first month"]) == {"before", "after"}
    assert set(found["books"]["first month, after a kill"]) == {"after"}


def test_of_sixteen_at_once_with_kills_each_month_is_settled_once(tmp_path: Path) -> None:
    found = tried("crowd", tmp_path)
    for kind in ("one month", "six months"):
        assert found[kind]["killed"]
        assert found[kind]["codes"]["75"]
        assert all(found[kind]["reads"].values())


# ---------------------------------------------------------------- the harness itself


def call(name: str, arguments: str, *files: str, result: int = 0) -> Call:
    return Call(name, 1, files, arguments, result)


WRITING = (
    (call("openat", 'AT_FDCWD<>, "", O_CREAT', result=3), ["d/new"]),
    (call("write", r'3<>, "\x61\x62", 2', result=2), ["d/new"]),
)
FLUSH_FILE = ((call("fsync", "3<>"), ["d/new"]),)
FLUSH_FOLDER = ((call("fsync", "4<>"), ["d"]),)
RENAME = ((call("rename", ""), ["d/new", "e/new"]),)


@pytest.mark.parametrize(
    ("done", "left"),
    [
        # Whether the name is kept and how much of the contents is are two questions.
        (WRITING, [{}, {"d/new": b""}, {"d/new": b"a"}, {"d/new": b"ab"}, {"d/new": b"\0\0"}]),
        (WRITING + FLUSH_FILE, [{}, {"d/new": b"ab"}]),
        (
            WRITING + FLUSH_FOLDER,
            [{"d/new": b""}, {"d/new": b"a"}, {"d/new": b"ab"}, {"d/new": b"\0\0"}],
        ),
        (WRITING + FLUSH_FILE + FLUSH_FOLDER, [{"d/new": b"ab"}]),
        # A rename changes two folders, each of which may keep it or not.
        (
            WRITING + FLUSH_FILE + FLUSH_FOLDER + RENAME,
            [{}, {"d/new": b"ab"}, {"e/new": b"ab"}, {"d/new": b"ab", "e/new": b"ab"}],
        ),
        (WRITING + FLUSH_FILE + FLUSH_FOLDER + RENAME + FLUSH_FOLDER, [{}, {"e/new": b"ab"}]),
    ],
)
def test_the_disk_forgets_what_was_not_flushed(
    done: tuple[tuple[Call, list[str]], ...], left: list[Tree]
) -> None:
    disk = Disk({"d": None, "e": None})
    for each, paths in done:
        disk.apply(each, paths)
    found = [
        {path: data for path, data in tree.items() if data is not None}
        for tree in disk.losses(100, random.Random(0))
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, left))
    assert {path: data for path, data in disk.now().items() if data is not None} in left


def test_what_strace_writes_is_read() -> None:
    log = r"""7 openat(AT_FDCWD<\x2f\x74>, "\x2f\x74\x2f\x61", O_RDONLY) = 3<\x2f\x74\x2f\x61>
7 write(3<\x2f\x74\x2f\x61>, "\x61\x62", 2) = 1
8 close(4<\x2f\x74\x2f\x23\x31>(deleted) <unfinished ...>
7 unlinkat(5<\x2f\x74>, "\x62", 0) = -1 ENOENT (No such file or directory) (INJECTED)
8 <... close resumed>) = 0
7 write(3<\x2f\x74\x2f\x61>, "\x61", 1 <unfinished ...>) = ?
7 +++ killed by SIGKILL +++
"""
    found = list(calls.read(log))
    assert [(each.name, each.number, each.files, each.result) for each in found] == [
        ("openat", 1, ("/t/a",), 3),
        ("write", 1, ("/t/a",), 1),
        ("unlinkat", 1, ("/t/b",), -1),
        ("close", 1, ("(deleted)",), 0),
        ("write", 2, ("/t/a",), -1),
    ]
    assert found[1].data == b"a"
    with pytest.raises(ValueError, match="not understood"):
        list(calls.read("something else"))
