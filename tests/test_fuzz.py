"""What is fuzzed (`tests.fuzz`), with the bytes that are kept: to begin with, and once found."""

import time
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
PATIENCE = 5
"""Seconds of CPU that a case may take."""


@pytest.mark.parametrize("case", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_kept_bytes_are_read_or_refused(case: Path, tmp_path: Path) -> None:
    began = time.process_time()
    TARGETS[case.parent.name].run(case.read_bytes(), tmp_path)
    assert time.process_time() - began < PATIENCE


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_begins_with_bytes_that_are_read(target: str, tmp_path: Path) -> None:
    assert TARGETS[target].run((CORPUS / target / "sound").read_bytes(), tmp_path)
