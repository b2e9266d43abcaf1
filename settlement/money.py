"""Exact money: whole numbers of the smallest price unit, 1e-8 of the currency.

Every amount inside the program is an int64 count of such units, payables and holds too
(they are multiples of a minor unit). int64 wraps silently in numpy, pandas and Arrow, so
every product and every sum is bounded here before it is made. No float appears anywhere.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from settlement.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

UNIT_DIGITS = 8
UNITS_PER_ONE: int = 10**UNIT_DIGITS
LIMIT = 2**63 - 1
"""The largest amount: 92 233 720 368.54775807."""
PRICE_LIMIT = 10_000 * UNITS_PER_ONE
"""Unit prices lie below this."""

_NO_MINOR = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_TWO_MINOR = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD "
    "CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
    "GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD "
    "MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP "
    "PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS "
    "TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_DIGITS = dict.fromkeys(_NO_MINOR.split(), 0) | dict.fromkeys(_TWO_MINOR.split(), 2)


@dataclass(frozen=True)
class Currency:
    """An ISO 4217 currency with 0 or 2 minor digits."""

    code: str
    digits: int

    @property
    def minor_unit(self) -> int:
        """The smallest payable amount, in units."""
        return int(10 ** (UNIT_DIGITS - self.digits))


def currency(code: str) -> Currency:
    """Return a currency by its code; raises `BadInput` where it is unknown or has odd digits."""
    if code not in _DIGITS:
        raise BadInput(
            "not a currency with 0 or 2 minor digits",
            where=f"currency {code!r}",
            cure="use an ISO 4217 code such as CNY",
        )
    return Currency(code, _DIGITS[code])


def units(text: str) -> int:
    """Read a plain decimal ≥ 0 with at most 8 decimals, as units; raises `ValueError`."""
    found = re.fullmatch(r"([0-9]+)(?:\.([0-9]+))?", text)
    if not found:
        raise ValueError(f'{text!r} is not a plain decimal such as "0.0005"')
    decimals = (found[2] or "").rstrip("0")
    if len(decimals) > UNIT_DIGITS:
        raise ValueError(f"{text!r} has more than {UNIT_DIGITS} decimals")
    return int(found[1]) * UNITS_PER_ONE + int(decimals.ljust(UNIT_DIGITS, "0"))


def text(amount: int, digits: int = UNIT_DIGITS) -> str:
    """Write units with at least ``digits`` decimals, and as many more as the amount needs."""
    whole, rest = divmod(abs(amount), UNITS_PER_ONE)
    decimals = f"{rest:08d}".rstrip("0").ljust(digits, "0")
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def grouped(amount: int, digits: int = 2) -> str:
    """Write units for a person: thousands apart by commas."""
    plain = text(abs(amount), digits)
    whole, dot, decimals = plain.partition(".")
    return ("-" if amount < 0 else "") + f"{int(whole):,}" + dot + decimals


def signed(amount: int) -> str:
    """Write units for a person with their sign, also a plus."""
    return ("+" if amount > 0 else "") + grouped(amount)


def round_half_up(amounts: "Ints", step: int) -> "Ints":
    """Round amounts ≥ 0 to multiples of ``step`` units, half up.

    Raises `BadInput` where the result would pass `LIMIT`.
    """
    whole, rest = amounts // step, amounts % step
    up = whole + (rest >= step - rest)
    refuse_beyond(up, LIMIT // step, "a rounded amount")
    return up * step


def product(calls: "Ints", prices: "Ints") -> "Ints":
    """Multiply calls by unit prices, both ≥ 0; raises `BadInput` where it passes `LIMIT`."""
    import numpy as np

    most = np.full_like(prices, LIMIT)
    np.floor_divide(LIMIT, prices, out=most, where=prices > 0)
    refuse_where(calls > most, "a line")
    return calls * prices


def discounted(prices: "Ints", shares: "Ints") -> "Ints":
    """Take a share off each unit price: price × (1 − share), half up to 8 decimals.

    Args:
        prices: units, below `PRICE_LIMIT`.
        shares: what is taken off, 0 to 1, in units too.
    """
    kept = UNITS_PER_ONE - shares
    # A price of 10^12 times 10^8 passes int64, so the price is parted at its lower four digits.
    high, low = prices // 10_000, prices % 10_000
    whole, rest = high * kept // 10_000, high * kept % 10_000
    below: Ints = rest * 10_000 + low * kept
    return whole + (below + UNITS_PER_ONE // 2) // UNITS_PER_ONE


def scaled(amounts: "Ints", numerator: int, denominator: int, step: int) -> "Ints":
    """Return amounts ≥ 0 times a fraction, rounded half up to multiples of ``step`` units.

    Exact at any size: rows whose product would not fit int64 are worked out in Python
    integers, one by one; a book has few such rows, mostly none.
    """
    import numpy as np

    divisor = denominator * step
    safe = (LIMIT - divisor) // max(2 * numerator, 1)
    large = amounts > safe
    small = np.where(large, 0, amounts)
    if divisor > LIMIT // 2 or 2 * numerator > LIMIT:
        large, small = amounts >= 0, np.zeros_like(amounts)
        steps = small
    else:
        steps = (small * (2 * numerator) + divisor) // (2 * divisor)
    for row in np.flatnonzero(large):
        exact = (int(amounts[row]) * 2 * numerator + divisor) // (2 * divisor)
        if exact > LIMIT // step:
            raise _too_large("a hold")
        steps[row] = exact
    refuse_beyond(steps, LIMIT // step, "a hold")
    return steps * step


def total(amounts: "Ints", what: str = "the month's total") -> int:
    """Sum amounts of either sign exactly; raises `BadInput` where the sum passes `LIMIT`."""
    exact = exact_sum(amounts)
    if abs(exact) > LIMIT:
        raise _too_large(what)
    return exact


def exact_sum(amounts: "Ints") -> int:
    """Sum int64 exactly, as a Python integer: high and low halves apart cannot wrap."""
    high, low = amounts >> 32, amounts & 0xFFFFFFFF
    return (int(high.sum()) << 32) + int(low.sum())


def group_sums(amounts: "Ints", starts: "Ints", what: str) -> "Ints":
    """Sum runs of neighbouring amounts ≥ 0; raises `BadInput` where a sum passes `LIMIT`.

    Args:
        amounts: units, one per row.
        starts: the first row of each run, ascending, the first one 0.
        what: what a run is, for the message.
    """
    import numpy as np

    if not len(amounts):
        return np.zeros(0, np.int64)
    low = np.add.reduceat(amounts & 0xFFFFFFFF, starts)
    high = np.add.reduceat(amounts >> 32, starts) + (low >> 32)
    refuse_beyond(high, LIMIT >> 32, what)
    return np.add.reduceat(amounts, starts)


def refuse_beyond(amounts: "Ints", limit: int, what: str) -> None:
    """Raise `BadInput` where an amount lies beyond a limit."""
    refuse_where(amounts > limit, what)


def refuse_where(beyond: "Bools", what: str) -> None:
    """Raise `BadInput` where an amount was found to lie beyond the largest one."""
    if beyond.any():
        raise _too_large(what)


def _too_large(what: str) -> BadInput:
    return BadInput(
        f"{what} passes {text(LIMIT)}",
        where="amounts",
        cure="check the prices and the counts; larger amounts are refused, never wrapped",
    )
