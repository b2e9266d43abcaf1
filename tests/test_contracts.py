"""Contracts: what a row may say, every refusal, what is in force when, and its digest."""

import hashlib
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement import contracts, money
from settlement.contracts import COLUMNS, UNSAID, Contracts, Terms, tiers_of, tiers_text
from settlement.errors import BadInput
from settlement.month import Month
from settlement.prices import Item, Tier
from tests.drawn import rows

ITEMS = frozenset({"detection", "search"})
FEBRUARY = Month(2026, 2)


def csv(drawing: str) -> bytes:
    """Draw a contracts file: the columns named in its first line, ``·`` for an empty cell."""
    lines = [["" if cell == "·" else cell for cell in cells] for cells in rows(drawing)]
    return "".join(",".join(cells) + "\n" for cells in lines).encode()


def drawn(drawing: str) -> Contracts:
    return Contracts("contracts.csv", csv(drawing), ITEMS)


def in_force(drawing: str, month: Month = FEBRUARY) -> list[list[Any]]:
    terms = drawn(drawing).in_force(month)
    cells = terms.rows.astype(object).to_numpy().tolist()
    return [
        [
            *row[:2],
            tiers_text(terms.tariffs[row[2]]) if row[2] != UNSAID else "·",
            *("·" if value == UNSAID else money.text(value, 0) for value in row[3:4]),
            "·" if row[4] == UNSAID else str(row[4]),
            *("·" if value == UNSAID else money.text(value, 0) for value in row[5:]),
        ]
        for row in cells
    ]


FILE = """
account_id | item      | from    | to      | tiers                   | discount | free_calls
---------- | --------- | ------- | ------- | ----------------------- | -------- | ----------
0042       | *         | 2026-01 | ·       | ·                       | 0.15     | ·
0042       | detection | 2026-02 | 2026-03 | 10000:0;20000:0.20;:0.1 | ·        | 2000
0042       | detection | 2026-03 | ·       | :0.10                   | ·        | ·
42         | search    | 2025-12 | 2026-02 | ·                       | 1        | ·
0007       | ·         | 2026-02 | ·       | ·                       | ·        | 0
"""
FACTORS = ["freeze_factor", "1.50", "·", "·", "·", "0"]
"""The last column of the file."""
FILE = "\n".join(" ".join([*row, factor]) for row, factor in zip(rows(FILE), FACTORS, strict=True))

IN_FORCE = {
    "2025-11": "",
    "2025-12": "42 search · 1 · ·",
    "2026-01": """
        0042 all · 0.15 · 1.5
        42 search · 1 · ·
    """,
    "2026-02": """
        0007 all · · 0 0
        0042 all · 0.15 · 1.5
        0042 detection 10000:0;20000:0.2;:0.1 · 2000 ·
    """,
    "2026-03": """
        0007 all · · 0 0
        0042 all · 0.15 · 1.5
        0042 detection :0.1 · · ·
    """,
}


@pytest.mark.parametrize(("month", "expected"), IN_FORCE.items())
def test_a_row_is_in_force_from_its_first_month_to_its_end_excluded(
    month: str, expected: str
) -> None:
    said = [["" if cell == "all" else cell for cell in row] for row in rows(expected)]
    assert in_force(FILE, Month.parse(month)) == said


def test_parquet_says_the_same_as_csv_in_any_order_of_rows_and_columns() -> None:
    header, *body = [["" if cell == "·" else cell for cell in row] for row in rows(FILE)]
    cells = {name: [row[at] or None for row in reversed(body)] for at, name in enumerate(header)}
    buffer = io.BytesIO()
    schema = pa.schema({name: pa.string() for name in reversed(header)})
    pq.write_table(pa.table(cells).select(schema.names).cast(schema), buffer)
    other = Contracts("contracts.parquet", buffer.getvalue(), ITEMS)
    assert (other.copy, drawn(FILE).copy) == ("contracts.parquet", "contracts.csv")
    for month in map(Month.parse, IN_FORCE):
        one, two = drawn(FILE).in_force(month), other.in_force(month)
        assert one.digest == two.digest
        assert one.texts(one.rows.index.to_numpy()) == two.texts(two.rows.index.to_numpy())


def test_one_accounts_terms_are_found_without_the_others() -> None:
    every = drawn(FILE).in_force(FEBRUARY)
    one = drawn(FILE).in_force_for("0042", FEBRUARY)
    assert one.rows["account_id"].tolist() == ["0042"] * 2
    for code in ITEMS:
        item = Item(code, code, (code,), (Tier(10, 300), Tier(None, 200)), 5)
        assert one.for_item("0042", item) == every.for_item("0042", item)


def test_the_items_own_row_beats_the_row_for_all_items_as_a_whole() -> None:
    terms = drawn(FILE).in_force(FEBRUARY)
    tiers = (Tier(10, 300), Tier(None, 3))
    detection, search = (Item(code, code, (code,), tiers, 5) for code in ("detection", "search"))
    own = tiers_of("10000:0;20000:0.2;:0.1")
    assert terms.for_item("0042", detection) == Item(
        "detection", "detection", ("detection",), own, 2000
    )
    # 3 units less 15 % are 2.55, half up 3; 300 are 255.
    off = (Tier(10, 255), Tier(None, 3))
    assert terms.for_item("0042", search) == Item("search", "search", ("search",), off, 5)
    assert terms.for_item("0007", search) == Item("search", "search", ("search",), tiers, 0)
    assert terms.for_item("42", search) is search


# One row each: what is changed in a right one, and the place and the words of the refusal.
RIGHT = {"account_id": "0042", "item": "detection", "from": "2026-01", "discount": "0.15"}
REFUSED = {
    "no account": ({"account_id": ""}, "account_id: no account"),
    "a blank before the account": ({"account_id": " 0042"}, "account_id: ' 0042' begins or ends"),
    "an unknown item": ({"item": "serch"}, "item: unknown item 'serch' (did you mean 'search'?)"),
    "no first month": ({"from": ""}, "from: '' is not a month; write it as YYYY-MM"),
    "what a spreadsheet makes of a month": ({"from": "Jan-26"}, "from: 'Jan-26' is not a month"),
    "a day": ({"to": "2026-02-01"}, "to: '2026-02-01' is not a month"),
    "month 13": ({"to": "2026-13"}, "to: '2026-13' is not a month"),
    "an end before the beginning": ({"to": "2025-12"}, "to: 2025-12 is not after 2026-01"),
    "an end at the beginning": ({"to": "2026-01"}, "to: 2026-01 is not after 2026-01"),
    "nothing said": ({"discount": ""}, "tiers: the row says nothing; fill at least one of"),
    "a percent sign": ({"discount": "15%"}, "discount: '15%' is not a plain decimal"),
    "a percentage": ({"discount": "15"}, "discount: a discount of 15, which is more than"),
    "a surcharge": ({"discount": "-0.1"}, "discount: '-0.1' is not a plain decimal"),
    "an exponent": ({"discount": "1e-2"}, "discount: '1e-2' is not a plain decimal"),
    "nine decimals": ({"discount": "0.123456789"}, "discount: '0.123456789' has more than 8"),
    "tiers and a discount": ({"tiers": ":0.1"}, "discount: both tiers and a discount"),
    "tiers without a colon": (
        {"discount": "", "tiers": "0.1"},
        "tiers: '0.1' is not bound:price; write bound:price pairs",
    ),
    "a bounded last tier": ({"discount": "", "tiers": "10:0.1"}, "the last tier has a bound, '10'"),
    "an open middle tier": ({"discount": "", "tiers": ":0.1;:0.2"}, "tiers: '' is not a whole"),
    "tiers that do not ascend": (
        {"discount": "", "tiers": "10:0;10:0.1;:0"},
        "tiers: bound 10 is not above 10, the one before",
    ),
    "a bound of 0": ({"discount": "", "tiers": "0:0;:0"}, "tiers: a bound of 0"),
    "a bound beyond int64": (
        {"discount": "", "tiers": "9223372036854775808:0;:0"},
        "tiers: 9223372036854775808 is beyond 2^63 - 1",
    ),
    "a price of 10000": (
        {"discount": "", "tiers": ":10000"},
        "tiers: a unit price of 10000, which is not below 10000",
    ),
    "a price below 0": ({"discount": "", "tiers": ":-1"}, "tiers: '-1' is not a plain decimal"),
    "1001 tiers": (
        {"discount": "", "tiers": "".join(f"{n}:0;" for n in range(1, 1001)) + ":0"},
        "tiers: more than 1000 tiers",
    ),
    "thousands in free calls": ({"free_calls": "1.000"}, "free_calls: '1.000' is not a whole"),
    "free calls below 0": ({"free_calls": "-1"}, "free_calls: '-1' is not a whole number"),
    "too many free calls": ({"free_calls": "9" * 19}, "is beyond 2^63 - 1"),
    "a freeze factor of one item": (
        {"freeze_factor": "1"},
        "freeze_factor: a freeze factor for item 'detection' alone; a hold is made for the whole",
    ),
    "a freeze factor beyond 1000": (
        {"item": "*", "freeze_factor": "1000.1"},
        "freeze_factor: a factor of 1000.1, which is beyond 1000",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_row_is_refused_with_row_column_and_cure(
    change: dict[str, str], message: str
) -> None:
    lines = [RIGHT | {"account_id": "0001"}, {}, RIGHT | change]
    text = "\n".join(",".join(line.get(name, "") for name in COLUMNS) for line in lines)
    raw = f"{','.join(COLUMNS)}\n{text}\n".encode()
    with pytest.raises(BadInput) as refused:
        Contracts("contracts.csv", raw, ITEMS).in_force(FEBRUARY)
    assert str(refused.value).startswith("contracts.csv, row 4, column ")
    assert message in str(refused.value)
    assert refused.value.cure
    assert Contracts("c", raw, ITEMS).in_force_for("0001", FEBRUARY).rows["discount"].tolist()


OVERLAPS = {
    "open and open": ("a * 2026-01 ·", "a * 2026-05 ·", True),
    "the same twice": ("a * 2026-01 2026-02", "a * 2026-01 2026-02", True),
    "star and empty": ("a * 2026-01 ·", "a · 2025-01 2026-02", True),
    "one inside the other": ("a search 2025-01 2027-01", "a search 2026-01 2026-02", True),
    "the last month shared": ("a search 2026-01 2026-04", "a search 2026-03 2026-05", True),
    "one after the other": ("a search 2026-01 2026-03", "a search 2026-03 2026-05", False),
    "item and all items": ("a search 2026-01 ·", "a * 2026-01 ·", False),
    "two items": ("a search 2026-01 ·", "a detection 2026-01 ·", False),
    "two accounts": ("a search 2026-01 ·", "0a search 2026-01 ·", False),
}


@pytest.mark.parametrize(("one", "other", "refused"), OVERLAPS.values(), ids=OVERLAPS)
def test_rows_of_one_account_and_item_may_not_overlap(one: str, other: str, refused: bool) -> None:
    for first, second in ((one, other), (other, one)):
        drawing = f"account_id item from to discount\n{first} 0.1\nz * 2026-01 · 0.1\n{second} 0.1"
        if refused:
            with pytest.raises(
                BadInput, match=r"rows 2 and 4.*account 'a'.*row 2.*overlaps.*row 4"
            ):
                in_force(drawing)
        else:
            assert len(in_force(drawing, Month(2026, 1))) >= 2


SPANS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(["*", "detection"]),
        st.integers(1, 11),
        st.integers(1, 5),
    ),
    max_size=6,
)


@given(SPANS)
def test_overlaps_are_found_exactly_and_each_month_has_the_rows_that_hold(
    spans: list[tuple[str, str, int, int]],
) -> None:
    header = "account_id,item,from,to,free_calls\n"
    months = list(map(str, _months(2026)))
    body = "".join(
        f"{account},{item},{months[first]},{months[first + length]},{n}\n"
        for n, (account, item, first, length) in enumerate(spans)
    )
    read = Contracts("c", (header + body).encode(), ITEMS)
    held = [
        [n for n, (_, _, first, length) in enumerate(spans) if first <= at < first + length]
        for at in range(len(months))
    ]
    if any(len({spans[n][:2] for n in at}) < len(at) for at in held):
        with pytest.raises(BadInput, match="overlaps"):
            read.in_force(FEBRUARY)
        return
    for at, expected in enumerate(held):
        found = read.in_force(Month.parse(months[at])).rows["free_calls"]
        assert sorted(found.tolist()) == expected


def _months(year: int) -> list[Month]:
    months = [Month(year, 1)]
    while len(months) < 17:
        months.append(months[-1].next)
    return months


def digest(drawing: str, month: Month = FEBRUARY) -> str | None:
    return drawn(drawing).in_force(month).digest


def test_the_digest_is_of_the_terms_in_force_in_one_form() -> None:
    lines = (
        '"0007","",,,0,0\n"0042","",,0.15,,1.5\n"0042","detection",10000:0;20000:0.2;:0.1,,2000,\n'
    )
    assert digest(FILE) == hashlib.sha256(lines.encode()).hexdigest()
    assert digest(FILE, Month(2025, 11)) is None


HEAD = "account_id item from to tiers discount free_calls freeze_factor\n"
SAME = {
    "idle zeros": "a * 2026-01 · · 0.150 007 1.20",
    "another span": "a * 2026-02 2026-03 · 0.15 7 1.2",
    "empty for all items": "a · 2026-01 · · 0.15 7 1.2",
    "rows of other months": "a * 2026-01 2026-03 · 0.15 7 1.2\na * 2026-03 · · 0.5 · ·",
}
OTHER = {
    "another account": "b * 2026-01 · · 0.15 7 1.2",
    "another item": "a search 2026-01 · · 0.15 7 ·",
    "another discount": "a * 2026-01 · · 0.16 7 1.2",
    "no discount": "a * 2026-01 · · · 7 1.2",
    "tiers": "a * 2026-01 · :0.15 · 7 1.2",
    "other free calls": "a * 2026-01 · · 0.15 0 1.2",
    "no factor": "a * 2026-01 · · 0.15 7 ·",
    "one more": "a * 2026-01 · · 0.15 7 1.2\nb * 2026-01 · · 0.15 7 1.2",
    "ended": "a * 2026-01 2026-02 · 0.15 7 1.2",
}


@pytest.mark.parametrize("drawing", SAME.values(), ids=SAME)
def test_what_does_not_change_the_month_does_not_change_the_digest(drawing: str) -> None:
    assert digest(HEAD + drawing) == digest(HEAD + "a * 2026-01 · · 0.15 7 1.2")


@pytest.mark.parametrize("drawing", OTHER.values(), ids=OTHER)
def test_other_terms_have_another_digest(drawing: str) -> None:
    assert digest(HEAD + drawing) != digest(HEAD + "a * 2026-01 · · 0.15 7 1.2")


TIERS = st.builds(
    lambda bounds, prices: (
        *(Tier(up_to, price) for up_to, price in zip(sorted(bounds), prices[1:], strict=False)),
        Tier(None, prices[0]),
    ),
    st.sets(st.integers(1, 2**63 - 1), max_size=5),
    st.lists(st.integers(0, money.PRICE_LIMIT - 1), min_size=6, max_size=6),
)


@given(TIERS)
def test_tiers_are_written_as_they_are_read(tiers: tuple[Tier, ...]) -> None:
    assert tiers_of(tiers_text(tiers)) == tiers
    assert tiers_of(tiers_text(tiers).replace(";", " ; ").replace(":", " : ")) == tiers


def test_the_factors_are_those_of_the_rows_for_all_items() -> None:
    terms: Terms = drawn(FILE).in_force(FEBRUARY)
    assert terms.factors.to_numpy().tolist() == [["0007", 0], ["0042", 150_000_000]]
    assert contracts.TERMS == ("tiers", "discount", "free_calls", "freeze_factor")
