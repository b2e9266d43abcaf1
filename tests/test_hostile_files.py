"""Files made to hurt: the right count, or one line that names the file, in little memory.

Memory is that of a process which counts one file with one thread.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement.errors import BadInput, MissingInput
from settlement.scan import names, sizes
from settlement.scan.finding import find
from settlement.scan.thrift import struct
from settlement.usage import count
from tests.damage import counted_apart
from tests.logs import PERIOD, START, VERSION, call, write
from tests.test_thrift import varint_bytes

ENOUGH = 1 << 30
"""Bytes of memory that are enough for any file here."""
PLAIN = {"use_dictionary": False, "compression": "zstd", "write_statistics": False}
ARROW, PAGES = 8000, 20_000
"""Row groups of so many rows are read by Arrow, or by their pages."""


def log_of(columns: dict[str, Any], rows: int) -> pa.Table:
    """Good calls, with some columns in front of the others."""
    return pa.table(
        columns
        | {
            name: cells
            for name, cells in {
                "request_id": pa.array(range(rows)).cast(pa.string()),
                "account_id": pa.repeat("007", rows),
                "interface": pa.repeat("DetectFace", rows),
                "timestamp": pa.array(START + np.arange(rows), pa.timestamp("us", "UTC")),
                "status_code": pa.array(np.zeros(rows, np.int32)),
            }.items()
            if name not in columns
        }
    )


def texts(rows: int, shortest: int, longest: int) -> pa.Array:
    """Different texts of random digits; as few compress."""
    random = np.random.default_rng(1)
    widths = random.integers(shortest, longest + 1, rows)
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    data = random.integers(0, 256, int(offsets[-1]), np.uint8)
    digits = np.frombuffer(b"0123456789abcdef" * 16, np.uint8)[data]
    return pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(digits))


def counted(path: Path, table: pa.Table, **options: Any) -> dict[str, Any]:
    """Write a file, count it apart, and see that little memory was enough."""
    path.mkdir(exist_ok=True)
    options = {"compression": "zstd", "row_group_size": len(table)} | options
    pq.write_table(table, path / "bad.parquet", **options)
    return told(path)


def told(path: Path) -> dict[str, Any]:
    found = counted_apart(path)
    assert "bug" not in found, found
    assert "killed" not in found, found
    assert found["memory"] < ENOUGH
    return found


def refusal(found: dict[str, Any]) -> str:
    """The one line of a refusal that names the file."""
    assert found["code"] == 65
    said = found["refused"]
    assert isinstance(said, str)
    assert said.startswith("bad.parquet")
    assert "\n" not in said
    return said


# ---------------------------------------------------------------- long values


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("shortest", [900, 1000])
def test_long_ids_are_decoded_in_parts(tmp_path: Path, shortest: int, dictionary: bool) -> None:
    """Of three hundred megabytes in one row group a fraction is in memory at a time."""
    ids = texts(300_000, shortest, 1000)
    found = counted(tmp_path, log_of({"request_id": ids}, len(ids)), use_dictionary=dictionary)
    assert found["rows"]["billed"] == 300_000
    assert found["memory"] < 700 << 20


def test_long_ids_that_come_twice_are_charged_once(tmp_path: Path) -> None:
    ids = texts(100_000, 1000, 1000)
    ids = pa.concat_arrays([ids, ids])
    found = counted(tmp_path, log_of({"request_id": ids}, len(ids)), **PLAIN)
    assert found["rows"]["billed"] == 100_000


def test_of_long_rejected_rows_few_are_kept(tmp_path: Path) -> None:
    """Rejected rows stay in memory until they are written; these are beyond 256 MiB."""
    ids = texts(400_000, 1000, 1000)
    changed = {"request_id": ids, "account_id": pa.nulls(len(ids), pa.string())}
    found = counted(tmp_path, log_of(changed, len(ids)))
    assert found["rows"]["rejected.missing_account_id"] == len(ids)
    assert len(found["rejects"]["row"]) == 10
    assert found["memory"] < 1000 << 20


@pytest.mark.parametrize("rows", [500_000, 4_200_000])
def test_words_of_a_dictionary_are_not_repeated_in_memory(tmp_path: Path, rows: int) -> None:
    """Many rows of a few long ids, in a small file; by pages, and by Arrow."""
    table = log_of({"request_id": repeated(rows, texts(10, 50_000, 100_000))}, rows)
    found = counted(tmp_path, table, store_schema=False)
    assert "too much for memory" in refusal(found)


def test_words_of_a_dictionary_are_counted(tmp_path: Path) -> None:
    table = log_of({"request_id": repeated(PAGES, texts(10, 5_000, 10_000))}, PAGES)
    found = counted(tmp_path, table, store_schema=False)
    assert found["rows"]["billed"] == 10


def repeated(rows: int, words: pa.Array) -> pa.Array:
    codes = np.arange(rows, dtype=np.int32) % len(words)
    return pa.DictionaryArray.from_arrays(codes, words.cast(pa.string()))


def test_long_accounts_are_counted(tmp_path: Path) -> None:
    accounts = texts(500, 900, 1000)
    rows = np.arange(200_000) % 500
    table = log_of({"account_id": accounts.take(pa.array(rows))}, len(rows))
    for number, options in enumerate([PLAIN, {}]):
        found = counted(tmp_path / str(number), table, **options)
        assert len(found["usage"]["calls"]) == 500
        assert set(found["usage"]["calls"]) == {400}


def test_more_long_accounts_than_memory_holds_are_refused(tmp_path: Path) -> None:
    accounts = texts(names.LONGEST // 900, 1000, 1000)
    said = refusal(counted(tmp_path, log_of({"account_id": accounts}, len(accounts)), **PLAIN))
    assert "column 'account_id': has account ids of over 256 bytes that come to 128 MiB" in said


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("name", ["request_id", "account_id"])
def test_strings_of_a_megabyte_are_counted_or_refused(
    tmp_path: Path, name: str, dictionary: bool
) -> None:
    """Arrow puts up to 1,024 of them in a page."""
    few, many = (
        counted(
            tmp_path / str(rows),
            log_of({name: [f"{n:09}" + "x" * 1_000_000 for n in range(rows)]}, rows),
            use_dictionary=dictionary,
        )
        for rows in (50, 300)
    )
    assert few["rows"]["billed"] == 50
    what = "dictionary" if dictionary else "page"
    assert f"column '{name}': has a {what} of 286 MiB in row group 0" in refusal(many)


# ---------------------------------------------------------------- bombs

BOMB = 512 << 20
"""Bytes that a page opens into: half a gigabyte."""


def bomb(path: Path, claim: int) -> None:
    """Let the first page of a file open into `BOMB` bytes, and its header claim so many.

    The file stays as long as it is: the header loses what it need not say, and a frame of zstd
    that opens into nothing fills the rest.
    """
    raw = path.read_bytes()
    fields, start = struct(raw, 4)
    kind, size = fields[1], fields[3]
    body = pa.Codec("zstd").compress(bytes(16 << 20)).to_pybytes() * (BOMB >> 24)
    rest = size - len(body) - 8
    body += b"\x50\x2a\x4d\x18" + rest.to_bytes(4, "little") + bytes(rest)
    if kind == 2:
        part = b"\x4c" + number(fields[7][1]) + number(fields[7][2])
    else:
        part = b"\x2c" + number(fields[5][1]) + number(0) + number(3) + number(3)
    before, behind = number(kind) + b"\x15", number(size) + part + b"\0\0"
    header = before + padded(claim << 1, start - 4 - len(before) - len(behind)) + behind
    path.write_bytes(raw[:4] + header + body + raw[start + size :])


def number(value: int) -> bytes:
    """The next field of a structure, a number of 32 bits."""
    return b"\x15" + varint_bytes(value << 1)


def padded(value: int, size: int) -> bytes:
    """A number in more bytes than it needs."""
    least = varint_bytes(value)
    more = size - len(least)
    assert more >= 0
    return least if not more else least[:-1] + bytes([least[-1] | 128, *[128] * (more - 1), 0])


RANDOM = np.random.default_rng(2).integers(0, 1 << 30, PAGES)
BOMBED: dict[str, Callable[[int], pa.Array]] = {
    "request_id": lambda rows: texts(rows, 150, 150),
    "account_id": lambda rows: texts(rows, 150, 150),
    "interface": lambda rows: texts(rows, 150, 150),
    "timestamp": lambda rows: pa.array(RANDOM[:rows] + START, pa.timestamp("us", "UTC")),
    "status_code": lambda rows: pa.array(RANDOM[:rows], pa.int32()),
}


@pytest.mark.parametrize("rows", [ARROW, PAGES])
@pytest.mark.parametrize("name", BOMBED)
def test_a_page_that_opens_into_far_more_is_refused(tmp_path: Path, name: str, rows: int) -> None:
    table = log_of({name: BOMBED[name](rows)}, rows)
    pq.write_table(
        table, tmp_path / "bad.parquet", data_page_size=1 << 30, store_schema=False, **PLAIN
    )
    bomb(tmp_path / "bad.parquet", BOMB)
    assert f"column '{name}': has" in (said := refusal(told(tmp_path)))
    assert "512 MiB" in said


@pytest.mark.parametrize("rows", [ARROW, PAGES])
@pytest.mark.parametrize("name", ["request_id", "account_id"])
def test_so_is_a_dictionary(tmp_path: Path, name: str, rows: int) -> None:
    how = PLAIN | {"use_dictionary": [name], "dictionary_pagesize_limit": 1 << 30}
    table = log_of({name: texts(rows, 150, 150)}, rows)
    pq.write_table(table, tmp_path / "bad.parquet", store_schema=False, **how)
    bomb(tmp_path / "bad.parquet", BOMB)
    assert "512 MiB" in refusal(told(tmp_path))


@pytest.mark.parametrize("rows", [ARROW, PAGES])
def test_a_page_that_only_claims_too_much_is_refused(tmp_path: Path, rows: int) -> None:
    table = log_of({"request_id": texts(rows, 150, 150)}, rows)
    pq.write_table(table, tmp_path / "bad.parquet", data_page_size=1 << 30, **PLAIN)
    bomb(tmp_path / "bad.parquet", 64 << 30)
    assert "65536 MiB" in refusal(told(tmp_path))


@pytest.mark.parametrize("codec", ["snappy", "gzip"])
def test_bombs_of_other_codecs_are_refused(tmp_path: Path, codec: str) -> None:
    ids = [f"{n:04}" + "x" * 300_000 for n in range(1000)]
    table = log_of({"request_id": ids}, len(ids))
    level = {"compression_level": 1} if codec == "gzip" else {}
    said = refusal(counted(tmp_path, table, **PLAIN | {"compression": codec} | level))
    assert "has a page of 286 MiB" in said


# ---------------------------------------------------------------- very many


def test_ten_thousand_columns_are_no_matter(tmp_path: Path) -> None:
    table = log_of({f"more{n}": pa.nulls(100, pa.int8()) for n in range(10_000)}, 100)
    assert counted(tmp_path, table)["rows"]["billed"] == 100


def test_thousands_of_row_groups_are_no_matter(tmp_path: Path) -> None:
    table = log_of({}, 20_000)
    found = counted(tmp_path, table, row_group_size=2)
    assert found["rows"]["billed"] == 20_000
    assert found["memory"] < 300 << 20


@pytest.mark.parametrize("ids", ["alike", "of one length", "of many lengths"])
def test_a_row_group_for_each_long_id_is_no_matter(tmp_path: Path, ids: str) -> None:
    """Small row groups are read together; their words would fill memory."""
    size, rows = 10 << 20, 30
    values = {
        "alike": ["x" * size] * rows,
        "of one length": [f"{n:02}" + "x" * size for n in range(rows)],
        "of many lengths": [f"{n:02}" + "x" * (size + 8 * n) for n in range(rows)],
    }
    found = counted(tmp_path, log_of({"request_id": values[ids]}, rows), row_group_size=1)
    assert found["rows"]["billed"] == (1 if ids == "alike" else rows)
    assert ids == "alike" or found["memory"] < 350 << 20


# ---------------------------------------------------------------- files that change


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    write(path.with_suffix(".new"), [call(9)])
    path.with_suffix(".new").replace(path)


def turn_over(path: Path) -> None:
    """Another file of that size, such as one written by a job that ran twice."""
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + bytes(reversed(raw[4:])))


CHANGES = [grow, shrink, empty, replace, turn_over, Path.unlink]


@pytest.mark.parametrize("rows", [1, PAGES])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_others_are_read_is_refused(
    tmp_path: Path, change: Callable[[Path], None], rows: int
) -> None:
    """The last of ten is not begun when the first is done."""
    table = log_of({}, rows)
    paths = [tmp_path / f"{n}.parquet" for n in range(10)]
    for path in paths:
        pq.write_table(table, path)
    left = [paths[-1]]
    with pytest.raises((BadInput, MissingInput), match=r"^9\.parquet") as refused:
        count(
            find(str(tmp_path)),
            PERIOD,
            VERSION,
            threads=1,
            progress=lambda *_: change(left.pop()) if left else None,
        )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_after_it_was_read_is_refused(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "9.parquet"
    pq.write_table(log_of({}, 10), path)
    with pytest.raises((BadInput, MissingInput), match=r"^9\.parquet"):
        count(find(str(tmp_path)), PERIOD, VERSION, progress=lambda *_: change(path))


# ---------------------------------------------------------------- rows at once


def test_batches_are_short_where_bytes_are_many() -> None:
    """Wherever in the column: a page in the middle has nearly all of them."""
    even = [(1000, 1000)] * 10
    uneven = [*even, (1000, 2 * sizes.AT_ONCE), *even]
    assert sizes.rows_at_once([even, even], 1000, 1 << 20) == 1 << 20
    assert 256 <= sizes.rows_at_once([even * 2, uneven], 1000, 1 << 20) <= 500
    assert sizes.rows_at_once([[(1, 1 << 40)]], 1000, 1 << 20) == 1
    assert sizes.rows_at_once([], 0, 1 << 20) == 1 << 20
