"""Footers read in Python say what Arrow reads, and contradictions are refused."""

import copy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement.counting.keys import Keys
from settlement.errors import BadInput
from settlement.scan import finding, footers
from settlement.scan.footers import Broken, Encrypted, Footer, Stated
from settlement.scan.thrift import struct
from tests.damage import WRITERS, footer_start, sound
from tests.logs import START, call, table, write
from tests.test_thrift import written


def parted(raw: bytes) -> tuple[bytes, int]:
    """The footer of a file, and where it begins."""
    begin = footer_start(raw)
    return raw[begin:-8], begin


def of(path: Path) -> Footer:
    return footers.read(*parted(path.read_bytes()))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_footer_is_what_arrow_reads(writer: str) -> None:
    raw = sound(writer)
    footer, whole = footers.read(*parted(raw)), pq.ParquetFile(pa.BufferReader(raw))
    metadata = whole.metadata
    assert footer.rows == metadata.num_rows
    assert [leaf.name for leaf in footer.leaves] == whole.schema_arrow.names
    empty = pq.ParquetFile(pa.BufferReader(footer.without_groups()))
    assert empty.schema_arrow == whole.schema_arrow
    assert empty.metadata.num_rows == 0
    for number, group in enumerate(footer.groups):
        alone = pq.read_metadata(pa.BufferReader(footer.of_groups(number)))
        assert alone.row_group(0).to_dict() == metadata.row_group(number).to_dict()
        assert (alone.num_rows, alone.num_row_groups) == (group.rows, 1)
        for n, leaf in enumerate(footer.leaves):
            said = metadata.row_group(number).column(n)
            assert footer.physical(leaf.name) == said.physical_type
            chunk, statistics = footer.chunks(number, [leaf.name])[leaf.name], said.statistics
            start = said.dictionary_page_offset or said.data_page_offset
            assert (chunk.start, chunk.size) == (start, said.total_compressed_size)
            assert (chunk.raw_size, chunk.values) == (said.total_uncompressed_size, said.num_values)
            stated = chunk.stated
            assert stated.nulls == statistics.null_count
            if said.physical_type in {"INT32", "INT64"}:
                assert (stated.low, stated.high) == (statistics.min_raw, statistics.max_raw)


def test_nested_columns_are_told_from_flat_ones(tmp_path: Path) -> None:
    nested = table([call(n) for n in range(3)]).append_column(
        "more", pa.array([[{"a": 1, "timestamp": 2}], None, []])
    )
    footer = of(write(tmp_path / "a.parquet", nested))
    assert [leaf.name for leaf in footer.leaves[-2:]] == [
        "more.list.element.a",
        "more.list.element.timestamp",
    ]
    assert [leaf.is_flat for leaf in footer.leaves] == [True] * 6 + [False] * 2
    assert footer.groups[0].stamps.low == START


def test_a_column_that_is_there_twice_has_no_name(tmp_path: Path) -> None:
    doubled = table([call(n) for n in range(3)])
    doubled = doubled.append_column("timestamp", doubled["timestamp"])
    footer = of(write(tmp_path / "a.parquet", doubled))
    assert "timestamp" not in footer.by_name
    assert footer.groups[0].stamps == Stated()


def test_required_columns_have_no_nulls_for_sure(tmp_path: Path) -> None:
    rows = table([call(n) for n in range(3)])
    plain = pa.schema([field.with_nullable(field.name == "item") for field in rows.schema])
    footer = of(write(tmp_path / "a.parquet", rows.cast(plain)))
    assert footer.groups[0].stamps == Stated(START, START + 2, 0, True, True)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_files_of_few_rows(tmp_path: Path, rows: int) -> None:
    footer = of(write(tmp_path / "a.parquet", [call(n) for n in range(rows)]))
    assert footer.rows == rows


# ---------------------------------------------------------------- contradictions

FIELDS, _ = struct(parted(sound("arrow"))[0], 0)
CHUNK = FIELDS[4][1][1][3]
"""The timestamps of the second row group: they lie after the month."""


def wrong(path: list[int], value: Any) -> bytes:
    """A footer with one value changed, taken out (None) or put in."""
    fields = copy.deepcopy(FIELDS)
    place: Any = fields
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return b"\x15" + written(fields)[1:]  # the version is a number of 32 bits


STAMPS = [4, 1, 1, 3]
META = [*STAMPS, 3]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ([3], 61, "row count is not that of its row groups"),
        ([4, 1, 3], 15, "16 values in 15 rows of column 'request_id'"),
        ([4, 1, 3], -1, "negative number of rows"),
        ([2, 1, 4], b"request_ie", "two things about column 'request_ie'"),
        ([2, 4, 1], 1, "two things about column 'timestamp'"),
        ([2, 4, 1], 9, "a column of an unknown type"),
        ([2, 4, 3], 3, "repeated in an unknown way"),
        ([2, 4, 3], 0, "two things about the nulls of column 'timestamp'"),
        ([2, 4, 6], 9, "two things about column 'timestamp'"),
        ([2, 1, 6], 4, "two things about column 'request_id'"),
        ([2, 1, 10], {4: {}}, "two things about column 'request_id'"),
        ([2, 1, 10], {1: b""}, "two things about column 'request_id'"),
        ([2, 4, 10, 8, 2], {3: {}}, "two things about column 'timestamp'"),
        ([2, 0, 5], 5, "schema is no tree"),
        ([2, 0, 5], 7, "damaged footer"),
        ([2, 4, 4], b"\xff", "damaged footer"),
        ([4, 1, 1], FIELDS[4][1][1][:5], "not the columns of the schema"),
        ([*STAMPS, 3], None, "damaged footer"),
        ([*STAMPS, 1], b"other.parquet", "two things about column 'timestamp'"),
        ([*META, 3], [b"timestamq"], "two things about column 'timestamp'"),
        ([*META, 1], 6, "two things about column 'timestamp'"),
        ([*META, 4], 9, "stored in no known way"),
        ([*META, 5], 17, "17 values in 16 rows"),
        ([*META, 7], 10**6, "lie where there are no pages"),
        ([*META, 9], 0, "lie where there are no pages"),
        ([*META, 11], CHUNK[3][11] - 9, "two columns lie in one place"),
        ([*META, 12, 5], bytes(8), "two things about the bounds of column 'timestamp'"),
        ([*META, 12, 6], b"", "bounds of column 'timestamp' that are no numbers"),
        ([*META, 12, 3], 1, "two things about the nulls of column 'timestamp'"),
        ([*META, 16, 3], [1, 16], "two things about the nulls of column 'timestamp'"),
        ([*META, 5], b"16", "damaged footer"),
    ],
)
def test_a_contradiction_is_refused(path: list[int], value: Any, said: str) -> None:
    _, begin = parted(sound("arrow"))
    with pytest.raises(Broken, match=said):
        footers.read(wrong(path, value), begin)


def test_more_rows_than_can_be_counted_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one file, and of all files of a log; each row has a place of its own in 40 bits."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", [call(n) for n in range(3)])
    Keys(footers.MOST_ROWS).close()
    monkeypatch.setattr(finding, "MOST_ROWS", 6)
    assert finding.find(str(tmp_path)).rows == 6
    monkeypatch.setattr(finding, "MOST_ROWS", 5)
    with pytest.raises(BadInput, match="has 6 rows, more than can be counted"):
        finding.find(str(tmp_path))
    monkeypatch.setattr(footers, "MOST_ROWS", 2)
    with pytest.raises(Broken, match="its footer says that it has 3 rows"):
        of(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "path", [[8], [*STAMPS, 8], [*STAMPS, 9]], ids=["signed", "column", "its place"]
)
def test_encryption_is_seen(path: list[int]) -> None:
    _, begin = parted(sound("arrow"))
    with pytest.raises(Encrypted):
        footers.read(wrong(path, {1: {1: {}}}), begin)


@pytest.mark.parametrize(
    ("path", "value", "stamps"),
    [
        ([*META, 12, 5], None, (True, False, True)),
        ([*META, 12], None, (False, False, False)),
        ([*META, 16], None, (True, True, False)),
    ],
    ids=["old bounds alone", "no statistics", "no histogram"],
)
def test_what_is_said_once_is_known_to_be(
    path: list[int], value: Any, stamps: tuple[bool, bool, bool]
) -> None:
    _, begin = parted(sound("arrow"))
    stated = footers.read(wrong(path, value), begin).groups[1].stamps
    assert (stated.low is not None, stated.bounds_agree, stated.nulls_agree) == stamps


def test_a_long_footer_is_not_read() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return footers.LONGEST + 1

    with pytest.raises(Broken, match="has a footer of"):
        footers.read(Long(), 4)


# ---------------------------------------------------------------- the index of a column


def index(lows: list[int], highs: list[int], nulls: list[int]) -> bytes:
    def cells(values: list[int]) -> list[bytes]:
        return [value.to_bytes(8, "little", signed=True) for value in values]

    return written({1: [False] * len(lows), 2: cells(lows), 3: cells(highs), 4: 1, 5: nulls})


def test_an_index_that_agrees_makes_sure() -> None:
    stated = footers.with_index(Stated(-5, 9, 2), index([3, -5], [9, 7], [0, 2]))
    assert stated.is_sure
    assert (stated.low, stated.high, stated.nulls) == (-5, 9, 2)


@pytest.mark.parametrize(
    "raw",
    [
        index([3, -4], [9, 7], [0, 2]),
        index([3, -5], [8, 7], [0, 2]),
        index([3, -5], [9, 7], [0, 1]),
        b"",
        b"\x19",
        written({1: [False], 2: [], 3: [], 4: 1}),
    ],
)
def test_an_index_that_does_not_is_refused(raw: bytes) -> None:
    with pytest.raises(Broken):
        footers.with_index(Stated(-5, 9, 2), raw)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    "form", [{}, {"version": "1.0"}, {"coerce_timestamps": "ms"}, {"version": "2.4"}]
)
def test_units_that_a_writer_changed_are_no_contradiction(
    tmp_path: Path, unit: str, zone: str | None, form: dict[str, str]
) -> None:
    """Parquet has no seconds, and old versions no nanoseconds: Arrow says so in its own form."""
    instants = pa.array([0], pa.int64()).cast(pa.timestamp(unit, zone))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"timestamp": instants}), path, **form)
    (file,) = finding.find(str(path)).files
    assert file.types["timestamp"] == pq.read_schema(path).field("timestamp").type
