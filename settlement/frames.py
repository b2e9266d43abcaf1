"""Tables as pandas frames: made, checked, published, and read again.

Inside the program a table is a pandas frame without the ``month`` and ``revision`` columns:
text as ``str``, counts as integers, money as int64 units of 1e-8 (see `money`). Published,
it is Parquet with those two columns first and money as exact decimals. `check` stands on
every arrow between two steps; `to_arrow` and `to_frame` are the only way out and in.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement.decimals import NO_PRICE, decimals, from_decimals
from settlement.month import Month
from settlement.tables import Column, Kind, Table, WrongTable

if TYPE_CHECKING:
    from settlement.money import Ints


def frame(table: Table, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Make a table from columns of the right kinds, in the declared order.

    Text may come as any sequence or Arrow array of strings; numbers as integers, whose array
    becomes the table's and must not be changed. Raises `WrongTable` where a column is missing,
    superfluous, of another kind, or unsorted.
    """
    if set(columns) != set(table.names):
        raise WrongTable(f"{table.name}: columns {sorted(columns)}, not {sorted(table.names)}")
    series = {column.name: _series(column, columns[column.name]) for column in table.columns}
    if len({len(values) for values in series.values()}) > 1:
        raise WrongTable(f"{table.name}: columns of different lengths")
    made = pd.DataFrame(series, copy=False)
    check(table, made)
    return made


def of_arrow(table: Table, rows: pa.Table) -> pd.DataFrame:
    """Make a table from Arrow's columns of the same names; raises what `frame` raises."""
    return frame(table, {name: rows[name] for name in rows.column_names})


def empty(table: Table) -> pd.DataFrame:
    """Return a table without rows."""
    return frame(table, {name: [] for name in table.names})


def check(table: Table, rows: pd.DataFrame) -> None:
    """Raise `WrongTable` unless rows are exactly the declared table, sorted, keys unique."""
    if list(rows.columns) != table.names:
        raise WrongTable(f"{table.name}: columns {list(rows.columns)}, not {table.names}")
    for column in table.columns:
        _check_column(table, column, rows[column.name])
    later = _follows(table, rows)
    if not later.all():
        row = int(np.flatnonzero(~later)[0])
        pair = rows[table.key].iloc[row : row + 2].values.tolist()
        raise WrongTable(f"{table.name}: key {pair[1]} does not follow {pair[0]}")


def _check_column(table: Table, column: Column, values: "pd.Series[Any]") -> None:
    expected = _inside(column.kind)
    if str(values.dtype) != expected:
        raise WrongTable(f"{table.name}.{column.name}: {values.dtype}, not {expected}")
    if not column.nullable and column.kind is Kind.TEXT and values.hasnans:
        raise WrongTable(f"{table.name}.{column.name}: null")


def _follows(table: Table, rows: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Tell for each row but the first whether its key is greater than the one before."""
    later = np.zeros(max(len(rows) - 1, 0), bool)
    undecided = ~later
    for name in table.key:
        values = rows[name]
        comparable = arrow_text(values) if values.dtype == "str" else pa.array(values.to_numpy())
        before, after = comparable[:-1], comparable[1:]
        later |= undecided & pc.less(before, after).to_numpy(zero_copy_only=False)
        undecided &= pc.equal(before, after).to_numpy(zero_copy_only=False)
    return later


def starts(rows: pd.DataFrame, names: Sequence[str]) -> "Ints":
    """Return the first row of each run of equal values in sorted rows."""
    if rows.empty:
        return np.zeros(0, np.int64)
    changed = np.zeros(len(rows), bool)
    changed[0] = True
    for name in names:
        values = arrow_text(rows[name])
        differs = pc.not_equal(values[:-1], values[1:])
        changed[1:] |= differs.to_numpy(zero_copy_only=False)
    return np.flatnonzero(changed)


def arrow_text(values: "pd.Series[Any]") -> pa.Array:
    """Return a text column as one Arrow array of large strings, without copying if it can."""
    array = pa.array(values, type=pa.large_string(), from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def joined(parts: "list[pa.Array | str]", separator: str) -> pa.Array:
    """Join texts row by row, null as nothing; a plain text stands in every row."""
    large = [
        pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts
    ]
    return pc.binary_join_element_wise(
        *large, pa.scalar(separator, pa.large_string()), null_handling="replace"
    )


def to_arrow(table: Table, rows: pd.DataFrame, month: Month, revision: int) -> pa.Table:
    """Return rows as published: month and revision first, money as exact decimals."""
    check(table, rows)
    columns = [
        pa.array([str(month)], pa.string()).take(pa.array(np.zeros(len(rows), np.int32))),
        pa.array(np.full(len(rows), revision, np.int16)),
    ]
    columns += [_published(column, rows[column.name]) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.published)


def to_frame(table: Table, published: pa.Table) -> pd.DataFrame:
    """Return a published table as rows; raises `WrongTable` unless its schema is exact."""
    if not published.schema.equals(table.published):
        raise WrongTable(f"{table.name}: the file's columns are not the declared ones")
    for column in table.columns:
        if not column.nullable and published[column.name].null_count:
            raise WrongTable(f"{table.name}.{column.name}: null")
    return frame(
        table,
        {column.name: _from_published(column, published[column.name]) for column in table.columns},
    )


def batches(rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    """Yield rows in slices of at most ``size``, at least one slice."""
    for start in range(0, max(len(rows), 1), size):
        yield rows.iloc[start : start + size]


def _inside(kind: Kind) -> str:
    return {Kind.TEXT: "str", Kind.INT16: "int16"}.get(kind, "int64")


def _series(column: Column, values: Any) -> "pd.Series[Any]":
    if column.kind is not Kind.TEXT:
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise WrongTable(f"{column.name}: {array.dtype}, not whole numbers")
        whole = array.astype(_inside(column.kind), copy=False)
        if (whole != array).any():
            raise WrongTable(f"{column.name}: a number beyond {_inside(column.kind)}")
        return pd.Series(whole, copy=False)
    if isinstance(values, pd.Series) and values.dtype == "str":
        return values.reset_index(drop=True)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, pa.large_string(), from_pandas=True)
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pd.Series(pd.array(whole.cast(pa.large_string()), dtype="str"))


def _published(column: Column, values: "pd.Series[Any]") -> pa.Array:
    if column.kind is Kind.TEXT:
        return arrow_text(values).cast(pa.string())
    numbers = values.to_numpy()
    if not column.kind.is_money:
        return pa.array(numbers)
    return decimals(numbers, column.kind, numbers == NO_PRICE if column.nullable else None)


def _from_published(column: Column, values: pa.ChunkedArray) -> Any:
    if not column.kind.is_money:
        return values if column.kind is Kind.TEXT else values.to_numpy()
    return from_decimals(values, column.kind)
