"""Limits as drawn months before and after, approvals, and runs that stop for review."""

import re
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from settlement import frames, gates, invoicing, money, rating, tables
from settlement.book import Book
from settlement.draft import Draft
from settlement.gates import Before, Limits
from settlement.laws import Statement
from settlement.ledger import HOLDS, post
from settlement.month import Month
from settlement.operations.values import share_of
from settlement.prices import PriceBook
from tests.drawn import drawn, rows
from tests.processes import Finished, Forks
from tests.small import PRICE_BOOK, write_month, write_world

PRICES = PriceBook.parse(
    b"""
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2020-01"
freeze = { factor = "1.20" }
[[version.item]]
code = "detect"
name = "a"
interfaces = ["Detect"]
tiers = [{ unit_price = "1" }]
[[version.item]]
code = "search"
name = "b"
interfaces = ["Search"]
tiers = [{ up_to = 10, unit_price = "0" }, { unit_price = "1" }]
"""
)
MONTH = Month.parse("2026-02")
ROWS = {"read": 100, "billed": 90, "outside_month": 0, "rejected.missing_timestamp": 5}
ROWS |= {"rejected.unknown_interface": 5}


def draft(usage: str, **changes: Any) -> Draft:
    """The draft of a month in which so many calls were made."""
    interfaces = {"detect": "Detect", "search": "Search"}
    drawing = "\n".join(
        f"{account} {item} {interfaces[item]} {calls}" for account, item, calls in rows(usage)
    )
    counted = drawn(tables.USAGE, "account_id item interface calls\n" + drawing)
    version = PRICES.version_for(MONTH)
    lines = rating.rate(counted, version)
    invoices = invoicing.invoice(lines, PRICES.currency)
    entries = post(invoices, frames.empty(HOLDS), frames.empty(HOLDS))
    rejects = frames.empty(tables.REJECTS)
    stated = Statement(ROWS, counted, lines, invoices, entries, rejects)
    made = Draft(MONTH, 1, MONTH.period(PRICES.zone), stated, (), {}, PRICES, version)
    return replace(made, **changes)


def before(usage: str) -> Before:
    stated = draft(usage).stated
    return Before("2026-01 r1", stated.lines, stated.invoices)


# A month is drawn as account:item=calls; a call of detect costs 1, of search 1 above 10 calls.
CASES = """
limit            before                     now                        crossed
---
total=20         x:detect=100               x:detect=120               ·
total=20         x:detect=100               x:detect=121               21_%
total=20         x:detect=100               x:detect=80                ·
total=20         x:detect=100               x:detect=79                -21_%
total=0          x:detect=100               x:detect=100               ·
total=0.5        x:detect=1000              x:detect=1006              0.6_%
total=20         x:search=5                 x:detect=1                 from_nothing
account=5:100    x:detect=30                x:detect=150               ·
account=5:100    x:detect=30                x:detect=151               account_x:_30.00
account=5:100    x:detect=10                x:detect=100               ·
account=5:100    x:detect=10                x:detect=101               account_x:_10.00
account=5:100    x:detect=10                x:detect=10,y:detect=101   account_y:_0.00
account=1.5:0    x:detect=10                x:detect=15                ·
account=1.5:0    x:detect=10                x:detect=16                more_than_1.5_times
items            x:detect=10                x:detect=1                 ·
items            x:detect=10,x:search=20    x:detect=10                item_search:_20.00
items            x:detect=10,x:search=20    x:detect=10,x:search=10    item_search:_20.00
items            x:detect=10,x:search=20    x:detect=10,y:search=11    ·
items            x:detect=10,x:search=10    x:detect=10                ·
rejects=0.06     x:detect=10                x:detect=10                ·
rejects=0.05     x:detect=10                x:detect=10                5.2632_%,_the_limit_is_5_%
"""


def month(cell: str) -> str:
    return cell.replace(":", " ").replace("=", " ").replace(",", "\n")


def limits(cell: str) -> Limits:
    name, _, value = cell.partition("=")
    if name == "account":
        factor, amount = value.split(":")
        return Limits(account=(Fraction(factor), money.units(amount)))
    return Limits(**{name: Fraction(value) if value else True})  # type: ignore[arg-type]


@pytest.mark.parametrize("row", rows(CASES)[1:], ids=" ".join)
def test_a_limit_is_crossed_or_not(row: list[str]) -> None:
    limit, was, now, says = row
    found = gates.crossed(limits(limit), draft(month(now)), before(month(was)))
    assert len(found) == (says != "·"), found
    if found:
        assert says.replace("_", " ") in found[0]


def test_without_a_month_before_only_rejects_are_judged() -> None:
    every = Limits(Fraction(0), (Fraction(0), 0), items=True, rejects=Fraction(0))
    found = gates.crossed(every, draft("x detect 100"), None)
    assert [line.split(":")[0] for line in found] == ["5 of 95 rows are rejected"]


def test_no_limit_is_crossed_where_none_is_set() -> None:
    assert gates.crossed(Limits(), draft("x detect 1_000_000"), before("y detect 1")) == []


def test_the_largest_accounts_come_first_and_the_rest_are_counted() -> None:
    now = "\n".join(f"a{n:02d} detect {100 + n}" for n in range(15))
    found = gates.crossed(Limits(account=(Fraction(1), 0)), draft(now), before("x detect 1"))
    assert [line.split()[1] for line in found[:2]] == ["a14:", "a13:"]
    assert found[10] == "… and 5 more accounts"


def test_a_factor_of_an_amount_beyond_int64_is_exact() -> None:
    huge = "x detect 90_000_000_000"
    limit = Limits(account=(Fraction(7), 0))
    assert gates.crossed(limit, draft(huge), before(huge)) == []
    assert gates.crossed(replace(limit, account=(Fraction(0), 0)), draft(huge), before(huge))


@pytest.mark.parametrize(("below", "crossed"), [("3.01", 0), ("3", 1), ("0", 1)])
def test_adjustments_add_up_whatever_their_sign(below: str, crossed: int) -> None:
    difference = pd.DataFrame(
        {"account_id": pd.array(["x", "y"], dtype="str")}
        | {
            name: [money.UNITS_PER_ONE * amount for amount in amounts]
            for name, amounts in (
                ("previous_payable", (5, 5)),
                ("payable", (7, 4)),
                ("adjustment", (2, -1)),
            )
        }
    )
    made = draft("x detect 7\ny detect 4")
    adjusted = replace(made.stated, adjustments=invoicing.adjust(MONTH, 2, difference))
    limit = Limits(adjustments=money.units(below))
    assert len(gates.crossed(limit, replace(made, stated=adjusted), None)) == crossed


# ---------------------------------------------------------------- what is approved

USUAL = "x detect 10\ny search 20"
OTHER = [
    draft("x detect 11\ny search 20"),
    draft("x detect 10\nz search 20"),
    draft("x search 10\ny search 20"),
    draft(USUAL, revision=2),
    draft(USUAL, month=MONTH.next),
    draft("xy detect 10\ny search 20"),
]


@pytest.mark.parametrize("other", OTHER)
def test_an_approval_fits_no_other_figures(other: Draft) -> None:
    assert gates.digest(other) != gates.digest(draft(USUAL))


def test_an_approval_fits_the_same_figures_however_they_lie_in_memory() -> None:
    usual = draft(USUAL)
    longer = draft("a detect 1\n" + USUAL).stated
    cut = {
        name: getattr(longer, name).iloc[1:].reset_index(drop=True)
        for name in ("usage", "lines", "invoices")
    }
    again = replace(usual, stated=replace(usual.stated, **cut), options={"now": "later"})
    assert gates.digest(again) == gates.digest(usual)
    assert re.fullmatch("[0-9a-f]{64}", gates.digest(usual))


def test_no_rows_have_a_digest_too() -> None:
    assert gates.digest(draft("")) != gates.digest(draft(USUAL))


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def world(tmp_path: Path, fork: Forks) -> Path:
    """January is settled; February owes 500 times as much."""
    world = write_world(tmp_path, "2026-01", "2026-02")
    assert run(fork, world, "run 2026-01").code == 0
    (world / "prices.toml").write_text(
        PRICE_BOOK
        + PRICE_BOOK.split("\n", 3)[3].replace("2020-01", "2026-02").replace("0.5", "250")
    )
    return world


def run(fork: Forks, world: Path, command: str, **settings: str) -> Finished:
    places = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
    return fork(*shlex.split(command), cwd=world, **places, **settings)


LIMITS = "--limit-total 20 --limit-account 5:100 --limit-items --limit-rejects 0.01"


def test_a_run_stops_for_review_and_its_last_line_lets_it_pass(world: Path, fork: Forks) -> None:
    stopped = run(fork, world, f"run 2026-02 {LIMITS}")
    assert (stopped.code, stopped.out) == (3, "")
    first, *judged, command = stopped.err.splitlines()
    assert first.startswith("settle: 2026-02 r1: 3 limits are crossed; nothing was published")
    assert [line.split()[0] for line in judged] == ["payable", "account", "account"]
    assert [str(each.month) for each in Book.open(world / "book").settlements] == ["2026-01"]

    assert command.startswith("  settle run 2026-02 --logs logs --book book --prices prices.toml")
    approved = run(fork, world, command.strip().removeprefix("settle "))
    assert approved.code == 0, approved.err
    options = Book.open(world / "book").settlement(Month.parse("2026-02")).manifest["options"]
    assert options["approved"] == command.split()[-1]


@pytest.mark.parametrize(
    ("share", "spelt"),
    [("1/3", "1/3"), ("0.50", "0.5"), ("1/8", "0.125"), ("25e-26", "2.5e-25"), ("1", "1")],
)
def test_an_approval_spells_a_share_so_that_it_can_be_read(
    world: Path, fork: Forks, share: str, spelt: str
) -> None:
    stopped = run(fork, world, f"run 2026-02 --max-rejects {share} --approve no")
    words = stopped.err.splitlines()[-1].split()
    assert words[words.index("--max-rejects") + 1] == spelt
    assert share_of(spelt) == Fraction(share)


def test_an_approval_is_not_taken_for_other_figures(world: Path, fork: Forks) -> None:
    stopped = run(fork, world, f"run 2026-02 {LIMITS}")
    digest = stopped.err.split()[-1]
    (world / "logs" / "2026-02.parquet").rename(world / "kept")
    write_month(world / "logs", "2026-02").rename(world / "logs" / "a.parquet")
    (world / "kept").rename(world / "logs" / "2026-02.parquet")
    prices = (world / "prices.toml").read_text()
    (world / "prices.toml").write_text(prices.replace("250", "251"))
    for options in ("", LIMITS):
        refused = run(fork, world, f"run 2026-02 {options} --approve {digest}")
        assert refused.code == 3
        assert "these are not the figures that were approved" in refused.err
    fresh = refused.err.split()[-1]
    assert fresh != digest
    assert run(fork, world, f"run 2026-02 --approve {fresh}").code == 0


def test_limits_come_from_the_environment(world: Path, fork: Forks) -> None:
    settings = {
        "SETTLE_LIMIT_TOTAL": "20",
        "SETTLE_LIMIT_ACCOUNT": "5:100",
        "SETTLE_LIMIT_ITEMS": "1",
        "SETTLE_LIMIT_REJECTS": "0.01",
    }
    assert run(fork, world, "run 2026-02", **settings).code == 3
    for name in ("SETTLE_LIMIT_TOTAL", "SETTLE_LIMIT_ACCOUNT"):
        assert run(fork, world, "run 2026-02", **{name: settings[name]}).code == 3
    for name in ("SETTLE_LIMIT_ITEMS", "SETTLE_LIMIT_REJECTS"):
        assert (
            run(fork, world, "plan 2026-02 --json", **{name: settings[name]}).json["crossed"] == []
        )
    assert run(fork, world, "run 2026-02", SETTLE_LIMIT_ITEMS="1").code == 0


def test_a_plan_tells_what_would_stop_and_what_lets_it_pass(world: Path, fork: Forks) -> None:
    planned = run(fork, world, f"plan 2026-02 {LIMITS}")
    assert planned.code == 0
    digest = re.findall("--approve ([0-9a-f]{64})", planned.out)
    assert run(fork, world, f"run 2026-02 {LIMITS} --approve {digest[0]}").code == 0


def test_a_revision_is_approved_with_its_reason(world: Path, fork: Forks) -> None:
    prices = (world / "prices.toml").read_text()
    (world / "prices.toml").write_text(prices.replace("0.5", "0.75"))
    reason = "it's dearer; $HOME"
    stopped = run(fork, world, f"run 2026-01 --revise --reason {shlex.quote(reason)} --approve no")
    assert stopped.code == 3
    command = stopped.err.splitlines()[-1].strip()
    assert run(fork, world, command.removeprefix("settle ")).code == 0
    revised = Book.open(world / "book").settlement(Month.parse("2026-01"))
    assert revised.revision == 2
    assert revised.manifest["options"]["reason"] == reason


@pytest.mark.parametrize(
    "option",
    [
        "--limit-total -1",
        "--limit-total x",
        "--limit-account 5",
        "--limit-account x:1",
        "--limit-account 1:-5",
        "--limit-rejects 2",
        "--limit-total 1e3",
    ],
)
def test_a_limit_that_means_nothing_is_wrong_usage(world: Path, fork: Forks, option: str) -> None:
    assert run(fork, world, f"run 2026-02 {option}").code == 2
