"""What if: a settled month priced by other rules, from its usage alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from settlement import money, whatif
from settlement.invoicing import invoice
from settlement.prices import PriceBook
from settlement.rating import rate
from settlement.tables import USAGE
from settlement.whatif import Class, Effect, Reached
from tests.drawn import drawn, rows
from tests.processes import Finished, Forks, snapshot
from tests.small import PRICE_BOOK, write_world

NOW = "2026-06-02T00:00:00Z"
OLD = PRICE_BOOK
TIERED = 'tiers = [{ up_to = 1, unit_price = "2" }, { unit_price = "0.25" }]'
NEW = OLD.replace('tiers = [{ unit_price = "0.5" }]', TIERED).replace('"1.20"', '"1.10"')
ELSE = OLD.replace("[[version.item]]", 'billable_status = ["0"]\n[[version.item]]').replace(
    'freeze = { factor = "1.20" }\nbillable_status = ["0"]',
    'billable_status = ["0"]\nfreeze = { factor = "1.20" }',
)


class World:
    """Three calls a month, 1.50: alpha two, beta one; January and February are settled."""

    def __init__(self, folder: Path, fork: Forks) -> None:
        self.folder, self.fork = write_world(folder, "2026-01", "2026-02"), fork
        assert self("run 2026-01..2026-02").code == 0

    def __call__(self, arguments: str, prices: str = OLD) -> Finished:
        (self.folder / "prices.toml").write_text(prices, encoding="utf-8")
        paths = {"SETTLE_LOGS": "logs", "SETTLE_BOOK": "book", "SETTLE_PRICES": "prices.toml"}
        return self.fork(*arguments.split(), cwd=self.folder, SETTLE_NOW=NOW, **paths)


@pytest.fixture
def world(tmp_path: Path, fork: Forks) -> World:
    return World(tmp_path, fork)


def amounts(found: dict[str, Any], when: str) -> dict[str, str]:
    names = ("list_amount", "voucher_amount", "payable", "held")
    return {name: found["what_if"][name][when] for name in names}


def test_a_plan_with_other_prices_reads_no_log_and_writes_nothing(world: World) -> None:
    shutil.rmtree(world.folder / "logs")
    before = snapshot(world.folder / "book", folders_too=True)
    done = world("plan 2026-02 --json", NEW)
    assert (done.code, done.err) == (0, "")
    found = done.json
    assert found["outcome"].startswith("settled as 2026-02 r1, now different: ")
    effect = found["what_if"]
    assert effect["against"] == "2026-02 r1"
    assert amounts(found, "before")["payable"] == "1.50"
    assert amounts(found, "after")["payable"] == "2.50"  # alpha 2 × 0.25, beta 1 × 2
    assert amounts(found, "before")["held"] == "1.80"
    assert amounts(found, "after")["held"] == "2.75"
    assert effect["accounts"] == {"all": 2, "raised": 1, "lowered": 1}
    assert [each["account_id"] for each in effect["winners"]] == ["alpha"]
    assert effect["losers"] == [
        {"account_id": "beta", "before": "0.50", "after": "2.00", "change": "1.50"}
    ]
    assert snapshot(world.folder / "book", folders_too=True) == before


@pytest.mark.parametrize("month", ["2026-01", "2026-02"])
def test_the_effect_is_what_a_revision_publishes(world: World, month: str) -> None:
    """The same totals; a month whose holds have moved on holds nothing before and after."""
    found = world(f"plan {month} --json", NEW).json
    revised = world(f"run {month} --revise --reason dearer --json", NEW).json
    totals = revised["totals"]
    after = amounts(found, "after")
    names = ("list_amount", "voucher_amount", "payable")
    assert {name: after[name] for name in names} == {name: totals[name] for name in names}
    moved = (totals["unfrozen"], totals["frozen"])
    held = (amounts(found, "before")["held"], after["held"])
    assert held == moved == (("0.00", "0.00") if month == "2026-01" else ("1.80", "2.75"))


CHOICES = """
command                     prices  answer
---
plan·2026-02                same    counted
plan·2026-02                new     what·if
plan·2026-02·--revise       new     counted
plan·2026-02                else    refused
plan·2026-02·--what-if      same    what·if
plan·2026-02·--what-if      new     what·if
plan·2026-02·--what-if      else    refused
plan·2026-03·--what-if      same    refused
plan·2026-02·--what-if·--revise  new  refused
"""


@pytest.mark.parametrize(("command", "prices", "answer"), rows(CHOICES)[1:])
def test_what_a_plan_answers_from(world: World, command: str, prices: str, answer: str) -> None:
    """Rules that would charge other calls are counted; this log has no status to count by."""
    done = world(
        f"{command} --json".replace("·", " "), {"same": OLD, "new": NEW, "else": ELSE}[prices]
    )
    if answer == "refused":
        assert done.code in {2, 65, 66}
        assert len(done.err.splitlines()) == 1
    else:
        assert ("what_if" in done.json) == (answer == "what·if")


def test_rules_that_charge_other_calls_are_named(world: World) -> None:
    done = world("plan 2026-02 --what-if", ELSE)
    assert done.code == 65
    assert "billable_status of 2026-02 differs" in done.err
    cure = done.err.rpartition(": settle ")[2]
    assert cure.startswith("plan 2026-02 --")
    assert "--prices prices.toml" in cure
    assert cure.rstrip().endswith("--revise")


def test_a_person_sees_tiers_movements_and_bars(world: World) -> None:
    out = world("plan 2026-02", NEW).out.splitlines()
    cells = [" ".join(line.split()) for line in out]
    assert "payable 应付 1.50 → 2.50 +1.00" in cells
    assert "accounts: 1 pays more, 1 less, 0 the same" in out
    assert "detection 1 2 → 1 3 → 1 1.50 → 2.00" in cells
    assert "detection 2 0 → 1 0 → 2 0.00 → 0.50" in cells
    bars = out[out.index("change per account") + 1 :]
    assert [line.split()[-2:] for line in bars if "█" in line] == [
        ["-0.50", "█" * 40],
        ["+1.50", "█" * 40],
    ]


def test_holds_that_a_later_month_released_are_said_to_be(world: World) -> None:
    said = "holds 冻结: released already, for a later month is settled"
    old, newest = (world(f"plan {month} --what-if", NEW).out for month in ("2026-01", "2026-02"))
    assert (said in old, "held" in old) == (True, False)
    assert (said in newest, "  held " in newest) == (False, True)


# ---------------------------------------------------------------- the comparison by itself


def rated(prices: str, usage: str) -> tuple[Any, Any]:
    book = PriceBook.parse(prices.encode())
    lines = rate(drawn(USAGE, usage), book.versions[0])
    return lines, invoice(lines, book.currency)


def compared(usage: str, new: str = NEW) -> Effect:
    before, after = rated(OLD, usage), rated(new, usage)
    return whatif.effect((before[0], after[0]), (before[1], after[1]))


USED = """
account_id item      interface calls
a          detection Detect    1
b          detection Detect    2
c          detection Detect    8
d          detection Detect    8
e          detection Detect    44
"""


def test_lines_are_added_up_by_item_and_tier() -> None:
    one, many = money.units("1"), money.units("1") * 31  # 0.5 each, then 2 or 0.25
    assert compared(USED).tiers == (
        Reached("detection", 1, (5, 1), (63, 1), (one * 63 // 2, one * 2)),
        Reached("detection", 2, (0, 4), (0, 62), (0, many // 2)),
    )


def test_changes_are_classed_by_size_open_below_and_closed_above() -> None:
    """+1.50; −0.50; −2.00 twice; −11.00."""
    yuan = money.units("1")
    assert compared(USED).classes == (
        Class(-100 * yuan, -10 * yuan, 1, -11 * yuan),
        Class(-10 * yuan, -yuan, 2, -4 * yuan),
        Class(-yuan, 0, 1, -yuan // 2),
        Class(0, 0, 0, 0),
        Class(0, yuan, 0, 0),
        Class(yuan, 10 * yuan, 1, yuan * 3 // 2),
    )


def test_the_same_rules_change_nothing() -> None:
    found = compared(USED, OLD)
    assert (found.raised, found.lowered, found.winners, found.losers) == (0, 0, (), ())
    assert found.classes == (Class(0, 0, 5, 0),)
    assert compared("account_id item interface calls").classes == (Class(0, 0, 0, 0),)


def test_the_largest_movements_come_first() -> None:
    found = compared(USED)
    assert [each.account_id for each in found.winners] == ["e", "c", "d", "b"]
    assert [each.account_id for each in found.losers] == ["a"]


def test_another_usage_is_not_compared() -> None:
    before, after = rated(OLD, USED), rated(NEW, "\n".join(USED.splitlines()[:-1]))
    with pytest.raises(ValueError, match="the same usage"):
        whatif.effect((before[0], after[0]), (before[1], after[1]))
