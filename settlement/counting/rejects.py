"""Rejected rows: all of them while they are few, then the first ten."""

import pyarrow as pa
import pyarrow.compute as pc

from settlement.tables import REJECTS

KEPT = 1_000_000
"""So many are kept, unless more are asked for."""
MOST_BYTES = 256 << 20
"""Bytes that all that are kept may have: they stay in memory."""
_FIRST = 10
_NONE = pa.Table.from_batches([], REJECTS.counted)


class Rejects:
    """The rejected rows of a count.

    Args:
        keep: if there are more, or they are too long, only the first ten are kept.

    Attributes:
        are_all: whether all that were added are kept.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.are_all = True
        self._seen = self._bytes = 0
        self._kept: list[pa.Table] = []
        self._kept_rows = 0

    def add(self, rejects: pa.Table) -> None:
        """Add rows; the same rows are kept whatever order they come in."""
        self._seen += len(rejects)
        self._bytes += rejects.nbytes
        self._kept.append(rejects)
        self._kept_rows += len(rejects)
        self.are_all = self._seen <= self._keep and self._bytes <= MOST_BYTES
        if not self.are_all and self._kept_rows > _FIRST:
            self._kept = [self._sorted(_FIRST)]
            self._kept_rows = _FIRST

    def _sorted(self, first: int | None = None) -> pa.Table:
        kept = pa.concat_tables(self._kept)
        order = pc.sort_indices(kept, sort_keys=[("file", "ascending"), ("row", "ascending")])
        return kept.take(order[:first])

    def table(self) -> pa.Table:
        """Return the rows as `tables.REJECTS` has them, by file and row."""
        return self._sorted() if self._kept else _NONE
