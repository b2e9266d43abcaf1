"""De-duplication: its hash, its keys, and who wins among rows of one id."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import dedup
from settlement.dedup import Candidates, Claims, Keys, hash_ids

IDS = st.lists(st.binary(max_size=64), max_size=60)


def binary(ids: list[bytes], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(ids, kind or pa.large_binary())


def all_alike(ids: pa.Array) -> np.ndarray:
    """A hash on which every id collides."""
    return np.zeros(len(ids), np.uint64)


def by_width(ids: pa.Array) -> np.ndarray:
    """A hash on which ids of one width collide."""
    return np.array([len(one.as_py()) << 56 for one in ids], np.uint64)


def all_different(ids: pa.Array) -> np.ndarray:
    """A hash that tells every id apart by far."""
    return hash_ids(ids)


HASHES = [all_different, by_width, all_alike]


# ---------------------------------------------------------------- the hash


@given(IDS)
def test_equal_ids_hash_alike_in_every_form_and_at_every_place(ids: list[bytes]) -> None:
    hashes = hash_ids(binary(ids))
    assert np.array_equal(hashes, hash_ids(binary(ids, pa.binary())))
    padded = binary([b"before", *ids, b"after"])
    assert np.array_equal(hashes, hash_ids(padded.slice(1, len(ids))))
    assert np.array_equal(hashes, [hash_ids(binary([one]))[0] for one in ids])
    for width in {len(one) for one in ids}:
        same = [n for n, one in enumerate(ids) if len(one) == width]
        fixed = binary([ids[n] for n in same], pa.binary(width))
        assert np.array_equal(hashes[same], hash_ids(fixed))


@given(st.lists(st.binary(max_size=64), unique=True, max_size=200))
def test_different_ids_hash_apart(ids: list[bytes]) -> None:
    assert len(set(hash_ids(binary(ids)).tolist())) == len(ids)


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 15, 16, 32, 36, 63, 64, 300])
def test_every_byte_counts(width: int) -> None:
    plain = bytes(width)
    ids = [plain] + [plain[:n] + b"\x01" + plain[n + 1 :] for n in range(width)]
    assert len(set(hash_ids(binary(ids)).tolist())) == width + 1


def test_leading_and_trailing_zero_bytes_count() -> None:
    ids = [b"\0" * n for n in range(65)] + [b"\0" * n + b"a" for n in range(64)]
    assert len(set(hash_ids(binary(ids)).tolist())) == len(ids)


def test_the_hash_is_the_same_in_every_run() -> None:
    """Cached keys of one run may meet those of another."""
    assert hash_ids(binary([b"", b"a", b"abcdefgh"])).tolist() == FIXED


FIXED = [16604259827162208205, 13390509416990916929, 6596268082113840592]


def test_bits_of_the_hash_are_even() -> None:
    ids = binary([b"%032x" % n for n in range(1 << 14)])
    bits = np.unpackbits(hash_ids(ids).view(np.uint8)).reshape(len(ids), 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


# ---------------------------------------------------------------- suspects


def suspects(
    ids: list[bytes], hashed: Callable[..., Any], at_most: int = 1 << 20
) -> list[list[int]]:
    keys = Keys(len(ids), hashed)
    places = np.arange(len(ids))
    for some in np.array_split(places, 3):
        keys.add(binary([ids[n] for n in some]), some)
    return [lot.tolist() for lot in keys.suspects(1, at_most)]


@pytest.mark.parametrize("hashed", HASHES)
@settings(max_examples=40)
@given(ids=IDS)
def test_every_repeated_id_is_suspect(hashed: Callable[..., Any], ids: list[bytes]) -> None:
    ids = ids + ids[::2]
    times = Counter(ids)
    lots = suspects(ids, hashed)
    found = [place for lot in lots for place in lot]
    assert len(found) == len(set(found))
    assert {n for n, one in enumerate(ids) if times[one] > 1} <= set(found)


def test_ids_that_occur_once_are_rarely_suspect() -> None:
    assert suspects([b"%08d" % n for n in range(50_000)], hash_ids) == []


@pytest.mark.parametrize("at_most", [1, 7, 100, 10**6])
def test_all_rows_of_an_id_are_in_one_lot(at_most: int) -> None:
    ids = [b"%d" % (n % 50) for n in range(200)]
    lots = suspects(ids, hash_ids, at_most)
    assert sorted(place for lot in lots for place in lot) == list(range(200))
    homes = [{ids[place] for place in lot} for lot in lots]
    assert sum(map(len, homes)) == 50
    assert all(lot == sorted(lot) for lot in lots)


@pytest.mark.parametrize("ids", [[], [b"a"], [b""], [b"a", b"b"]])
def test_few_rows_have_no_suspects(ids: list[bytes]) -> None:
    assert suspects(ids, hash_ids) == []


def test_chunks_and_partitions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [b"%d" % (n % 700) for n in range(1000)]
    whole = suspects(ids, hash_ids)
    monkeypatch.setattr(dedup, "_CHUNK", 10)
    assert suspects(ids, hash_ids) == whole


# ---------------------------------------------------------------- claims

ROWS = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"", b"a\0", b"ab"]),  # id
        st.integers(-2, 2),  # instant
        st.integers(0, 3),  # account
        st.integers(0, 2),  # pair
    ),
    max_size=40,
)
RANKS = np.array([2, 0, 3, 1])


def candidates(rows: list[tuple[bytes, int, int, int]]) -> Candidates:
    instants, accounts, pairs = (np.array([row[n] for row in rows], np.int64) for n in (1, 2, 3))
    ones = np.ones(len(rows), np.int64)
    return Candidates(binary([row[0] for row in rows]), instants, accounts, pairs, ones)


def decided(lots: list[list[tuple[bytes, int, int, int]]]) -> tuple[int, int, Counter]:
    """Duplicates, conflicts, and what remains charged per account and pair."""
    claims = Claims(RANKS)
    left: Counter = Counter()
    for lot in lots:
        claims.add(candidates(lot))
        left.update((account, pair) for _, _, account, pair in lot)
    for lost in claims.close():
        for account, pair, calls in zip(lost.accounts, lost.pairs, lost.calls, strict=True):
            left[int(account), int(pair)] -= int(calls)
    return claims.duplicates, claims.conflicts, +left


def expected(rows: list[tuple[bytes, int, int, int]]) -> tuple[int, int, Counter]:
    duplicates = conflicts = 0
    left: Counter = Counter()
    for one in {row[0] for row in rows}:
        own = [(row[1], int(RANKS[row[2]]), row[3], row[2]) for row in rows if row[0] == one]
        winner = min(own)
        duplicates += own.count(winner) - 1
        conflicts += len(own) - own.count(winner)
        left[winner[3], winner[2]] += 1
    return duplicates, conflicts, left


@given(ROWS, st.integers(0, 40), st.sampled_from([1, 1 << 20]))
def test_the_earliest_wins_then_account_then_pair(
    rows: list[tuple[bytes, int, int, int]], cut: int, chunk: int
) -> None:
    before = dedup._CHUNK
    dedup._CHUNK = chunk  # 1: decide after every lot
    try:
        assert decided([rows]) == expected(rows)
        assert decided([rows[:cut], rows[cut:]]) == expected(rows)
        assert decided([[row] for row in reversed(rows)]) == expected(rows)
    finally:
        dedup._CHUNK = before


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([], (0, 0, Counter())),
        ([(b"a", 0, 0, 0)], (0, 0, Counter({(0, 0): 1}))),
        ([(b"a", 0, 0, 0)] * 5, (4, 0, Counter({(0, 0): 1}))),
        ([(b"a", 1, 0, 0), (b"a", 0, 1, 1)], (0, 1, Counter({(1, 1): 1}))),
        ([(b"a", 0, 0, 0), (b"a", 0, 1, 1)], (0, 1, Counter({(1, 1): 1}))),
        ([(b"a", 0, 0, 1), (b"a", 0, 0, 0)], (0, 1, Counter({(0, 0): 1}))),
        ([(b"a", 0, 0, 0), (b"a", 1, 0, 0), (b"a", 0, 0, 0)], (1, 1, Counter({(0, 0): 1}))),
        ([(b"a", 0, 0, 0), (b"b", 0, 0, 0)], (0, 0, Counter({(0, 0): 2}))),
    ],
)
def test_drawn_claims(
    rows: list[tuple[bytes, int, int, int]], outcome: tuple[int, int, Counter]
) -> None:
    assert decided([rows]) == outcome


def test_more_rows_than_positions_can_tell_apart_are_refused() -> None:
    with pytest.raises(OverflowError):
        Keys(1 << 45)
