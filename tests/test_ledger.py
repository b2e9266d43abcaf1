"""The ledger, as drawings: the holds before, the bills, what is posted, the holds after."""

from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import frames, ledger, money
from settlement.errors import BadInput
from settlement.ledger import HOLDS
from settlement.month import Month
from settlement.prices import Freeze
from settlement.tables import ENTRIES, INVOICES, WrongTable
from tests.drawn import drawn

CNY = money.currency("CNY")
RULE = Freeze(Fraction(6, 5))
JANUARY, FEBRUARY = Month(2026, 1), Month(2026, 2)
NO_HOLDS = frames.empty(HOLDS)
NO_ENTRIES = frames.empty(ENTRIES)


def bills(drawing: str) -> pd.DataFrame:
    """Draw invoices by account and payable; nothing else of them matters to the ledger."""
    header, *rows = [line.split() for line in drawing.strip().splitlines()]
    assert header == ["account_id", "payable"]
    columns = "account_id list_amount voucher_amount amount rounding payable currency"
    body = [f"{account} {paid} 0 {paid} 0 {paid} CNY" for account, paid in rows]
    return drawn(INVOICES, "\n".join([columns, *body]))


def settled(month: Month, invoices: pd.DataFrame, holds: pd.DataFrame) -> pd.DataFrame:
    return ledger.post(invoices, holds, ledger.freeze(month, invoices, RULE, CNY))


def same(got: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(got, expected)


JANUARY_BILLS = bills(
    """
    account_id  payable
    anna          28.80
    bob          100.00
    carol          0.00
    """
)
JANUARY_ENTRIES = drawn(
    ENTRIES,
    """
    account_id sequence kind    amount  hold_month
    anna       1        debit    28.80  ·
    anna       2        freeze   34.56  2026-01
    bob        1        debit   100.00  ·
    bob        2        freeze  120.00  2026-01
    """,
)
JANUARY_HOLDS = drawn(
    HOLDS,
    """
    account_id hold_month amount
    anna       2026-01     34.56
    bob        2026-01    120.00
    """,
)


def test_the_first_month_debits_and_freezes_120_percent() -> None:
    same(settled(JANUARY, JANUARY_BILLS, NO_HOLDS), JANUARY_ENTRIES)
    same(ledger.open_holds([JANUARY_ENTRIES]), JANUARY_HOLDS)


FEBRUARY_BILLS = bills(
    """
    account_id  payable
    anna          50.00
    carol          0.00
    dave           0.01
    """
)
FEBRUARY_ENTRIES = drawn(
    ENTRIES,
    """
    account_id sequence kind      amount  hold_month
    anna       1        unfreeze   34.56  2026-01
    anna       2        debit      50.00  ·
    anna       3        freeze     60.00  2026-02
    bob        1        unfreeze  120.00  2026-01
    dave       1        debit       0.01  ·
    dave       2        freeze      0.01  2026-02
    """,
)
FEBRUARY_HOLDS = drawn(
    HOLDS,
    """
    account_id hold_month amount
    anna       2026-02     60.00
    dave       2026-02      0.01
    """,
)


def test_the_next_month_unfreezes_then_debits_then_freezes() -> None:
    """Bob has gone and gets his hold back; carol pays nothing; dave is new."""
    same(settled(FEBRUARY, FEBRUARY_BILLS, JANUARY_HOLDS), FEBRUARY_ENTRIES)
    same(ledger.open_holds([JANUARY_ENTRIES, FEBRUARY_ENTRIES]), FEBRUARY_HOLDS)


def test_a_bill_of_zero_gives_the_hold_back_and_makes_none() -> None:
    zero = bills("account_id payable\nanna 0.00\nbob 0.00")
    expected = drawn(
        ENTRIES,
        """
        account_id sequence kind      amount  hold_month
        anna       1        unfreeze   34.56  2026-01
        bob        1        unfreeze  120.00  2026-01
        """,
    )
    same(settled(FEBRUARY, zero, JANUARY_HOLDS), expected)
    assert ledger.open_holds([JANUARY_ENTRIES, expected]).empty


def test_an_account_has_at_most_as_many_entries_as_can_be_numbered() -> None:
    most = 2**15 - 1
    held = pd.DataFrame(
        {
            "account_id": pd.array(["anna"] * (most + 1), dtype="str"),
            "hold_month": pd.array(["2026-01"] * (most + 1), dtype="str"),
            "amount": [1_000_000] * (most + 1),
        }
    )
    assert ledger.entries({"unfreeze": held[:most]})["sequence"].iloc[-1] == most
    with pytest.raises(WrongTable, match=r"^an account has more entries than can be numbered$"):
        ledger.entries({"unfreeze": held})


def test_an_account_that_always_is_free_has_no_entries() -> None:
    free = bills("account_id payable\ncarol 0.00")
    assert settled(JANUARY, free, NO_HOLDS).empty
    assert settled(JANUARY, frames.empty(INVOICES), NO_HOLDS).empty
    assert ledger.open_holds([]).empty
    assert ledger.open_holds([NO_ENTRIES]).empty


def test_a_month_settled_late_is_only_debited() -> None:
    expected = drawn(
        ENTRIES,
        """
        account_id sequence kind    amount  hold_month
        anna       1        debit    28.80  ·
        bob        1        debit   100.00  ·
        """,
    )
    same(ledger.post(JANUARY_BILLS, NO_HOLDS, NO_HOLDS), expected)


def test_after_a_gap_every_open_hold_is_released_oldest_first() -> None:
    old = drawn(
        HOLDS,
        """
        account_id hold_month amount
        anna       2025-09     1.00
        anna       2025-11     2.00
        bob        2025-11     3.00
        """,
    )
    expected = drawn(
        ENTRIES,
        """
        account_id sequence kind      amount  hold_month
        anna       1        unfreeze    1.00  2025-09
        anna       2        unfreeze    2.00  2025-11
        anna       3        debit      28.80  ·
        anna       4        freeze     34.56  2026-01
        bob        1        unfreeze    3.00  2025-11
        bob        2        debit     100.00  ·
        bob        3        freeze    120.00  2026-01
        """,
    )
    same(settled(JANUARY, JANUARY_BILLS, old), expected)


def test_a_revision_credits_between_unfreezing_and_freezing() -> None:
    credit = pd.DataFrame({"account_id": pd.Series(["anna"], dtype="str"), "amount": [880_000_000]})
    smaller = drawn(HOLDS, "account_id hold_month amount\nanna 2026-01 24.00")
    expected = drawn(
        ENTRIES,
        """
        account_id sequence kind      amount  hold_month
        anna       1        unfreeze   34.56  2026-01
        anna       2        credit      8.80  ·
        anna       3        freeze     24.00  2026-01
        """,
    )
    posted = ledger.entries(
        {"freeze": smaller, "credit": credit, "unfreeze": JANUARY_HOLDS.iloc[:1]}
    )
    same(posted, expected)
    after = drawn(HOLDS, "account_id hold_month amount\nanna 2026-01 24.00\nbob 2026-01 120.00")
    same(ledger.open_holds([JANUARY_ENTRIES, posted]), after)


@pytest.mark.parametrize(
    ("factor", "base", "hold"),
    [
        ("6/5", "payable", "34.56"),
        ("6/5", "list", "38.40"),  # 1.2 × 32.0032 = 38.40384
        ("1", "payable", "28.80"),
        ("0.00017361", "payable", None),  # 0.004999968: a hold of 0.00 is none
        ("0.00017362", "payable", "0.01"),  # 0.005000256
        ("0", "payable", None),
    ],
)
def test_a_hold_is_factor_times_base_half_up(factor: str, base: str, hold: str | None) -> None:
    invoices = drawn(
        INVOICES,
        """
        account_id  list_amount voucher_amount amount   rounding  payable  currency
        anna        32.0032     3.2            28.8032  -0.0032   28.80    CNY
        """,
    )
    rule = Freeze(Fraction(factor), "list" if base == "list" else "payable")
    made = ledger.freeze(JANUARY, invoices, rule, CNY)
    held = f"anna 2026-01 {hold}" if hold else ""
    same(made, drawn(HOLDS, f"account_id hold_month amount\n{held}"))


def test_holds_beyond_the_bound_are_refused() -> None:
    large = bills("account_id payable\nanna 80000000000.00")
    with pytest.raises(BadInput, match="a hold passes"):
        ledger.freeze(JANUARY, large, RULE, CNY)
    two = bills("account_id payable\nanna 40000000000.00\nbob 40000000000.00")
    with pytest.raises(BadInput, match="the month's holds passes"):
        ledger.freeze(JANUARY, two, RULE, CNY)


def test_entries_added_up_by_kind() -> None:
    assert ledger.moved(FEBRUARY_ENTRIES) == {
        "unfrozen": money.units("154.56"),
        "debited": money.units("50.01"),
        "credited": 0,
        "frozen": money.units("60.01"),
    }
    assert set(ledger.moved(NO_ENTRIES).values()) == {0}


MONTHS = st.lists(
    st.dictionaries(st.sampled_from(["007", "7", "anna", "张三", "z"]), st.integers(0, 50)),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=60)
@given(MONTHS)
def test_months_in_a_row_against_a_ledger_of_plain_dictionaries(
    months: list[dict[str, int]],
) -> None:
    """Payables in cents; a hold is 120 % of it, halves up: (12 × cents + 5) // 10."""
    posted: list[pd.DataFrame] = []
    held: dict[str, tuple[str, int]] = {}
    month = Month(2025, 11)
    for cents in months:
        drawing = "\n".join(f"{a} {c // 100}.{c % 100:02d}" for a, c in sorted(cents.items()))
        invoices = bills(f"account_id payable\n{drawing}")
        posted.append(settled(month, invoices, ledger.open_holds(posted)))
        expected = []
        for account in sorted(held.keys() | cents.keys()):
            moves = [("unfreeze", held[account][1], held[account][0])] if account in held else []
            moves += [("debit", cents[account], "")] if cents.get(account) else []
            new = (12 * cents.get(account, 0) + 5) // 10
            moves += [("freeze", new, str(month))] if new else []
            expected += [(account, n, *move) for n, move in enumerate(moves, 1)]
            held.pop(account, None)
            if new:
                held[account] = (str(month), new)
        got = posted[-1]
        assert [
            (account, sequence, kind, amount // 10**6, hold if isinstance(hold, str) else "")
            for account, sequence, kind, amount, hold in got.to_numpy().tolist()
        ] == expected
        month = month.next


def test_a_month_stated_anew_moves_the_difference_and_nothing_else() -> None:
    """Aaron and carol have begun to owe, anna owes less, bob the same, dave has vanished."""
    owed = bills("account_id payable\naaron 1.00\nanna 20.00\nbob 100.00\ncarol 5.00")
    first = bills("account_id payable\nanna 28.80\nbob 100.00\ndave 7.00")
    before = settled(JANUARY, first, NO_HOLDS)
    held = ledger.open_holds([before])
    frozen = ledger.freeze(JANUARY, owed, RULE, CNY)
    posted = ledger.restate(owed, ledger.net_debits([before]), held, frozen)
    expected = drawn(
        ENTRIES,
        """
        account_id sequence kind      amount  hold_month
        aaron      1        debit       1.00  ·
        aaron      2        freeze      1.20  2026-01
        anna       1        unfreeze   34.56  2026-01
        anna       2        credit      8.80  ·
        anna       3        freeze     24.00  2026-01
        carol      1        debit       5.00  ·
        carol      2        freeze      6.00  2026-01
        dave       1        unfreeze    8.40  2026-01
        dave       2        credit      7.00  ·
        """,
    )
    same(posted, expected)
    same(ledger.open_holds([before, posted]), frozen)
    assert ledger.restate(first, ledger.net_debits([before]), held, held).empty


def test_holds_that_differ_by_the_smallest_unit_differ() -> None:
    """Near the largest amount, where a binary float could not tell them apart."""
    held = drawn(HOLDS, "account_id hold_month amount\nanna 2026-01 92233720368.54775807")
    less = drawn(HOLDS, "account_id hold_month amount\nanna 2026-01 92233720368.54775806")
    nobody = bills("account_id payable")
    posted = ledger.restate(nobody, ledger.net_debits([]), held, less)
    assert posted["kind"].tolist() == ["unfreeze", "freeze"]
    assert ledger.restate(nobody, ledger.net_debits([]), held, held).empty


def test_adjustments_show_what_was_and_what_is_payable() -> None:
    debited = ledger.net_debits(
        [settled(JANUARY, bills("account_id payable\nanna 28.80\nbob 1.00"), NO_HOLDS)]
    )
    changed = ledger.adjustments(bills("account_id payable\nanna 30.00\nbob 1.00"), debited)
    assert changed.to_dict("list") == {
        "account_id": ["anna"],
        "previous_payable": [money.units("28.80")],
        "payable": [money.units("30.00")],
        "adjustment": [money.units("1.20")],
    }


def test_an_account_with_a_factor_of_its_own_has_that_held() -> None:
    invoices = bills(
        """
        account_id  payable
        anna          28.80
        bob          100.00
        carol          0.01
        dave           0.01
        """
    )
    own = pd.DataFrame(
        {
            "account_id": pd.array(["bob", "carol", "dave", "zoe"], dtype="str"),
            "freeze_factor": [money.units(factor) for factor in ("1.5", "0.49", "0.5", "0")],
        }
    )
    expected = drawn(
        HOLDS,
        """
        account_id hold_month amount
        anna       2026-01     34.56
        bob        2026-01    150.00
        dave       2026-01      0.01
        """,
    )
    same(ledger.freeze(JANUARY, invoices, RULE, CNY, own), expected)
    own["freeze_factor"] = 0
    assert ledger.freeze(JANUARY, invoices, RULE, CNY, own)["account_id"].tolist() == ["anna"]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**9)),
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 10**11)),
)
def test_own_factors_are_those_of_decimal_arithmetic(
    paid: dict[str, int], factors: dict[str, int]
) -> None:
    lines = "".join(f"{name} {money.text(paid[name] * CNY.minor_unit)}\n" for name in sorted(paid))
    names = sorted(factors)
    own = pd.DataFrame(
        {
            "account_id": pd.array(names, dtype="str"),
            "freeze_factor": pd.array([factors[name] for name in names], dtype="int64").to_numpy(),
        }
    )
    held = ledger.freeze(JANUARY, bills("account_id payable\n" + lines), RULE, CNY, own)
    expected = {
        name: (paid[name] * factors.get(name, 120_000_000) * 2 + 10**8) // (2 * 10**8)
        for name in sorted(paid)
    }
    found = dict(zip(held["account_id"], held["amount"].tolist(), strict=True))
    assert found == {name: cents * CNY.minor_unit for name, cents in expected.items() if cents}


# ---------------------------------------------------------------- derived


def test_holds_of_one_month_are_those_of_all_months_that_are_its() -> None:
    """February's hold is derived from whatever is posted, January's beside it or not."""
    february = settled(FEBRUARY, JANUARY_BILLS, NO_HOLDS)
    posted = [JANUARY_ENTRIES, february]
    every = ledger.open_holds(posted)
    assert len(every) == 4
    for month in (JANUARY, FEBRUARY):
        own = every[every["hold_month"] == str(month)].reset_index(drop=True)
        same(ledger.open_holds(posted, month), own)
    assert ledger.open_holds(posted, FEBRUARY.next).empty


def test_debits_are_added_up_to_the_last_unit() -> None:
    """Beyond 2**53 units no float tells one from the next."""
    most = "92233720368.50"
    entries = drawn(
        ENTRIES,
        f"""
        account_id sequence kind    amount          hold_month
        anna       1        debit   {most}          ·
        bob        1        credit  {most}          ·
        """,
    )
    net = ledger.net_debits([entries, entries.iloc[:0]])
    units = 9_223_372_036_850_000_000
    assert list(net.itertuples(index=False, name=None)) == [("anna", units), ("bob", -units)]
