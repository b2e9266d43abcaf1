"""What libraries are told before they are loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

THREADS = """
import os
from settlement import lean
before = dict(os.environ)
lean.start()
import numpy
assert dict(os.environ) == before
print(len(os.listdir("/proc/self/task")))
"""


def threads(**settings: str) -> int:
    """How many threads a program has that started lean and imported numpy."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor has one thread anyway")
def test_numpy_starts_no_threads_unless_told_to() -> None:
    if threads(OPENBLAS_NUM_THREADS="2") == 1:
        pytest.skip("this numpy has no OpenBLAS")
    assert threads() == 1


def test_cycles_are_looked_for_less_often() -> None:
    """But they are."""
    program = (
        "import gc; from settlement import lean; lean.start(); "
        "print(gc.isenabled(), gc.get_threshold()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    enabled, objects = done.stdout.split()
    assert enabled == "True"
    assert 700 < int(objects) < 100_000
