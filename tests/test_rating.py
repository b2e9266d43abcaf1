"""Rating: the document's amounts at every bound, and any tariff against plain arithmetic."""

import json
import os
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import frames, money, tables
from settlement.errors import BadInput
from settlement.month import Month
from settlement.prices import Freeze, Item, PriceBook, Tier, Version
from settlement.rating import price, rate
from settlement.tables import LINES, USAGE
from tests.drawn import drawn, rows

HERE = Path(__file__).parent
DOCUMENT = PriceBook.parse((HERE.parent / "data" / "price_book.toml").read_bytes()).versions[0]
VECTORS = (
    Path(os.environ.get("SETTLE_TEST_VECTORS", HERE.parent.parent / "shared" / "vectors"))
    / "volume_tiers.json"
)

# One month of one account, by the billing document, in yuan. Each can be worked out on paper:
# list = calls × price of the tier reached; the voucher covers 1000 calls at that price.
AT_THE_BOUNDS = """
item              |      calls | tier | price  |         list | voucher |       amount
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
face-detection    |          1 |    1 | 0      |            0 |       0 |            0
face-detection    |      1_000 |    1 | 0      |            0 |       0 |            0
face-detection    |      1_001 |    1 | 0      |            0 |       0 |            0
face-detection    |     10_000 |    1 | 0      |            0 |       0 |            0
face-detection    |     10_001 |    2 | 0.0005 |       5.0005 |  0.5000 |       4.5005
face-detection    |  3_000_000 |    2 | 0.0005 |   1_500.0000 |  0.5000 |   1_499.5000
face-detection    |  3_000_001 |    3 | 0.0004 |   1_200.0004 |  0.4000 |   1_199.6004
face-detection    | 15_000_000 |    3 | 0.0004 |   6_000.0000 |  0.4000 |   5_999.6000
face-detection    | 15_000_001 |    4 | 0.0003 |   4_500.0003 |  0.3000 |   4_499.7003
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
facial-landmarks  |          1 |    1 | 0      |            0 |       0 |            0
facial-landmarks  |      1_000 |    1 | 0      |            0 |       0 |            0
facial-landmarks  |      1_001 |    1 | 0      |            0 |       0 |            0
facial-landmarks  |     10_000 |    1 | 0      |            0 |       0 |            0
facial-landmarks  |     10_001 |    2 | 0.002  |      20.0020 |  2.0000 |      18.0020
facial-landmarks  |  3_000_000 |    2 | 0.002  |   6_000.0000 |  2.0000 |   5_998.0000
facial-landmarks  |  3_000_001 |    3 | 0.0018 |   5_400.0018 |  1.8000 |   5_398.2018
facial-landmarks  | 15_000_000 |    3 | 0.0018 |  27_000.0000 |  1.8000 |  26_998.2000
facial-landmarks  | 15_000_001 |    4 | 0.0015 |  22_500.0015 |  1.5000 |  22_498.5015
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
face-comparison   |          1 |    1 | 0      |            0 |       0 |            0
face-comparison   |      1_000 |    1 | 0      |            0 |       0 |            0
face-comparison   |      1_001 |    1 | 0      |            0 |       0 |            0
face-comparison   |     10_000 |    1 | 0      |            0 |       0 |            0
face-comparison   |     10_001 |    2 | 0.0032 |      32.0032 |  3.2000 |      28.8032
face-comparison   |  3_000_000 |    2 | 0.0032 |   9_600.0000 |  3.2000 |   9_596.8000
face-comparison   |  3_000_001 |    3 | 0.003  |   9_000.0030 |  3.0000 |   8_997.0030
face-comparison   | 15_000_000 |    3 | 0.003  |  45_000.0000 |  3.0000 |  44_997.0000
face-comparison   | 15_000_001 |    4 | 0.0027 |  40_500.0027 |  2.7000 |  40_497.3027
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
face-verification |          1 |    1 | 0      |            0 |       0 |            0
face-verification |      1_000 |    1 | 0      |            0 |       0 |            0
face-verification |      1_001 |    1 | 0      |            0 |       0 |            0
face-verification |     10_000 |    1 | 0      |            0 |       0 |            0
face-verification |     10_001 |    2 | 0.0032 |      32.0032 |  3.2000 |      28.8032
face-verification |  3_000_000 |    2 | 0.0032 |   9_600.0000 |  3.2000 |   9_596.8000
face-verification |  3_000_001 |    3 | 0.003  |   9_000.0030 |  3.0000 |   8_997.0030
face-verification | 15_000_000 |    3 | 0.003  |  45_000.0000 |  3.0000 |  44_997.0000
face-verification | 15_000_001 |    4 | 0.0027 |  40_500.0027 |  2.7000 |  40_497.3027
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
face-search       |          1 |    1 | 0      |            0 |       0 |            0
face-search       |      1_000 |    1 | 0      |            0 |       0 |            0
face-search       |      1_001 |    1 | 0      |            0 |       0 |            0
face-search       |     10_000 |    1 | 0      |            0 |       0 |            0
face-search       |     10_001 |    2 | 0.0032 |      32.0032 |  3.2000 |      28.8032
face-search       |  3_000_000 |    2 | 0.0032 |   9_600.0000 |  3.2000 |   9_596.8000
face-search       |  3_000_001 |    3 | 0.003  |   9_000.0030 |  3.0000 |   8_997.0030
face-search       | 15_000_000 |    3 | 0.003  |  45_000.0000 |  3.0000 |  44_997.0000
face-search       | 15_000_001 |    4 | 0.0027 |  40_500.0027 |  2.7000 |  40_497.3027
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
multi-face-search |          1 |    1 | 0      |            0 |       0 |            0
multi-face-search |      1_000 |    1 | 0      |            0 |       0 |            0
multi-face-search |      1_001 |    1 | 0      |            0 |       0 |            0
multi-face-search |     10_000 |    1 | 0      |            0 |       0 |            0
multi-face-search |     10_001 |    2 | 0.0032 |      32.0032 |  3.2000 |      28.8032
multi-face-search |  3_000_000 |    2 | 0.0032 |   9_600.0000 |  3.2000 |   9_596.8000
multi-face-search |  3_000_001 |    3 | 0.003  |   9_000.0030 |  3.0000 |   8_997.0030
multi-face-search | 15_000_000 |    3 | 0.003  |  45_000.0000 |  3.0000 |  44_997.0000
multi-face-search | 15_000_001 |    4 | 0.0027 |  40_500.0027 |  2.7000 |  40_497.3027
----------------- | ---------- | ---- | ------ | ------------ | ------- | ------------
static-liveness   |          1 |    1 | 0      |            0 |       0 |            0
static-liveness   |      1_000 |    1 | 0      |            0 |       0 |            0
static-liveness   |      1_001 |    1 | 0      |            0 |       0 |            0
static-liveness   |     10_000 |    1 | 0      |            0 |       0 |            0
static-liveness   |     10_001 |    2 | 0.0019 |      19.0019 |  1.9000 |      17.1019
static-liveness   |  3_000_000 |    2 | 0.0019 |   5_700.0000 |  1.9000 |   5_698.1000
static-liveness   |  3_000_001 |    3 | 0.0017 |   5_100.0017 |  1.7000 |   5_098.3017
static-liveness   | 15_000_000 |    3 | 0.0017 |  25_500.0000 |  1.7000 |  25_498.3000
static-liveness   | 15_000_001 |    4 | 0.0013 |  19_500.0013 |  1.3000 |  19_498.7013
"""


@pytest.mark.parametrize(
    ("item", "calls", "tier", "unit_price", "list_amount", "voucher", "amount"),
    rows(AT_THE_BOUNDS)[1:],
)
def test_the_documents_amounts_at_every_bound(
    item: str, calls: str, tier: str, unit_price: str, list_amount: str, voucher: str, amount: str
) -> None:
    interface = DOCUMENT.item(item).interfaces[-1]
    usage = drawn(USAGE, f"account_id item interface calls\nanna {item} {interface} {calls}")
    used = min(int(calls), 1000)
    expected = drawn(
        LINES,
        f"""
        account_id item calls tier unit_price list_amount voucher_calls voucher_amount amount
        anna {item} {calls} {tier} {unit_price} {list_amount} {used} {voucher} {amount}
        """,
    )
    pd.testing.assert_frame_equal(rate(usage, DOCUMENT), expected)


def test_the_table_above_covers_every_item_at_every_bound() -> None:
    bounds = [1, 1000, 1001, 10_000, 10_001, 3_000_000, 3_000_001, 15_000_000, 15_000_001]
    assert [(row[0], int(row[1])) for row in rows(AT_THE_BOUNDS)[1:]] == [
        (item.code, bound) for item in DOCUMENT.items for bound in bounds
    ]


def cases() -> list[dict[str, Any]]:
    """The cases of other engines' tests: whole-volume pricing without free calls."""
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text()) if VECTORS.exists() else []
    return found


@pytest.mark.skipif(not VECTORS.exists(), reason="volume_tiers.json is not there")
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["source"].partition(":")[0])
def test_volume_tiers_as_other_engines_price_them(case: dict[str, Any]) -> None:
    tiers = tuple(Tier(tier["up_to"], money.units(tier["unit_price"])) for tier in case["tiers"])
    priced = price(Item("x", "X", ("X",), tiers), np.array([case["units"]], np.int64))
    assert int(priced["list_amount"][0]) == money.units(case["expected_amount"])
    assert int(priced["voucher_amount"][0]) == 0


# ---- modes --------------------------------------------------------------------------------

BANDS = (Tier(10, 0), Tier(100, money.units("2")), Tier(None, money.units("0.5")))
"""Up to 10 free, up to 100 at 2.00, beyond at 0.50; five calls are free."""

MODES = {
    "gross": Item("gross", "G", ("X",), BANDS, 5, "volume", "gross"),
    "net": Item("net", "N", ("X",), BANDS, 5, "volume", "net"),
    "graduated": Item("graduated", "B", ("X",), BANDS, 5, "graduated"),
    "dear": Item("dear", "D", ("X",), BANDS[1:], 5, "graduated"),
}

IN_EACH_MODE = """
item      | calls | tier | unit_price | list_amount | voucher_calls | voucher_amount | amount
gross     |     1 |    1 |        0   |           0 |             1 |            0   |      0
gross     |    10 |    1 |        0   |           0 |             5 |            0   |      0
gross     |    11 |    2 |        2   |          22 |             5 |           10   |     12
gross     |   100 |    2 |        2   |         200 |             5 |           10   |    190
gross     |   101 |    3 |        0.5 |        50.5 |             5 |            2.5 |     48
---
net       |    11 |    1 |        0   |           0 |             5 |            0   |      0
net       |    15 |    1 |        0   |           0 |             5 |            0   |      0
net       |    16 |    2 |        2   |          32 |             5 |           10   |     22
net       |   105 |    2 |        2   |         210 |             5 |           10   |    200
net       |   106 |    3 |        0.5 |          53 |             5 |            2.5 |   50.5
---
graduated |     1 |    1 |        ·   |           0 |             1 |            0   |      0
graduated |    10 |    1 |        ·   |           0 |             5 |            0   |      0
graduated |    11 |    2 |        ·   |           2 |             5 |            0   |      2
graduated |   100 |    2 |        ·   |         180 |             5 |            0   |    180
graduated |   101 |    3 |        ·   |       180.5 |             5 |            0   |  180.5
---
dear      |     3 |    1 |        ·   |           6 |             3 |            6   |      0
dear      |   100 |    1 |        ·   |         200 |             5 |           10   |    190
dear      |   102 |    2 |        ·   |         201 |             5 |           10   |    191
"""


def version(*items: Item) -> Version:
    return Version(Month(2020, 1), items, Freeze(Fraction(1)))


@pytest.mark.parametrize("row", rows(IN_EACH_MODE)[1:], ids=lambda row: f"{row[0]}-{row[1]}")
def test_gross_net_and_graduated(row: list[str]) -> None:
    header = rows(IN_EACH_MODE)[0]
    usage = drawn(USAGE, f"account_id item interface calls\nanna {row[0]} X {row[1]}")
    expected = drawn(LINES, f"account_id {' '.join(header)}\nanna {' '.join(row)}")
    pd.testing.assert_frame_equal(rate(usage, version(MODES[row[0]])), expected)


def test_an_account_has_one_line_per_item_whatever_interfaces_it_called() -> None:
    usage = drawn(
        USAGE,
        """
        account_id  item               interface     calls
        007         face-search        SearchFaces   20_000
        7           face-search        CreateFace     4_000
        7           face-search        CreatePerson   3_000
        7           face-search        SearchFaces    3_001
        7           face-verification  CreateFace     6_000
        anna        face-detection     DetectFace     9_000
        """,
    )
    expected = drawn(
        LINES,
        """
        account_id  item   calls  tier  unit_price list_amount voucher_calls voucher_amount amount
        007   face-search        20_000  2  0.0032   64       1000  3.2   60.8
        7     face-search        10_001  2  0.0032   32.0032  1000  3.2   28.8032
        7     face-verification   6_000  1  0         0       1000  0      0
        anna  face-detection      9_000  1  0         0       1000  0      0
        """,
    )
    pd.testing.assert_frame_equal(rate(usage, DOCUMENT), expected)


def test_a_month_without_calls_has_no_lines() -> None:
    assert rate(frames.empty(USAGE), DOCUMENT).equals(frames.empty(LINES))


def test_usage_of_an_item_that_is_not_priced_is_a_bug_and_not_free() -> None:
    usage = drawn(USAGE, "account_id item interface calls\nanna nonsense DetectFace 5")
    with pytest.raises(tables.WrongTable, match="usage: item 'nonsense' is not in the price book"):
        rate(usage, DOCUMENT)


# ---- bounds -------------------------------------------------------------------------------

HIGHEST = Item("x", "X", ("X",), (Tier(None, money.units("0.0032")),), 1000)
DEAREST = Item("x", "X", ("X",), (Tier(None, money.units("9999.99999999")),))
STEEP = Item(
    "x",
    "X",
    ("X",),
    (Tier(9_223_372, 999_999_999_999), Tier(None, 999_999_999_999)),
    0,
    "graduated",
)
FAR = Item("x", "X", ("X",), (Tier(10**12, 999_999_999_999), Tier(None, 0)), 0, "graduated")

# The largest amount is 153 092 023 calls at 602.47241209, to the last digit.
MOST, FITTING = 153_092_023, money.units("602.47241209")
EXACT = Item("x", "X", ("X",), (Tier(None, FITTING),))
EXACT_BELOW = Item("x", "X", ("X",), (Tier(MOST, FITTING), Tier(None, 0)), 0, "graduated")
EXACT_ABOVE = Item("x", "X", ("X",), (Tier(1, 0), Tier(None, FITTING)), 0, "graduated")


def lines_of(item: Item, calls: int) -> pd.DataFrame:
    usage = drawn(USAGE, f"account_id item interface calls\nanna x X {calls}")
    return rate(usage, version(item))


@pytest.mark.parametrize(
    ("item", "calls", "amount"),
    [
        (HIGHEST, 4_000_000_000, "12799996.80"),
        (HIGHEST, 28_823_037_615_171, "92233720365.3472"),
        (DEAREST, 9_223_372, "92233719999.90776628"),
        (STEEP, 9_223_372, "92233719999.90776628"),
        (FAR, 9_223_372, "92233719999.90776628"),
        (EXACT, MOST, "92233720368.54775807"),
        (EXACT_BELOW, MOST, "92233720368.54775807"),
        (EXACT_BELOW, MOST + 1, "92233720368.54775807"),
        (EXACT_ABOVE, MOST + 1, "92233720368.54775807"),
    ],
)
def test_large_counts_are_priced_exactly_up_to_the_bound(
    item: Item, calls: int, amount: str
) -> None:
    assert money.text(int(lines_of(item, calls)["amount"][0]), 2) == amount


@pytest.mark.parametrize(
    ("item", "calls"),
    [
        (HIGHEST, 28_823_037_615_172),
        (HIGHEST, 2**63 - 1),
        (DEAREST, 9_223_373),
        (STEEP, 9_223_373),
        (FAR, 9_223_373),
        (FAR, 10**12),
        (FAR, 10**12 + 1),
        (FAR, 2**63 - 1),
        (EXACT, MOST + 1),
        (EXACT_ABOVE, MOST + 2),
    ],
)
def test_beyond_the_bound_a_line_is_refused_never_wrapped(item: Item, calls: int) -> None:
    with pytest.raises(BadInput, match=r"a line passes 92233720368\.54775807") as refused:
        lines_of(item, calls)
    assert refused.value.exit_code == 65


def test_calls_of_a_line_that_wrap_are_refused() -> None:
    usage = drawn(
        USAGE,
        f"account_id item interface calls\nanna free X {2**63 - 1}\nanna free Y {2**63 - 1}",
    )
    free = Item("free", "F", ("X", "Y"), (Tier(None, 0),))
    with pytest.raises(BadInput, match="the calls of a line passes"):
        rate(usage, version(free))


# ---- any tariff ---------------------------------------------------------------------------

COUNTS = st.integers(1, 80) | st.sampled_from([999, 10**6, 4 * 10**9])


@st.composite
def tariffs(draw: st.DrawFn) -> Item:
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    tiers = tuple(Tier(up_to, draw(st.integers(0, 10**9))) for up_to in [*bounds, None])
    free = draw(st.sampled_from([0, 1, 10, 70]))
    if draw(st.booleans()):
        return Item("x", "X", ("X",), tiers, free, "graduated")
    return Item("x", "X", ("X",), tiers, free, "volume", draw(st.sampled_from(["gross", "net"])))


def on_paper(item: Item, calls: int) -> tuple[int, Decimal, Decimal]:
    """Return tier, list amount and voucher, by the rules, in decimals."""
    free = min(calls, item.free_calls)
    prices = [Decimal(tier.unit_price) / 10**8 for tier in item.tiers]

    def tier_of(count: int) -> int:
        return sum(1 for tier in item.tiers if tier.up_to is not None and count > tier.up_to)

    def banded(count: int) -> Decimal:
        edges = [0, *(tier.up_to or count for tier in item.tiers)]
        widths = [max(min(count, upper) - lower, 0) for lower, upper in pairwise(edges)]
        return sum((w * p for w, p in zip(widths, prices, strict=True)), Decimal(0))

    if item.mode == "graduated":
        return tier_of(calls) + 1, banded(calls), banded(free)
    reached = tier_of(calls if item.tier_basis == "gross" else calls - free)
    return reached + 1, calls * prices[reached], free * prices[reached]


@settings(deadline=None)
@given(tariffs(), st.lists(COUNTS, min_size=1, max_size=5))
def test_any_tariff_gives_what_the_rules_give_on_paper(item: Item, counts: list[int]) -> None:
    names = [f"account-{n}" for n in range(len(counts))]
    many = {"account_id": names, "item": ["x"] * len(counts), "interface": ["X"] * len(counts)}
    lines = rate(frames.frame(USAGE, many | {"calls": counts}), version(item))
    paper = [on_paper(item, calls) for calls in counts]
    assert lines["tier"].tolist() == [tier for tier, _, _ in paper]
    assert lines["voucher_calls"].tolist() == [min(calls, item.free_calls) for calls in counts]
    expected = {
        "list_amount": [listed for _, listed, _ in paper],
        "voucher_amount": [voucher for _, _, voucher in paper],
        "amount": [listed - voucher for _, listed, voucher in paper],
    }
    for name, amounts in expected.items():
        assert [Decimal(money.text(units)) for units in lines[name].tolist()] == amounts
    assert (lines["amount"] >= 0).all()
