"""One round for cron: settle whatever is due, then leave.

    5 2 * * *  cd /srv/settlement && .venv/bin/python -m jobs.once

Run it daily, not monthly: a month whose log was late, or whose machine was off, is caught up
with on the next day. A day on which nothing is due costs a look at the log's footers: files
that came or changed since a month was settled are named, and the month revised if that is
asked for. What has come of the months that are not over yet is digested, so that settling them
has little left to do.
"""

from settlement import shell
from settlement.commands.serving import once

if __name__ == "__main__":
    shell.main(once, "jobs.once", typed="python -m jobs.once", stamped=True)
