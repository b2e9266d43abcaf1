"""Accounts and their numbers: one for each text, however they come."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.scan import names as module
from settlement.scan import texts
from settlement.scan.hashing import hash_rows
from settlement.scan.names import EMPTY, NULL, Names
from settlement.scan.pages import Part, Piece
from settlement.scan.texts import Bytes, Lanes


def constant(matrix: Bytes) -> Lanes:
    """A hash on which every account collides."""
    return np.full(len(matrix), 1 << 63, np.uint64)


def last_slots(matrix: Bytes) -> Lanes:
    """A hash that leads to the last slot of any table, so that probing begins anew."""
    return np.full(len(matrix), (1 << 64) - 1, np.uint64)


def piece(accounts: list[str | None], as_codes: bool = False) -> Piece:
    array = pa.array(accounts, pa.string())
    codes = None
    if as_codes:
        encoded = array.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        array = encoded.dictionary
    part = Part(texts.of_arrow(array), codes)
    return Piece(len(accounts), lambda _: part)


def pieces(accounts: list[str | None], step: int, as_codes: bool) -> Iterator[Piece]:
    for start in range(0, len(accounts), step):
        yield piece(accounts[start : start + step], as_codes)


ACCOUNTS = st.lists(
    st.text(max_size=20) | st.sampled_from(["", "007", "7", "a", "é", "\U0001d11e", "a" * 50]),
    max_size=60,
)


@pytest.mark.parametrize("hashed", [hash_rows, constant, last_slots])
@pytest.mark.parametrize("as_codes", [True, False])
@settings(max_examples=40, deadline=None)
@given(accounts=ACCOUNTS, step=st.integers(1, 60))
def test_equal_accounts_have_one_number(
    hashed: Callable[[Bytes], Lanes], as_codes: bool, accounts: list[str], step: int
) -> None:
    names = Names(hashed)
    numbers = names.numbers(pieces(list(accounts), step, as_codes), len(accounts)).tolist()
    known: list[str | None] = names.texts().to_pylist()
    assert [known[number] for number in numbers] == accounts
    assert len(names) == len(known) == 2 + len(set(accounts) - {""})
    assert sorted(set(known[1:]), key=str) == sorted(set(accounts) | {""}, key=str)
    again = names.numbers(pieces(list(accounts), 7, not as_codes), len(accounts)).tolist()
    assert again == numbers


def test_no_account_has_numbers_of_its_own() -> None:
    names = Names()
    found = names.numbers([piece([None, "", "a", None], as_codes=True)], 4).tolist()
    assert found == [NULL, EMPTY, 2, NULL]
    assert names.texts().to_pylist() == [None, "", "a"]


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=30) | st.text("a\0", max_size=40), min_size=1, unique=True),
    st.booleans(),
)
def test_accounts_are_ordered_by_bytes(accounts: list[str], long: bool) -> None:
    accounts += ["\U0001d11e", "\uffee"] + ["a" * 50] * long
    names = Names()
    numbers = names.numbers([piece(list(accounts))], len(accounts))
    order = names.order()
    assert sorted(order.ranks.tolist()) == list(range(len(names)))
    by_rank = [accounts[n] for n in np.argsort(order.ranks[numbers])]
    assert by_rank == sorted(accounts, key=str.encode)
    assert order.ranks[order.numbers].tolist() == list(range(len(names)))
    assert order.texts.to_pylist() == [names.texts()[n].as_py() for n in order.numbers.tolist()]


@pytest.mark.parametrize("step", [3, 100_000])
def test_many_accounts_outgrow_their_tables(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(module, "_STEP", step)
    names = Names()
    accounts: list[str | None] = [f"{n % 701:x}" * (1 + n % 3) for n in range(5000)]
    numbers = names.numbers([piece(accounts)], len(accounts))
    known = names.texts().to_pylist()
    assert [known[number] for number in numbers] == accounts
    assert len(names) == 2 + len(set(accounts))


def test_threads_agree_on_numbers() -> None:
    names = Names()
    random = np.random.default_rng(7)
    draws = [random.integers(0, 3000, 2000) for _ in range(40)]

    def numbered(draw: np.ndarray) -> list[int]:
        found: list[int] = names.numbers(
            [piece([f"account {n}" for n in draw])], len(draw)
        ).tolist()
        return found

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(numbered, draws))
    known = names.texts().to_pylist()
    for draw, numbers in zip(draws, found, strict=True):
        assert [known[number] for number in numbers] == [f"account {n}" for n in draw]
    assert len(known) == len(set(known))


def test_texts_that_come_twice_at_once_are_learnt_once() -> None:
    table = module._Table(1, 40)
    ids = np.array([[7], [9], [7], [5], [9]], np.uint64)
    hashes = np.array([1 << 63, 1 << 63, 1 << 63, 3, 1 << 63], np.uint64)
    numbers, new = table.learn(ids, hashes, 100)
    assert new == table.used - 1 == 3
    assert set(numbers.tolist()) == {100, 101, 102}
    assert [numbers[0], numbers[1]] == [numbers[2], numbers[4]]
    again, new = table.learn(ids[::-1], hashes[::-1], 200)
    assert (again[::-1].tolist(), new) == (numbers.tolist(), 0)
    assert table.grown(90).find(ids, hashes).tolist() == numbers.tolist()
