"""What a run has come to so far, for whoever watches it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from settlement.progress import watched


@dataclass
class Journal:
    """What a run has come to so far, also where it is refused half-way.

    Seconds per stage, in the order in which they were entered; files, rows and bytes of the log;
    and, once it is counted, how many rows are in each bucket.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    files: int = 0
    file_rows: int = 0
    file_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, and let it be said that it is on."""
        began = time.perf_counter()
        try:
            with watched(name):
                yield
        finally:
            passed = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + passed
