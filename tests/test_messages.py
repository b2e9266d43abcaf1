"""What is said on stderr: text for people, stamped lines for a service, JSON for programs."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from settlement.operations import messages
from tests.processes import PROGRAM, Finished, environment, settle
from tests.small import write_world

RUN_ID = re.compile(r"20\d{6}T\d{6}Z-[0-9a-f]{6}")


def said(code: str, **settings: str) -> Finished:
    """What a program says that has the manner and the messages at hand."""
    done = subprocess.run(
        [sys.executable, "-c", f"from settlement.operations import messages as m\n{code}"],
        env=environment(**settings),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def objects(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.err.splitlines()]


def test_a_run_has_one_id_that_sorts_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "manner", messages.Manner(month="2026-02"))
    first = messages.run_id()
    assert RUN_ID.fullmatch(first)
    assert messages.run_id() == first
    second = messages.begin_run()
    assert second != first
    assert second[:16] >= first[:16]
    assert messages.manner.month is None


@pytest.mark.parametrize(
    ("manner", "heard"),
    [
        ("", "info warning error"),
        ("m.manner.quiet = True", "warning error"),
        ("m.manner.verbose = True", "info warning error debug"),
        ("m.manner.quiet = m.manner.verbose = True", "warning error"),
    ],
)
def test_how_much_is_said(manner: str, heard: str) -> None:
    levels = "for level in ('info', 'warning', 'error', 'debug'): m.say(level, level)"
    assert said(f"{manner}\n{levels}").err.split() == heard.split()


def test_text_for_a_person_is_the_text_alone() -> None:
    done = said("m.about('2026-02'); m.say('a\\x1b[31mb', rows=1); m.warn('odd')")
    assert done.err == "a\\x1b[31mb\nsettle: warning: odd\n"


def test_a_stamped_line_says_when_which_run_and_which_month() -> None:
    done = said(
        "m.manner.stamped = True; m.about('2026-02'); m.say('2026-02 r1: done'); m.warn('odd')"
        "; m.about(None); m.say('nothing is due'); print(m.run_id())"
    )
    run = done.out.strip()
    assert [line.split(" ", 1)[1] for line in done.err.splitlines()] == [
        f"{run} 2026-02 r1: done",
        f"{run} 2026-02 warning: odd",
        f"{run} nothing is due",
    ]


def test_an_object_a_line_says_it_with_names() -> None:
    done = said("m.manner.form = 'json'; m.about('2026-02'); m.warn('a\\nb', file='人脸')")
    (line,) = objects(done)
    assert RUN_ID.fullmatch(line.pop("run"))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "month": "2026-02", "message": "a\nb", "file": "人脸"}
    assert done.err.isascii()


def test_logging_is_said_here() -> None:
    code = (
        "import logging; m.manner.form = 'json'; m.take_logging()\n"
        "log = logging.getLogger('jobs')\nlog.info('tick %d', 1)\nlog.debug('unheard')\n"
        "try: 1 / 0\nexcept ZeroDivisionError: log.exception('a bug')"
    )
    first, second = objects(said(code))
    assert (first["level"], first["message"]) == ("info", "tick 1")
    assert (second["level"], second["message"]) == ("error", "a bug")
    assert second["traceback"].splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_nobody_listening_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "from settlement.operations import messages as m\nm.say('a'); m.say('b'); print('done')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writing, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, b"done\n")


# ---------------------------------------------------------------- the programs


def test_a_refusal_is_one_object_with_its_parts(tmp_path: Path) -> None:
    arguments = ["show", "2026-02", "--book", tmp_path / "book"]
    (typed,) = objects(settle(*arguments, "--log-format", "json"))
    (set_,) = objects(settle(*arguments, SETTLE_LOG_FORMAT="json"))
    (before,) = objects(settle("--log-format=json", *arguments))
    for line in (typed, set_, before):
        assert (line["level"], line["exit_code"], line["kind"]) == ("error", 66, "MissingInput")
        assert line["where"] == str(tmp_path / "book")
        assert line["message"] == f"{line['where']}: {line['what']}; {line['cure']}"


@pytest.mark.parametrize("wrong", ["--no-such", "20x"])
def test_wrong_usage_is_an_object_too(wrong: str) -> None:
    (line,) = objects(settle("show", wrong, "--log-format", "json"))
    assert (line["level"], line["exit_code"]) == ("error", 2)
    assert wrong in line["message"]


def test_a_run_names_itself_and_its_month(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-01")
    settings = {
        "SETTLE_NOW": "2026-03-01T02:00:00+08:00",
        "SETTLE_LOGS": str(tmp_path / "logs"),
        "SETTLE_BOOK": str(tmp_path / "book"),
        "SETTLE_PRICES": str(tmp_path / "prices.toml"),
    }
    done = settle("run", "2026-01..2026-02", "--log-format", "json", cwd=None, **settings)
    assert done.code == 66
    refusal = objects(done)[-1]
    assert (refusal["month"], refusal["level"]) == ("2026-02", "error")
    assert len({line["run"] for line in objects(done)}) == 1


def on_terminal(*arguments: str, **settings: str) -> str:
    """What `settle` writes to a terminal as stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        env=environment(**{"TERM": "xterm", "NO_COLOR": "", **settings}),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
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
    process.wait()
    return heard.decode()


@pytest.mark.parametrize(
    ("settings", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_refusal_is_red_on_a_terminal_that_wants_it(
    tmp_path: Path, settings: dict[str, str], colour: bool
) -> None:
    heard = on_terminal("show", "2026-02", "--book", str(tmp_path / "none"), **settings)
    assert ("\x1b[31m" in heard) is colour
    assert "no book" in heard
