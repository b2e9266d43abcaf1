"""What a person sees: narrow terminals, Chinese names, and terminals that know no Chinese."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from settlement import terminal
from settlement.terminal import laid, width, wrapped
from tests.processes import PROGRAM, Finished, environment
from tests.small import PRICE_BOOK, write_world

NOW = "2026-03-01T02:00:00+08:00"
ASCII = {
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of two settled months."""
    folder = write_world(tmp_path_factory.mktemp("terminal"), "2026-01", "2026-02")
    (folder / "prices.toml").write_text(PRICE_BOOK.replace("人脸检测", "人脸与e\u0301👍"), "utf-8")
    for month in ("2026-01", "2026-02"):
        assert run(folder, "run", month).code == 0
    return folder


def settings(world: Path, **more: str) -> dict[str, str]:
    places = {"logs": "logs", "book": "book", "prices": "prices.toml"}
    own = {f"SETTLE_{name.upper()}": str(world / place) for name, place in places.items()}
    return environment(**own, SETTLE_NOW=NOW, **more)


def run(world: Path, *arguments: str, **more: str) -> Finished:
    done = subprocess.run(
        [PROGRAM, *arguments], env=settings(world, **more), capture_output=True, check=False
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def seen(world: Path, columns: int, *arguments: str, **more: str) -> list[str]:
    """The lines of a command's results on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    own = {key: value for key, value in settings(world, **more).items() if key != "COLUMNS"}
    process = subprocess.Popen(
        [PROGRAM, *arguments], env=own, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    heard = b""
    while True:
        try:
            got = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not got:
            break
        heard += got
    os.close(ours)
    assert process.wait() == 0
    return heard.decode().replace("\r\n", "\n").splitlines()


# ---------------------------------------------------------------- widths


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("人脸", 4),
        ("e\u0301", 1),
        ("ｱ", 1),
        ("Ａ", 2),
        ("👍", 2),
        ("각", 2),
        ("\u1100\u1161\u11a8", 2),
        ("→×≤", 3),
        ("", 0),
    ],
)
def test_a_width_is_what_is_seen(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("one two three", 13, ["one two three"]),
        ("abcdefgh ij", 3, ["abc", "def", "gh", "ij"]),
        ("人脸检测 与", 5, ["人脸", "检测", "与"]),
        ("e\u0301e\u0301e\u0301", 2, ["e\u0301e\u0301", "e\u0301"]),
        ("", 5, [""]),
    ],
)
def test_texts_wrap_between_words_and_lose_nothing(
    text: str, columns: int, lines: list[str]
) -> None:
    assert wrapped(text, columns) == lines
    assert all(width(line) <= columns for line in lines)


HOW = "all of them at 0.0005 and so on"
ROWS = [("item", "how", "amount"), ("人脸", HOW, "1,500.00")]
NARROW = """
49
item  how                                amount
人脸  all of them at 0.0005 and so on  1,500.00
---
40
item  how                         amount
人脸  all of them at 0.0005     1,500.00
      and so on
---
24
item  how
      amount
人脸  all of them at
      0.0005 and so on
    1,500.00
"""


def test_a_row_is_one_line_where_no_terminal_is() -> None:
    head, row = laid(ROWS, right=[2], indent="  ")
    assert head == f"  item  {'how':{len(HOW)}}    amount"
    assert row == f"  人脸  {HOW}  1,500.00"
    assert laid([]) == []


@pytest.mark.parametrize("drawn", NARROW.strip().split("\n---\n"))
def test_texts_wrap_in_their_column_before_rows_fold(
    monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    columns, *lines = drawn.splitlines()
    monkeypatch.setattr(terminal, "room", lambda: int(columns))
    assert "\n".join(laid(ROWS, right=[2])).splitlines() == lines


# ---------------------------------------------------------------- the program

COMMANDS = [
    ["status"],
    ["show", "2026-02"],
    ["show", "2026-02", "alpha"],
    ["explain", "2026-02", "alpha"],
    ["prices"],
    ["plan", "2026-02"],
    ["runs"],
    ["config"],
    ["diff", "2026-02", "r0", "r1"],
]


@pytest.mark.parametrize("columns", [60, 34])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_tables_fit_a_narrow_terminal(world: Path, command: list[str], columns: int) -> None:
    wide = seen(world, 400, *command)
    narrow = seen(world, columns, *command)
    tables = [line for line in narrow if line.startswith("  ")]
    assert not [line for line in tables if width(line) > columns]
    if command[0] == "plan":
        return  # it says how long it took
    # Nothing is cut off: the characters are the same, whatever lines they are on.
    assert sorted("".join("".join(wide).split())) == sorted("".join("".join(narrow).split()))


def test_a_pipe_gets_a_row_a_line(world: Path) -> None:
    lines = run(world, "status", COLUMNS="40").out.splitlines()
    assert [line.split()[0] for line in lines] == ["month", "2026-01", "2026-02"]


def test_chinese_names_are_aligned(world: Path) -> None:
    lines = seen(world, 200, "prices")
    head = next(line for line in lines if " item " in line or line.split()[:1] == ["item"])
    row = next(line for line in lines if "人脸与" in line)
    assert width(row) == width(head)


# ---------------------------------------------------------------- no Chinese at all


@pytest.mark.parametrize("command", [*COMMANDS, ["check"], ["--help"]], ids=" ".join)
def test_a_terminal_without_chinese_still_works(world: Path, command: list[str]) -> None:
    done = run(world, *command, **ASCII)
    assert done.code == 0, done.err
    assert done.out.isascii()
    assert "Traceback" not in done.err


def test_signs_and_names_have_stand_ins_that_keep_tables_aligned(world: Path) -> None:
    out = run(world, "explain", "2026-02", "alpha", **ASCII).out
    assert "2 calls x 0.5" in out
    ends = {len(line) for line in out.splitlines() if line.startswith("  ")}
    assert len(ends) == 1
    assert "\\u4eba\\u8138" in out


def test_json_stays_json_without_chinese(world: Path) -> None:
    for command in (["prices"], ["show", "2026-02", "alpha"], ["explain", "2026-02", "alpha"]):
        plain = run(world, *command, "--json", **ASCII)
        assert plain.out.isascii()
        assert json.loads(plain.out) == json.loads(run(world, *command, "--json").out)


def test_a_whole_month_is_settled_without_chinese(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2026-02")
    done = run(world, "run", "2026-02", **ASCII)
    assert done.code == 0, done.err
    out = tmp_path / "导出"
    exported = run(world, "export", "2026-02", "--out", str(out), **ASCII)
    assert exported.code == 0, exported.err
    assert (out / "lines.csv").read_bytes().startswith("\ufeff".encode())
    assert "\u4eba" not in exported.out
    assert run(world, "explain", "2026-02", "账户", **ASCII).code == 66


def test_a_closed_pipe_is_no_traceback(world: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" prices | true; echo ${PIPESTATUS[0]}', PROGRAM],
        env=settings(world),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in {"0", "73"}
    assert done.stderr == ""


def test_python_here_is_the_one_that_is_tested() -> None:
    assert Path(PROGRAM).parent == Path(sys.executable).parent
