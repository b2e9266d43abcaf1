"""Files of pieces are what was written, or are refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settlement.errors import CannotWrite
from settlement.scan.pieces import NEW, Damaged, Reader, Writer, as_ipc, of_ipc

KEY = {"name": "one", "number": 1}
PIECES = [b"abc", b"", b"d" * 100, b"e"]


def written(path: Path, pieces: list[bytes]) -> Path:
    with Writer(path) as writer:
        assert [writer.add(piece) for piece in pieces] == list(range(len(pieces)))
        assert writer.commit(KEY, {"first": 0}) == path.stat().st_size
    return path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=20), max_size=6), data=st.data())
def test_pieces_are_read_alone_and_together(
    tmp_path: Path, pieces: list[bytes], data: st.DataObject
) -> None:
    reader = Reader(written(tmp_path / "a", pieces), KEY)
    assert reader.about == {"first": 0}
    assert reader.is_sound()
    assert [reader.piece(number) for number in range(len(pieces))] == pieces
    begin = data.draw(st.integers(0, len(pieces)))
    end = data.draw(st.integers(begin, len(pieces)))
    assert reader.pieces(range(begin, end)) == b"".join(pieces[begin:end])


def test_every_flipped_bit_is_noticed_where_it_would_be_used(tmp_path: Path) -> None:
    path = written(tmp_path / "a", PIECES)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            reader = Reader(path, KEY)
        except Damaged:
            continue
        assert at < sum(map(len, PIECES))
        assert not reader.is_sound()
        with pytest.raises(Damaged):
            reader.pieces(range(len(PIECES)))


def test_what_is_short_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "a", PIECES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            Reader(path, KEY)


def test_another_key_is_another_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a", PIECES)
    with pytest.raises(Damaged):
        Reader(path, KEY | {"number": 2})
    other = written(tmp_path / "b", PIECES[:2])
    assert Reader(path, KEY).digest != Reader(other, KEY).digest


def test_nothing_is_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a"
    with Writer(path) as writer:
        writer.add(np.arange(3))
        assert not path.exists()
        assert [file.name[: len(NEW)] for file in path.parent.iterdir()] == [NEW]
    assert list(path.parent.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot write the cache"):
        Writer(tmp_path / "file" / "a")


def test_tables_are_pieces_too(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", None, ""]})
    with Writer(tmp_path / "a") as writer:
        number = writer.add(as_ipc(table))
        writer.commit(KEY, {})
    assert of_ipc(Reader(tmp_path / "a", KEY).piece(number)) == table
