"""Rows of digested files that were read again, on their way into memos."""

import threading
from collections.abc import Iterator, Mapping

import numpy as np

from settlement.calls import Recalled
from settlement.scan.cache import Entry
from settlement.scan.logfiles import LogFile, RowGroup
from settlement.scan.scratch import Scratch
from settlement.scan.texts import Ints, Lanes


class Memos:
    """What is to be written into the memos of entries; threads may add at once."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._tables: dict[str, list[tuple[int, int, int, int]]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, file: LogFile, group: RowGroup, rows: Ints, notes: Lanes, some: Recalled) -> None:
        """Add rows of a row group that were read again."""
        table = np.column_stack([rows.view(np.uint64), notes, some.instants.view(np.uint64)])
        table = np.ascontiguousarray(np.column_stack([table, some.ids]))
        place = group.number, self._scratch.append(table), *table.shape
        with self._lock:
            self._tables.setdefault(file.name, []).append(place)

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Write a memo for each entry with such rows, what it knew already among them."""
        for file, places in self._tables.items():
            entry = entries[file]
            tables: dict[int, list[Lanes]] = {}
            for group, start, rows, columns in places:
                table = np.empty((rows, columns), np.uint64)
                self._scratch.read(start, table)
                tables.setdefault(group, []).append(table)
            if entry.memo:
                for group in entry.memo.groups:
                    tables.setdefault(group, []).extend(entry.memo.tables(group))
            entry.write_memo({group: _by_width(own) for group, own in tables.items()})


def _by_width(tables: list[Lanes]) -> Iterator[Lanes]:
    """Join tables of equal columns, each sorted by its first."""
    for columns in sorted({table.shape[1] for table in tables}):
        joined = np.concatenate([table for table in tables if table.shape[1] == columns])
        yield joined[np.argsort(joined[:, 0])]
