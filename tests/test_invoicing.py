"""Invoicing: lines added up per account, and one rounding, half up."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import frames, money
from settlement.errors import BadInput
from settlement.invoicing import adjust, invoice
from settlement.money import LIMIT, currency
from settlement.month import Month
from settlement.tables import ADJUSTMENTS, INVOICES, LINES
from tests.drawn import drawn

CNY, JPY = currency("CNY"), currency("JPY")

LINES_OF_A_MONTH = drawn(
    LINES,
    """
    account_id  item               calls   tier  unit_price list_amount voucher_calls voucher_amount amount
    007         face-comparison    10_001  2     0.0032     32.0032     1000          3.2     28.8032
    7           face-comparison    10_001  2     0.0032     32.0032     1000          3.2     28.8032
    7           face-detection     10_010  2     0.0005      5.005      1000          0.5      4.505
    7           face-search           500  1     0           0           500          0        0
    anna        face-detection     10_000  1     0           0          1000          0        0
    bob         face-detection     10_010  2     0.0005      5.005      1000          0.5      4.505
    carol       face-detection     10_009  2     0.0005      5.0045     1000          0.5      4.5045
    """,  # noqa: E501
)


def test_invoices_in_yuan() -> None:
    expected = drawn(
        INVOICES,
        """
        account_id  list_amount voucher_amount amount   rounding  payable  currency
        007         32.0032     3.2            28.8032  -0.0032   28.80    CNY
        7           37.0082     3.7            33.3082   0.0018   33.31    CNY
        anna         0          0               0        0         0       CNY
        bob          5.005      0.5             4.505    0.005     4.51    CNY
        carol        5.0045     0.5             4.5045  -0.0045    4.50    CNY
        """,
    )
    pd.testing.assert_frame_equal(invoice(LINES_OF_A_MONTH, CNY), expected)


def test_invoices_in_a_currency_without_minor_digits() -> None:
    expected = drawn(
        INVOICES,
        """
        account_id  list_amount voucher_amount amount   rounding  payable  currency
        007         32.0032     3.2            28.8032   0.1968   29       JPY
        7           37.0082     3.7            33.3082  -0.3082   33       JPY
        anna         0          0               0        0         0       JPY
        bob          5.005      0.5             4.505    0.495     5       JPY
        carol        5.0045     0.5             4.5045   0.4955    5       JPY
        """,
    )
    pd.testing.assert_frame_equal(invoice(LINES_OF_A_MONTH, JPY), expected)


def test_a_month_without_lines_has_no_invoices() -> None:
    assert invoice(frames.empty(LINES), CNY).equals(frames.empty(INVOICES))


def test_the_documents_of_a_revision() -> None:
    """More to pay is a supplementary bill (补账单), less is a credit note (贷项通知单)."""
    difference = pd.DataFrame(
        {
            "account_id": pd.array(["anna", "bob"], dtype="str"),
            "previous_payable": [money.units("28.80"), money.units("7.00")],
            "payable": [money.units("30.00"), money.units("0.00")],
            "adjustment": [money.units("1.20"), -money.units("7.00")],
        }
    )
    expected = drawn(
        ADJUSTMENTS,
        """
        account_id previous_payable payable adjustment document
        anna       28.80            30.00    1.20      2026-02-r3-S0000001
        bob         7.00             0      -7.00      2026-02-r3-C0000002
        """,
    )
    pd.testing.assert_frame_equal(adjust(Month(2026, 2), 3, difference), expected)


def lines(amounts: dict[str, list[tuple[int, int]]]) -> pd.DataFrame:
    """Make lines of list amounts and vouchers, per account."""
    flat = [
        (account, f"item-{n}", *pair)
        for account, pairs in sorted(amounts.items())
        for n, pair in enumerate(pairs)
    ]
    return frames.frame(
        LINES,
        {
            "account_id": [row[0] for row in flat],
            "item": [row[1] for row in flat],
            "list_amount": [row[2] for row in flat],
            "voucher_amount": [row[3] for row in flat],
            "amount": [row[2] - row[3] for row in flat],
        }
        | {name: [1] * len(flat) for name in ("calls", "tier", "unit_price", "voucher_calls")},
    )


def test_sums_that_would_wrap_are_refused() -> None:
    half = 2**62
    with pytest.raises(BadInput, match="an account's total passes"):
        invoice(lines({"a": [(half, 0), (half, 0)]}), CNY)
    with pytest.raises(BadInput, match="the month's total passes"):
        invoice(lines({"a": [(half, 0)], "b": [(half, 0)]}), CNY)
    with pytest.raises(BadInput, match="the month's total passes"):
        invoice(lines({"a": [(half, half)], "b": [(half, half)]}), CNY)
    with pytest.raises(BadInput, match="a rounded amount passes"):
        invoice(lines({"a": [(LIMIT, 0)]}), CNY)
    most = LIMIT // 10**6 * 10**6
    assert invoice(lines({"a": [(most, 0)]}), CNY)["payable"].tolist() == [most]


PAIRS = st.tuples(st.integers(0, 10**11), st.integers(0, 10**8)).map(
    lambda pair: (pair[0] + pair[1], pair[1])
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(PAIRS, min_size=1, max_size=4)),
    st.sampled_from([CNY, JPY]),
)
def test_an_invoice_is_the_sum_of_its_lines_rounded_once(
    amounts: dict[str, list[tuple[int, int]]], coin: money.Currency
) -> None:
    invoices = invoice(lines(amounts), coin)
    assert invoices["account_id"].tolist() == sorted(amounts)
    for row, account in enumerate(sorted(amounts)):
        got = {name: int(invoices[name].to_numpy()[row]) for name in invoices.columns[1:-1]}
        listed = sum(pair[0] for pair in amounts[account])
        voucher = sum(pair[1] for pair in amounts[account])
        step = coin.minor_unit
        payable = (2 * (listed - voucher) + step) // (2 * step) * step
        assert got == {
            "list_amount": listed,
            "voucher_amount": voucher,
            "amount": listed - voucher,
            "rounding": payable - (listed - voucher),
            "payable": payable,
        }
        assert 2 * abs(got["rounding"]) <= step
