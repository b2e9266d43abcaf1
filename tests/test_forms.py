"""Forms: the types by which Spark is told to read a file, and what it would read otherwise."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement.errors import BadInput
from settlement.scan.finding import find
from settlement.spark.forms import Source, place
from tests.logs import SCHEMA, VERSION, call, table, write

TYPES = [
    ("request_id", pa.large_string(), "string"),
    ("request_id", pa.binary(2), "binary"),
    ("request_id", pa.binary_view(), "binary"),
    ("request_id", pa.null(), None),
    ("account_id", pa.int8(), "int"),
    ("account_id", pa.uint16(), "int"),
    ("account_id", pa.uint32(), "bigint"),
    ("account_id", pa.int64(), "bigint"),
    ("account_id", pa.uint64(), "decimal(20,0)"),
    ("timestamp", pa.timestamp("s", "UTC"), "bigint"),
    ("timestamp", pa.timestamp("ns", "UTC"), "bigint"),
    ("interface", pa.dictionary(pa.int32(), pa.string()), "string"),
]


def source_of(folder: Path, name: str = "0.parquet") -> Source:
    log = find(str(folder))
    found = next(file for file in log.files if file.name == name)
    return Source.of(log, found, VERSION)


@pytest.mark.parametrize(("column", "kind", "spark"), TYPES, ids=str)
def test_types_are_made_from_the_footer(
    tmp_path: Path, column: str, kind: pa.DataType, spark: str | None
) -> None:
    write(tmp_path / "0.parquet", table([], SCHEMA | {column: kind}))
    form = source_of(tmp_path).form
    assert dict(form.types).get(column) == spark
    assert form.unit == ("ns" if kind == pa.timestamp("ns", "UTC") else form.unit)


def test_files_of_one_form_are_read_together(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", table([], SCHEMA | {"item": pa.large_string()}))
    write(tmp_path / "1.parquet", table([], SCHEMA))
    write(tmp_path / "2.parquet", table([], SCHEMA | {"status_code": pa.int64()}))
    forms = [source_of(tmp_path, f"{n}.parquet").form for n in range(3)]
    assert forms[0] == forms[1] != forms[2]


def test_timestamps_of_96_bits_are_refused(tmp_path: Path) -> None:
    old = table([call(1)], SCHEMA | {"timestamp": pa.timestamp("ns")})
    pq.write_table(old, tmp_path / "0.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(BadInput, match="INT96"):
        source_of(tmp_path)


def test_a_colon_in_a_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "12:30.parquet", [call(1)])
    with pytest.raises(BadInput, match="colon"):
        source_of(tmp_path, "12:30.parquet")


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///a/b.parquet", "/a/b.parquet"),
        ("file:/a/b.parquet", "/a/b.parquet"),
        ("s3a://bucket/a/b.parquet", "/a/b.parquet"),
        ("hdfs://host:8020/a/b.parquet", "/a/b.parquet"),
        ("hdfs:///a/b.parquet", "/a/b.parquet"),
    ],
)
def test_a_place_is_the_same_however_it_is_spelt(address: str, path: str) -> None:
    assert place(address) == path


def test_an_address_has_no_links_in_it(tmp_path: Path) -> None:
    write(tmp_path / "real/0.parquet", [call(1)])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert source_of(tmp_path / "link").address == f"file://{tmp_path}/real/0.parquet"
