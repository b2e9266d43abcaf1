"""Repricing: terms before the price book, any tariff against plain decimal arithmetic."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import frames, money, rating, repricing
from settlement.contracts import Contracts, Terms, tiers_text
from settlement.errors import BadInput
from settlement.month import Month
from settlement.prices import Freeze, Item, PriceBook, Tier, Version
from settlement.tables import CONTRACT_LINES, LINES, USAGE
from tests.drawn import drawn, rows

DOCUMENT = PriceBook.parse(
    (Path(__file__).parent.parent / "data" / "price_book.toml").read_bytes()
).versions[0]
MONTH = Month(2026, 2)


def terms(drawing: str, version: Version = DOCUMENT) -> Terms:
    """Draw contracts without their months; ``·`` for an empty cell."""
    header, *body = rows(drawing)
    lines = [["from", *header], *(["2026-02", *row] for row in body)]
    raw = "".join(",".join(line).replace("·", "") + "\n" for line in lines).encode()
    return Contracts("c", raw, frozenset(item.code for item in version.items)).in_force(MONTH)


def rate(usage: str, agreed: Terms, version: Version = DOCUMENT) -> list[pd.DataFrame]:
    by_item = {item.code: item.interfaces[-1] for item in version.items}
    lines = [f"{a} {item} {by_item[item]} {calls}" for a, item, calls in rows(usage)]
    table = drawn(USAGE, "\n".join(["account_id item interface calls", *lines]))
    priced, contracted = repricing.rate(table, version, agreed)
    assert contracted is not None
    return [priced, contracted]


# 0042 has 15 % off everything but comparisons, for which it has tiers of its own; 0050 has
# other free calls; 0060 only a factor of its own, which prices nothing.
TERMS = """
account_id  item             tiers                     discount  free_calls  freeze_factor
0042        *                ·                         0.15      ·           1.5
0042        face-comparison  10000:0.001;:0.0005       ·         2000        ·
0050        *                ·                         ·         0           ·
0060        *                ·                         ·         ·           2
0070        face-search      ·                         1         ·           ·
"""
USED = """
0042  face-comparison  10_001
0042  face-detection   10_001
0042  face-search           1
0050  face-comparison  10_001
0060  face-comparison  10_001
0070  face-detection   10_001
0070  face-search      10_001
42    face-comparison  10_001
"""
PRICED = """
account_id item calls tier unit_price list_amount voucher_calls voucher_amount amount
0042  face-comparison  10_001  2  0.0005    5.0005    2000  1       4.0005
0042  face-detection   10_001  2  0.000425  4.250425  1000  0.425   3.825425
0042  face-search           1  1  0         0            1  0       0
0050  face-comparison  10_001  2  0.0032    32.0032      0  0       32.0032
0060  face-comparison  10_001  2  0.0032    32.0032   1000  3.2     28.8032
0070  face-detection   10_001  2  0.0005    5.0005    1000  0.5     4.5005
0070  face-search      10_001  2  0         0         1000  0       0
42    face-comparison  10_001  2  0.0032    32.0032   1000  3.2     28.8032
"""
# What the price book alone would charge, and what is charged.
BY_CONTRACT = """
account_id item calls           book_list book_voucher book_   list     voucher  -
0042  face-comparison  10_001  32.0032   3.2          28.8032  5.0005    1      4.0005
0042  face-detection   10_001  5.0005    0.5          4.5005   4.250425  0.425  3.825425
0042  face-search           1  0         0            0        0         0      0
0050  face-comparison  10_001  32.0032   3.2          28.8032  32.0032   0      32.0032
0070  face-search      10_001  32.0032   3.2          28.8032  0         0      0
"""
SAID = [
    "tiers 10000:0.001;:0.0005, free_calls 2000",
    "discount 0.15 (all items)",
    "discount 0.15 (all items)",
    "free_calls 0 (all items)",
    "discount 1",
]


def test_a_line_has_the_items_terms_else_those_for_all_items_else_the_price_books() -> None:
    lines, contracted = rate(USED, terms(TERMS))
    pd.testing.assert_frame_equal(lines, drawn(LINES, PRICED))
    _, *body = rows(BY_CONTRACT)
    names = CONTRACT_LINES.names[:-1]
    columns: dict[str, list[Any]] = {
        name: [money.units(cell) for cell in cells] if "amount" in name else list(cells)
        for name, cells in zip(names, zip(*body, strict=True), strict=True)
    }
    columns["calls"] = [int(cell.replace("_", "")) for cell in columns["calls"]]
    expected = frames.frame(CONTRACT_LINES, columns | {"terms": SAID})
    pd.testing.assert_frame_equal(contracted, expected)


def test_without_contracts_lines_are_those_of_the_price_book() -> None:
    usage = drawn(USAGE, "account_id item interface calls\n0042 face-search SearchFaces 10_001")
    lines, contracted = repricing.rate(usage, DOCUMENT, None)
    assert contracted is None
    pd.testing.assert_frame_equal(lines, rating.rate(usage, DOCUMENT))


@pytest.mark.parametrize(
    "agreed",
    ["", "0042 * · · · 1.5", "nobody * · 0.5 · ·", "0042 face-detection · 0.5 · ·"],
    ids=["none", "a factor alone", "another account", "another item"],
)
def test_terms_that_touch_no_line_change_none(agreed: str) -> None:
    header = rows(TERMS)[0]
    lines, contracted = rate("0042 face-search 10_001", terms(" ".join(header) + "\n" + agreed))
    assert lines["amount"].tolist() == [2_880_320_000]
    assert contracted.equals(frames.empty(CONTRACT_LINES))


def test_a_month_without_calls_has_no_lines() -> None:
    lines, contracted = repricing.rate(frames.empty(USAGE), DOCUMENT, terms(TERMS))
    assert lines.equals(frames.empty(LINES))
    assert contracted is not None
    assert contracted.equals(frames.empty(CONTRACT_LINES))


def test_an_item_that_only_another_version_has_touches_nothing() -> None:
    raw = b"account_id,item,from,discount\n0042,former,2026-01,0.5\n"
    agreed = Contracts("c", raw, frozenset({"former"})).in_force(MONTH)
    lines, contracted = rate("0042 face-search 10_001", agreed)
    assert lines["amount"].tolist() == [2_880_320_000]
    assert contracted.empty


@pytest.mark.parametrize("mode", ["volume", "graduated"])
def test_an_amount_by_contract_beyond_the_largest_is_refused(mode: str) -> None:
    item = Item("x", "X", ("X",), (Tier(10, 1), Tier(None, 1)), 0, mode)  # type: ignore[arg-type]
    version = Version(Month(2020, 1), (item,), Freeze(Fraction(1)))
    dear = "account_id item tiers\na x 9223372:9999.99999999;:9999.99999999"
    lines, _ = rate("a x 9_223_372", terms(dear, version), version)
    assert lines["list_amount"].tolist() == [9_223_372 * 999_999_999_999]
    with pytest.raises(BadInput, match=r"a line passes 92233720368\.54775807"):
        rate("a x 9_223_373", terms(dear, version), version)


# ---- against plain arithmetic -------------------------------------------------------------

PRICES = st.integers(0, 10**9)
TIERS = st.builds(
    lambda bounds, prices: (
        *(Tier(up_to, price) for up_to, price in zip(sorted(bounds), prices[1:], strict=False)),
        Tier(None, prices[0]),
    ),
    st.sets(st.integers(1, 30), max_size=4),
    st.lists(PRICES, min_size=5, max_size=5),
)
FREE = st.integers(0, 30)
ITEMS = st.builds(
    lambda code, tiers, free, how: Item(code, code, (code,), tiers, free, *how),
    st.just("?"),
    TIERS,
    FREE,
    st.sampled_from([("volume", "gross"), ("volume", "net"), ("graduated", "gross")]),
)
AGREED = st.tuples(
    st.sampled_from(["", "0", "1"]),
    st.one_of(
        st.tuples(TIERS, st.none(), st.none() | FREE),
        st.tuples(st.none(), st.integers(0, 10**8), st.none() | FREE),
        st.tuples(st.none(), st.none(), FREE),
    ),
)


def plain(item: Item, calls: int) -> tuple[Decimal, Decimal]:
    """Price one count in decimals: list amount and voucher."""

    def cost(many: int) -> Decimal:
        total, below = Decimal(0), 0
        for tier in item.tiers:
            upper = many if tier.up_to is None else min(tier.up_to, many)
            total += max(upper - below, 0) * in_full(tier.unit_price)
            below = max(below, upper)
        return total

    free = min(calls, item.free_calls)
    if item.mode == "graduated":
        return cost(calls), cost(free)
    basis = calls - free if item.tier_basis == "net" else calls
    price = next(
        in_full(tier.unit_price) for tier in item.tiers if tier.up_to is None or basis <= tier.up_to
    )
    return calls * price, free * price


def in_full(units: int) -> Decimal:
    return Decimal(units).scaleb(-8)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(ITEMS, ITEMS),
    st.dictionaries(st.sampled_from("abc"), st.lists(AGREED, max_size=3, unique_by=lambda t: t[0])),
    st.dictionaries(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("01")), st.integers(1, 40), max_size=8
    ),
)
def test_any_terms_are_priced_as_in_plain_decimal_arithmetic(
    drawn_items: tuple[Item, Item],
    agreed: dict[str, list[tuple[str, tuple[tuple[Tier, ...] | None, int | None, int | None]]]],
    calls: dict[tuple[str, str], int],
) -> None:
    items = {
        str(n): Item(str(n), "", (str(n),), i.tiers, i.free_calls, i.mode, i.tier_basis)
        for n, i in enumerate(drawn_items)
    }
    version = Version(Month(2020, 1), tuple(items.values()), Freeze(Fraction(1)))
    lines = ["account_id,item,from,tiers,discount,free_calls\n"]
    lines += [
        f"{account},{code},2026-01,{tiers_text(tiers) if tiers else ''},"
        f"{money.text(off) if off is not None else ''},{'' if free is None else free}\n"
        for account, each in agreed.items()
        for code, (tiers, off, free) in each
    ]
    read = Contracts("c", "".join(lines).encode(), frozenset(items)).in_force(MONTH)
    keys = sorted(calls)
    usage = frames.frame(
        USAGE,
        {
            "account_id": [key[0] for key in keys],
            "item": [key[1] for key in keys],
            "interface": [key[1] for key in keys],
            "calls": np.array([calls[key] for key in keys], np.int64),
        },
    )
    priced, contracted = repricing.rate(usage, version, read)
    by_contract = []
    for key, line in zip(keys, priced.to_dict("records"), strict=True):
        rows_of = dict(agreed.get(key[0], ()))
        item, found = items[key[1]], rows_of.get(key[1], rows_of.get(""))
        if found:
            by_contract.append(key)
            item = by_terms(item, *found)
        assert (in_full(line["list_amount"]), in_full(line["voucher_amount"])) == plain(
            item, calls[key]
        )
        assert line["voucher_calls"] == min(calls[key], item.free_calls)
        assert item == read.for_item(key[0], items[key[1]])
    assert contracted is not None
    assert contracted[["account_id", "item"]].to_numpy().tolist() == [*map(list, by_contract)]
    book = rating.rate(usage, version)
    merged = contracted.merge(book, on=["account_id", "item"])
    assert merged["book_amount"].equals(merged["amount_y"])


def by_terms(item: Item, tiers: tuple[Tier, ...] | None, off: int | None, free: int | None) -> Item:
    """Put terms in place of an item's own, in decimals."""
    if off is not None:
        eight = Decimal("1e-8")
        kept = 1 - in_full(off)
        tiers = tuple(
            Tier(
                tier.up_to,
                int((in_full(tier.unit_price) * kept).quantize(eight, ROUND_HALF_UP).scaleb(8)),
            )
            for tier in item.tiers
        )
    return Item(
        item.code,
        item.name,
        item.interfaces,
        tiers or item.tiers,
        item.free_calls if free is None else free,
        item.mode,
        item.tier_basis,
    )
