"""Framed strings: from pages and from Arrow alike, each once, whatever their lengths."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.scan.hashing import hash_texts
from settlement.scan.texts import (
    Lot,
    NotFramed,
    Texts,
    check_utf8,
    heads,
    lanes,
    of_arrow,
    of_plain,
)

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
WORDS = st.lists(WORD, max_size=50)
RAW = st.lists(st.binary(max_size=64), max_size=50)


def plain(values: list[bytes]) -> np.ndarray:
    """Values as a plain page holds them."""
    framed = b"".join(len(value).to_bytes(4, "little") + value for value in values)
    return np.frombuffer(framed, np.uint8)


def strings(texts: Texts, lots: list[Lot] | None = None, spare: int = 8) -> list[bytes]:
    """All strings in their order, read from lots as anyone may: length, bytes, zeros."""
    found: list[bytes | None] = [None] * texts.total
    for rows, matrix in texts.lots if lots is None else lots:
        for row, cells in zip(np.arange(texts.total)[rows].tolist(), matrix, strict=True):
            size = int.from_bytes(cells[:4].tobytes(), "little")
            assert found[row] is None
            found[row] = cells[4 : 4 + size].tobytes()
            assert not cells[4 + size :].any()
            assert len(cells) - 4 - size < spare
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


@settings(deadline=None)
@given(RAW, st.sampled_from([pa.binary(), pa.large_binary()]), st.integers(0, 3))
def test_arrays_give_their_strings(values: list[bytes], kind: pa.DataType, skip: int) -> None:
    array = pa.array([b"skipped"] * skip + values + [b"behind"], kind)
    texts = of_arrow(array.slice(skip, len(values)))
    assert strings(texts) == values
    empty = texts.empty()
    assert [not one for one in values] == (
        [False] * len(values) if empty is None else empty.tolist()
    )


@settings(deadline=None)
@given(st.lists(st.none() | st.binary(max_size=9), max_size=30))
def test_nulls_are_empty_strings(values: list[bytes | None]) -> None:
    assert strings(of_arrow(pa.array(values, pa.binary()))) == [one or b"" for one in values]


@pytest.mark.parametrize("width", [0, 1, 4, 12, 16, 36])
def test_fixed_widths_are_framed(width: int) -> None:
    values = [bytes([n] * width) for n in range(1, 9)]
    array = pa.array([*values, None], pa.binary(width))
    assert strings(of_arrow(array.slice(2, 5))) == values[2:7]
    assert strings(of_arrow(array)) == [*values, b""]
    data = np.frombuffer(b"".join(values), np.uint8)
    assert strings(of_plain(data, 8, width)) == values
    with pytest.raises(NotFramed):
        of_plain(np.append(data, np.uint8(0)), 8, width)


@settings(deadline=None)
@given(WORDS)
def test_plain_pages_give_their_text(words: list[str]) -> None:
    values = [word.encode() for word in words]
    assert strings(of_plain(plain(values), len(values), None)) == values


@pytest.mark.parametrize("words", [["ab", "c", "d"], ["ab", "cd", "ef"]])
def test_joined_pages_end_where_a_value_does(words: list[str]) -> None:
    values = [word.encode() for word in words]
    page, first = plain(values), 4 + len(values[0])
    for ends in ([(1, first)], [(1, first), (3, page.size)]):
        assert strings(of_plain(page, 3, None, ends=ends)) == values
    for ends in ([(1, first + 1)], [(2, first)], [(1, first), (2, first)]):
        with pytest.raises(NotFramed):
            of_plain(page, 3, None, ends=ends)


@settings(deadline=None)
@given(WORDS, st.data())
def test_pages_give_the_same_text_to_be_hashed(words: list[str], data: st.DataObject) -> None:
    """In fewer lots, with more zeros behind; so do some of their rows."""
    values = [word.encode() for word in words]
    wanted = data.draw(st.sets(st.sampled_from(range(len(values)))) if values else st.just(set()))
    for rows in (None, np.array(sorted(wanted), np.int64)):
        texts = of_plain(plain(values), len(values), None, rows)
        some = values if rows is None else [values[row] for row in rows]
        assert strings(texts, texts.to_hash(), spare=256) == some
        assert texts.longest >= max((len(one) + 4 for one in some), default=0)
        assert np.array_equal(hash_texts(texts), hash_texts(of_arrow(pa.array(some, pa.binary()))))


@pytest.mark.parametrize(
    ("widths", "lots", "to_hash"),
    [([16, 32, 24], 3, 1), ([3, 3, 200], 2, 2), ([20, 20, 20], 1, 1), ([4, 5], 2, 1)],
)
def test_near_lengths_are_hashed_as_one_lot(widths: list[int], lots: int, to_hash: int) -> None:
    texts = of_plain(plain([b"x" * width for width in widths]), len(widths), None)
    assert (len(texts.lots), len(texts.to_hash())) == (lots, to_hash)


@settings(deadline=None)
@given(st.lists(st.integers(1, 255), min_size=1, max_size=40), st.integers(0, 3))
def test_values_are_found_wherever_a_page_lies(widths: list[int], shift: int) -> None:
    page = np.append(np.zeros(shift, np.uint8), plain([b"x" * width for width in widths]))
    starts, found = heads(page[shift:], len(widths))
    assert found.tolist() == widths
    assert starts.tolist() == [4 * n + sum(widths[:n]) for n in range(len(widths))]


@pytest.mark.parametrize("page", [b"", b"\0", b"\5\0\0", b"\0\0\0\0", b"\1\0\0\1x", b"a\1\0\0\0x"])
@pytest.mark.parametrize("shift", [0, 1])
def test_what_is_no_value_is_not_found(page: bytes, shift: int) -> None:
    data = np.frombuffer(bytes(shift) + page, np.uint8)[shift:]
    with pytest.raises(NotFramed):
        heads(data, 1)


@settings(deadline=None)
@given(RAW)
def test_plain_pages_of_bytes_give_them_or_are_left_to_others(values: list[bytes]) -> None:
    """Bytes may look like lengths; then the page is not read, rather than read wrongly."""
    try:
        texts = of_plain(plain(values), len(values), None)
    except NotFramed:
        assert len({len(one) for one in values}) > 1
    else:
        assert strings(texts) == values


@settings(deadline=None)
@given(RAW, st.data())
def test_bytes_that_are_no_such_page_are_refused(values: list[bytes], data: st.DataObject) -> None:
    """Whatever is accepted is, byte for byte, the page of what is returned."""
    raw = bytearray(plain(values).tobytes())
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    page = np.frombuffer(bytes(raw), np.uint8)
    try:
        texts = of_plain(page, len(values), None)
    except NotFramed:
        return
    assert plain(strings(texts)).tobytes() == bytes(raw)


@pytest.mark.parametrize("longest", [40, 200])
@settings(deadline=None)
@given(words=WORDS)
def test_text_is_utf8_or_not_certain(words: list[str], longest: int) -> None:
    page = plain([word.encode()[:40] for word in words])
    whole = all(_is_utf8(word.encode()[:40]) for word in words)
    try:
        check_utf8(page, longest)
    except NotFramed:
        assert not whole or longest > 127
    else:
        assert whole


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_character_does_not_reach_over_a_length() -> None:
    """The length 0xA9 would complete the character that the value before it begins."""
    page = plain([b"\xc3", b"x" * 0xA9])
    with pytest.raises(NotFramed):
        check_utf8(page, 4 + 0xA9)


@settings(deadline=None)
@given(RAW, st.booleans())
def test_equal_lanes_are_equal_strings(values: list[bytes], apart: bool) -> None:
    seen: dict[bytes, bytes] = {}
    for _, matrix in of_arrow(pa.array(values, pa.binary())).lots:
        lot = np.hstack([matrix, matrix])[:, : matrix.shape[1]] if apart else matrix
        for cells, row in zip(matrix, lanes(lot), strict=True):
            size = int.from_bytes(cells[:4].tobytes(), "little")
            assert seen.setdefault(row.tobytes(), value := cells[4 : 4 + size].tobytes()) == value
