"""Shell completion, in the shells themselves: commands, options, months and runs of the book."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.drawn import rows
from tests.processes import PROGRAM, Forks, environment
from tests.small import write_world

NOW = "2026-05-01T02:00:00+08:00"
SHELLS = {
    "bash": (
        'eval "$(_SETTLE_COMPLETE=bash_source settle)"; line=$1; COMP_WORDS=($line);'
        '[[ $line == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1));'
        "_settle_completion settle; printf '%s\\n' \"${COMPREPLY[@]}\""
    ),
    "zsh": (
        'compdef() { :; }; eval "$(_SETTLE_COMPLETE=zsh_source settle)";'
        "compadd() { print -rl -- $completions; };"
        "_describe() { print -rl -- ${completions_with_descriptions%%:*}; };"
        "words=(${(s: :)1}); [[ $1 == *' ' ]] && words+=(''); CURRENT=${#words};"
        "_settle_completion"
    ),
    "fish": "_SETTLE_COMPLETE=fish_source settle | source; complete -C $argv[1] | cut -f 1",
}
COMPLETED = """
line                        to
---
settle_ex                   explain_export
settle_show_                2026-02_2026-01
settle_explain_2026-01      2026-01
settle_diff_                2026-02_2026-01
settle_run_                 2026-03_2026-04
settle_run_--revise_        2026-02_2026-01
settle_check_--bo           --book
settle_export_2027          -
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fork: Forks) -> Path:
    world = write_world(tmp_path_factory.mktemp("world"), "2026-01", "2026-02")
    paths = ["--logs", "logs", "--book", "book", "--prices", "prices.toml"]
    assert fork("run", "2026-01..2026-02", *paths, cwd=world, SETTLE_NOW=NOW).code == 0
    return world


def completed(shell: str, line: str, world: Path, **settings: str) -> list[str]:
    """What a shell offers for a line."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    own = environment(SETTLE_NOW=NOW, **settings)
    own["PATH"] = f"{Path(PROGRAM).parent}:{own['PATH']}"
    argument = [line] if shell == "fish" else [shell, line]
    done = subprocess.run(
        [program, *quiet, "-c", SHELLS[shell], *argument],
        cwd=world,
        env=own | {"HOME": str(world)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("row", rows(COMPLETED)[1:], ids=lambda row: row[0])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_from_the_book(world: Path, shell: str, row: list[str]) -> None:
    line, to = row
    expected = [] if to == "-" else to.split("_")
    found = completed(shell, line.replace("_", " "), world, SETTLE_BOOK="book")
    assert sorted(found) == sorted(expected)


def test_the_book_is_the_one_of_the_line_or_of_the_settings(world: Path, tmp_path: Path) -> None:
    assert completed("bash", f"settle show --book {world}/book 2026-02", tmp_path) == ["2026-02"]
    (tmp_path / "settlement.toml").write_text(f"book = '{world}/book'\n")
    assert completed("bash", "settle show 2026-02", tmp_path) == ["2026-02"]


def test_what_is_wrong_completes_to_nothing(tmp_path: Path) -> None:
    assert completed("bash", "settle show ", tmp_path) == []
    assert completed("bash", "settle run ", tmp_path) == []
    (tmp_path / "settlement.toml").write_text("no TOML")
    assert completed("bash", "settle show ", tmp_path) == []


def test_runs_are_completed(world: Path) -> None:
    found = completed("bash", "settle runs ", world, SETTLE_BOOK="book")
    assert sorted(found) == sorted(path.stem for path in (world / "book/.runs").iterdir())
