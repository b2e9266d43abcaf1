"""Pages read in place give what Arrow reads, or nothing at all."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settlement.scan import footers
from settlement.scan.footers import Broken, Footer
from settlement.scan.headers import Header, Unusual
from settlement.scan.pages import Pages, Room
from settlement.scan.texts import Bytes
from tests.damage import footer_start
from tests.test_texts import strings

CODECS = ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]
ROOM = Room()
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def footer(path: Path) -> Footer:
    raw = path.read_bytes()
    begin = footer_start(raw)
    return footers.read(raw[begin:-8], begin)


def opened(path: Path, group: int, name: str) -> Pages:
    chunk = footer(path).chunks(group, [name])[name]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return Pages(descriptor, chunk, ROOM)
    finally:
        os.close(descriptor)


def read(path: Path, group: int, name: str, is_text: bool = True) -> list[bytes]:
    """All strings of a chunk; codes and words put together."""
    found: list[bytes] = []
    for rows, read_piece in opened(path, group, name).texts(is_text=is_text):
        texts, codes = read_piece(None)
        words = strings(texts)
        found += words if codes is None else [words[code] for code in codes.tolist()]
        assert rows == (len(words) if codes is None else len(codes))
        wanted = np.arange(1, rows, 3)
        some, few = read_piece(wanted)
        own = strings(some) if few is None else [words[code] for code in few.tolist()]
        assert own == found[len(found) - rows :][1::3]
    return found


def written(folder: str, cells: Sequence[Any], kind: pa.DataType, **options: Any) -> Path:
    path = Path(folder) / "a.parquet"
    table = pa.table({"before": range(len(cells)), "a": pa.array(cells, kind)})
    pq.write_table(table, path, **options)
    return path


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[str], dict[str, Any]]:
    """Text of few or many values, and how to write it."""
    alphabet = st.characters(codec="utf-8", exclude_characters="\0")
    word = draw(
        st.sampled_from(
            [
                st.text(alphabet, min_size=1, max_size=12),
                st.text("abc", min_size=4, max_size=4),
                st.integers(0, 10**12).map(lambda n: f"{n:012}"),
                st.sampled_from(["DetectFace", "CompareFace"]),
            ]
        )
    )
    words = draw(st.lists(word, min_size=1, max_size=30))
    picks = draw(st.lists(st.integers(0, len(words) - 1), min_size=1, max_size=300))
    options = {
        "compression": draw(st.sampled_from(CODECS)),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "write_page_checksum": draw(st.booleans()),
        "use_dictionary": draw(st.booleans()),
        "dictionary_pagesize_limit": draw(st.sampled_from([40, 1 << 20])),
        "data_page_size": draw(st.sampled_from([1, 64, 1 << 20])),
        "write_batch_size": draw(st.sampled_from([1, 7, 1024])),
        "row_group_size": draw(st.sampled_from([1, 50, 1000])),
    }
    return [words[pick] for pick in picks], options


@SLOW
@given(columns(), st.booleans())
def test_ordinary_columns_are_read(column: tuple[list[str], dict[str, Any]], null: bool) -> None:
    cells, options = column
    with tempfile.TemporaryDirectory() as folder:
        schema = pa.schema([pa.field("a", pa.string(), nullable=null)])
        path = Path(folder) / "a.parquet"
        pq.write_table(pa.table({"a": cells}, schema=schema), path, **options)
        found = [
            cell
            for group in range(pq.read_metadata(path).num_row_groups)
            for cell in read(path, group, "a")
        ]
    assert found == [cell.encode() for cell in cells]


@SLOW
@given(columns())
def test_words_and_codes_are_read_or_refused(column: tuple[list[str], dict[str, Any]]) -> None:
    cells, options = column
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, cells, pa.string(), **options | {"row_group_size": 1000})
        encodings = pq.read_metadata(path).row_group(0).column(1).encodings
        try:
            codes, words = opened(path, 0, "a").coded()
        except Unusual:
            assert "PLAIN" in encodings or not options["use_dictionary"]
        else:
            assert [words[code].decode() for code in codes] == cells


@SLOW
@given(st.lists(st.none() | st.sampled_from(["a", "b", ""]), max_size=60), columns())
def test_nulls_and_empty_strings_are_read_rightly_or_refused(
    cells: list[str | None], column: tuple[list[str], dict[str, Any]]
) -> None:
    _, options = column
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, cells, pa.string(), **options | {"row_group_size": 1000})
        if not cells:
            return
        try:
            found = read(path, 0, "a")
        except Unusual:
            assert not all(cells)
        else:
            assert found == [cell.encode() for cell in cells if cell is not None]
            assert None not in cells


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(16), pa.binary(3)], ids=str)
def test_bytes_of_equal_widths_are_read(
    tmp_path: Path, kind: pa.DataType, dictionary: bool, codec: str
) -> None:
    width = kind.byte_width if pa.types.is_fixed_size_binary(kind) else 16
    cells = [n.to_bytes(width, "little") for n in range(500)] * 3
    path = written(str(tmp_path), cells, kind, use_dictionary=dictionary, compression=codec)
    assert read(path, 0, "a", is_text=False) == cells


@pytest.fixture
def many_lengths(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """3,000 texts of 16 to 32 bytes, and some of 66, on pages of 100."""
    cells = [f"{n:0{16 + n % 17 + 50 * (n % 100 == 0)}}" for n in range(3000)]
    options = {"use_dictionary": False, "data_page_size": 1, "write_batch_size": 100}
    return written(str(tmp_path), cells, pa.string(), **options), [cell.encode() for cell in cells]


@pytest.mark.parametrize(("together", "pieces"), [(1, 30), (7000, 15), (1 << 20, 1)])
def test_pages_of_many_lengths_are_joined(
    many_lengths: tuple[Path, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    together: int,
    pieces: int,
) -> None:
    path, cells = many_lengths
    monkeypatch.setattr("settlement.scan.pages._TOGETHER", together)
    assert read(path, 0, "a") == cells
    assert len(list(opened(path, 0, "a").texts(is_text=True))) == pieces


@pytest.mark.parametrize("wanted", [[], [0], [99, 100], [250, 2999], [*range(0, 3000, 7)]])
def test_of_joined_pages_only_those_are_opened_that_are_asked_for(
    many_lengths: tuple[Path, list[bytes]], monkeypatch: pytest.MonkeyPatch, wanted: list[int]
) -> None:
    path, cells = many_lengths
    pages = opened(path, 0, "a")
    counted: list[Header] = []
    open_page = pages._open

    def counting(page: Header) -> Bytes:
        counted.append(page)
        return open_page(page)

    monkeypatch.setattr(pages, "_open", counting)
    (piece,) = pages.texts(is_text=True)
    texts, _ = piece.read(np.array(wanted, np.int64))
    assert strings(texts) == [cells[row] for row in wanted]
    assert len(counted) == len({row // 100 for row in wanted})


def test_a_joined_page_must_hold_what_its_header_says(
    many_lengths: tuple[Path, list[bytes]],
) -> None:
    """Two headers are wrong by one value, so that the sum is right."""
    pages = opened(many_lengths[0], 0, "a")
    assert len(pages._pages) == 30
    for number, more in ((3, 1), (4, -1)):
        page = pages._pages[number]
        pages._pages[number] = replace(page, values=page.values + more)
    (piece,) = pages.texts(is_text=True)
    with pytest.raises(Unusual):
        piece.read(None)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_delta_encodings_are_left_to_others(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"a": ["a", "b"]}), path, use_dictionary=False, column_encoding={"a": encoding}
    )
    with pytest.raises(Unusual):
        read(path, 0, "a")


def test_integers_are_left_to_others(tmp_path: Path) -> None:
    path = written(str(tmp_path), [1, 2], pa.int32())
    with pytest.raises(Unusual):
        read(path, 0, "a")
    with pytest.raises(Unusual):
        opened(path, 0, "a").coded()


@pytest.mark.parametrize("encoding", ["PLAIN", "dictionary", "DELTA_BINARY_PACKED"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_integers_of_some_rows_are_read(
    tmp_path: Path, encoding: str, version: str, compression: str
) -> None:
    """Of plain pages and of those with a dictionary; a delta encoding is left to others."""
    values = np.random.default_rng(1).integers(-(1 << 62), 1 << 62, 50)[np.arange(3000) % 50]
    options = {"compression": compression, "data_page_version": version, "data_page_size": 500}
    if encoding == "dictionary":
        options |= {"use_dictionary": True}
    else:
        options |= {"use_dictionary": False, "column_encoding": {"before": "PLAIN", "a": encoding}}
    path = written(str(tmp_path), values.tolist(), pa.int64(), write_batch_size=64, **options)
    chunk = opened(path, 0, "a")
    for rows in (np.arange(3000), np.arange(700, 2000, 7), np.array([2999]), np.array([], int)):
        if encoding == "DELTA_BINARY_PACKED" and rows.size:
            with pytest.raises(Unusual):
                chunk.integers(rows)
        else:
            assert chunk.integers(rows).tolist() == values[rows].tolist()


def test_integers_of_other_widths_are_left_to_others(tmp_path: Path) -> None:
    path = written(str(tmp_path), [1, 2, 3], pa.int32())
    with pytest.raises(Unusual):
        opened(path, 0, "a").integers(np.arange(3))


def test_integers_with_nulls_are_left_to_others(tmp_path: Path) -> None:
    path = written(str(tmp_path), [1, None, 3], pa.int64())
    with pytest.raises(Unusual):
        opened(path, 0, "a").integers(np.arange(3))


def test_text_that_is_not_utf8_is_left_to_others(tmp_path: Path) -> None:
    raw = pa.array([b"ab", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    path = tmp_path / "a.parquet"
    for dictionary in (True, False):
        pq.write_table(pa.table({"a": text}), path, use_dictionary=dictionary)
        with pytest.raises(Unusual):
            read(path, 0, "a")
        assert read(path, 0, "a", is_text=False) == [b"ab", b"\xff\xfe"]


def test_only_columns_by_themselves_have_places(tmp_path: Path) -> None:
    table = pa.table(
        {
            "nested": [{"a": "x", "deep": {"b": "y"}}],
            "a": ["z"],
            "listed": [["a"]],
            "mapped": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
            "b": ["w"],
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    assert set(footer(path).chunks(0, ["a", "b", "listed", "mapped", "nested"])) == {"a", "b"}
    assert read(path, 0, "a") == [b"z"]
    assert read(path, 0, "b") == [b"w"]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_every_flipped_bit_is_refused_or_changes_nothing(
    tmp_path: Path, version: str, dictionary: bool, codec: str
) -> None:
    """In any byte of the chunk, its headers too, and of the footer."""
    cells = [f"{n % 7}-{'x' * (n % 3)}" for n in range(40)]
    path = written(
        str(tmp_path),
        cells,
        pa.string(),
        data_page_version=version,
        use_dictionary=dictionary,
        compression=codec,
        write_page_checksum=True,
        write_statistics=False,
        data_page_size=100,
        write_batch_size=10,
        store_schema=False,
    )
    raw = path.read_bytes()
    expected = [cell.encode() for cell in cells]
    outcomes = set()
    for at in range(4, len(raw)):
        spoilt = bytearray(raw)
        spoilt[at] ^= 1 << at % 8
        path.write_bytes(spoilt)
        try:
            found = read(path, 0, "a")
        except (Unusual, Broken, KeyError, OSError):
            outcomes.add("refused")
            continue
        if len(found) == len(cells):  # the caller compares the number of rows
            assert found == expected, at
            outcomes.add("same")
    assert outcomes == {"refused", "same"}
