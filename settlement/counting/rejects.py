"""Rejected rows: all of them while they are few, then the first ten."""

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import tables

KEPT = 1_000_000
"""So many are kept, unless more are asked for."""
_FIRST = 10


class Rejects:
    """The rejected rows of a count.

    Args:
        keep: if there are more, only the first ten are kept.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.seen = 0
        self._kept: list[pa.Table] = []
        self._kept_rows = 0

    def add(self, rejects: pa.Table) -> None:
        """Add rows; the same rows are kept whatever order they come in."""
        self.seen += len(rejects)
        self._kept.append(rejects)
        self._kept_rows += len(rejects)
        if self.seen > self._keep and self._kept_rows > _FIRST:
            self._kept = [self._sorted().slice(0, _FIRST)]
            self._kept_rows = _FIRST

    def _sorted(self) -> pa.Table:
        kept = pa.concat_tables(self._kept)
        order = pc.sort_indices(kept, sort_keys=[("file", "ascending"), ("row", "ascending")])
        return kept.take(order)

    def table(self) -> pa.Table | None:
        """Return the rows as they came, by file and row; None where there are none."""
        return self._sorted() if self._kept else None

    def frame(self) -> pd.DataFrame:
        """Return the rows as `tables.REJECTS`."""
        kept = self.table()
        if kept is None:
            return tables.empty(tables.REJECTS)
        columns = {name: kept[name] for name in tables.REJECTS.names}
        return tables.frame(tables.REJECTS, columns | {"row": kept["row"].to_numpy()})
