"""Settings: flags before variables before the file before defaults, and what is refused."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from settlement.cli import settle as program
from settlement.commands.serving import once
from settlement.operations.settings import FLAG, PATH, SETTINGS, TABLE, TEXT, TEXTS, WORDS
from tests.processes import PROGRAM, Finished, environment
from tests.processes import settle as run
from tests.small import write_world

NOW = "2026-03-01T02:00:00+08:00"


def write(folder: Path, text: str, name: str = "settlement.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def settle(folder: Path, *arguments: object, **settings: str) -> Finished:
    return run(*arguments, cwd=folder, **{"SETTLE_NOW": NOW, **settings})


def setting(folder: Path, key: str, *arguments: object, **settings: str) -> tuple[Any, str]:
    """A setting's value and where it comes from, as `settle config` says."""
    done = settle(folder, "config", "--json", *arguments, **settings)
    assert done.code == 0, done.err
    (found,) = [each for each in done.json["settings"] if each["key"] == key]
    return found["value"], found["from"]


# ---------------------------------------------------------------- what goes before what


@pytest.mark.parametrize(
    ("flag", "variable", "line", "expected"),
    [
        ("--threads 4", "3", "threads = 2", ("4", "--threads")),
        ("", "3", "threads = 2", ("3", "SETTLE_THREADS")),
        ("", "", "threads = 2", ("2", "settlement.toml line 2")),
        ("", "", "", (None, "default")),
    ],
)
def test_a_flag_goes_before_a_variable_before_the_file_before_the_default(
    tmp_path: Path, flag: str, variable: str, line: str, expected: tuple[str, str]
) -> None:
    write(tmp_path, f"[counting]\n{line}\n")
    settings = {"SETTLE_THREADS": variable}
    assert setting(tmp_path, "counting.threads", *flag.split(), **settings) == expected


def test_a_flag_may_say_no_to_the_file_and_a_variable_too(tmp_path: Path) -> None:
    write(tmp_path, "counting.allow_empty = true")
    key = "counting.allow_empty"
    assert setting(tmp_path, key) == (True, "settlement.toml line 1")
    assert setting(tmp_path, key, "--no-allow-empty") == (False, "--no-allow-empty")
    assert setting(tmp_path, key, SETTLE_ALLOW_EMPTY="0") == (False, "SETTLE_ALLOW_EMPTY")


def test_the_file_is_the_one_named_else_that_of_the_working_folder(tmp_path: Path) -> None:
    write(tmp_path, 'book = "here"')
    other = write(tmp_path, 'book = "/there"', "other.toml")
    third = write(tmp_path, 'book = "/third"', "third.toml")
    assert setting(tmp_path, "book")[0] == "here"
    assert setting(tmp_path, "book", SETTLE_CONFIG=str(other))[0] == "/there"
    assert setting(tmp_path, "book", "--config", third, SETTLE_CONFIG=str(other))[0] == "/third"
    before = settle(tmp_path, "--config", third, "config", "--json").json
    assert before["file"] == str(third)


def test_paths_in_the_file_are_relative_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = write(tmp_path / "etc", 'book = "b"\nprices = "/p.toml"\n[logs]\npath = "s3://x/y"')
    values = [setting(tmp_path, key, "--config", file)[0] for key in ("book", "prices")]
    assert values == [str(tmp_path / "etc" / "b"), "/p.toml"]
    assert setting(tmp_path, "logs.path", "--config", file)[0] == "s3://x/y"


def test_every_command_takes_the_file(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-02")
    write(tmp_path, 'book = "book"\nprices = "prices.toml"\nlogs.path = "logs"')
    once_ = [sys.executable, "-m", "jobs.once", "--config", str(tmp_path / "settlement.toml")]
    settings = environment(SETTLE_NOW=NOW, PYTHONPATH=str(Path(__file__).parent.parent))
    assert subprocess.run(once_, cwd="/", env=settings, check=False).returncode == 0
    for command in ("run", "plan", "status", "show", "explain", "diff", "prices", "check"):
        arguments = {"explain": ["2026-02", "alpha"], "diff": ["2026-02"]}.get(command, [])
        done = settle(tmp_path, command, *arguments)
        assert done.code == 0, (command, done.err)
        assert done.out


def test_a_refusal_to_be_approved_names_the_file(tmp_path: Path) -> None:
    write_world(tmp_path, "2026-01", "2026-02")
    file = write(
        tmp_path,
        'book = "book"\nprices = "prices.toml"\nlogs.path = "logs"\nlimits.account = "1:0"',
    )
    assert settle(tmp_path, "run", "2026-01").code == 0
    stopped = settle(tmp_path, "run", "2026-02", "--limit-account", "0.5:0")
    assert stopped.code == 3
    command = stopped.err.splitlines()[-1].split()
    assert command[:5] == ["settle", "run", "2026-02", "--config", str(file)]
    assert settle(Path("/"), *command[1:]).code == 0


# ---------------------------------------------------------------- what is refused

REFUSED = [
    ("threds = 1", "threds: unknown key; did you mean counting.threads?"),
    ("threads = 1", "threads: unknown key; did you mean counting.threads?"),
    ("[counting]\nthread = 1", "counting.thread: unknown key; did you mean counting.threads?"),
    ("[couting]\nthreads = 1", "couting: unknown section; did you mean [counting]?"),
    ("[counting]\nthreads = '2'", "counting.threads: '2' is not a whole number"),
    ("[counting]\nthreads = 2.5", "counting.threads: 2.5 is not a whole number"),
    ("[counting]\nthreads = 0", "counting.threads: 0 is not in the range 1<=x<=1024"),
    ("[counting]\nthreads = true", "counting.threads: true is not a whole number"),
    ("[counting]\nallow_empty = 1", "counting.allow_empty: 1 is not true or false"),
    ("[counting]\nmax_rejects = 2", "counting.max_rejects: '2' is not a share from 0 to 1"),
    ("[counting]\nengine = 'duck'", "counting.engine: 'duck' is not one of 'local', 'spark'"),
    ("[counting]\nconf = 'a=b'", "counting.conf: 'a=b' is not a list of texts"),
    ("[limits]\naccount = '5'", "limits.account: '5' is not FACTOR:AMOUNT"),
    ("[logs]\nnaive_timestamps = 'Mars'", "logs.naive_timestamps: unknown time zone"),
    ("[schedule]\nfirst_month = '2026-13'", "schedule.first_month: "),
    ("logs = 'x'", "logs: is a section, not a key; write [logs]"),
    ("book = ['x']", "book: ['x'] is not a path in quotes"),
    ("book = ''", "book: empty"),
    ("book = ", "not TOML"),
    ("book = 'a'\nbook = 'b'", "not TOML"),
    (
        "[schedule]\nretry_factor = nan",
        "schedule.retry_factor: 'NaN' is not a number from 1 to 100",
    ),
    ('book = "a\\u0000b"', "book: a NUL character in it; take it out"),
    ("[limits]\ntotal = 1e9999999999999999999", "not TOML (a number with so large an exponent)"),
    ("[counting]\nthreads = 0x" + "f" * 3600, "counting.threads: so large a number will not do"),
    ("book = " + "[" * 600, "settlement.toml: nested too deep; write it flat"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_a_file_is_refused_with_its_key_and_the_nearest_right_one(
    tmp_path: Path, text: str, says: str
) -> None:
    write(tmp_path, text)
    done = settle(tmp_path, "status")
    assert (done.code, len(done.err.splitlines())) == (78, 1)
    assert done.err.startswith("settle: settlement.toml")
    assert says in done.err


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    missing = settle(tmp_path, "status", "--config", "none.toml")
    assert (missing.code, "none.toml: no such settings file" in missing.err) == (78, True)
    (tmp_path / "settlement.toml").write_bytes(b"book = '\xff'")
    assert settle(tmp_path, "status").code == 78
    assert settle(tmp_path, "status", "--help").code == 0
    assert settle(tmp_path, "status", "--config", tmp_path).code == 74


@pytest.mark.parametrize("command", ["config", "status", "status --quiet"])
def test_a_variable_that_is_nearly_a_setting_is_warned_of(tmp_path: Path, command: str) -> None:
    done = settle(tmp_path, *command.split(), SETTLE_BOKO="x", SETTLE_BOOK="b")
    assert done.code == 0
    said = "settle: warning: SETTLE_BOKO is set, but is no setting; did you mean SETTLE_BOOK?\n"
    assert done.err == said


def test_a_variable_of_another_program_is_told_by_config_alone(tmp_path: Path) -> None:
    own = {"SETTLE_TEAM": "x", "SETTLE_OUT": "csv", "SETTLE_SEED": "1", "SETTLE_CONFIG": "c.toml"}
    write(tmp_path, "", "c.toml")
    assert settle(tmp_path, "status", **own).err == ""
    said = "settle: warning: SETTLE_TEAM is set, but is no setting\n"
    assert settle(tmp_path, "config", **own).err == said


def test_a_mistyped_variable_is_told_as_the_file_says(tmp_path: Path) -> None:
    write(tmp_path, 'messages.log_format = "json"')
    (line,) = settle(tmp_path, "status", SETTLE_PRICE="x").err.splitlines()
    assert json.loads(line)["variable"] == "SETTLE_PRICE"
    once_ = [sys.executable, "-m", "jobs.once", "--prices", "none.toml"]
    environment = {**os.environ, "SETTLE_BOK": "x"}
    done = subprocess.run(once_, env=environment, capture_output=True, text=True, check=False)
    assert "SETTLE_BOK is set, but is no setting; did you mean SETTLE_BOOK?" in done.stderr


# ---------------------------------------------------------------- what is shown


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[logs]\npath = "s3://me:geheim@bucket/x?secret_key=geheim&region=eu"\n'
        '[counting]\nconf = ["spark.ssl.keyPassword=geheim", "spark.cores.max=8"]',
    )
    for arguments in (["config"], ["config", "--json"]):
        said = settle(tmp_path, *arguments).out
        assert "geheim" not in said
        assert "s3://***@bucket/x?secret_key=***&region=eu" in said
        assert "spark.cores.max=8" in said


def test_without_a_file_everything_is_a_default(tmp_path: Path) -> None:
    done = settle(tmp_path, "config", "--json")
    assert done.json["file"] is None
    assert {each["from"] for each in done.json["settings"]} == {"default"}
    assert [each["key"] for each in done.json["settings"]] == [each.key for each in SETTINGS]
    told = {each["key"]: (each["value"], each["otherwise"]) for each in done.json["settings"]}
    assert told["book"] == ("data/book", None)
    assert told["counting.threads"] == (None, "one per core")
    assert told["counting.conf"] == ([], "none")
    lines = settle(tmp_path, "config").out.splitlines()
    assert "counting.threads one per core default" in [" ".join(line.split()) for line in lines]


def test_what_is_set_has_no_words_for_what_holds_otherwise(tmp_path: Path) -> None:
    done = settle(tmp_path, "config", "--json", "--threads", "2", SETTLE_PING="https://x")
    told = {each["key"]: (each["value"], each["otherwise"]) for each in done.json["settings"]}
    assert told["counting.threads"] == ("2", None)
    assert told["notify.ping"] == ("***", None)


# ---------------------------------------------------------------- the list


def options(command: click.Command) -> dict[str, click.Parameter]:
    """The options of a command, or of all commands of a group, by name."""
    found = {option.name or "": option for option in command.params}
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        found |= options(each)
    return found


def test_every_setting_is_an_option_with_its_own_variable() -> None:
    known = options(program) | options(once)
    for each in SETTINGS:
        if each.key.startswith("messages."):
            continue  # given to every command where it is run
        assert known[each.name].envvar == each.variable, each.key
    for values in (
        [each.key for each in SETTINGS],
        [each.name for each in SETTINGS],
        [each.variable for each in SETTINGS],
    ):
        assert len(set(values)) == len(values)


def test_every_key_can_be_written_as_its_kind_says(tmp_path: Path) -> None:
    written = {FLAG: "true", TEXTS: '["a=b"]', TABLE: "{}", WORDS: '["echo", "a b"]'}
    own = {
        "limits.account": '"5:1000"',
        "logs.naive_timestamps": '"UTC"',
        "schedule.first_month": '"2026-01"',
        "schedule.at": '"0 2 * * *"',
        "counting.engine": '"spark"',
        "messages.log_format": '"json"',
    }
    own |= {
        each.key: '"x"' for each in SETTINGS if each.kind in {TEXT, PATH} and each.key not in own
    }
    text = "\n".join(
        f"{each.key} = {own.get(each.key) or written.get(each.kind) or '1'}" for each in SETTINGS
    )
    tomllib.loads(text)
    write(tmp_path, text)
    done = settle(tmp_path, "config", "--json")
    assert done.code == 0, done.err
    origin = {each["key"]: each["from"] for each in done.json["settings"]}
    lines = [f"settlement.toml line {n}" for n in range(1, len(SETTINGS) + 1)]
    assert list(origin.values()) == lines


def test_the_program_is_the_installed_one() -> None:
    done = subprocess.run([PROGRAM, "config", "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["settings"]
