"""The laws: a sound settlement breaks none; each, broken once, says its sentence."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import frames, ledger, money, tables
from settlement.invoicing import invoice
from settlement.laws import Posted, Statement, broken, broken_ledger, broken_posting
from settlement.ledger import HOLDS
from settlement.month import Month
from settlement.prices import Freeze, Item, Tier, Version
from settlement.rating import rate
from settlement.tables import ENTRIES, INVOICES, REJECTS, USAGE
from tests.drawn import drawn

CNY = money.currency("CNY")
COMPARISON = Item(
    "comparison",
    "人脸比对",
    ("Compare", "Create"),
    (Tier(10_000, 0), Tier(None, money.units("0.0032"))),
    1000,
)
VERSION = Version(Month(2018, 1), (COMPARISON,), Freeze(Fraction(6, 5)))
NO_HOLDS = frames.empty(HOLDS)


def stated(usage: pd.DataFrame, rejects: pd.DataFrame) -> Statement:
    """State January by the program's own functions."""
    lines = rate(usage, VERSION)
    invoices = invoice(lines, CNY)
    frozen = ledger.freeze(Month(2026, 1), invoices, VERSION.freeze, CNY)
    billed = int(usage["calls"].sum())
    reasons = rejects["reason"].value_counts().to_dict()
    buckets = {"billed": billed, "duplicate": 2, "outside_month": 1}
    buckets |= {f"rejected.{reason}": int(count) for reason, count in reasons.items()}
    return Statement(
        dict.fromkeys(tables.ROWS, 0) | {"read": billed + 3 + len(rejects)} | buckets,
        usage,
        lines,
        invoices,
        ledger.post(invoices, NO_HOLDS, frozen),
        rejects,
    )


SOUND = stated(
    drawn(
        USAGE,
        """
        account_id item       interface calls
        anna       comparison Compare   6_001
        anna       comparison Create    4_000
        bob        comparison Compare   20_000
        carol      comparison Compare   7
        """,
    ),
    drawn(
        REJECTS,
        """
        file       row reason             request_id account_id interface timestamp status_code item
        a.parquet  3   missing_timestamp  r-0        anna       Compare   ·         0           ·
        a.parquet  7   missing_account_id r-1        ·          Compare   ·         0           ·
        """,
    ),
)


def test_a_sound_settlement_breaks_no_law() -> None:
    assert broken(SOUND, CNY) == []


def test_an_empty_settlement_breaks_no_law() -> None:
    assert broken(stated(frames.empty(USAGE), frames.empty(REJECTS)), CNY) == []


def with_rows(**counts: int) -> Statement:
    """The sound statement with other counts of rows; ``__`` stands for the dot of a bucket."""
    named = {name.replace("__", "."): count for name, count in counts.items()}
    return dataclasses.replace(SOUND, rows=dict(SOUND.rows) | named)


def with_cell(table: str, column: str, row: int, value: Any) -> Statement:
    """The sound statement with one cell of one table replaced."""
    return with_table(table, cell(getattr(SOUND, table), column, row, value))


def with_table(table: str, rows: pd.DataFrame) -> Statement:
    named: dict[str, Any] = {table: rows}
    return dataclasses.replace(SOUND, **named)


def cell(rows: pd.DataFrame, column: str, row: int, value: Any) -> pd.DataFrame:
    values = rows[column].tolist()
    values[row] = value
    return rows.assign(**{column: pd.Series(values, dtype=rows[column].dtype)})


def without(table: str, row: int) -> Statement:
    rows = getattr(SOUND, table)
    return with_table(table, rows.drop(index=row).reset_index(drop=True))


BROKEN: list[tuple[Callable[[], Statement], str]] = [
    (
        lambda: with_rows(read=30_014),
        "rows read 30,014 ≠ the sum of the buckets 30,013 (difference 1)",
    ),
    (
        lambda: with_rows(billed=30_007, read=30_012),
        "calls billed 30,007 ≠ the calls of usage 30,008 (difference -1)",
    ),
    (
        lambda: with_rows(rejected__missing_account_id=3, read=30_015),
        "rejected.missing_account_id 3 ≠ such rows of rejects 1 (difference 2)",
    ),
    (
        lambda: with_cell("lines", "calls", 1, 20_001),
        (
            "usage and lines: sum 30,008 ≠ sum 30,009 (difference -1), "
            "first account_id 'bob', item 'comparison': 20,000 ≠ 20,001"
        ),
    ),
    (
        lambda: with_cell("lines", "item", 2, "other"),
        "usage and lines: first account_id 'carol', item 'comparison': 7 ≠ nothing",
    ),
    (
        lambda: without("lines", 0),
        (
            "usage and lines: sum 30,008 ≠ sum 20,007 (difference 10,001), "
            "first account_id 'anna', item 'comparison': 10,001 ≠ nothing"
        ),
    ),
    (
        lambda: with_cell("invoices", "list_amount", 0, 0),
        (
            "the list_amount of lines and of invoices: sum 96.0032 ≠ sum 64.00 "
            "(difference 32.0032), first account_id 'anna': 32.0032 ≠ 0.00"
        ),
    ),
    (
        lambda: with_cell("invoices", "voucher_amount", 0, 1),
        (
            "the voucher_amount of lines and of invoices: sum 6.40 ≠ sum 3.20000001 "
            "(difference 3.19999999), first account_id 'anna': 3.20 ≠ 0.00000001"
        ),
    ),
    (
        lambda: with_cell("invoices", "amount", 1, 7),
        (
            "the amount of lines and of invoices: sum 89.6032 ≠ sum 28.80320007 "
            "(difference 60.79999993), first account_id 'bob': 60.80 ≠ 0.00000007"
        ),
    ),
    (
        lambda: with_cell("invoices", "account_id", 2, "carla"),
        "the amount of lines and of invoices: first account_id 'carla': nothing ≠ 0.00",
    ),
    (
        lambda: without("invoices", 2),
        "the amount of lines and of invoices: first account_id 'carol': 0.00 ≠ nothing",
    ),
    (
        lambda: with_cell("lines", "amount", 0, 5),
        "list − voucher is not amount in lines",
    ),
    (
        lambda: with_cell("invoices", "amount", 0, 5),
        "list − voucher is not amount in invoices",
    ),
    (lambda: with_cell("lines", "amount", 0, -5), "an amount below 0 in lines"),
    (lambda: with_cell("invoices", "list_amount", 0, -5), "an amount below 0 in invoices"),
    (
        lambda: with_cell("invoices", "payable", 0, 2_881_000_000),
        "payable − amount is not rounding in invoices",
    ),
    (
        lambda: with_cell("invoices", "rounding", 0, 500_001),
        "a rounding of more than half a minor unit in invoices",
    ),
    (
        lambda: with_cell("invoices", "payable", 0, 2_880_320_000),
        "a payable that is not whole in minor units",
    ),
    (
        lambda: with_cell("invoices", "currency", 1, "EUR"),
        "an invoice in another currency than CNY",
    ),
    (lambda: with_cell("entries", "amount", 0, 0), "an entry of 0 or less"),
    (lambda: with_cell("entries", "kind", 0, "refund"), "an entry of an unknown kind"),
    (
        lambda: with_cell("entries", "hold_month", 0, "2026-01"),
        "an entry whose hold_month does not fit its kind",
    ),
    (
        lambda: with_cell("entries", "hold_month", 1, None),
        "an entry whose hold_month does not fit its kind",
    ),
    (
        lambda: with_cell("entries", "sequence", 1, 3),
        "an account whose entries are not numbered 1, 2, …",
    ),
]


@pytest.mark.parametrize(("breaking", "sentence"), BROKEN, ids=[each[1][:50] for each in BROKEN])
def test_each_law_broken_says_its_sentence(
    breaking: Callable[[], Statement], sentence: str
) -> None:
    assert sentence in broken(breaking(), CNY)


# ---- posting ------------------------------------------------------------------------------


def due(invoices: pd.DataFrame) -> pd.DataFrame:
    """What a first settlement must debit."""
    return invoices[["account_id", "payable"]].rename(columns={"payable": "amount"})


def test_a_posting_moves_what_was_due() -> None:
    frozen = ledger.freeze(Month(2026, 1), SOUND.invoices, VERSION.freeze, CNY)
    assert broken_posting(SOUND.entries, NO_HOLDS, due(SOUND.invoices), frozen) == []
    assert broken_posting(SOUND.entries, frozen, due(SOUND.invoices), frozen) == [
        "frozen − unfrozen 107.52 ≠ due 0.00 (difference 107.52)"
    ]
    assert broken_posting(SOUND.entries, NO_HOLDS, due(SOUND.invoices.iloc[:1]), frozen) == [
        "debited − credited 89.60 ≠ due 28.80 (difference 60.80)"
    ]
    assert broken_posting(SOUND.entries, NO_HOLDS, due(SOUND.invoices), NO_HOLDS) == [
        "frozen − unfrozen 107.52 ≠ due 0.00 (difference 107.52)"
    ]


# ---- a whole book -------------------------------------------------------------------------

ENTRY = "account_id sequence kind amount hold_month"


def posted(month: str, revision: int, payable: str, entries: str) -> Posted:
    """Draw one settlement: ``payable`` lists account and amount, ``entries`` the entries."""
    bills = [pair.split() for pair in payable.split(",") if pair.strip()]
    invoices = "account_id list_amount voucher_amount amount rounding payable currency\n"
    invoices += "\n".join(f"{account} {paid} 0 {paid} 0 {paid} CNY" for account, paid in bills)
    listed = "\n".join([ENTRY, *entries.split(",")])
    return Posted(Month.parse(month), revision, drawn(INVOICES, invoices), drawn(ENTRIES, listed))


JANUARY = posted("2026-01", 1, "anna 10", "anna 1 debit 10 ·, anna 2 freeze 12 2026-01")
RELEASE = "anna 1 unfreeze 12 2026-01"
FEBRUARY = posted(
    "2026-02", 1, "anna 20", f"{RELEASE}, anna 2 debit 20 ·, anna 3 freeze 24 2026-02"
)
LOWERED = posted(
    "2026-02",
    2,
    "anna 15",
    "anna 1 unfreeze 24 2026-02, anna 2 credit 5 ·, anna 3 freeze 18 2026-02",
)
LATE = posted("2025-12", 1, "anna 3, bob 4", "anna 1 debit 3 ·, bob 1 debit 4 ·")
LATE_REVISED = posted("2025-12", 2, "anna 3, bob 1", "bob 1 credit 3 ·")


def test_a_sound_book_breaks_no_law() -> None:
    book = [JANUARY, FEBRUARY, LOWERED, LATE, LATE_REVISED]
    for length in range(len(book) + 1):
        assert broken_ledger(book[:length]) == []


BROKEN_BOOKS = {
    "2026-01: debits − credits and payable: sum 10.00 ≠ sum 11.00 (difference -1.00), "
    "first account_id 'anna': 10.00 ≠ 11.00": [
        posted("2026-01", 1, "anna 11", "anna 1 debit 10 ·")
    ],
    "2026-01: debits − credits and payable: sum 10.00 ≠ sum 11.00 (difference -1.00), "
    "first account_id 'bob': nothing ≠ 1.00": [
        posted("2026-01", 1, "anna 10, bob 1", "anna 1 debit 10 ·")
    ],
    "2026-02: debits − credits and payable: sum 20.00 ≠ sum 15.00 (difference 5.00), "
    "first account_id 'anna': 20.00 ≠ 15.00": [
        JANUARY,
        FEBRUARY,
        posted("2026-02", 2, "anna 15", ""),
    ],
    "2026-01 r1: a freeze under another month, first account_id 'anna': 12.00 of 2026-02": [
        posted("2026-01", 1, "", "anna 1 freeze 12 2026-02")
    ],
    "2026-02 r1: an unfreeze that is not exactly one open hold, "
    "first account_id 'anna': 11.00 of 2026-01": [
        JANUARY,
        posted("2026-02", 1, "", "anna 1 unfreeze 11 2026-01"),
    ],
    "2026-01 r1: an unfreeze that is not exactly one open hold, "
    "first account_id 'anna': 12.00 of 2025-12": [
        posted("2026-01", 1, "", "anna 1 unfreeze 12 2025-12")
    ],
    "2026-02 r1: 1 hold not released, first account_id 'anna': 12.00 of 2026-01": [
        JANUARY,
        posted("2026-02", 1, "", ""),
    ],
    "2025-12 r1: moves holds, though 2026-01 was settled before it": [
        JANUARY,
        posted("2025-12", 1, "", "bob 1 freeze 1 2025-12"),
    ],
    "2026-01 r2: an account with two open holds of one month, "
    "first account_id 'anna': 12.00 of 2026-01": [
        JANUARY,
        posted("2026-01", 2, "anna 10", "anna 1 freeze 12 2026-01"),
    ],
    "open holds of 2026-01, though 2026-02 is the newest month": [
        JANUARY,
        posted("2026-02", 1, "", ""),
    ],
}


@pytest.mark.parametrize(("sentence", "book"), BROKEN_BOOKS.items())
def test_each_law_of_a_book_broken_says_its_sentence(sentence: str, book: list[Posted]) -> None:
    assert sentence in broken_ledger(book)


def with_holds(book: list[Posted]) -> list[Posted]:
    """The same settlements, and what the bills of each freeze."""
    return [
        dataclasses.replace(
            each, frozen=ledger.freeze(each.month, each.invoices, VERSION.freeze, CNY)
        )
        for each in book
    ]


def test_what_is_open_is_what_the_newest_month_freezes() -> None:
    book = [JANUARY, FEBRUARY, LOWERED, LATE, LATE_REVISED]
    assert broken_ledger(with_holds(book)) == []


UNHELD = {
    "2026-02 r2: open holds and what its bills freeze: sum 24.00 ≠ sum 18.00 (difference 6.00), "
    "first account_id 'anna', hold_month '2026-02': 24.00 ≠ 18.00": [
        JANUARY,
        FEBRUARY,
        posted("2026-02", 2, "anna 15", "anna 1 credit 5 ·"),
    ],
    "2026-01 r1: open holds and what its bills freeze: sum 0.00 ≠ sum 12.00 (difference -12.00), "
    "first account_id 'anna', hold_month '2026-01': nothing ≠ 12.00": [
        posted("2026-01", 1, "anna 10", "anna 1 debit 10 ·")
    ],
    "2026-02 r2: open holds and what its bills freeze: sum 0.00 ≠ sum 24.00 (difference -24.00), "
    "first account_id 'anna', hold_month '2026-02': nothing ≠ 24.00": [
        JANUARY,
        FEBRUARY,
        posted("2026-02", 2, "anna 20", "anna 1 unfreeze 24 2026-02"),
    ],
}


@pytest.mark.parametrize(("sentence", "book"), UNHELD.items())
def test_holds_other_than_the_bills_make_are_found(sentence: str, book: list[Posted]) -> None:
    assert sentence in broken_ledger(with_holds(book))


def test_a_hold_released_twice_is_found() -> None:
    twice = posted("2026-02", 1, "", f"{RELEASE}, anna 2 unfreeze 12 2026-01")
    assert (
        "2026-02 r1: an unfreeze that is not exactly one open hold, "
        "first account_id 'anna': 12.00 of 2026-01"
    ) in broken_ledger([JANUARY, twice])


def test_holds_of_a_settlement_that_is_gone_are_told_as_money_of_accounts() -> None:
    assert broken_ledger(with_holds([FEBRUARY])) == [
        (
            "2026-02 r1: an unfreeze that is not exactly one open hold, "
            "first account_id 'anna': 12.00 of 2026-01"
        ),
        (
            "2026-02 r1: open holds and what its bills freeze: sum 12.00 ≠ sum 24.00 "
            "(difference -12.00), first account_id 'anna', hold_month '2026-01': -12.00 ≠ nothing"
        ),
        "open holds of 2026-01, though 2026-02 is the newest month",
    ]


def test_a_hold_released_again_a_month_later_is_found() -> None:
    again = posted("2026-03", 1, "", f"{RELEASE}, anna 2 unfreeze 24 2026-02")
    assert broken_ledger([JANUARY, FEBRUARY, again])[:1] == [
        (
            "2026-03 r1: an unfreeze that is not exactly one open hold, "
            "first account_id 'anna': 12.00 of 2026-01"
        )
    ]


def test_a_hold_without_its_month_is_found_and_stops_nothing() -> None:
    nameless = posted("2026-01", 1, "", "anna 1 freeze 12 ·")
    assert broken(dataclasses.replace(SOUND, entries=nameless.entries), CNY) == [
        "an entry whose hold_month does not fit its kind"
    ]
    assert broken_ledger([nameless]) == []


def test_net_debits_add_up_over_revisions() -> None:
    net = ledger.net_debits([LATE.entries, LATE_REVISED.entries])
    assert net.to_numpy().tolist() == [["anna", money.units("3")], ["bob", money.units("1")]]
    assert ledger.net_debits([JANUARY.entries.iloc[:0]]).empty


# ---- any month ----------------------------------------------------------------------------

CALLS = st.dictionaries(
    st.tuples(
        st.sampled_from(["007", "7", "anna", "张三"]), st.sampled_from(["Compare", "Create"])
    ),
    st.integers(1, 30_000),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(CALLS, min_size=1, max_size=4))
def test_months_in_a_row_break_no_law(months: list[dict[tuple[str, str], int]]) -> None:
    history: list[Posted] = []
    month = Month(2025, 11)
    for calls in months:
        keys = sorted(calls)
        usage = frames.frame(
            USAGE,
            {
                "account_id": [account for account, _ in keys],
                "item": ["comparison"] * len(keys),
                "interface": [interface for _, interface in keys],
                "calls": [calls[key] for key in keys],
            },
        )
        invoices = invoice(rate(usage, VERSION), CNY)
        held = ledger.open_holds([each.entries for each in history])
        frozen = ledger.freeze(month, invoices, VERSION.freeze, CNY)
        entries = ledger.post(invoices, held, frozen)
        assert broken(dataclasses.replace(stated(usage, SOUND.rejects), entries=entries), CNY) == []
        assert broken_posting(entries, held, due(invoices), frozen) == []
        history.append(Posted(month, 1, invoices, entries))
        month = month.next
    assert broken_ledger(history) == []


def test_adjustments_are_differences_and_what_the_entries_move() -> None:
    columns = "account_id previous_payable payable adjustment document\n"
    sound = drawn(tables.ADJUSTMENTS, f"{columns}anna 0 28.80 28.80 S1\nbob 0 60.80 60.80 S2")
    assert broken(dataclasses.replace(SOUND, adjustments=sound), CNY) == []
    wrong = cell(sound, "payable", 0, 1_000_000)
    assert broken(dataclasses.replace(SOUND, adjustments=wrong), CNY) == [
        "payable − previous payable is not adjustment"
    ]
    missing = dataclasses.replace(SOUND, adjustments=sound.iloc[:1])
    assert broken(missing, CNY) == [
        (
            "debits − credits and adjustments: sum 89.60 ≠ sum 28.80 (difference 60.80), "
            "first account_id 'bob': 60.80 ≠ nothing"
        )
    ]


def test_what_contracts_price_are_lines() -> None:
    names = ["account_id", "item", "calls", "list_amount", "voucher_amount", "amount"]
    rows = SOUND.lines[names].head(1).copy()
    for name in ("list_amount", "voucher_amount", "amount"):
        rows[f"book_{name}"] = rows[name]
    assert not broken(with_table("contract_lines", rows), CNY)
    wrong = cell(rows, "amount", 0, 1)
    assert broken(with_table("contract_lines", wrong), CNY) == [
        "1 row of contract_lines not among lines"
    ]
    for column in ("account_id", "item"):
        for other in ("aaa", "zzz"):
            wrong = cell(rows, column, 0, other)
            assert broken(with_table("contract_lines", wrong), CNY) == [
                "1 row of contract_lines not among lines"
            ]
    wrong = cell(rows, "book_amount", 0, 1)
    assert broken(with_table("contract_lines", wrong), CNY) == [
        "list − voucher is not amount by the price book in contract_lines"
    ]
