"""The hash of request ids and accounts: alike for equal strings, and good enough to be quick."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.scan import hashing, texts
from settlement.scan.hashing import hash_rows, hash_texts

IDS = st.lists(st.binary(max_size=64), max_size=60)


def hashes(ids: list[bytes], kind: pa.DataType | None = None) -> np.ndarray:
    return hash_texts(texts.of_arrow(pa.array(ids, kind or pa.large_binary())))


@given(IDS)
def test_equal_ids_hash_alike_in_every_form_and_at_every_place(ids: list[bytes]) -> None:
    found = hashes(ids)
    assert np.array_equal(found, hashes(ids, pa.binary()))
    padded = pa.array([b"before", *ids, b"after"], pa.binary()).slice(1, len(ids))
    assert np.array_equal(found, hash_texts(texts.of_arrow(padded)))
    assert np.array_equal(found, [hashes([one])[0] for one in ids])
    for width in {len(one) for one in ids}:
        same = [n for n, one in enumerate(ids) if len(one) == width]
        assert np.array_equal(found[same], hashes([ids[n] for n in same], pa.binary(width)))


@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 9), st.randoms())
def test_zeros_behind_and_how_rows_lie_change_nothing(
    count: int,
    size: int,
    more: int,
    random: "np.random.Random",  # type: ignore[name-defined]
) -> None:
    raw = np.frombuffer(random.randbytes(count * size), np.uint8).reshape(count, size)
    filled = -(-size // 8) * 8
    behind = np.zeros((count, filled), np.uint8)
    behind[:, :size] = raw
    apart = np.zeros((count, size + more + 1), np.uint8)
    apart[:, 1 : 1 + size] = raw
    expected = hash_rows(raw)
    assert np.array_equal(expected, hash_rows(behind))
    assert np.array_equal(expected, hash_rows(apart[:, 1 : 1 + size]))


def test_steps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [b"%036d" % n for n in range(100)]
    whole = hashes(ids)
    monkeypatch.setattr(hashing, "_STEP", 7)
    assert np.array_equal(whole, hashes(ids))
    monkeypatch.setattr(hashing, "_STEP_LANES", 1)
    assert np.array_equal(whole, hashes(ids))


@given(st.lists(st.binary(max_size=64), unique=True, max_size=200))
def test_different_ids_hash_apart(ids: list[bytes]) -> None:
    assert len(set(hashes(ids).tolist())) == len(ids)


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 15, 16, 32, 36, 63, 64, 300])
def test_every_byte_counts(width: int) -> None:
    plain = bytes(width)
    ids = [plain] + [plain[:n] + b"\x01" + plain[n + 1 :] for n in range(width)]
    assert len(set(hashes(ids).tolist())) == width + 1


def test_leading_and_trailing_zero_bytes_count() -> None:
    ids = [b"\0" * n for n in range(65)] + [b"\0" * n + b"a" for n in range(64)]
    assert len(set(hashes(ids).tolist())) == len(ids)


def test_the_hash_is_the_same_in_every_run() -> None:
    """Cached keys of one run may meet those of another."""
    assert hashes([b"", b"a", b"abcdefgh"]).tolist() == FIXED


FIXED = [0, 13971002206714220832, 12629186526343479088]


def test_upper_bits_of_the_hash_are_even() -> None:
    ids = [b"%032x" % n for n in range(1 << 14)]
    upper = (hashes(ids)[:, None] >> np.arange(24, 64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(upper.mean(axis=0) - 0.5).max() < 0.02
