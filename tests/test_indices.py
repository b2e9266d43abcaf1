"""Dictionary indices: what was packed comes out, whatever runs and pages it lay in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.scan.indices import NotIndices, decode, unpack
from tests.test_thrift import varint_bytes


def of(raw: bytes, values: int) -> list[int]:
    """The codes of one page."""
    return list(decode([(np.frombuffer(raw, np.uint8), values)]).tolist())


def packed(values: list[int], width: int) -> bytes:
    """Values in bits, least significant first, filled to groups of 8."""
    bits = sum(value << n * width for n, value in enumerate(values))
    return bits.to_bytes(-(-len(values) // 8) * width, "little")


@given(st.integers(1, 24), st.data())
def test_unpacked_is_what_was_packed(width: int, data: st.DataObject) -> None:
    some = st.integers(0, (1 << width) - 1)
    values = data.draw(st.lists(some, min_size=8, max_size=64).filter(lambda v: len(v) % 8 == 0))
    room = np.frombuffer(packed(values, width) + bytes(4), np.uint8)
    assert unpack(room, len(values) // 8, width).tolist() == values


@st.composite
def runs(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Runs of equal and of packed values, and the values."""
    width = draw(st.integers(1, 24))
    some = st.integers(0, (1 << width) - 1)
    raw, values = bytes([width]), []
    for is_packed in draw(st.lists(st.booleans(), max_size=12)):
        if is_packed:
            groups = draw(st.sampled_from([1, 2, 63, 64, 70]))
            seed = draw(st.lists(some, min_size=8, max_size=8))
            own = [seed[(n * n) % 8] for n in range(groups * 8)]
            raw += varint_bytes(groups << 1 | 1) + packed(own, width)
        else:
            own = [draw(some)] * draw(st.sampled_from([1, 8, 1000]))
            raw += varint_bytes(len(own) << 1) + own[0].to_bytes((width + 7) // 8, "little")
        values += own
    return raw, values


@settings(deadline=None)
@given(runs())
def test_runs_give_their_codes(drawn: tuple[bytes, list[int]]) -> None:
    raw, values = drawn
    assert of(raw, len(values)) == values
    with pytest.raises(NotIndices):
        of(raw, len(values) + 1)


@settings(deadline=None)
@given(st.lists(st.tuples(runs(), st.integers(0, 9)), max_size=5))
def test_pages_give_their_codes_in_order(
    drawn: list[tuple[tuple[bytes, list[int]], int]],
) -> None:
    """The last codes of a page may be padding, which is no part of the next one."""
    pages, expected = [], []
    for (raw, values), padding in drawn:
        own = values[: max(0, len(values) - padding)]
        pages.append((np.frombuffer(raw, np.uint8), len(own)))
        expected += own
    fits = all(len(values) - padding <= 0 or padding == 0 for (_, values), padding in drawn)
    try:
        found = decode(pages).tolist()
    except NotIndices:
        assert not fits  # a run of one code says exactly how often it comes
    else:
        assert found == expected


def test_the_last_packed_run_may_hold_more_than_the_page() -> None:
    raw = b"\x04" + varint_bytes(3) + packed([7, 8, 9, 1, 0, 0, 0, 0], 4)
    assert of(raw, 4) == [7, 8, 9, 1]


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x19\x02\x00\x00\x00\x00", b"\x01", b"\x01\x03", b"\x01\x00\x00", b"\x01\x01"],
    ids=["nothing", "25 bits", "no run", "cut", "0 equal", "0 packed"],
)
def test_bytes_that_are_no_runs_are_refused(raw: bytes) -> None:
    with pytest.raises(NotIndices):
        of(raw, 1)


def test_codes_of_no_bits_are_all_the_first() -> None:
    assert of(b"\x00\x0a", 5) == [0] * 5


def test_endlessly_changing_runs_are_left_to_others() -> None:
    raw = b"\x01" + (b"\x02\x00" + b"\x02\x01") * 5000
    with pytest.raises(NotIndices):
        of(raw, 10_000)
