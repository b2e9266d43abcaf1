"""Freed memory is used again, and results do not depend on it."""

import resource

import numpy as np
import pytest

from settlement.scan.memory import keep_freed


def faults_of_arrays() -> int:
    """How often the system must provide pages for arrays that come and go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_arrays_touch_the_same_memory_again() -> None:
    if not keep_freed():
        pytest.skip("this C library has no mallopt")
    np.ones(1 << 20)
    assert faults_of_arrays() < 2048  # of one array's pages; all would be 40960
