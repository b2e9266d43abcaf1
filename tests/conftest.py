"""What tests of whole runs share."""

from collections.abc import Iterator

import pytest

from tests.processes import Forks, forks


@pytest.fixture(scope="session")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs commands in forks of one process."""
    with forks(tmp_path_factory.mktemp("forks")) as running:
        yield running
