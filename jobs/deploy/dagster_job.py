"""A Dagster job and its schedule: one round a day."""

import os
import subprocess

import dagster

PASSING = {66, 74, 75}
"""Exit codes of what may be well soon: no log yet, storage that does not answer, a held book."""


@dagster.op
def settle_round() -> None:
    """Settle whatever is due, in a process of its own."""
    done = subprocess.run(
        [".venv/bin/python", "-m", "jobs.once"],
        cwd="/srv/settlement",
        env=os.environ | {"SETTLE_CONFIG": "/etc/settlement.toml"},
        check=False,
    )
    if done.returncode in PASSING:
        raise dagster.RetryRequested(max_retries=6, seconds_to_wait=600)
    if done.returncode:
        raise dagster.Failure(f"exit code {done.returncode}", allow_retries=False)


@dagster.job
def settle_due() -> None:
    """Go one round."""
    settle_round()


daily = dagster.ScheduleDefinition(
    job=settle_due, cron_schedule="5 2 * * *", execution_timezone="Asia/Shanghai"
)
definitions = dagster.Definitions(jobs=[settle_due], schedules=[daily])
