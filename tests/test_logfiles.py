"""Which files are the call log, what their footers say, and every refusal."""

import errno
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement.errors import BadInput, CannotRead, MissingInput, SettlementError
from settlement.scan import decoding
from settlement.scan.boundary import reading
from settlement.scan.decoding import columns, touching
from settlement.scan.finding import find
from settlement.scan.logfiles import check, needed
from settlement.usage import count
from tests.logs import PERIOD, SCHEMA, START, VERSION, call, table, version, write

ROWS = [call(n) for n in range(3)]


def names(logs: object) -> list[str]:
    """The names of the files that a path, glob or URL finds."""
    return [file.name for file in find(str(logs)).files]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A log in several nestings, with what is none of it."""
    for name in ("a.parquet", "2026/01/b.parquet", "2026/02/c.parquet", "日志/x y/d.parquet"):
        write(tmp_path / name, ROWS)
    for name in ("_SUCCESS", ".hidden.parquet", "_temporary/e.parquet", "2026/.spool/f.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"none of it")
    (tmp_path / "notes.txt").write_text("not a log")
    (tmp_path / "empty.parquet").mkdir()
    return tmp_path


def test_every_file_in_any_nesting_is_found_once(tree: Path) -> None:
    log = find(str(tree))
    assert [file.name for file in log.files] == [
        "2026/01/b.parquet",
        "2026/02/c.parquet",
        "a.parquet",
        "日志/x y/d.parquet",
    ]
    assert (log.skipped, log.rows) == (4, 12)


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("", 4),
        ("/", 4),
        ("/*.parquet", 1),
        ("/**", 4),
        ("/**/*.parquet", 4),
        ("/2026/*/*.parquet", 2),
        ("/2026/0[2-9]", 1),
        ("/2026/0[!2]/**", 1),
        ("/202?", 2),
        ("/**/x y/*", 1),
        ("/a.parquet", 1),
        ("/[]a-c].parquet", 1),
        ("/[!-z].parquet", 1),
    ],
)
def test_globs(tree: Path, glob: str, found: int) -> None:
    assert len(names(f"{tree}{glob}")) == found


@pytest.mark.parametrize("name", ["[]", "[!]", "[a", "[^]"])
def test_a_bracket_that_is_not_closed_stands_for_itself(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"{name}1.parquet", ROWS)
    write(tmp_path / "a1.parquet", ROWS)
    assert names(f"{tmp_path}/{name}*") == [f"{name}1.parquet"]


def test_no_set_holds_the_slash(tree: Path) -> None:
    with pytest.raises(MissingInput):
        find(f"{tree}/2026[!z]01/*")


def test_a_range_that_ends_before_it_begins_is_refused(tree: Path) -> None:
    with pytest.raises(BadInput, match=r"\[z-a\]\*: is no glob \(bad character range z-a\)"):
        find(f"{tree}/[z-a]*")


def test_a_relative_glob(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names("*/01") == ["2026/01/b.parquet"]
    assert names("2026/*") == ["01/b.parquet", "02/c.parquet"]


def test_a_path_of_that_very_name_is_no_glob(tmp_path: Path) -> None:
    write(tmp_path / "run[1]" / "a.parquet", ROWS)
    assert names(tmp_path / "run[1]") == ["a.parquet"]


def test_a_url_finds_the_same(tree: Path) -> None:
    assert names(f"file://{tree}/2026") == ["01/b.parquet", "02/c.parquet"]
    assert names(f"file://{tree}/2026/*/c.parquet") == ["02/c.parquet"]


def test_a_url_whose_scheme_is_unknown_is_refused() -> None:
    with pytest.raises(BadInput, match="nowhere://x"):
        find("nowhere://x")


def test_a_store_that_does_not_answer_is_exit_74() -> None:
    """Nobody listens on port 9; what is not there today may be there at the next try."""
    options = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(CannotRead, match="cannot be read from its store"):
        find(f"s3://key:secret@bucket/x?{options}")


def test_a_link_to_a_file_is_read_once_and_a_link_to_a_folder_not_at_all(tree: Path) -> None:
    (tree / "0.parquet").symlink_to(tree / "a.parquet")
    os.link(tree / "a.parquet", tree / "b.parquet")
    (tree / "again").symlink_to(tree / "2026")
    assert names(tree)[0] == "0.parquet"
    assert len(names(tree)) == 4


def test_a_dangling_link_is_refused(tree: Path) -> None:
    (tree / "z.parquet").symlink_to(tree / "gone.parquet")
    with pytest.raises(MissingInput, match=r"z\.parquet"):
        find(str(tree))


@pytest.mark.parametrize("logs", ["nowhere", "no*", "empty", "empty/*"])
def test_no_file_at_all_is_missing_input(
    tmp_path: Path, logs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_x.parquet").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInput) as caught:
        find(logs)
    assert logs in str(caught.value)
    skipped = "no .parquet file in it, but 1 name beginning with _ or ., which are skipped; "
    assert (skipped in str(caught.value)) == (logs != "nowhere")


def test_a_file_of_another_name_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b")
    with pytest.raises(MissingInput) as caught:
        find(str(path))
    assert str(caught.value).startswith(f"{path}: is no .parquet file; ")


@pytest.mark.parametrize(
    ("folder", "column"),
    [("item=search", "item"), ("x/status_code=0/y", "status_code"), ("account_id=", "account_id")],
)
def test_a_folder_that_stands_for_a_column_is_refused(
    tmp_path: Path, folder: str, column: str
) -> None:
    lacking = table(ROWS).drop_columns([column])
    write(tmp_path / folder / "a.parquet", lacking)
    with pytest.raises(BadInput, match="stands for column"):
        find(str(tmp_path))
    with pytest.raises(BadInput, match="stands for column"):
        find(str(tmp_path / folder))


def test_a_folder_with_an_equals_sign_is_else_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "month=2026-02" / "item=search" / "a.parquet", ROWS)
    assert len(names(tmp_path)) == 1


def test_a_footer_tells_rows_groups_bounds_and_its_digest(tmp_path: Path) -> None:
    rows = [call(5), call(9), call(7, timestamp=None), call(8)]
    path = write(tmp_path / "a.parquet", rows, row_group_size=2)
    (file,) = find(str(tmp_path)).files
    raw = path.read_bytes()
    (length,) = struct.unpack("<I", raw[-8:-4])
    assert file.footer_sha256 == hashlib.sha256(raw[-8 - length :]).hexdigest()
    assert (file.size, file.modified_ns, file.rows) == (len(raw), path.stat().st_mtime_ns, 4)
    spans = [(g.first_row, g.rows, g.span.first, g.span.last, g.span.nulls) for g in file.groups]
    assert spans == [(0, 2, START + 5, START + 9, 0), (2, 2, START + 8, START + 8, 1)]


# ---------------------------------------------------------------- types


def refused(tmp_path: Path, bad: pa.Table, zone: ZoneInfo | None = None) -> str:
    """The refusal of a file with such columns."""
    write(tmp_path / "bad.parquet", bad)
    with pytest.raises(BadInput) as caught:
        count(find(str(tmp_path)), PERIOD, VERSION, naive_zone=zone)
    assert "\n" not in str(caught.value)
    assert caught.value.cure
    return str(caught.value)


@pytest.mark.parametrize("name", ["request_id", "account_id", "interface", "timestamp"])
def test_a_missing_column_is_refused(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path, table(ROWS).drop_columns([name]))
    assert said.startswith(f"bad.parquet, column '{name}': is missing")


def test_columns_that_are_not_read_may_be_missing(tmp_path: Path) -> None:
    assert "status_code" in refused(tmp_path, table(ROWS).drop_columns(["status_code"]))
    lean = version(billable_status="", deduplicate="false")
    assert set(needed(lean)) == set(SCHEMA) - {"request_id", "status_code"}
    write(tmp_path / "bad.parquet", table(ROWS).select(["account_id", "interface", "timestamp"]))
    assert count(find(str(tmp_path)), PERIOD, lean).rows["billed"] == 3


MISTYPED: list[tuple[str, pa.Array]] = [
    ("request_id", pa.array([1, 2, 3])),
    ("account_id", pa.array([1.0, 2.0, 3.0])),
    ("account_id", pa.array([b"a", b"b", b"c"])),
    ("account_id", pa.array([True, False, True])),
    ("interface", pa.array([1, 2, 3])),
    ("interface", pa.array([["DetectFace"]] * 3)),
    ("interface", pa.array([{"name": "DetectFace"}] * 3)),
    ("timestamp", pa.array([1, 2, 3])),
    ("timestamp", pa.array(["2026-02-01T00:00:00Z"] * 3)),
    ("timestamp", pa.array([1, 2, 3], pa.date32())),
    ("status_code", pa.array([0.0, 0.0, 0.0])),
    ("status_code", pa.array([0, 0, 0]).cast(pa.decimal128(20, 0))),
    ("item", pa.array([1, 2, 3])),
]


@pytest.mark.parametrize(
    ("name", "cells"), MISTYPED, ids=lambda cell: str(getattr(cell, "type", cell))
)
def test_a_mistyped_column_is_refused(tmp_path: Path, name: str, cells: pa.Array) -> None:
    at = list(SCHEMA).index(name)
    said = refused(tmp_path, table(ROWS).set_column(at, name, cells))
    assert said.startswith(f"bad.parquet, column '{name}': is ")


def test_a_doubled_column_is_refused(tmp_path: Path) -> None:
    doubled = table(ROWS)
    assert "twice" in refused(tmp_path, doubled.append_column("item", doubled["item"]))


def test_timestamps_without_a_zone_are_refused(tmp_path: Path) -> None:
    naive = table(ROWS, SCHEMA | {"timestamp": pa.timestamp("us")})
    assert "--naive-timestamps" in refused(tmp_path, naive)
    write(tmp_path / "bad.parquet", naive, use_deprecated_int96_timestamps=True)
    with pytest.raises(BadInput, match="naive-timestamps"):
        check(find(str(tmp_path)).files, ["timestamp"], None)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    for name in ("request_id", "account_id", "interface", "item"):
        cells = pa.array([b"ok", b"\xff\xfe", "é".encode()]).view(pa.string())
        at = list(SCHEMA).index(name)
        for form in (cells, cells.dictionary_encode()):
            assert f"column '{name}'" in refused(tmp_path, table(ROWS).set_column(at, name, form))


# ---------------------------------------------------------------- damage


def truncated(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def headless(raw: bytes) -> bytes:
    return raw[len(raw) // 2 :]


def encrypted(raw: bytes) -> bytes:
    return raw[:-4] + b"PARE"


def long_footer(raw: bytes) -> bytes:
    return raw[:-8] + struct.pack("<I", 2**31) + raw[-4:]


def garbled_footer(raw: bytes) -> bytes:
    return raw[:-40] + bytes(range(200, 232)) + raw[-8:]


def flipped(raw: bytes) -> bytes:
    return raw[:60] + bytes([raw[60] ^ 1]) + raw[61:]


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        headless,
        encrypted,
        long_footer,
        garbled_footer,
        flipped,
        lambda _: b"",
        lambda _: b"PAR1",
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "bad.parquet", [call(n) for n in range(500)], compression="none")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=r"bad\.parquet"):
        count(find(str(tmp_path)), PERIOD, VERSION)


def test_every_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """With page checksums no byte of a page can change a figure and go unnoticed."""
    path = write(tmp_path / "bad.parquet", [call(n) for n in range(20)])
    raw = path.read_bytes()
    whole = count(find(str(tmp_path)), PERIOD, VERSION, threads=1)
    refusals = 0
    pages = len(raw) - int.from_bytes(raw[-8:-4], "little") - 8
    for at in range(4, pages, 5):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        try:
            found = count(find(str(tmp_path)), PERIOD, VERSION, threads=1)
        except SettlementError:
            refusals += 1
        else:
            assert found.usage.equals(whole.usage)
            assert found.rows == whole.rows
    assert refusals > 50


def test_a_file_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    log = find(str(tmp_path))
    os.utime(path, ns=(1, 1))
    with pytest.raises(BadInput, match="changed while being read"):
        count(log, PERIOD, VERSION)
    path.unlink()
    with pytest.raises(MissingInput, match=r"a\.parquet"):
        count(log, PERIOD, VERSION)


@pytest.mark.parametrize(
    ("raised", "refusal"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), MissingInput),
        (PermissionError(errno.EACCES, "no"), CannotRead),
        (OSError(errno.EIO, "disk"), CannotRead),
        (OSError("Couldn't deserialize thrift"), BadInput),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during GetObject: Slow down"), CannotRead),
        (OSError("google::cloud::Status(UNAVAILABLE: try again)"), CannotRead),
        (pa.ArrowInvalid("bad"), BadInput),
        (pa.ArrowMemoryError("64 GiB"), BadInput),
        (MemoryError(), BadInput),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), BadInput),
        (OverflowError(), BadInput),
        (BadInput("as it was", where="x.parquet"), BadInput),
    ],
)
def test_whatever_reading_raises_names_the_file(
    raised: Exception, refusal: type[SettlementError]
) -> None:
    with pytest.raises(refusal, match=r"x\.parquet"), reading("x.parquet"):
        raise raised


def test_interruption_is_no_damage() -> None:
    with pytest.raises(KeyboardInterrupt), reading("x.parquet"):
        raise KeyboardInterrupt


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_exit_74(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ROWS).chmod(0)
    with pytest.raises(CannotRead, match=r"a\.parquet"):
        find(str(tmp_path))


# ---------------------------------------------------------------- files of a month


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("instants", "touches"),
    [
        ([0], True),
        ([-1], False),
        ([PERIOD.end * 10**6 - START - 1], True),
        ([PERIOD.end * 10**6 - START], False),
        ([-1, PERIOD.end * 10**6 - START], False),
        ([-1, 5, PERIOD.end * 10**6 - START], True),
        ([None], False),
        ([None, 7], True),
        ([], False),
    ],
)
def test_files_with_rows_in_the_month(
    tmp_path: Path, instants: list[int | None], touches: bool, statistics: bool
) -> None:
    rows = [call(n, timestamp=at) for n, at in enumerate(instants)]
    write(tmp_path / "a.parquet", rows, write_statistics=statistics)
    log = find(str(tmp_path))
    assert [file.file for file in touching(log, PERIOD)] == (["a.parquet"] if touches else [])
    assert count(log, PERIOD, VERSION).inputs == touching(log, PERIOD)


def test_footers_alone_decide_where_they_can(tmp_path: Path) -> None:
    """A month may be seen to touch a file whose pages nobody can read."""
    path = write(tmp_path / "a.parquet", ROWS)
    raw = bytearray(path.read_bytes())
    raw[4:200] = bytes(196)
    path.write_bytes(raw)
    assert len(touching(find(str(tmp_path)), PERIOD)) == 1


def test_many_small_files_are_found_quickly(tmp_path: Path) -> None:
    raw = write(tmp_path / "0.parquet", ROWS).read_bytes()
    for n in range(1, 300):
        (tmp_path / f"{n}.parquet").write_bytes(raw)
    assert count(find(str(tmp_path)), PERIOD, VERSION).rows["duplicate"] == 299 * 3


def test_batches_hold_at_most_so_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BATCH_ROWS", 7)
    write(tmp_path / "a.parquet", [call(n) for n in range(40)], row_group_size=20)
    log = find(str(tmp_path))
    (file,) = log.files
    firsts = [row for row, _ in columns(log, file, file.groups[1], ["account_id"])]
    assert firsts == [20, 27, 34]
    assert count(log, PERIOD, VERSION).rows["billed"] == 40


def test_a_footer_that_promises_other_rows_is_refused(tmp_path: Path) -> None:
    """Two files of unlike length with swapped footers: the pages are sound, the promise is not."""
    write(tmp_path / "long.parquet", [call(n) for n in range(9)])
    log = find(str(write(tmp_path / "a.parquet", ROWS)))
    lying = find(str(tmp_path / "long.parquet")).files[0]
    (file,) = log.files
    group = type(lying.groups[0])(0, 0, 9, 10, lying.groups[0].span)
    with pytest.raises(BadInput, match="where its footer says 9"):
        list(columns(log, file, group, ["account_id"]))


def test_int96_timestamps_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(ROWS), use_deprecated_int96_timestamps=True)
    (file,) = find(str(tmp_path)).files
    assert pq.ParquetFile(tmp_path / "a.parquet").schema.column(3).physical_type == "INT96"
    assert file.groups[0].span.first is None
    counted = count(find(str(tmp_path)), PERIOD, VERSION, naive_zone=ZoneInfo("UTC"))
    assert counted.rows["billed"] == 3
