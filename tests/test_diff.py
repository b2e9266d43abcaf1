"""What differs between two statements of a month, and the reason it is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement import invoicing, rating, tables
from settlement.diff import Diff, Side, compare
from settlement.prices import PriceBook
from settlement.show import diffs
from tests.drawn import drawn, rows
from tests.logs import MONTH
from tests.processes import Finished, Forks
from tests.small import write_world

PRICES = """
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2020-01"
billable_status = ["0"]
freeze = { factor = "1.20" }
[[version.item]]
code = "detect"
name = "检测"
interfaces = ["Detect"]
free_calls = 2
tiers = [{ up_to = 10, unit_price = "1" }, { unit_price = "0.5" }]
[[version.item]]
code = "search"
name = "搜索"
mode = "graduated"
interfaces = ["Search"]
tiers = [{ up_to = 10, unit_price = "1" }, { unit_price = "0.5" }]
"""
FILES = {"a": 1, "b": 1}
"""Names of files, and what stands for their contents."""


def side(
    usage: str, edit: tuple[str, str] = ("", ""), files: Mapping[str, int] = FILES, **other: Any
) -> Side:
    """A statement of what was called, by the price book with an edit, from files."""
    prices = PriceBook.parse(PRICES.replace(*edit).encode() if edit[0] else PRICES.encode())
    version = prices.version_for(MONTH)
    counted = drawn(tables.USAGE, "account_id item interface calls\n" + usage)
    lines = rating.rate(counted, version)
    facts: dict[str, Any] = {
        "name": "r1",
        "inputs": tuple(
            {
                "file": name,
                "size": contents,
                "modified_ns": 0,
                "rows": contents,
                "footer_sha256": f"sha of {contents}",
            }
            for name, contents in files.items()
        ),
        "rows": {"billed": int(counted["calls"].sum())},
        "totals": {},
        "options": {"naive_timestamps": None},
        "program": "1",
        "version": version,
        "lines": lines,
        "invoices": invoicing.invoice(lines, prices.currency),
    } | other
    return Side(**facts)


def reasons(diff: Diff) -> dict[str, str]:
    keys = diff.lines["account_id"] + " " + diff.lines["item"]
    return dict(zip(keys, diff.lines["reason"], strict=True))


CAME, WENT, OTHER = FILES | {"c": 1}, {"a": 1}, FILES | {"b": 2}
DEARER = ('"1" }, { unit_price = "0.5"', '"1" }, { unit_price = "0.7"')
FREER = ("free_calls = 2", "free_calls = 3")
WIDER = ('billable_status = ["0"]', 'billable_status = ["0", "1"]')
CASES: list[tuple[str, str, Any, Any, str]] = [
    ("5", "6", CAME, ("", ""), "late calls"),
    ("10", "11", CAME, ("", ""), "late calls, tier crossed"),
    ("11", "10", WENT, ("", ""), "fewer calls: files went or changed, tier crossed"),
    ("5", "4", CAME, ("", ""), "conflict resolved"),
    ("5", "4", OTHER, ("", ""), "fewer calls: files went or changed"),
    ("5", "6", OTHER, ("", ""), "late calls"),
    ("5", "6", FILES, WIDER, "more calls: rules of counting changed"),
    ("5", "4", FILES, WIDER, "fewer calls: rules of counting changed"),
    ("11", "11", FILES, DEARER, "price changed"),
    ("11", "12", CAME, DEARER, "late calls, price changed"),
    ("10", "11", CAME, DEARER, "late calls, tier crossed, price changed"),
    ("5", "5", FILES, FREER, "free calls changed"),
    ("1", "6", CAME, ("", ""), "late calls"),
    ("5", "6", FILES, ("", ""), "more calls from the same files"),
]


@pytest.mark.parametrize(("before", "after", "files", "edit", "reason"), CASES)
def test_every_line_that_differs_has_its_reason(
    before: str, after: str, files: Mapping[str, int], edit: tuple[str, str], reason: str
) -> None:
    found = compare(
        side(f"x detect Detect {before}"), side(f"x detect Detect {after}", edit, files)
    )
    assert reasons(found) == {"x detect": reason}


def test_a_graduated_line_has_no_unit_price_and_still_its_reason() -> None:
    old = side("x search Search 12")
    assert reasons(compare(old, side("x search Search 12", DEARER))) == {
        "x search": "price changed"
    }
    [line] = diffs.described(compare(old, side("x search Search 12", DEARER)))["lines"]
    assert line["unit_price"] == {"before": None, "after": None}


def test_prices_that_differ_where_the_book_does_not_are_a_contract() -> None:
    usage = "x detect Detect 5"
    dear = side(
        usage,
        (
            '10, unit_price = "1" }, { unit_price = "0.5"',
            '10, unit_price = "2" }, { unit_price = "0.5"',
        ),
    )
    terms = {"terms_sha256": "0123456789abcdef"}
    contracted = side(usage, lines=dear.lines, invoices=dear.invoices, options=terms)
    found = compare(side(usage), contracted)
    assert reasons(found) == {"x detect": "contract changed"}
    assert [(rule.rule, rule.before, rule.after) for rule in found.rules] == [
        ("contracts", "none", "0123456789ab")
    ]


def test_a_call_that_moves_to_another_account_is_a_conflict_on_both_sides() -> None:
    before = side("x detect Detect 5\ny detect Detect 5")
    after = side("x detect Detect 4\ny detect Detect 6", files=CAME)
    assert reasons(compare(before, after)) == {
        "x detect": "conflict resolved",
        "y detect": "conflict resolved in its favour",
    }


def test_accounts_that_came_and_went() -> None:
    before = side("x detect Detect 12\ny detect Detect 5")
    after = side("y detect Detect 5\nz detect Detect 13", files=OTHER)
    found = compare(before, after)
    assert reasons(found) == {
        "x detect": "fewer calls: files went or changed, line gone",
        "z detect": "late calls, new line",
    }
    bills = {bill["account_id"]: bill["payable"] for bill in diffs.described(found)["invoices"]}
    assert bills == {
        "x": {"before": "5.00", "after": "0.00", "change": "-5.00"},
        "z": {"before": "0.00", "after": "5.50", "change": "5.50"},
    }


RULES = [
    (*DEARER, "detect tier 2", "open at 0.5000", "open at 0.7000"),
    (*FREER, "detect free_calls", "2", "3"),
    (*WIDER, "billable_status", "0", "0, 1"),
    ("1.20", "1.50", "freeze", "1.20 × payable", "1.50 × payable"),
    ('["Search"]', '["Search", "Find"]', "search interfaces", "Search", "Find, Search"),
    ("2020-01", "2021-01", "effective_from", "2020-01", "2021-01"),
]


@pytest.mark.parametrize(("old", "new", "rule", "was", "now"), RULES)
def test_the_rules_that_differ_are_named(old: str, new: str, rule: str, was: str, now: str) -> None:
    usage = "x detect Detect 5"
    found = compare(side(usage), side(usage, (old, new))).rules
    assert {changed.rule: (changed.before, changed.after) for changed in found}[rule] == (was, now)


def test_a_default_that_is_written_out_is_no_change() -> None:
    usage = "x detect Detect 5"
    spelled = side(usage, ('name = "检测"', 'name = "检测"\nmode = "volume"\ntier_basis = "gross"'))
    assert not compare(side(usage), spelled)


def test_files_that_came_went_changed_and_moved() -> None:
    usage = "x detect Detect 5"
    before = side(usage, files={"a": 1, "b": 2, "c": 3, "d": 4})
    after = side(usage, files={"a": 1, "b": 20, "moved/c": 3, "e": 5})
    moves = compare(before, after).moves
    assert [file["file"] for file in moves.came] == ["e"]
    assert [file["file"] for file in moves.went] == ["d"]
    assert [(old["rows"], new["rows"]) for old, new in moves.changed] == [(2, 20)]
    assert [(old["file"], new["file"]) for old, new in moves.moved] == [("c", "moved/c")]


def test_against_nothing_everything_is_settled() -> None:
    found = compare(Side.nothing(), side("x detect Detect 12\ny search Search 5"))
    assert set(reasons(found).values()) == {"settled"}
    assert not found.rules
    assert "tier —" in diffs.shown(found)


def test_amounts_beyond_the_reach_of_floats_stay_exact() -> None:
    before = side("x detect Detect 180_143_985_099")
    after = side("x detect Detect 180_143_985_101", files=CAME)
    [line] = diffs.described(compare(before, after))["lines"]
    assert line["amount"]["change"] == "1.00000000"
    assert line["amount"]["after"] == "90071992549.50000000"


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path, "2026-01", "2026-02")


def run(fork: Forks, world: Path, command: str) -> Finished:
    places = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
    return fork(*command.split(), cwd=world, **places)


def add_late_call(world: Path) -> None:
    path = world / "logs" / "2026-01.parquet"
    late = pq.read_table(path).slice(2)
    late = late.set_column(0, "request_id", pa.array(["late"]))
    pq.write_table(late, world / "logs" / "late.parquet")


def test_a_plan_shows_before_publishing_what_the_diff_shows_after(world: Path, fork: Forks) -> None:
    assert run(fork, world, "run 2026-01").code == 0
    add_late_call(world)
    planned = run(fork, world, "plan 2026-01 --revise --json").json["diff"]
    assert run(fork, world, "run 2026-01 --revise --reason late").code == 0
    found = run(fork, world, "diff 2026-01 --json").json
    assert (found.pop("month"), found.pop("reason")) == ("2026-01", "late")
    assert found["after"] == "r2"
    assert planned | {"after": "r2"} == found
    assert [file["file"] for file in found["inputs"]["came"]] == ["late.parquet"]
    assert [(line["account_id"], line["reason"]) for line in found["lines"]] == [
        ("beta", "late calls")
    ]
    assert found["totals"]["payable"] == {"before": "1.50", "after": "2.00"}
    assert found["posted"]["debited"] == "0.50"
    shown = run(fork, world, "diff 2026-01").out
    assert "late calls" in shown
    assert "2026-01: r1 → r2" in shown


REVISIONS = """
arguments         code  says
---
2026-01           0     r0_→_r1
2026-01_r0        0     r0_→_r1
2026-01_r0_r1     0     r0_→_r1
2026-01_r1_r1     0     nothing_differs
2026-01_r1_r2     66    there_is_no_r2
2026-02           66    not_settled
2026-01_first     2     not_a_revision
"""


@pytest.mark.parametrize("row", rows(REVISIONS)[1:], ids=lambda row: row[0])
def test_revisions_are_chosen_and_refused(world: Path, fork: Forks, row: list[str]) -> None:
    arguments, code, says = row
    assert run(fork, world, "run 2026-01").code == 0
    found = run(fork, world, f"diff {arguments.replace('_', ' ')}")
    assert found.code == int(code)
    assert says.replace("_", " ") in found.out + found.err
