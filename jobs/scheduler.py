"""The service: settles whatever is due when it starts, and daily until it is stopped.

    .venv/bin/python -m jobs.scheduler --cron "0 2 * * *"

The same program as ``settle serve``, for those who look for a scheduler among the jobs.
"""

from settlement import shell
from settlement.commands.serving import serve

if __name__ == "__main__":
    shell.main(serve, "jobs.scheduler", typed="python -m jobs.scheduler", stamped=True)
