"""Words that follow a number: one row, two rows, no row as many."""

import pytest

from settlement.words import count_of


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (10_001, "10,001 rows")]
)
def test_a_number_is_followed_by_one_or_several(number: int, said: str) -> None:
    assert count_of(number, "row") == said


def test_words_that_take_no_s_are_given() -> None:
    assert [count_of(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]
