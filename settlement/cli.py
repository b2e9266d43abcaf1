"""The command ``settle``: reads what a person typed, calls one function, shows the result.

Messages go to stderr, results to stdout. Whatever a command needs is imported when it runs,
so that ``settle --help`` and ``settle status`` start at once. A refusal is one line and an
exit code; a traceback means a bug.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from settlement import __version__
from settlement.book import Book, Settlement
from settlement.errors import BadConfig, CannotRead, MissingInput, SettlementError, WrongUsage
from settlement.month import Month, last_ended, months_between
from settlement.prices import PriceBook
from settlement.report import aligned, grouped, safe, seconds, summary

if TYPE_CHECKING:
    from settlement.settle import Order

_F = TypeVar("_F", bound=Callable[..., Any])
INTERRUPTED, TERMINATED = 130, 143


class _MonthType(click.ParamType[Month]):
    name = "month"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Month:
        try:
            return value if isinstance(value, Month) else Month.parse(str(value))
        except WrongUsage as error:
            self.fail(str(error), param, ctx)


class _ShareType(click.ParamType[Fraction]):
    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        try:
            share = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            share = Fraction(-1)
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not a share from 0 to 1, such as 0.0001", param, ctx)
        return share


def _options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_month = click.argument("month", type=_MonthType(), required=False, envvar="SETTLE_MONTH")
_logs = click.option(
    "--logs",
    default="data/logs",
    show_default=True,
    envvar="SETTLE_LOGS",
    help="the call log: a folder, file, glob or URL",
)
_book = click.option(
    "--book",
    default=Path("data/book"),
    show_default=True,
    envvar="SETTLE_BOOK",
    type=click.Path(path_type=Path),
    help="the folder of all settlements",
)
_prices = click.option(
    "--prices",
    default=Path("data/price_book.toml"),
    show_default=True,
    envvar="SETTLE_PRICES",
    type=click.Path(path_type=Path),
    help="the price book",
)
_json = click.option("--json", "as_json", is_flag=True, help="print one JSON object")
_counting = _options(
    click.option(
        "--naive-timestamps",
        metavar="ZONE",
        envvar="SETTLE_NAIVE_TIMESTAMPS",
        help="the zone of timestamps that have none",
    ),
    click.option(
        "--max-rejects",
        type=_ShareType(),
        default="0.0001",
        show_default=True,
        envvar="SETTLE_MAX_REJECTS",
        help="the largest share of rows that may be rejected",
    ),
    click.option(
        "--allow-empty",
        is_flag=True,
        envvar="SETTLE_ALLOW_EMPTY",
        help="settle a month in which nobody called",
    ),
    click.option(
        "--allow-gap",
        is_flag=True,
        envvar="SETTLE_ALLOW_GAP",
        help="settle though an earlier month is not settled",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        envvar="SETTLE_THREADS",
        help="threads that read the log  [default: one per core]",
    ),
)
_ordering = _options(_month, _logs, _book, _prices, _counting, _json)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="settle")
def settle() -> None:
    """Settle a month of API calls: count, price, take off vouchers, invoice, post the ledger.

    MONTH is YYYY-MM; left out, it is the month that last ended in the billing zone.
    """


@settle.command()
@_ordering
def run(month: Month | None, as_json: bool, **options: Any) -> None:
    """Settle MONTH and publish it. Doing it again changes nothing.

    \b
    Example:
      settle run 2026-02 --logs data/logs --book data/book
    """
    from settlement import settle as settling
    from settlement.progress import bar

    order = _order(month, **options)
    done = settling.run(order, bar)
    manifest = done.settlement.manifest
    if as_json:
        _print_json(
            {"outcome": done.outcome, "folder": str(done.settlement.folder)}
            | {"seconds": done.seconds, "skipped": done.skipped}
            | dict(manifest)
        )
        return
    place = f"{done.settlement.name}: {done.outcome}"
    if done.outcome != "published":
        click.echo(f"{place}, nothing to do ({done.settlement.folder})")
        return
    click.echo(f"{place} in {done.settlement.folder}")
    click.echo(summary(manifest, order.prices.currency.code))
    if done.skipped:
        click.echo(f"skipped  {done.skipped:,} names beginning with _ or .")
    click.echo(f"digest   {manifest['digest']}")
    click.echo(f"took     {seconds(done.seconds)}")


@settle.command()
@_ordering
def plan(month: Month | None, as_json: bool, **options: Any) -> None:
    """Show what `settle run` would publish, and how it differs from the month before.

    \b
    Example:
      settle plan 2026-02
    """
    from settlement import plans
    from settlement import settle as settling
    from settlement.progress import bar

    order = _order(month, **options)
    planned = settling.plan(order, bar)
    if as_json:
        _print_json(plans.described(planned))
    else:
        click.echo(plans.shown(planned))


@settle.command()
@_options(_book, _json)
def status(book: Path, as_json: bool) -> None:
    """List the settled months, and those that are missing.

    \b
    Example:
      settle status --json
    """
    opened = Book.open(book)
    months = opened.months
    missing: list[Month] = []
    if months:
        zone = opened.settlements[-1].price_book.zone
        over = max(last_ended(_now(), zone), *months).next
        missing = [m for m in months_between(min(months), over) if m not in months]
    if as_json:
        settled = [_settled(settlement) for settlement in months.values()]
        _print_json({"book": str(book), "settled": settled, "missing": list(map(str, missing))})
        return
    if not months:
        click.echo(f"{book}: no month is settled yet")
        return
    heads = ("month", "revision", "accounts", "payable", "frozen", "published")
    rows = [heads, *(_status_row(settlement) for settlement in months.values())]
    click.echo(aligned(rows, right=[1, 2, 3, 4]))
    if missing:
        click.echo(f"missing: {', '.join(map(str, missing))}")


def _settled(settlement: Settlement) -> dict[str, Any]:
    keys = ("month", "revision", "number", "totals", "created_at", "digest")
    return {key: settlement.manifest[key] for key in keys}


def _status_row(settlement: Settlement) -> tuple[str, ...]:
    totals = settlement.manifest["totals"]
    return (
        str(settlement.month),
        str(settlement.revision),
        f"{totals['accounts']:,}",
        grouped(totals["payable"]),
        grouped(totals["frozen"]),
        settlement.manifest["created_at"],
    )


@settle.command()
@_options(_month, click.argument("account", required=False), _book, _json)
def show(month: Month | None, account: str | None, book: Path, as_json: bool) -> None:
    """Show a settlement, or one ACCOUNT's invoice and entries.

    \b
    Example:
      settle show 2026-02 0100000042
    """
    settlement = _settlement(book, month)
    if account is None:
        if as_json:
            _print_json(dict(settlement.manifest))
            return
        manifest = settlement.manifest
        click.echo(f"{settlement.name}: published {manifest['created_at']}, {settlement.folder}")
        click.echo(summary(manifest, settlement.price_book.currency.code))
        return
    from settlement import accounts

    found = accounts.find(settlement, account)
    if as_json:
        _print_json(found)
    else:
        click.echo(accounts.shown(found))


@settle.command()
@_options(_month, click.argument("account"), _book, _json)
def explain(month: Month | None, account: str, book: Path, as_json: bool) -> None:
    """Derive every amount of ACCOUNT in words and numbers: why is the bill what it is?

    \b
    Example:
      settle explain 2026-02 0100000042
    """
    from dataclasses import asdict

    from settlement.explain import explain as derive

    settlement = _settlement(book, month)
    sections = derive(settlement, account)
    if as_json:
        sections_json = [asdict(section) for section in sections]
        _print_json(
            {"month": str(settlement.month), "revision": settlement.revision}
            | {"account_id": account, "sections": sections_json}
        )
        return
    click.echo(f"{settlement.name}, account {safe(account)}")
    rows: list[tuple[str, ...]] = []
    breaks: dict[int, str] = {}
    for section in sections:
        breaks[len(rows)] = safe(section.heading)
        rows += [(safe(step.what), safe(step.how), step.result) for step in section.steps]
    for position, line in enumerate(aligned(rows, right=[2], indent="  ").splitlines()):
        if position in breaks:
            click.echo(breaks[position])
        click.echo(line)


@settle.command()
@_options(
    _month,
    click.option(
        "--out",
        required=True,
        type=click.Path(path_type=Path),
        envvar="SETTLE_OUT",
        help="the folder for the CSV files",
    ),
    _book,
    _json,
)
def export(month: Month | None, out: Path, book: Path, as_json: bool) -> None:
    """Write MONTH as CSV for finance: invoices, lines, entries, and control totals.

    \b
    Example:
      settle export 2026-02 --out data/exports/2026-02
    """
    from settlement import exports, tables

    settlement = _settlement(book, month)
    wanted = (tables.INVOICES, tables.LINES, tables.ENTRIES)
    control = exports.export(
        {table.name: settlement.published(table) for table in wanted},
        month=str(settlement.month),
        revision=settlement.revision,
        currency=settlement.price_book.currency.code,
        digest=settlement.manifest["digest"],
        out=out,
    )
    if as_json:
        _print_json(control)
        return
    rows = [(name, f"{file['rows']:,} rows") for name, file in control["files"].items()]
    click.echo(f"{settlement.name}: exported to {out}")
    click.echo(aligned(rows, right=[1], indent="  "))


@settle.command()
@_options(_book, _json)
def check(book: Path, as_json: bool) -> None:
    """Prove the whole book again: digests, chain, prices, laws. Exit 65 if anything is wrong.

    \b
    Example:
      settle check --book data/book
    """
    from settlement.check import check as prove

    findings = prove(book)
    newest = findings.newest
    if as_json:
        _print_json(
            {
                "book": str(book),
                "sound": not findings.problems,
                "settlements": findings.settlements,
                "rows": findings.rows,
                "problems": list(findings.problems),
                "newest": _settled(newest) if newest else None,
            }
        )
    elif not findings.problems:
        click.echo(f"{book}: sound, {findings.settlements:,} settlements, {findings.rows:,} rows")
        if newest:
            digest = newest.manifest["digest"]
            click.echo(f"  the newest is {newest.name}; nothing follows it yet that would prove")
            click.echo(f"  its digest, so compare it with what its run printed: {digest}")
    else:
        click.echo(f"{book}: {len(findings.problems):,} problems", err=True)
        for problem in findings.problems:
            click.echo(f"  {safe(problem)}", err=True)
    if findings.problems:
        sys.exit(65)


@settle.command()
@_options(_prices, _json)
def prices(prices: Path, as_json: bool) -> None:
    """Print the price book, checked: tiers, and the bounds at which a bill falls.

    \b
    Example:
      settle prices --prices data/price_book.toml
    """
    from settlement import pricelist

    book = _price_book(prices)
    if as_json:
        _print_json(pricelist.described(book))
    else:
        click.echo(pricelist.shown(book))


@settle.command()
@_options(
    click.option("--out", required=True, type=click.Path(path_type=Path), help="the folder"),
    click.option("--month", required=True, type=_MonthType(), help="YYYY-MM"),
    click.option("--accounts", default=1000, show_default=True, type=click.IntRange(1)),
    click.option("--calls", default=1_000_000, show_default=True, type=click.IntRange(1)),
    click.option("--seed", default=1, show_default=True, type=click.IntRange(0)),
    _json,
)
def sample(out: Path, month: Month, accounts: int, calls: int, seed: int, as_json: bool) -> None:
    """Make a realistic call log, the same for the same seed.

    \b
    Example:
      settle sample --out data/demo --month 2026-03 --accounts 1000 --calls 1000000 --seed 7
    """
    from dataclasses import asdict

    from settlement.sample import write_sample

    made = write_sample(out, month, accounts, calls, seed)
    if as_json:
        _print_json(asdict(made))
    else:
        click.echo(f"{out}: {made.rows:,} rows in {made.files:,} files under {made.folder}")


def _order(month: Month | None, prices: Path, **options: Any) -> "Order":
    """Gather what `run` and `plan` need: the price book, the month, the clock."""
    from settlement.settle import Order

    price_book = _price_book(prices)
    return Order(
        month=month or last_ended(_now(), price_book.zone),
        prices=price_book,
        now=_now(),
        now_set="SETTLE_NOW" in os.environ,
        **options,
    )


def _price_book(path: Path) -> PriceBook:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingInput(
            "no price book", where=str(path), cure="name it with --prices"
        ) from error
    except OSError as error:
        raise CannotRead(
            f"cannot read ({error.strerror})", where=str(path), cure="check its permissions"
        ) from error
    return PriceBook.parse(raw, str(path))


def _settlement(book: Path, month: Month | None) -> Settlement:
    """Return a month's newest settlement; without a month, of the one that last ended."""
    opened = Book.open(book)
    if month is None and opened.settlements:
        month = last_ended(_now(), opened.settlements[-1].price_book.zone)
    if month is None:
        raise MissingInput(
            "no month is settled yet", where=str(book), cure="settle one with: settle run"
        )
    return opened.settlement(month)


def _now() -> datetime:
    """Return the present, or the instant in SETTLE_NOW that stands in for it."""
    given = os.environ.get("SETTLE_NOW")
    if given is None:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(given)
    except ValueError as error:
        raise _bad_now(given) from error
    if instant.tzinfo is None:
        raise _bad_now(given)
    return instant.astimezone(UTC)


def _bad_now(given: str) -> BadConfig:
    return BadConfig(
        "not an instant",
        where=f"SETTLE_NOW={given!r}",
        cure="write it like 2026-03-01T02:00:00Z",
    )


def _print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


class _Terminated(BaseException):
    """SIGTERM came: unwinds like an interrupt, so that nothing is left half-written."""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    """Run the command; refusals become one line on stderr and their exit code."""
    try:
        settle.main(arguments, prog_name="settle", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("settle: interrupted; nothing was left half-written", err=True)
        return INTERRUPTED
    except _Terminated:
        click.echo("settle: terminated; nothing was left half-written", err=True)
        return TERMINATED
    except BrokenPipeError:
        # Whoever read the output has left; keep Python from flushing into nothing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CannotRead.exit_code
    except SettlementError as error:
        click.echo(f"settle: {safe(str(error))}", err=True)
        for line in error.details:
            click.echo(f"  {safe(line)}", err=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    main()
