"""Refusals: one line each, and one exit code per kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement import errors
from settlement.errors import BadInput, SettlementError

CODES = {
    "WrongUsage": 2,
    "StoppedForReview": 3,
    "OtherOutcome": 4,
    "BadInput": 65,
    "MissingInput": 66,
    "CannotWrite": 73,
    "CannotRead": 74,
    "BookHeld": 75,
    "BadConfig": 78,
}


def test_every_kind_of_refusal_has_the_exit_code_that_programs_read() -> None:
    kinds = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, SettlementError)
    }
    assert kinds == CODES | {"SettlementError": 1}


@pytest.mark.parametrize(
    ("where", "cure", "sentence"),
    [
        ("", "", "no column 'item'"),
        ("a.parquet", "", "a.parquet: no column 'item'"),
        ("", "add it", "no column 'item'; add it"),
        ("a.parquet", "add it", "a.parquet: no column 'item'; add it"),
    ],
)
def test_a_refusal_says_where_what_and_the_cure(where: str, cure: str, sentence: str) -> None:
    assert str(BadInput("no column 'item'", where=where, cure=cure)) == sentence


def test_details_are_kept_beneath_and_not_in_the_line() -> None:
    refusal = BadInput("rejected", details=iter(["row 1", "row 2"]))
    assert refusal.details == ("row 1", "row 2")
    assert str(refusal) == "rejected"


@given(st.text(), st.text(), st.text())
def test_a_refusal_is_one_line_whatever_it_quotes(what: str, where: str, cure: str) -> None:
    assert len(str(BadInput(what, where=where, cure=cure)).splitlines()) <= 1
