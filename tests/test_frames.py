"""Tables: every departure from what was declared is refused, and nothing changes on the way."""

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from settlement import frames, money, tables
from settlement.decimals import decimals, from_decimals
from settlement.money import LIMIT
from settlement.month import Month
from settlement.tables import ENTRIES, INVOICES, LINES, REJECTS, USAGE, Kind, Table, WrongTable
from tests.drawn import drawn, value

JANUARY = Month(2026, 1)
HOSTILE = [
    "", "\0", "a\0", "a\0b", "a", "A", "007", "7", "é", "e\u0301", "é\u0301", "张三", "張三",
    "\u202egnp", "עברית", "😀", "👩\u200d👩\u200d👧", "\uffff", "\ue000", "\U0010ffff", "\u2028",
    "=1+1", " ", "\r\n", "\t",
]  # fmt: skip
TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def test_the_published_columns_are_those_of_the_contract() -> None:
    """The order, types and nullability that readers of the files rely on."""
    expected = {
        USAGE: "account_id string! item string! interface string! calls int64!",
        LINES: "account_id string! item string! calls int64! tier int16! "
        "unit_price decimal128(18,8) list_amount decimal128(24,8)! voucher_calls int64! "
        "voucher_amount decimal128(24,8)! amount decimal128(24,8)!",
        INVOICES: "account_id string! list_amount decimal128(24,8)! "
        "voucher_amount decimal128(24,8)! amount decimal128(24,8)! rounding decimal128(24,8)! "
        "payable decimal128(18,2)! currency string!",
        ENTRIES: "account_id string! sequence int16! kind string! amount decimal128(18,2)! "
        "hold_month string",
        REJECTS: "file string! row int64! reason string! request_id string account_id string "
        "interface string timestamp string status_code string item string",
    }
    for table, columns in expected.items():
        written = " ".join(
            f"{field.name} {str(field.type).replace(', ', ',')}{'' if field.nullable else '!'}"
            for field in table.published
        )
        assert written == f"month string! revision int16! {columns}"
    assert [(table.name, table.key) for table in expected] == [
        ("usage", ["account_id", "item", "interface"]),
        ("lines", ["account_id", "item"]),
        ("invoices", ["account_id"]),
        ("entries", ["account_id", "sequence"]),
        ("rejects", ["file", "row"]),
    ]


# ---- refusals -----------------------------------------------------------------------------

GOOD = drawn(
    USAGE,
    """
    account_id item interface calls
    anna       a    X         1
    anna       a    Y         2
    anna       b    X         3
    bob        a    X         4
    """,
)
OPEN_ENTRY = drawn(ENTRIES, "account_id sequence kind amount hold_month\nanna 1 debit 1 ·")


def swapped(first: int, second: int) -> pd.DataFrame:
    order = list(range(len(GOOD)))
    order[first], order[second] = order[second], order[first]
    return GOOD.iloc[order].reset_index(drop=True)


def texts(*values: str | None) -> "pd.Series[str]":
    return pd.Series(values, dtype="str")


@pytest.mark.parametrize(
    ("rows", "piece"),
    [
        (GOOD.drop(columns="calls"), "usage: columns"),
        (GOOD.assign(extra=1), "usage: columns"),
        (GOOD[["item", "account_id", "interface", "calls"]], "usage: columns"),
        (GOOD.rename(columns={"calls": "count"}), "usage: columns"),
        (GOOD.assign(calls=GOOD["calls"].astype("int32")), "usage.calls: int32, not int64"),
        (GOOD.assign(calls=GOOD["calls"].astype("float64")), "usage.calls: float64, not int64"),
        (GOOD.assign(calls=GOOD["calls"].astype("Int64")), "usage.calls: Int64, not int64"),
        (GOOD.assign(item=GOOD["item"].astype(object)), "usage.item: object, not str"),
        (GOOD.assign(item=GOOD["item"].astype("category")), "usage.item: category, not str"),
        (GOOD.assign(item=GOOD["item"].astype("string")), "usage.item: string, not str"),
        (GOOD.assign(interface=texts("X", "Y", "Z", None)), "usage.interface: null"),
        (swapped(0, 3), r"usage: key \['anna', 'a', 'Y'\] does not follow \['bob', 'a', 'X'\]"),
        (swapped(1, 2), r"usage: key \['anna', 'a', 'Y'\] does not follow \['anna', 'b', 'X'\]"),
        (GOOD.iloc[[0, 0]], r"key \['anna', 'a', 'X'\] does not follow \['anna', 'a', 'X'\]"),
    ],
)
def test_every_departure_is_refused(rows: pd.DataFrame, piece: str) -> None:
    frames.check(USAGE, GOOD)
    with pytest.raises(WrongTable, match=piece):
        frames.check(USAGE, rows)


@pytest.mark.parametrize(
    ("departure", "piece"),
    [
        ({"calls": [1.0]}, "calls: float64, not whole numbers"),
        ({"calls": ["1"]}, "not whole numbers"),
        ({"calls": [True]}, "calls: bool, not whole numbers"),
        ({"calls": np.array([2**63], np.uint64)}, "calls: a number beyond int64"),
        ({"calls": [1, 2]}, "usage: columns of different lengths"),
        ({"account_id": [None]}, "usage.account_id: null"),
        ({"other": [1]}, "usage: columns"),
    ],
)
def test_columns_that_do_not_make_the_table_are_refused(
    departure: dict[str, object], piece: str
) -> None:
    columns: dict[str, object] = {"account_id": ["a"], "item": ["b"], "interface": ["c"]}
    columns["calls"] = [1]
    assert len(frames.frame(USAGE, columns)) == 1
    with pytest.raises(WrongTable, match=piece):
        frames.frame(USAGE, columns | departure)


def test_a_sequence_beyond_int16_is_refused_and_does_not_wrap() -> None:
    columns = {name: OPEN_ENTRY[name] for name in ENTRIES.names}
    with pytest.raises(WrongTable, match="sequence: a number beyond int16"):
        frames.frame(ENTRIES, columns | {"sequence": [2**15]})


def altered(change: Callable[[pa.Table], pa.Table]) -> pa.Table:
    return change(frames.to_arrow(USAGE, GOOD, JANUARY, 1))


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        (lambda t: t.drop_columns("month"), "the file's columns are not the declared ones"),
        (lambda t: t.select(t.column_names[::-1]), "the file's columns are not the declared"),
        (
            lambda t: t.set_column(5, "calls", t["calls"].cast(pa.int32())),
            "the file's columns are not the declared ones",
        ),
        (
            lambda t: t.cast(pa.schema([f.with_nullable(True) for f in t.schema])),
            "the file's columns are not the declared ones",
        ),
        (lambda t: t.take([1, 0, 2, 3]), "does not follow"),
        (
            lambda t: pa.table(
                [*t.columns[:2], pa.nulls(4, pa.string()), *t.columns[3:]], schema=t.schema
            ),
            "usage.account_id: null",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(
    change: Callable[[pa.Table], pa.Table], piece: str
) -> None:
    with pytest.raises(WrongTable, match=piece):
        frames.to_frame(USAGE, altered(change))


def test_an_amount_larger_than_can_be_is_refused_when_read() -> None:
    for kind, amount in (
        (Kind.AMOUNT, Decimal("92233720368.54775808")),
        (Kind.AMOUNT, Decimal("-9999999999999999.0")),
        (Kind.PAYABLE, Decimal("92233720368.55")),
        (Kind.PAYABLE, Decimal("-92233720368.55")),
        (Kind.PAYABLE, Decimal("9999999999999999.99")),
    ):
        column = pa.chunked_array([pa.array([Decimal(0), amount], tables.DECIMALS[kind])])
        with pytest.raises(WrongTable, match="an amount is larger than can be"):
            from_decimals(column, kind)


def test_the_smallest_payable_that_64_bits_hold_is_refused_when_read() -> None:
    """It has a digit more than the column says, and is its own opposite in 64 bits."""
    halves = np.array([-(2**63), -1], np.int64)
    column = pa.Array.from_buffers(
        tables.DECIMALS[Kind.PAYABLE], 1, [None, pa.py_buffer(halves.tobytes())]
    )
    with pytest.raises(WrongTable, match="an amount is larger than can be"):
        from_decimals(pa.chunked_array([column]), Kind.PAYABLE)


def test_a_payable_that_is_not_whole_in_cents_is_not_published() -> None:
    with pytest.raises(WrongTable, match="not whole in minor units"):
        decimals(np.array([10**6 + 1]), Kind.PAYABLE)


def test_a_count_may_give_texts_as_dictionaries_in_parts() -> None:
    given = pa.Table.from_pandas(GOOD, preserve_index=False)
    coded = given.set_column(1, "item", given["item"].dictionary_encode())
    parts = pa.concat_tables([coded.slice(n, 1) for n in range(len(coded))])
    pd.testing.assert_frame_equal(frames.of_arrow(USAGE, parts), GOOD)
    with pytest.raises(WrongTable, match="does not follow"):
        frames.of_arrow(USAGE, parts.take([1, 0]))


# ---- there and back -----------------------------------------------------------------------

SIGNED = st.integers(-LIMIT - 1, LIMIT)


def cells(kind: Kind, *, nullable: bool) -> st.SearchStrategy[str | int | None]:
    if kind is Kind.TEXT:
        return TEXTS | st.none() if nullable else TEXTS
    if kind is Kind.PRICE:
        return st.just(-1) | st.integers(0, money.PRICE_LIMIT - 1)
    if kind is Kind.PAYABLE:
        return st.integers(-(LIMIT // 10**6), LIMIT // 10**6).map(lambda cents: cents * 10**6)
    if kind is Kind.INT16:
        return st.integers(-(2**15), 2**15 - 1)
    return SIGNED


@st.composite
def drawn_frames(draw: st.DrawFn, table: Table) -> pd.DataFrame:
    """Draw a table's rows, in the order of its key: text by its UTF-8 bytes."""
    row = st.tuples(*(cells(each.kind, nullable=each.nullable) for each in table.columns))

    def key(drawn_row: tuple[str | int | None, ...]) -> tuple[bytes | int | None, ...]:
        return tuple(
            cell.encode() if isinstance(cell, str) else cell
            for cell in drawn_row[: table.key_length]
        )

    drawn_rows = draw(st.lists(row, max_size=8, unique_by=key))
    drawn_rows.sort(key=key)
    return frames.frame(
        table, {name: [row[at] for row in drawn_rows] for at, name in enumerate(table.names)}
    )


@pytest.mark.parametrize("table", tables.PUBLISHED, ids=lambda table: table.name)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_published_table_is_read_back_as_it_was(table: Table, data: st.DataObject) -> None:
    rows = data.draw(drawn_frames(table))
    published = frames.to_arrow(table, rows, JANUARY, 7)
    published.validate(full=True)
    assert published.schema.equals(table.published)
    assert set(published["month"].to_pylist()) <= {"2026-01"}
    assert set(published["revision"].to_pylist()) <= {7}
    pd.testing.assert_frame_equal(frames.to_frame(table, published), rows)
    pieces = pa.concat_tables([published.slice(0, 3), published.slice(3)])
    pd.testing.assert_frame_equal(frames.to_frame(table, pieces), rows)
    for column in table.columns:
        assert published[column.name].to_pylist() == [
            as_published(column.kind, cell, nullable=column.nullable)
            for cell in rows[column.name].tolist()
        ]


def as_published(kind: Kind, cell: object, *, nullable: bool) -> object:
    """What a cell is in the file: the same text, the same number, the exact decimal."""
    if nullable and (cell == -1 or not isinstance(cell, str | int)):
        return None
    return Decimal(cell) / 10**8 if kind.is_money and isinstance(cell, int) else cell


@settings(deadline=None)
@given(st.lists(TEXTS, unique=True, max_size=30))
@example(HOSTILE)
def test_text_is_in_the_order_of_its_utf_8_bytes(accounts: list[str]) -> None:
    accounts.sort(key=str.encode)
    columns = {"item": ["i"] * len(accounts), "interface": ["x"] * len(accounts)}
    columns |= {"account_id": accounts}
    rows = frames.frame(USAGE, columns | {"calls": range(len(accounts))})
    assert rows["account_id"].tolist() == accounts
    for at in range(len(accounts) - 1):
        with pytest.raises(WrongTable, match="does not follow"):
            frames.check(USAGE, rows.iloc[[at + 1, at]])


def test_an_order_that_others_use_is_refused() -> None:
    """UTF-16 order (Java, JavaScript) puts 😀 before U+FFFF; bytes put it behind."""
    emoji, last = "😀", "\uffff"
    assert sorted([last, emoji], key=lambda text: text.encode("utf-16-be")) == [emoji, last]
    columns = {"item": ["i"] * 2, "interface": ["x"] * 2, "calls": [1, 2]}
    assert len(frames.frame(USAGE, columns | {"account_id": [last, emoji]})) == 2
    with pytest.raises(WrongTable, match="does not follow"):
        frames.frame(USAGE, columns | {"account_id": [emoji, last]})


# ---- odds and ends ------------------------------------------------------------------------


@pytest.mark.parametrize("table", tables.PUBLISHED, ids=lambda table: table.name)
def test_an_empty_table_has_every_column(table: Table) -> None:
    rows = frames.empty(table)
    assert list(rows.columns) == table.names
    pd.testing.assert_frame_equal(
        frames.to_frame(table, frames.to_arrow(table, rows, JANUARY, 1)), rows
    )


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=12))
def test_starts_are_the_first_rows_of_runs(pairs: list[tuple[str, str]]) -> None:
    rows = pd.DataFrame(
        {"a": texts(*(pair[0] for pair in pairs)), "b": texts(*(pair[1] for pair in pairs))}
    )
    expected = [n for n in range(len(pairs)) if n == 0 or pairs[n] != pairs[n - 1]]
    assert frames.starts(rows, ["a", "b"]).tolist() == expected


@given(st.integers(0, 20), st.integers(1, 7))
def test_batches_are_the_rows_in_slices(length: int, size: int) -> None:
    rows = pd.DataFrame({"n": range(length)})
    slices = list(frames.batches(rows, size))
    assert [n for each in slices for n in each["n"].tolist()] == list(range(length))
    assert len(slices) >= 1
    assert max(map(len, slices)) <= size


def test_drawings_are_read_as_written() -> None:
    assert value(Kind.AMOUNT, "-1.5") == -150_000_000
    assert value(Kind.PRICE, "·") == -1
    assert value(Kind.TEXT, "·") is None
    assert value(Kind.INT64, "3_000_001") == 3_000_001
