"""An Airflow DAG: one round a day. Copy it into the folder of DAGs.

The command is a process of its own: what the program needs is not what Airflow needs.
"""

import os
import subprocess
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.sdk import dag, task

PASSING = {66, 74, 75}
"""Exit codes of what may be well soon: no log yet, storage that does not answer, a held book."""


@dag(
    dag_id="settle",
    schedule="5 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,  # a round catches up by itself with whatever the book lacks
    max_active_runs=1,
)
def settle() -> None:
    """Settle every month that is over."""

    @task(retries=6, retry_delay=timedelta(minutes=10))
    def go_round() -> None:
        done = subprocess.run(
            [".venv/bin/python", "-m", "jobs.once"],
            cwd="/srv/settlement",
            env=os.environ | {"SETTLE_CONFIG": "/etc/settlement.toml"},
            check=False,
        )
        if done.returncode in PASSING:
            raise AirflowException(f"exit code {done.returncode}, to be tried again")
        if done.returncode:  # a person has to look first
            raise AirflowFailException(f"exit code {done.returncode}")

    go_round()


settle()
