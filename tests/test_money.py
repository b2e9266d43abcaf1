"""Exact money, against Python's own integers and decimals."""

from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement import money
from settlement.errors import BadInput
from settlement.money import LIMIT

CENT = 10**6
AMOUNTS = st.one_of(st.integers(0, LIMIT), st.integers(0, 10**10), st.integers(LIMIT - 9, LIMIT))
SIGNED = st.integers(-LIMIT, LIMIT)


def ints(values: list[int]) -> "money.Ints":
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0", 0),
        ("0.0005", 50_000),
        ("0.0032", 320_000),
        ("1", 100_000_000),
        ("1.20", 120_000_000),
        ("007.5", 750_000_000),
        ("0.00000001", 1),
        ("0.000000010000", 1),
        ("9999.99999999", 999_999_999_999),
        ("92233720368.54775807", LIMIT),
    ],
)
def test_a_plain_decimal_is_read_as_units(text: str, units: int) -> None:
    assert money.units(text) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        ".5",
        "1.",
        "1,000",
        "1_000",
        " 1",
        "1\n",
        "NaN",
        "Infinity",
        "0x1",
        "١",
        "1.2.3",
        "0.000000001",
        "0.0005元",
        "9" * 5000,
    ],
)
def test_anything_else_is_not_a_plain_decimal(text: str) -> None:
    with pytest.raises(ValueError, match=r"decimal|digits"):
        money.units(text)


@pytest.mark.parametrize(
    ("units", "digits", "text", "grouped"),
    [
        (0, 0, "0", "0"),
        (0, 2, "0.00", "0.00"),
        (2_880_320_000, 2, "28.8032", "28.8032"),
        (2_880_320_000, 8, "28.80320000", "28.80320000"),
        (-2_880_000_000, 2, "-28.80", "-28.80"),
        (-1, 2, "-0.00000001", "-0.00000001"),
        (150_000_000_000_000, 0, "1500000", "1,500,000"),
        (LIMIT, 2, "92233720368.54775807", "92,233,720,368.54775807"),
    ],
)
def test_units_are_written_with_the_digits_they_need(
    units: int, digits: int, text: str, grouped: str
) -> None:
    assert money.text(units, digits) == text
    assert money.grouped(units, digits) == grouped


@given(SIGNED, st.integers(0, 8))
def test_what_is_written_is_the_amount(units: int, digits: int) -> None:
    written = money.text(units, digits)
    assert Decimal(written) * money.UNITS_PER_ONE == units
    assert money.grouped(units, digits).replace(",", "") == written


@pytest.mark.parametrize(
    ("code", "digits", "minor_unit"),
    [("CNY", 2, 1_000_000), ("EUR", 2, 1_000_000), ("JPY", 0, 100_000_000)],
)
def test_currencies_have_no_or_two_minor_digits(code: str, digits: int, minor_unit: int) -> None:
    currency = money.currency(code)
    assert (currency.code, currency.digits, currency.minor_unit) == (code, digits, minor_unit)


@pytest.mark.parametrize("code", ["", "cny", "KWD", "BHD", "CLF", "XXX", "RMB", "元"])
def test_other_currencies_are_refused(code: str) -> None:
    with pytest.raises(BadInput, match="not a currency with 0 or 2 minor digits"):
        money.currency(code)


@pytest.mark.parametrize(
    ("amount", "to_a_cent", "to_a_yen"),
    [
        ("0", "0.00", "0"),
        ("28.8032", "28.80", "29"),
        ("0.00499999", "0.00", "0"),
        ("0.005", "0.01", "0"),
        ("0.015", "0.02", "0"),
        ("0.025", "0.03", "0"),
        ("0.49999999", "0.50", "0"),
        ("0.5", "0.50", "1"),
        ("1.5", "1.50", "2"),
        ("2.5", "2.50", "3"),
    ],
)
def test_halves_are_rounded_up(amount: str, to_a_cent: str, to_a_yen: str) -> None:
    units = ints([money.units(amount)])
    assert money.text(int(money.round_half_up(units, CENT)[0]), 2) == to_a_cent
    assert money.text(int(money.round_half_up(units, 10**8)[0]), 0) == to_a_yen


@given(st.lists(AMOUNTS, max_size=5), st.sampled_from([CENT, 10**8]))
def test_rounding_is_that_of_decimal_arithmetic(amounts: list[int], step: int) -> None:
    with localcontext(prec=60):
        expected = [
            int((Decimal(each) / step).quantize(Decimal(1), ROUND_HALF_UP)) * step
            for each in amounts
        ]
    if max(expected, default=0) > LIMIT:
        with pytest.raises(BadInput, match="a rounded amount passes"):
            money.round_half_up(ints(amounts), step)
    else:
        assert money.round_half_up(ints(amounts), step).tolist() == expected


PAIRS = st.tuples(AMOUNTS, st.integers(0, 10**12)) | st.integers(1, 10**12 - 1).flatmap(
    lambda price: st.tuples(
        st.integers(max(LIMIT // price - 1, 0), min(LIMIT // price + 1, LIMIT)), st.just(price)
    )
)


@given(st.lists(PAIRS, max_size=4))
def test_a_product_is_exact_or_refused(pairs: list[tuple[int, int]]) -> None:
    calls, prices = ints([c for c, _ in pairs]), ints([p for _, p in pairs])
    expected = [c * p for c, p in pairs]
    if max(expected, default=0) > LIMIT:
        with pytest.raises(BadInput, match=r"a line passes 92233720368\.54775807"):
            money.product(calls, prices)
    else:
        assert money.product(calls, prices).tolist() == expected


FACTORS = st.tuples(
    st.integers(0, 10**11) | st.integers(0, 2**70), st.integers(1, 10**8) | st.integers(1, 2**70)
)


@given(st.lists(AMOUNTS, max_size=4), FACTORS, st.sampled_from([1, CENT, 10**8]))
def test_a_fraction_of_an_amount_is_exact_or_refused(
    amounts: list[int], factor: tuple[int, int], step: int
) -> None:
    exact = [Fraction(each) * Fraction(*factor) / step for each in amounts]
    expected = [(2 * f.numerator + f.denominator) // (2 * f.denominator) * step for f in exact]
    if max(expected, default=0) > LIMIT:
        with pytest.raises(BadInput, match="a hold passes"):
            money.scaled(ints(amounts), *factor, step)
    else:
        assert money.scaled(ints(amounts), *factor, step).tolist() == expected


@pytest.mark.parametrize(
    ("amount", "factor", "hold"),
    [
        ("28.80", (6, 5), "34.56"),
        ("0.01", (6, 5), "0.01"),
        ("0.02", (6, 5), "0.02"),
        ("0.03", (6, 5), "0.04"),
        ("0.01", (3, 2), "0.02"),
        ("70000000000.00", (6, 5), "84000000000.00"),
        ("92233720368.54", (1, 1), "92233720368.54"),
        ("92233720368.54", (1, 1000), "92233720.37"),
        ("92233720368.54", (0, 1), "0.00"),
    ],
)
def test_120_percent_of_a_bill(amount: str, factor: tuple[int, int], hold: str) -> None:
    scaled = money.scaled(ints([money.units(amount)]), *factor, CENT)
    assert money.text(int(scaled[0]), 2) == hold


@given(st.lists(SIGNED | st.integers(-(2**33), 2**33), max_size=6))
def test_a_total_is_exact_or_refused(amounts: list[int]) -> None:
    assert money.exact_sum(ints(amounts)) == sum(amounts)
    if abs(sum(amounts)) > LIMIT:
        with pytest.raises(BadInput, match="the month's total passes"):
            money.total(ints(amounts))
    else:
        assert money.total(ints(amounts)) == sum(amounts)


@given(st.lists(st.lists(AMOUNTS, min_size=1, max_size=4), max_size=4))
def test_sums_of_runs_are_exact_or_refused(runs: list[list[int]]) -> None:
    amounts = ints([each for run in runs for each in run])
    starts = ints([sum(map(len, runs[:n])) for n in range(len(runs))])
    if max(map(sum, runs), default=0) > LIMIT:
        with pytest.raises(BadInput, match="a test passes"):
            money.group_sums(amounts, starts, "a test")
    else:
        assert money.group_sums(amounts, starts, "a test").tolist() == [sum(run) for run in runs]


def test_a_sum_that_would_wrap_to_a_small_number_is_refused() -> None:
    amounts = ints([2**62] * 4)
    assert int(amounts.sum()) == 0, "int64 wraps silently"
    with pytest.raises(BadInput):
        money.total(amounts)
    with pytest.raises(BadInput):
        money.group_sums(amounts, ints([0]), "a sum")


SHARES = st.integers(0, 10**8)


@given(st.lists(st.tuples(st.integers(0, money.PRICE_LIMIT - 1), SHARES), max_size=5))
def test_a_discounted_price_is_rounded_half_up_to_8_decimals(pairs: list[tuple[int, int]]) -> None:
    found = money.discounted(ints([p for p, _ in pairs]), ints([s for _, s in pairs]))
    assert found.tolist() == [
        (price * (10**8 - share) * 2 + 10**8) // (2 * 10**8) for price, share in pairs
    ]
