"""Write the sample logs of this repository.

python -m settlement.sample --shipped data/logs     the two sample months of this repository
python -m settlement.sample --demo data/demo/logs   20 million calls that reach every tier
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from settlement.errors import SettlementError
from settlement.sample.shipped import write_demo, write_shipped


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the shipped months or the demonstration log."""
    parser = argparse.ArgumentParser(prog="python -m settlement.sample", description=main.__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--shipped", metavar="DIR", type=Path, help="the two months shipped here")
    which.add_argument("--demo", metavar="DIR", type=Path, help="20 million calls, every tier")
    chosen = parser.parse_args(arguments)
    try:
        made = write_shipped(chosen.shipped) if chosen.shipped else [write_demo(chosen.demo)]
    except SettlementError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    for summary in made:
        print(f"{summary.folder}: {summary.rows} rows, {summary.size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
