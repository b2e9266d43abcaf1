"""Rows of digested files that were read again, on their way into a memo."""

import threading
from collections.abc import Iterator

import numpy as np

from settlement.calls import Recalled
from settlement.scan.cache import Digests, Entry, Table
from settlement.scan.scratch import Scratch
from settlement.scan.texts import Ints, Lanes

_HEADS = 3
"""Columns in front of the lanes."""


class Memos:
    """What is to be written into the memo of a month; threads may add at once."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._tables: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, file: str, rows: Ints, notes: Lanes, some: Recalled) -> None:
        """Add rows of a file that were read again."""
        heads = [rows.view(np.uint64), notes, some.instants.view(np.uint64)]
        table = np.ascontiguousarray(np.column_stack([*heads, some.ids]))
        place = self._scratch.append(table), len(table)
        with self._lock:
            self._tables.setdefault((file, some.ids.shape[1]), []).append(place)

    def tables(self, digests: Digests) -> Iterator[tuple[Entry, Table]]:
        """Yield the rows that were added, and what the old memo knows of its entries' rows."""
        for (file, lanes), places in self._tables.items():
            table = np.empty((sum(rows for _, rows in places), _HEADS + lanes), np.uint64)
            done = 0
            for start, rows in places:
                self._scratch.read(start, table[done : done + rows])
                done += rows
            rows, notes, instants = np.ascontiguousarray(table[:, :_HEADS].T)
            known = Table(rows.view(np.int64), notes, instants.view(np.int64), table[:, _HEADS:])
            yield digests.entries[file], known
        for entry in digests.entries.values():
            if digests.memo and digests.is_compared(entry):
                yield from ((entry, old) for old in digests.memo.tables(entry))
