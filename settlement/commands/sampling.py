"""The command that makes a call log to try the others with."""

from pathlib import Path

import click

from settlement import shell
from settlement.commands import shared
from settlement.month import Month
from settlement.operations import values
from settlement.words import count_of


@click.command()
@shell.options(
    click.option(
        "--out",
        required=True,
        type=values.path_of,
        metavar="PATH",
        envvar="SETTLE_OUT",
        help="the folder",
    ),
    click.option(
        "--month",
        required=True,
        type=values.month_of,
        metavar="MONTH",
        envvar="SETTLE_MONTH",
        help="YYYY-MM",
    ),
    *(
        click.option(
            f"--{name}",
            default=default,
            show_default=True,
            type=click.IntRange(least),
            envvar=f"SETTLE_{name.upper()}",
        )
        for name, default, least in (("accounts", 1000, 1), ("calls", 1_000_000, 1), ("seed", 1, 0))
    ),
    shared.as_json,
)
def sample(out: Path, month: Month, accounts: int, calls: int, seed: int, as_json: bool) -> None:
    """Make a realistic call log, the same for the same seed.

    \b
    Example:
      settle sample --out data/demo --month 2026-03 --accounts 1000 --calls 1000000 --seed 7
    """
    from dataclasses import asdict

    from settlement.sample.writing import write_sample

    made = write_sample(out, month, accounts, calls, seed)
    if as_json:
        shared.print_json(asdict(made))
    else:
        rows, files = count_of(made.rows, "row"), count_of(made.files, "file")
        shared.tell(f"{out}: {rows} in {files} under {made.folder}")
