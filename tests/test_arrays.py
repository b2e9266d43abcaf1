"""Arrays: what numpy and Python hold becomes Arrow's as Arrow itself would have it, and back."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.scan.arrays import integers, nulls, strings, to_numpy

KINDS = st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint32, np.uint64])


@given(kind=KINDS, data=st.data())
def test_integers_are_arrows_of_their_type(
    kind: type[np.integer[Any]], data: st.DataObject
) -> None:
    bounds = np.iinfo(kind)
    values = np.array(data.draw(st.lists(st.integers(int(bounds.min), int(bounds.max)))), kind)
    made = integers(values)
    made.validate(full=True)
    assert made.equals(pa.array(values))
    assert integers(values[::-2]).to_pylist() == values[::-2].tolist()
    assert to_numpy(made).tolist() == values.tolist()
    assert to_numpy(made).dtype == kind


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.none()))
def test_integers_may_be_null(values: list[int | None]) -> None:
    known = np.array([value is not None for value in values], bool)
    made = integers(np.array([value or 0 for value in values], np.int32), known)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.int32()))


@given(st.lists(st.text() | st.none()))
def test_strings_are_arrows_with_their_nulls(values: list[str | None]) -> None:
    made = strings(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.large_string()))


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1) | st.none()),
    st.integers(0, 20),
    st.integers(-5, 5),
)
def test_what_is_null_is_said_so_and_stands_for_a_number(
    values: list[int | None], skipped: int, null: int
) -> None:
    array = pa.array(values, pa.int32())[skipped:]
    assert to_numpy(array, null).tolist() == [null if v is None else v for v in values[skipped:]]
    assert nulls(array).tolist() == [value is None for value in values[skipped:]]


@pytest.mark.parametrize("count", [0, 1, 9])
def test_a_column_of_nothing_is_null(count: int) -> None:
    assert nulls(pa.nulls(count)).tolist() == [True] * count
    assert nulls(pa.nulls(count, pa.timestamp("us"))).tolist() == [True] * count
