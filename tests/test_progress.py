"""Progress: a bar where a person watches, lines elsewhere, details where they are asked for."""

import json
import subprocess
import sys
from pathlib import Path

from tests.processes import environment, settle
from tests.small import write_world
from tests.test_messages import on_terminal

WORLD = {"SETTLE_NOW": "2026-03-01T02:00:00+08:00"}
SLOW = """
import time
from settlement import progress
from settlement.operations import messages
progress.EVERY = 0.05
messages.manner.form = {form!r}
messages.manner.quiet = {quiet!r}
messages.about("2026-02")
with progress.watched("find"):
    pass
with progress.watched("count"), progress.shown(100, 1000) as advance:
    advance(25, 250)
    time.sleep(0.4)
with progress.watched("rate"):
    time.sleep(0.2)
"""


def said(form: str = "text", *, quiet: bool = False) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(form=form, quiet=quiet)],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_long_stage_says_now_and_then_how_far_it_is() -> None:
    lines = said()
    counted = [line for line in lines if line.startswith("2026-02: count, ")]
    assert counted
    assert counted[0].startswith("2026-02: count, 25 of 100 rows (25 %), 0 s, about ")
    assert counted[0].endswith(" s left")
    assert "2026-02: rate, 0 s" in lines
    assert not [line for line in lines if "find" in line]


def test_a_line_of_progress_is_an_object_too_and_quiet_has_none() -> None:
    first = json.loads(said("json")[0])
    assert (first["stage"], first["month"], first["level"]) == ("count", "2026-02", "info")
    assert said(quiet=True) == []


def test_verbose_says_what_each_stage_took(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-02")
    order = ["run", "2026-02", "--logs", "logs", "--book", "book", "--prices", "prices.toml"]
    planned = settle("plan", *order[1:], "--verbose", cwd=tmp_path, **WORLD)
    assert "2026-02: 3 rows in 1 file, " in planned.err
    assert "2026-02: 0 of 1 file digested already" in planned.err
    assert "2026-02: count: " in planned.err
    assert settle(*order, "--quiet", cwd=tmp_path, **WORLD).err == ""
    assert settle(*order, cwd=tmp_path, **WORLD).err == ""


def test_a_bar_is_shown_on_a_terminal_unless_it_shall_be_quiet(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-02")
    order = ["plan", "2026-02"]
    for name, value in (("logs", "logs"), ("book", "book"), ("prices", "prices.toml")):
        order += [f"--{name}", str(tmp_path / value)]
    assert "reading" in on_terminal(*order, **WORLD)
    assert on_terminal(*order, "--quiet", **WORLD) == ""
    assert "reading" not in on_terminal(*order, "--log-format", "json", **WORLD)
