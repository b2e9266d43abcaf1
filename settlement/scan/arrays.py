"""Arrow's arrays from numbers and texts at hand, and numbers out of them, without pandas.

`pyarrow.array` and `to_numpy` import pandas to see whether they deal with something of it. That
takes longer than to count a million calls, and a count has no other use for it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from settlement.scan.texts import Bools

Numbers = np.ndarray[Any, np.dtype[Any]]


def integers(values: Numbers, known: Bools | None = None) -> pa.Array:
    """Return integers as an array of their type; those not ``known`` are null.

    It shares their memory where that is in a row.
    """
    own = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(own.dtype)
    return pa.Array.from_buffers(kind, len(own), [_valid(known), pa.py_buffer(own)])


def strings(values: Sequence[str | None]) -> pa.Array:
    """Return texts as large strings, in UTF-8; None is null."""
    cells = [(value or "").encode() for value in values]
    offsets = np.zeros(len(cells) + 1, np.int64)
    np.cumsum([len(cell) for cell in cells], out=offsets[1:])
    valid = _valid(np.array([value is not None for value in values], bool))
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(cells))]
    return pa.Array.from_buffers(pa.large_string(), len(cells), buffers)


def _valid(known: Bools | None) -> pa.Buffer | None:
    """Return Arrow's bits for what is not null; None where nothing is."""
    if known is None or known.all():
        return None
    return pa.py_buffer(np.packbits(known, bitorder="little"))


def to_numpy(array: pa.Array, null: int = 0) -> Numbers:
    """Return an array of integers as numpy's, not to be written; ``null`` stands for null."""
    sign = "i" if pa.types.is_signed_integer(array.type) else "u"
    kind = np.dtype(f"{sign}{array.type.byte_width}")
    held = array.buffers()[1] if len(array) else b""
    values: Numbers = np.frombuffer(held, kind)[array.offset :][: len(array)]
    return np.where(nulls(array), kind.type(null), values) if array.null_count else values


def nulls(array: pa.Array) -> Bools:
    """Tell which cells of an array that is no dictionary are null."""
    if not array.null_count:
        return np.zeros(len(array), bool)
    if pa.types.is_null(array.type):
        return np.ones(len(array), bool)
    valid = np.frombuffer(array.buffers()[0], np.uint8)
    bits = np.unpackbits(valid, count=array.offset + len(array), bitorder="little")
    return np.equal(bits[array.offset :], 0)
