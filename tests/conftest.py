"""What tests of whole runs share."""

import signal
from collections.abc import Iterator

import pytest

from tests.processes import Forks, forks

# Started in the background, a shell has its children ignore Ctrl-C, and theirs after them: the
# programs under test must get it all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs commands in forks of one process."""
    with forks(tmp_path_factory.mktemp("forks")) as running:
        yield running
