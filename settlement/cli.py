"""The command ``settle``: a group of commands, and how the program starts and leaves.

A command reads what a person typed, calls one function and shows the result: messages go to
stderr, results to stdout. Whatever it needs is imported when it runs, so that ``settle --help``
and ``settle status`` start at once. A refusal is one line and an exit code; a traceback means
a bug.
"""

from typing import NoReturn

import click

from settlement import __version__, shell
from settlement.commands import (
    attempting,
    keeping,
    looking,
    sampling,
    serving,
    settings,
    settling,
)


@click.group(context_settings=shell.HELP)
@click.version_option(__version__, prog_name="settle")
def settle() -> None:
    """Settle a month of API calls: count, price, take off vouchers, invoice, post the ledger.

    MONTH is YYYY-MM; left out, it is the month that last ended in the billing zone. Every option
    can be set as SETTLE_OPTION in the environment, but --revise, --reason, --recount, and
    --month and --limit of runs.

    \b
    Example:
      settle run 2026-02 --logs data/logs --book data/book
    """


for _command in (
    settling.ingest,
    settling.run,
    settling.plan,
    serving.serve,
    looking.status,
    looking.show,
    looking.diff,
    looking.explain,
    looking.prices,
    attempting.runs,
    keeping.export,
    keeping.check,
    sampling.sample,
    settings.config_,
):
    settle.add_command(_command)


def main() -> NoReturn:
    """Run the command and leave with its exit code."""
    shell.main(settle, "settle")


if __name__ == "__main__":
    main()
