"""Thrift's compact protocol: what is written is read, and whatever else comes in, it ends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.scan.thrift import NotThrift, struct, varint

INTS = st.integers(-(2**63), 2**63 - 1)
LISTS = st.lists(INTS) | st.lists(st.booleans()) | st.lists(st.binary())
PLAIN = INTS | st.booleans() | st.binary() | LISTS
FIELDS = st.recursive(
    st.dictionaries(st.integers(1, 40), PLAIN, max_size=5),
    lambda inner: st.dictionaries(st.integers(1, 40), PLAIN | inner | st.lists(inner), max_size=4),
    max_leaves=8,
)


def varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def kind_of(value: Any) -> int:
    if isinstance(value, bool):
        return 1 if value else 2
    return {int: 6, bytes: 8, list: 9, dict: 12}[type(value)]


def written(value: Any, *, in_list: bool = False) -> bytes:
    """A value as the protocol writes it."""
    if isinstance(value, bool):
        return bytes([1 if value else 2]) if in_list else b""
    if isinstance(value, int):
        return varint_bytes((value << 1) ^ (value >> 63))
    if isinstance(value, bytes):
        return varint_bytes(len(value)) + value
    if isinstance(value, list):
        kind = kind_of(value[0]) if value else 12
        size, more = (len(value) << 4, b"") if len(value) < 15 else (240, varint_bytes(len(value)))
        return bytes([size | kind]) + more + b"".join(written(one, in_list=True) for one in value)
    out, before = b"", 0
    for number in sorted(value):
        step, kind = number - before, kind_of(value[number])
        out += bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + written(number)
        out += written(value[number])
        before = number
    return out + b"\0"


@given(FIELDS)
def test_what_is_written_is_read(fields: dict[int, Any]) -> None:
    raw = written(fields)
    assert struct(raw, 0) == (fields, len(raw))
    assert struct(b"xy" + raw + b"z", 2) == (fields, len(raw) + 2)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_structure_or_refused(raw: bytes) -> None:
    for data in (raw, memoryview(raw)):
        try:
            _, end = struct(data, 0)
        except (NotThrift, IndexError):
            continue
        assert 0 < end <= len(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x16" + b"\xff" * 9 + b"\x7f\0", "64 bits"),
        (b"\x16" + b"\x80" * 20, "64 bits"),
        (b"\x19\x18\xff\xff\xff\xff\x0f", "string longer"),
        (b"\x19\xfc\xff\xff\xff\xff\x0f", "list longer"),
        (b"\x17\x00", "number longer"),
        (b"\x1c" * 100, "nested too deeply"),
        (b"\x19\x19" * 100, "nested too deeply"),
        (b"\x26\x02\x06\x02\x02\0", "out of order"),
        (b"\x1f\0", "type 15"),
    ],
)
def test_what_no_writer_writes_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(NotThrift, match=why):
        struct(raw, 0)


def test_bytes_that_end_too_soon() -> None:
    with pytest.raises(IndexError):
        varint(b"\x80", 0)
    with pytest.raises(IndexError):
        struct(b"\x18\xff\xff\xff\xff\x0f", 0)
