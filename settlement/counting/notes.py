"""What each row charged, noted in a scratch file until some rows are asked about again."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from settlement.scan import cache
from settlement.scan.scratch import Scratch
from settlement.scan.texts import Codes, Ints, Lanes

_Noted = tuple[int, int, np.dtype[Any]]
"""Where values lie, how many, and of which type."""


class Notes:
    """The cells of rows by their positions, and the rests of their hashes where they are kept."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._cells: dict[int, _Noted] = {}
        self._rests: dict[int, _Noted] = {}

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, position: int, cells: Codes | Ints, rests: Any = None) -> None:
        """Note the cells of rows from a position on, and the rests of their hashes if kept."""
        self._cells[position] = self._scratch.append(cells), len(cells), cells.dtype
        if rests is not None:
            self._rests[position] = self._scratch.append(rests), len(rests), rests.dtype

    def of(self, positions: Ints) -> Ints:
        """Return the cells of rows at ascending positions; all must have been noted."""
        return self._picked(self._cells, positions).view(np.int64)

    def rests(self, positions: Ints) -> Lanes:
        """Return the rests of hashes of rows at ascending positions."""
        return self._picked(self._rests, positions)

    def all(self) -> Iterator[tuple[int, Lanes]]:
        """Yield all notes as a cache holds them, from the first position on."""
        for first in self._firsts:
            yield first, cache.note(self._read(self._rests[first]), self._read(self._cells[first]))

    def _picked(self, blocks: dict[int, _Noted], positions: Ints) -> Lanes:
        found = np.empty(len(positions), np.uint64)
        end = len(positions)
        while end:
            first = self._firsts[bisect_right(self._firsts, positions[end - 1]) - 1]
            begin = int(np.searchsorted(positions[:end], first))
            found[begin:end] = self._read(blocks[first])[positions[begin:end] - first]
            end = begin
        return found

    def _read(self, noted: _Noted) -> Any:
        start, count, kind = noted
        values = np.empty(count, kind)
        self._scratch.read(start, values)
        return values

    @cached_property
    def _firsts(self) -> list[int]:
        return sorted(self._cells)


class Numbers:
    """For each file with an entry, its accounts' numbers in this count."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._places: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        """Give the disk space back."""
        self._scratch.close()

    def add(self, file: str, numbers: Codes) -> None:
        """Note the number here of each account of a file's entry."""
        self._places[file] = self._scratch.append(numbers), len(numbers)

    def of(self, file: str) -> Codes:
        """Return what was noted of a file."""
        start, count = self._places[file]
        numbers = np.empty(count, np.int32)
        self._scratch.read(start, numbers)
        return numbers
