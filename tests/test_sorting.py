"""Rows are sorted by all their bits, whichever of them vary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.scan.sorting import _runs, order

NUMBERS = st.integers(0, 2**64 - 1)


@given(st.integers(1, 4), st.data())
def test_rows_are_sorted_as_tuples_are(lanes: int, data: st.DataObject) -> None:
    """Of masked numbers some bits never vary; equal rows stay in their order."""
    mask = data.draw(st.lists(NUMBERS, min_size=lanes, max_size=lanes))
    same = data.draw(st.lists(NUMBERS, min_size=lanes, max_size=lanes))
    few = st.sampled_from([0, 1, 2**63, 2**64 - 1])
    rows = data.draw(st.lists(st.tuples(*[NUMBERS | few] * lanes), max_size=20))
    rows = [tuple(n & m | s & ~m for n, m, s in zip(row, mask, same, strict=True)) for row in rows]
    keys = np.array(rows, np.uint64).reshape(len(rows), lanes)
    assert order(keys).tolist() == sorted(range(len(rows)), key=lambda row: rows[row])


@pytest.mark.parametrize(
    ("bits", "runs"),
    [
        (0, []),
        (1, [(0, 1)]),
        (0b1011, [(3, 1), (0, 2)]),
        (0b110, [(1, 2)]),
        (2**64 - 1, [(0, 64)]),
        (2**63 | 1, [(63, 1), (0, 1)]),
    ],
)
def test_runs_of_bits(bits: int, runs: list[tuple[int, int]]) -> None:
    assert list(_runs(bits)) == runs
