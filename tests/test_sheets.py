"""Sheets: what a spreadsheet or a program may write, which row is meant, and what is refused."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement import sheets
from settlement.errors import BadInput
from settlement.sheets import Sheet

COLUMNS = ("account_id", "item", "note")


def read(raw: bytes, name: str = "sheet.csv") -> Sheet:
    return sheets.read(raw, name, COLUMNS, ("account_id",))


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


HEADER = "account_id,item,note\n"
READ = {
    "plain": (HEADER + "0042,a,x\n0043,b,\n", [("0042", "a", "x"), ("0043", "b", "")], [2, 3]),
    "with a byte order mark": ("\ufeff" + HEADER + "0042,a,x\n", [("0042", "a", "x")], [2]),
    "windows line ends": (
        (HEADER + "0042,a,x\n\n0043,b,y").replace("\n", "\r\n"),
        [("0042", "a", "x"), ("0043", "b", "y")],
        [2, 4],
    ),
    "old mac line ends": (
        (HEADER + "0042,a,x\n0043,b,y").replace("\n", "\r"),
        [("0042", "a", "x"), ("0043", "b", "y")],
        [2, 3],
    ),
    "blank lines of every kind": (
        HEADER + "\n0042,a,x\n   \n,,\n , ,\n,,,,,,\n0043,b,y\n\n\n",
        [("0042", "a", "x"), ("0043", "b", "y")],
        [3, 8],
    ),
    "columns in another order, some absent": (
        "item,account_id\na,0042\n",
        [("0042", "a", "")],
        [2],
    ),
    "blanks in the header": ("account_id , item\n0042,a\n", [("0042", "a", "")], [2]),
    "quotes": (
        HEADER + '"00,42","a ""b""",\n"two\nlines",b,x\n,c,\n',
        [("00,42", 'a "b"', ""), ("two\nlines", "b", "x"), ("", "c", "")],
        [2, 3, 4],
    ),
    "what looks like null, numbers and dates": (
        HEADER + "NA,null,1e5\nNaN,007,2026-01-01\n",
        [("NA", "null", "1e5"), ("NaN", "007", "2026-01-01")],
        [2, 3],
    ),
    "a header alone": (HEADER, [], []),
    "a header without an end": ("account_id", [], []),
}


@pytest.mark.parametrize(("text", "expected", "numbers"), READ.values(), ids=READ)
def test_csv_is_read_as_text_and_rows_keep_the_numbers_a_spreadsheet_shows(
    text: str, expected: list[tuple[str, ...]], numbers: list[int]
) -> None:
    sheet = read(text.encode())
    assert list(zip(*(sheet.column(name).to_pylist() for name in COLUMNS), strict=True)) == expected
    assert [sheet.number(row) for row in range(len(expected))] == numbers


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
)
def test_parquet_is_read_as_text_with_null_as_empty(kind: pa.DataType) -> None:
    cells = pa.array(["0042", None, "0043"], pa.string())
    table = pa.table({"account_id": cells.cast(kind), "note": ["x", None, None]})
    sheet = read(parquet(table), "sheet.parquet")
    assert sheet.column("account_id").to_pylist() == ["0042", "0043"]
    assert sheet.column("item").to_pylist() == ["", ""]
    assert [sheet.number(row) for row in (0, 1)] == [1, 3]


def test_parquet_is_known_by_its_first_bytes_whatever_its_name() -> None:
    raw = parquet(pa.table({"account_id": ["0042"]}))
    assert sheets.kind(raw, "sheet.csv") == sheets.kind(b"", "SHEET.Parquet") == "parquet"
    assert read(raw, "sheet").column("account_id").to_pylist() == ["0042"]


REFUSED = {
    "an unknown column": (
        b"account_id,itm\n",
        "sheet.csv: unknown column 'itm' (did you mean 'item'?)",
    ),
    "semicolons": (b"account_id;item\n", "unknown column 'account_id;item'"),
    "a comma too many": (b"account_id,item,\n", "unknown column ''"),
    "a column twice": (b"account_id,item,item\n", "two columns 'item'; keep one of them"),
    "a column missing": (b"item\na\n", "no column 'account_id'; add it to the header"),
    "nothing": (b"", "no column 'account_id'"),
    "a cell too few": (b"account_id,item,note\na,b,c\n\na,b\n", "sheet.csv, row 4: 2 cells where"),
    "a cell too many": (b"account_id,item\na,b,c\n", "sheet.csv, row 2: 3 cells where the header"),
    "latin": (b"account_id,item\na,b\ncaf\xe9,b\n", "sheet.csv, line 3: not UTF-8; save it as CSV"),
    "utf-16": ("account_id\n1\n".encode("utf-16"), "sheet.csv, line 1: not UTF-8"),
    "a workbook": (b"PK\x03\x04\xff\xfe", "not UTF-8"),
    "broken parquet": (b"PAR1 and then nothing", "not readable as Parquet"),
    "numbers": (parquet(pa.table({"account_id": [42]})), "column account_id: int64, not text"),
    "dates": (
        parquet(pa.table({"account_id": ["a"], "note": pa.array([0], pa.date32())})),
        "column note: date32[day], not text",
    ),
    "an unknown column in parquet": (
        parquet(pa.table({"account_id": ["a"], "acount": ["b"]})),
        "unknown column 'acount'",
    ),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=REFUSED)
def test_a_sheet_is_refused_in_one_line(raw: bytes, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(raw)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_column_of_numbers_names_the_first_wrong_row_and_some_of_the_others() -> None:
    cells = ["1", " 2 ", *["x"] * 3, *(f"y{n}" for n in range(20))]
    sheet = read(b"account_id,item\n" + "".join(f"a,{cell}\n" for cell in cells).encode())
    with pytest.raises(BadInput) as refused:
        sheet.numbers("item", int, "write digits")
    assert str(refused.value).startswith("sheet.csv, row 4, column item: ")
    assert refused.value.details[0].startswith("row 5: ")
    assert len(refused.value.details) == sheets.SHOWN + 1
    assert refused.value.details[-1] == "… and more"
    good = read(b"account_id,item\na,1\na, 2 \n")
    assert np.array_equal(good.numbers("item", int, ""), [1, 2])
