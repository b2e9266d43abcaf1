"""Scratch files: what is written is read again, and a full disk is a refusal."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from settlement.errors import CannotWrite
from settlement.scan import scratch as module
from settlement.scan.scratch import Scratch
from tests.logs import call, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("room", "written"), [(0, 2664), (100, 2656), (2500, 256), (4000, 0)])
def test_arrays_are_read_as_they_were_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, room: int, written: int
) -> None:
    monkeypatch.setattr(module, "_WRITE", 100)
    scratch = Scratch(room)
    arrays: list[np.ndarray] = [np.arange(n, dtype=np.int64) * 7 for n in (0, 1, 300, 12)]
    arrays.append(np.arange(40, dtype=np.uint64).reshape(10, 4)[::2])
    starts = [scratch.append(array) for array in arrays]
    for start, array in zip(starts, arrays, strict=True):
        out = np.empty_like(np.ascontiguousarray(array))
        scratch.read(start, out)
        assert np.array_equal(out, array)
    assert list(folder.iterdir()) == []  # it has no name
    assert os.fstat(scratch._file.fileno()).st_size == written
    scratch.close()


def test_reading_behind_the_end_is_noticed(folder: Path) -> None:
    scratch = Scratch()
    scratch.append(np.zeros(3, np.uint8))
    with pytest.raises(CannotWrite, match="shorter than what was written"):
        scratch.read(0, np.empty(4, np.uint8))
    scratch.close()


def test_a_missing_folder_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(CannotWrite, match="/nowhere/at/all: cannot hold temporary files"):
        Scratch()


COUNT = """
import resource, sys
from settlement.scan.finding import find
from settlement.usage import count
from tests.logs import PERIOD, VERSION
log = find(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    count(log, PERIOD, VERSION)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_a_refusal_that_names_the_folder(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    write(tmp_path / "log" / "a.parquet", [call(n) for n in range(4000)])
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path / "log")],
        env={"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": "."},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    said = f"CannotWrite {tmp_path}/temporary: cannot hold temporary files (File too large);"
    assert done.stdout.startswith(said)


def test_a_disk_that_complains_at_the_end_has_nothing_to_lose(folder: Path) -> None:
    scratch = Scratch()
    os.close(scratch._file.fileno())
    scratch.close()
