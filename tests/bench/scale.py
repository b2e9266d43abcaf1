"""Growth: what counting costs by rows and by accounts, and usage → book by accounts; drawn.

    make bench-scale [ROWS="1000000 10000000 …"] [ACCOUNTS="10000 …"] [OUT=data/bench/scale.svg]

Each log is made, counted and deleted again (unless --keep, or it was there before), so the disk
must hold the largest alone. Seconds per call are those of the work, without the start of Python.
The figures are written beside the drawing as JSON, from which --draw draws it again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import measure
from tests.bench.logs import CACHE, Log, ensure
from tests.bench.measure import cost, python

ROWS = (1_000_000, 10_000_000, 100_000_000, 300_000_000)
ACCOUNTS = (10_000, 100_000, 1_000_000, 10_000_000)
ROWS_FOR_ACCOUNTS = 20_000_000
_BYTES_PER_PUBLISHED_ACCOUNT = 1500
"""About what usage → book needs in memory for an account with 2.5 lines."""
_LARGEST_DRAWING = 200_000


def counted(log: Log, runs: int, cache: Path, *, keep: bool) -> dict[str, Any]:
    """Count a log several times; return its size and the costs of the work alone."""
    made = ensure(log, cache)
    _say(f"counting {made.folder.name} ({made.size / 1e6:,.0f} MB)")
    try:
        costs = [
            cost(python("tests.bench.contestants", "settlement", "--log", made.folder))
            for _ in range(runs)
        ]
    finally:
        if made.new and not keep:
            shutil.rmtree(made.folder)
    cpu = median(each.told["cpu"] for each in costs)
    return {
        "rows": log.rows,
        "accounts": log.accounts,
        "lines": costs[0].told["lines"],
        "bytes": made.size,
        "cpu": cpu,
        "wall": median(each.told["wall"] for each in costs),
        "ns_per_call": cpu / log.rows * 1e9,
        "process_cpu": median(each.cpu for each in costs),
        "peak": max(each.peak for each in costs),
    }


def published(accounts: int, runs: int, cache: Path) -> dict[str, Any] | None:
    """Settle drawn usage of so many accounts; None, said aloud, where memory is too small."""
    if accounts * _BYTES_PER_PUBLISHED_ACCOUNT > measure.free_memory():
        _say(f"{accounts:,} accounts: usage → book left out, memory is too small")
        return None
    _say(f"publishing {accounts:,} accounts")
    costs = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=cache) as scratch:
            options = ["--log", scratch, "--accounts", str(accounts)]
            costs.append(cost(python("tests.bench.contestants", "publish", *options)))
    return {
        "accounts": accounts,
        "lines": costs[0].told["lines"],
        "cpu": median(each.told["cpu"] for each in costs),
        "wall": median(each.told["wall"] for each in costs),
        "peak": max(each.peak for each in costs),
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the figures as SVG or PNG, by the path's ending."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "settlement", "font.size": 9}
    from matplotlib import pyplot as plt

    by_rows, by_accounts, books = result["rows"], result["accounts"], result["published"]
    per_line = [book | {"us_per_line": book["cpu"] / book["lines"] * 1e6} for book in books]
    panels = [
        (f"counting{_of(by_rows, 'accounts')}", "rows", "CPU ns per call", "ns_per_call", by_rows),
        (f"counting{_of(by_rows, 'accounts')}", "rows", "peak memory, GB", "peak", by_rows),
        (f"counting{_of(by_accounts, 'rows')}", "accounts", "CPU s", "cpu", by_accounts),
        ("usage → published book", "accounts", "CPU µs per line", "us_per_line", per_line),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 5.2), layout="constrained")
    for axis, (title, across, up, what, points) in zip(axes.flat, panels, strict=True):
        axis.set(title=title, xlabel=across, ylabel=up, xscale="log")
        places = [point[across] for point in points]
        values = [point[what] / (1e9 if what == "peak" else 1) for point in points]
        axis.plot(places, values, "o-", color="#1f5fa8")
        axis.set_xticks(places, [_short(place) for place in places])
        axis.minorticks_off()
        axis.margins(x=0.12)
        axis.set_ylim(0, max(values, default=1.0) * 1.25)
        axis.grid(visible=True, alpha=0.3)
        for place, value in zip(places, values, strict=True):
            text = f"{value:.0f}" if value >= 100 else f"{value:.2g}"
            axis.annotate(text, (place, value), (0, 6), textcoords="offset points", ha="center")
    machine = result["machine"]
    cores = f"{machine['used_cores']} cores of {machine['cpu']}"
    figure.suptitle(
        f"settlement {result['versions']['settlement']}, {result['when'][:10]}, {cores}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    if path.stat().st_size > _LARGEST_DRAWING:
        sys.exit(f"{path}: {path.stat().st_size:,} bytes, more than {_LARGEST_DRAWING:,}")


def _short(number: int) -> str:
    """Write 300000000 as 300 M."""
    for unit, name in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return str(number)


def _of(points: Sequence[dict[str, Any]], what: str) -> str:
    return f" with {_short(points[0][what])} {what}" if points else ""


def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Take all figures, written to the JSON file after each."""
    cache = chosen.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    measure.prepare()
    result: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": chosen.runs,
        "machine": measure.machine(),
        "versions": measure.versions(),
        "rows": [],
        "accounts": [],
        "published": [],
    }
    figures = chosen.out.with_suffix(".json")
    figures.parent.mkdir(parents=True, exist_ok=True)

    def note(kind: str, point: dict[str, Any] | None) -> None:
        if point:
            result[kind].append(point)
            print(json.dumps({"of": kind} | point), flush=True)
            figures.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for rows in chosen.rows:
        log = Log(rows, accounts=chosen.accounts_for_rows)
        note("rows", counted(log, chosen.runs, cache, keep=chosen.keep))
    for accounts in chosen.accounts:
        log = Log(chosen.rows_for_accounts, accounts=accounts)
        note("accounts", counted(log, chosen.runs, cache, keep=chosen.keep))
    for accounts in chosen.accounts:
        note("published", published(accounts, chosen.runs, cache))
    return result


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure growth and draw it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--accounts", type=int, nargs="*", default=ACCOUNTS)
    parser.add_argument("--rows-for-accounts", type=int, default=ROWS_FOR_ACCOUNTS, metavar="ROWS")
    parser.add_argument("--accounts-for-rows", type=int, default=100_000, metavar="ACCOUNTS")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the logs that are made")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where logs are made")
    parser.add_argument("--out", type=Path, default=CACHE / "scale.svg", help=".svg or .png")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="draw these figures, no others")
    chosen = parser.parse_args(arguments)
    try:
        result = json.loads(chosen.draw.read_text("utf-8")) if chosen.draw else _measure(chosen)
    except measure.Failed as error:
        sys.exit(str(error))
    draw(result, chosen.out)
    _say(f"drawn: {chosen.out}")


if __name__ == "__main__":
    main()
