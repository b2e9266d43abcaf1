"""Thrift's compact protocol, as far as Parquet uses it: footers and the headers of pages.

A structure becomes a dictionary of its fields by their numbers, a list a list, a string bytes.
Nothing is known here of what the fields mean. Whatever bytes come in, this ends: no more work
is done than there are bytes, nothing is read twice, and no more is nested than Parquet needs.
"""

from typing import Any

Data = bytes | memoryview

_DEEPEST = 32
_FALSE = 2
_BYTE, _INT16, _INT64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 3, 4, 6, 7, 8, 9, 10, 12


class NotThrift(ValueError):
    """Bytes that no writer of Parquet would write."""


def varint(data: Data, at: int) -> tuple[int, int]:
    """Read a whole number from 0 on; return it and where what follows begins.

    Raises:
        NotThrift: it has more than 64 bits.
        IndexError: the bytes end within it.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise NotThrift("a number of more than 64 bits")
    if value >> 64:
        raise NotThrift("a number of more than 64 bits")
    return value, at


def struct(data: Data, at: int, depth: int = 0, number: int = 0) -> tuple[dict[int, Any], int]:
    """Read the fields of a structure; return them by their numbers, and where it ends.

    ``number`` is that of the field before the first one that is read.

    Raises:
        NotThrift: the bytes are not such a structure.
        IndexError: they end within it.
    """
    fields: dict[int, Any] = {}
    before = number
    while head := data[at]:
        at += 1
        kind = head & 15
        if head > 15:
            number += head >> 4
        else:
            zigzag, at = varint(data, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        if number <= before:
            raise NotThrift("fields out of order")
        before = number
        if _INT16 <= kind <= _INT64:
            value = data[at]
            at += 1
            if value > 127:
                value, at = varint(data, at - 1)
            fields[number] = (value >> 1) ^ -(value & 1)
        elif kind == _BINARY:
            size = data[at]
            at += 1
            if size > 127:
                size, at = varint(data, at - 1)
            fields[number] = data[at : at + size]
            at += size
        elif kind == _STRUCT and depth < _DEEPEST:
            fields[number], at = struct(data, at, depth + 1)
        elif kind <= _FALSE:  # a boolean is its own type
            fields[number] = kind != _FALSE
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def list_head(data: Data, at: int) -> tuple[int, int, int]:
    """Return how many values a list has, of which type, and where the first one begins.

    Raises:
        NotThrift: there cannot be so many in the bytes that are left.
        IndexError: they end within it.
    """
    size, kind = data[at] >> 4, data[at] & 15
    at += 1
    if size == 15:
        size, at = varint(data, at)
    if size > len(data) - at:
        raise NotThrift("a list longer than what is left")
    return size, kind, at


def _value(data: Data, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind == _BINARY:
        size, at = varint(data, at)
        end = at + size
        if end > len(data):
            raise NotThrift("a string longer than what is left")
        return data[at:end], end
    if _INT16 <= kind <= _INT64:
        zigzag, at = varint(data, at)
        return (zigzag >> 1) ^ -(zigzag & 1), at
    if depth >= _DEEPEST:
        raise NotThrift("structures nested too deeply")
    if kind == _STRUCT:
        return struct(data, at, depth + 1)
    if kind in {_LIST, _SET}:
        return _list(data, at, depth + 1)
    if kind == _BYTE:
        return data[at], at + 1
    if kind == _DOUBLE:
        if at + 8 > len(data):
            raise NotThrift("a number longer than what is left")
        return None, at + 8
    raise NotThrift(f"a field of type {kind}")


def _list(data: Data, at: int, depth: int) -> tuple[list[Any], int]:
    size, kind, at = list_head(data, at)
    if kind <= _FALSE:
        return [byte == 1 for byte in data[at : at + size]], at + size
    values: list[Any] = []
    if kind == _STRUCT:
        for _ in range(size):
            value, at = struct(data, at, depth + 1)
            values.append(value)
        return values, at
    for _ in range(size):
        value, at = _value(data, at, kind, depth)
        values.append(value)
    return values, at
