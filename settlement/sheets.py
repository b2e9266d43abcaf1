"""Sheets of text: CSV or Parquet as a spreadsheet or a program writes them, columns checked.

A sheet is columns of text and the number of each row as a person sees it: in CSV the header
is row 1, as in a spreadsheet; in Parquet the first row is 1. No cell is guessed to be a
number or a date: leading zeros stay. Cells are read by distinct text, so that a million rows
of a few different values cost a few readings.
"""

import csv
import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settlement.errors import BadInput
from settlement.scan import footers
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.money import Ints

SHOWN = 10
"""How many further rows a refusal shows."""

_BOM = b"\xef\xbb\xbf"
_MAGIC = b"PAR1"
_TEXTS = (pa.string(), pa.large_string(), pa.string_view())


@dataclass(frozen=True)
class Sheet:
    """Columns of text without nulls, and the number of each row.

    Blank rows are left out; an absent column is a column of empty cells.
    """

    name: str
    cells: pa.Table
    row_numbers: "Ints"

    def column(self, name: str) -> pa.LargeStringArray:
        """Return a column as one array."""
        return self.cells[name].combine_chunks()

    def cell(self, name: str, row: int) -> str:
        """Return one cell, by its place."""
        return str(self.cells[name][int(row)].as_py())

    def number(self, row: int) -> int:
        """Return the number under which a person finds a row."""
        return int(self.row_numbers[row])

    def where(self, mask: pa.Array) -> "Sheet":
        """Return the rows of a mask, under the same numbers."""
        rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        return Sheet(self.name, self.cells.filter(mask), self.row_numbers[rows])

    def numbers(self, name: str, read: Callable[[str], int], cure: str) -> "Ints":
        """Read a column as whole numbers, each distinct text once, without blanks around it.

        Raises:
            BadInput: ``read`` raised `ValueError`, whose message says what is wrong.
        """
        encoded = pc.utf8_trim_whitespace(self.column(name)).dictionary_encode()
        texts, which = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        values, wrong = np.zeros(len(texts), np.int64), {}
        for position, text in enumerate(texts):
            try:
                values[position] = read(text)
            except ValueError as error:
                wrong[position] = str(error)
                if len(wrong) > SHOWN:  # enough to show; the first is the first of its column
                    break
        if wrong:
            bad = np.isin(which, list(wrong))
            self.refuse(bad, name, lambda row: wrong[which[row]], cure)
        read_in: Ints = values[which]
        return read_in

    def refuse(
        self,
        wrong: "np.ndarray[Any, np.dtype[np.bool_]]",
        column: str,
        what: Callable[[int], str],
        cure: str,
    ) -> None:
        """Raise `BadInput` where a mask is set, naming the first row and some of the others."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            said = [f"row {self.number(row)}: {what(row)}" for row in rows[1 : SHOWN + 2]]
            raise BadInput(
                what(rows[0]),
                where=f"{self.name}, row {self.number(rows[0])}, column {column}",
                cure=cure,
                details=shortened(said, len(rows)),
            )


def shortened(said: Sequence[str], count: int) -> list[str]:
    """Return what is said of all but the first of so many, cut to `SHOWN`."""
    return [*said[:SHOWN], "… and more"] if count - 1 > SHOWN else list(said)


def nearest(text: str, known: Collection[str]) -> str:
    """Say which known text is nearest to an unknown one; empty where none is near."""
    near = difflib.get_close_matches(text, [each for each in known if each], 1, 0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def kind(raw: bytes, name: str) -> Literal["csv", "parquet"]:
    """Tell CSV from Parquet by its first bytes, or by its name where it is damaged."""
    return "parquet" if raw.startswith(_MAGIC) or name.lower().endswith(".parquet") else "csv"


def read(raw: bytes, name: str, columns: Sequence[str], required: Collection[str]) -> Sheet:
    """Read a sheet.

    Args:
        raw: the file's bytes: Parquet, or CSV in UTF-8 with or without a byte order mark.
        name: what to call it in messages.
        columns: every column it may have; absent ones become columns of empty cells.
        required: the columns it must have.

    Raises:
        BadInput: it is neither; a column is unknown, doubled, missing or not text; a row of
            the CSV has more or fewer cells than the header.
    """
    if kind(raw, name) == "parquet":
        table, row_numbers = _parquet(raw, name, columns, required)
    else:
        table, row_numbers = _csv(raw, name, columns, required)
    empty = pa.repeat(pa.scalar("", pa.large_string()), len(table))
    cells = pa.table(
        {each: table[each] if each in table.column_names else empty for each in columns}
    )
    filled = np.zeros(len(cells), bool)
    for column in cells.columns:
        trimmed = pc.utf8_trim_whitespace(column)
        filled |= pc.not_equal(trimmed, "").to_numpy()
    if filled.all():
        return Sheet(name, cells, row_numbers)
    return Sheet(name, cells.filter(pa.array(filled)), row_numbers[filled])


def _check_columns(
    names: Sequence[str], name: str, columns: Sequence[str], required: Collection[str]
) -> None:
    for each in names:
        if each not in columns:
            near = nearest(each, columns)
            raise BadInput(
                f"unknown column {each!r}{near}",
                where=name,
                cure=f"known are {', '.join(columns)}, parted by commas",
            )
        if list(names).count(each) > 1:
            raise BadInput(f"two columns {each!r}", where=name, cure="keep one of them")
    for each in required:
        if each not in names:
            raise BadInput(f"no column {each!r}", where=name, cure="add it to the header")


def _csv(
    raw: bytes, name: str, columns: Sequence[str], required: Collection[str]
) -> tuple[pa.Table, "Ints"]:
    body = raw.removeprefix(_BOM)
    _check_encoding(body, name)
    names = _header(body, name)
    _check_columns(names, name, columns, required)
    blank: list[int] = []
    uneven: list[tuple[int, int]] = []

    def odd(row: Any) -> str:
        if row.text.strip(" \t,\r\n"):
            uneven.append((row.number, row.actual_columns))
        else:
            blank.append(row.number)
        return "skip"

    if len(_first_line(body)) == len(body):
        body += b"\n"
    table = _cells(body, name, names, odd)
    if uneven:
        row, cells = uneven[0]
        raise BadInput(
            f"{count_of(cells, 'cell')} where the header has {len(names)}",
            where=f"{name}, row {row}",
            cure="write a cell for each column, and cells with a comma in double quotes",
            details=shortened(
                [f"row {n}: {count_of(m, 'cell')}" for n, m in uneven[1:]], len(uneven)
            ),
        )
    every = np.arange(2, len(table) + len(blank) + 2, dtype=np.int64)
    return table, every[~np.isin(every, blank)]


def _check_encoding(body: bytes, name: str) -> None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        row = 1 + body.count(b"\n", 0, error.start)
        raise BadInput("not UTF-8", where=f"{name}, line {row}", cure=_AS_CSV) from error


def _cells(body: bytes, name: str, names: list[str], odd: Callable[[Any], str]) -> pa.Table:
    """Read all cells as text; ``odd`` is called with each row of another length."""
    import pyarrow.csv as pacsv

    try:
        return pacsv.read_csv(
            pa.BufferReader(body),
            pacsv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            pacsv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=odd
            ),
            pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string())),
        )
    except pa.ArrowException as error:
        raise BadInput(
            f"not readable as CSV ({str(error).splitlines()[0]})", where=name, cure=_AS_CSV
        ) from error


_AS_CSV = "save it as CSV in UTF-8"


def _header(body: bytes, name: str) -> list[str]:
    """Return the names in the first line; raises `BadInput` where there are none."""
    try:
        first = next(csv.reader([_first_line(body).decode()]), [])
    except csv.Error as error:
        raise BadInput(f"no header ({error})", where=f"{name}, row 1", cure=_AS_CSV) from error
    return [each.strip() for each in first]


def _first_line(body: bytes) -> bytes:
    ends = [at for at in (body.find(b"\n"), body.find(b"\r")) if at >= 0]
    return body[: min(ends, default=len(body))]


def _parquet(
    raw: bytes, name: str, columns: Sequence[str], required: Collection[str]
) -> tuple[pa.Table, "Ints"]:
    import pyarrow.parquet as pq

    try:
        _check_footer(raw)
        table = pq.read_table(pa.BufferReader(raw))
        table.validate(full=True)
        names = table.column_names
    except Exception as error:  # a damaged file makes Arrow raise far more than its own errors
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"not readable as Parquet ({said})", where=name, cure="write it again"
        ) from error
    _check_columns(names, name, columns, required)
    for field in table.schema:
        inner = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if inner not in _TEXTS:
            raise BadInput(
                f"{field.type}, not text",
                where=f"{name}, column {field.name}",
                cure="write every column as text, so that nothing is lost of 00042 or 0.10",
            )
    text = pa.large_string()
    cells = {each: pc.fill_null(table[each].cast(text), "") for each in names}
    return pa.table(cells), np.arange(1, len(table) + 1, dtype=np.int64)


def _check_footer(raw: bytes) -> None:
    """Refuse a footer by which Arrow might end the process, or read something else."""
    begin = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    if raw[-4:] != footers.MAGIC or begin < len(footers.MAGIC):
        raise footers.Broken("it does not end as Parquet does")
    footers.read(raw[begin:-8], begin)
