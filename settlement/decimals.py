"""Columns of money as Arrow's decimals, from int64 units of 1e-8 and back, exactly."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from settlement.money import LIMIT
from settlement.tables import DECIMALS, Kind, WrongTable

if TYPE_CHECKING:
    from settlement.money import Ints

NO_PRICE = -1
"""Stands for null in a nullable column of money inside the program: a graduated unit price."""
_UNITS_PER_CENT = 10**6


def decimals(amounts: "Ints", kind: Kind, nulls: "np.ndarray[Any, Any] | None" = None) -> pa.Array:
    """Return units as Arrow decimals of a kind of money, exactly and without a detour.

    A decimal128 is 16 bytes, little-endian two's complement: the int64 and its sign.
    """
    scaled = amounts
    if kind is Kind.PAYABLE:
        scaled, rest = np.divmod(amounts, _UNITS_PER_CENT)
        if rest.any():
            raise WrongTable("an amount is not whole in minor units")
    halves = np.empty((len(scaled), 2), np.int64)
    halves[:, 0] = scaled
    halves[:, 1] = scaled >> 63
    mask = None if nulls is None or not nulls.any() else pa.array(~nulls).buffers()[1]
    return pa.Array.from_buffers(DECIMALS[kind], len(scaled), [mask, pa.py_buffer(halves)])


def from_decimals(values: pa.ChunkedArray, kind: Kind) -> "Ints":
    """Return published decimals as int64 units; null as -1. Raises `WrongTable` beyond int64."""
    array = values.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    halves = np.frombuffer(array.buffers()[1] or b"", np.int64).reshape(-1, 2)
    halves = halves[array.offset : array.offset + len(array)]
    low = halves[:, 0].copy()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if (halves[valid, 1] != low[valid] >> 63).any():
        raise WrongTable("an amount is larger than can be")
    if kind is Kind.PAYABLE:
        most, sure = LIMIT // _UNITS_PER_CENT, low[valid]
        if (sure > most).any() or (sure < -most).any():  # abs() of the smallest int64 is itself
            raise WrongTable("an amount is larger than can be")
        low *= _UNITS_PER_CENT
    low[~valid] = NO_PRICE
    return low
