"""The deployment files, as far as what is installed here can read them."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from settlement.errors import SettlementError
from settlement.operations.cron import Cron

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "jobs" / "deploy"
PASSING = {66, 74, 75}


def lasting() -> set[int]:
    """Exit codes with which there is no use in trying again by itself."""
    codes = {kind.exit_code for kind in SettlementError.__subclasses__()}
    return (codes | {1}) - PASSING


def text(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def test_what_needs_a_person_is_not_tried_again() -> None:
    (prevented,) = re.findall(r"RestartPreventExitStatus=(.*)", text("settle.service"))
    assert set(map(int, prevented.split())) == lasting()
    (values,) = re.findall(r"values: \[(.*)\]", text("cronjob.yaml"))
    assert set(map(int, values.split(","))) == lasting()
    for name in ("airflow_dag.py", "dagster_job.py"):
        assert "PASSING = {66, 74, 75}\n" in text(name)


def test_the_cron_line_is_five_fields_a_user_and_a_command() -> None:
    *settings, line = [each for each in text("settle.cron").splitlines() if each[0] != "#"]
    *fields, user, command = line.split(maxsplit=6)
    assert Cron.parse(" ".join(fields)).text == "5 2 * * *"
    assert (user, command.endswith("-m jobs.once")) == ("settle", True)
    assert all(re.fullmatch(r"[A-Z_]+=\S+", each) for each in settings)


@pytest.mark.parametrize("name", ["airflow_dag.py", "dagster_job.py", "cronjob.yaml"])
def test_a_schedule_is_daily_in_the_billing_zone(name: str) -> None:
    found = re.findall(r"[\"'](5 2 \* \* \*)[\"']", text(name))
    assert [Cron.parse(each).text for each in found] == ["5 2 * * *"]
    assert "Asia/Shanghai" in text(name)
    assert ZoneInfo("Asia/Shanghai")


@pytest.mark.parametrize("name", ["airflow_dag.py", "dagster_job.py"])
def test_a_snippet_is_python(name: str) -> None:
    assert ast.get_docstring(ast.parse(text(name)))


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    # It looks whether the program is there, which is so on a machine where this is deployed.
    service = text("settle.service").replace("/srv/settlement/.venv/bin/python", sys.executable)
    (tmp_path / "settle.service").write_text(service)
    shutil.copy(DEPLOY / "settle.timer", tmp_path)
    units = [tmp_path / "settle.service", tmp_path / "settle.timer"]
    done = subprocess.run(
        [program, "verify", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_is_made_of_what_is_there() -> None:
    lines = text("Containerfile").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / word).exists() for word in copied)
    assert "USER 10001" in lines
    assert any("--require-hashes" in line for line in lines)
