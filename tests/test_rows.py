"""Columns of row groups: what is asked of the system before they are read."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from settlement.scan import rows
from settlement.scan.finding import find
from settlement.usage import count
from tests.logs import PERIOD, VERSION, call, version, write

END = (PERIOD.end - PERIOD.start) * 10**6


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which ranges of bytes are asked for in advance."""
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(rows, "QUICK_ROWS", range(10**6))
    monkeypatch.setattr(
        "os.posix_fadvise",
        lambda _file, start, size, _advice: ranges.append((start, size)),
        raising=False,
    )
    monkeypatch.setattr("os.POSIX_FADV_WILLNEED", 3, raising=False)
    return ranges


def ranges_of(path: Path, *names: str) -> list[tuple[int, int]]:
    """Where the columns of a file's first row group lie, as Arrow tells it."""
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return sorted(
        (column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size)
        for column in columns
        if column.path_in_schema in names
    )


@pytest.mark.parametrize("once", [True, False])
def test_the_columns_that_will_be_read_are_asked_for(
    tmp_path: Path, asked: list[tuple[int, int]], once: bool
) -> None:
    write(tmp_path / "a.parquet", [call(n) for n in range(9)])
    rules = VERSION if once else version(deduplicate="false")
    path = tmp_path / "a.parquet"
    assert count(find(str(path)), PERIOD, rules).rows["billed"] == 9
    wanted = ["account_id", "interface", "item", "status_code", *["request_id"] * once]
    assert sorted(asked) == ranges_of(path, *wanted)


def test_instants_are_asked_for_where_they_are_needed(
    tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    """For rows outside the month, or of one id."""
    for name, some in (
        ("edge", [call(1), call(2, timestamp=END)]),
        ("twice", [call(1), call(2), call(1)]),
    ):
        path = tmp_path / f"{name}.parquet"
        write(path, some)
        asked.clear()
        count(find(str(path)), PERIOD, VERSION)
        assert ranges_of(path, "timestamp")[0] in asked


def test_a_count_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system knows no such wish, or does not grant it."""
    write(tmp_path / "a.parquet", [call(1)])
    monkeypatch.setattr(rows, "QUICK_ROWS", range(10**6))

    def refuse(*_: int) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.posix_fadvise", refuse, raising=False)
    assert count(find(str(tmp_path)), PERIOD, VERSION).rows["billed"] == 1
    monkeypatch.delattr("os.posix_fadvise")
    assert not hasattr(os, "posix_fadvise")
    assert count(find(str(tmp_path)), PERIOD, VERSION).rows["billed"] == 1
