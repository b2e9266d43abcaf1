"""How many calls each account is charged for, by interface and item.

What a row charges is one number, its *cell*: the account's number times `Rules.charges`, plus
its charge. So a tally is an array, and counting is adding one to cells of it.
"""

import threading

import numpy as np
import pyarrow as pa

from settlement.calls import Rules
from settlement.counting.parallel import in_parallel
from settlement.scan.arrays import integers, strings
from settlement.scan.names import Order
from settlement.scan.texts import Codes, Ints
from settlement.tables import USAGE

_WAITING = 1 << 19
"""So many rows are counted together, or fewer where they are as many as cells."""
_MOST_WAITING = 1 << 22
"""More rows wait only until another thread has counted those before them."""
_SPARSE = 4
"""Where there are so many times more cells than rows, as many more would be touched in vain."""
_ADDED = 1 << 16
"""Cells added to one by one at a time: other threads get their turn in between."""
_STEP = 1 << 14
"""So many accounts are laid out at a time: they stay in the processor's cache."""


class Tally:
    """Calls per cell: ``calls[account * charges + charge]``; threads may add at once.

    Rows that charge nothing have charge 0, so that all rows can be added at once. Few rows wait
    until there are enough of them to be counted all together, in an array of their own. Adding
    them one by one would keep all threads waiting, as numpy does it under the interpreter's lock;
    it is done where there are so many accounts that such an array costs more.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._calls = np.zeros(0, np.int64)
        self._counting = threading.Lock()  # guards the calls
        self._waiting: list[Codes | Ints] = []
        self._rows = 0
        self._lock = threading.Lock()  # guards what waits

    def add(self, cells: Codes | Ints, accounts: int) -> None:
        """Add a call to each of some cells, which may repeat; accounts are below ``accounts``.

        The array is kept for a while, and must not be changed.
        """
        with self._lock:
            self._waiting.append(cells)
            self._rows += len(cells)
            is_due = self._rows >= min(accounts * self._rules.charges, _WAITING)
            is_late = self._rows >= _MOST_WAITING
        if is_due and self._counting.acquire(blocking=is_late):
            try:
                self._count()
            finally:
                self._counting.release()

    def flush(self) -> None:
        """Count the rows that wait."""
        with self._counting:
            self._count()

    def _count(self) -> None:
        with self._lock:
            due, self._waiting, self._rows = self._waiting, [], 0
        cells = np.concatenate([np.empty(0, np.int64), *due], dtype=np.int64)
        end = int(cells.max(initial=-1)) + 1
        self._make_room(end)
        if end > _SPARSE * len(cells):
            for begin in range(0, len(cells), _ADDED):
                np.add.at(self._calls, cells[begin : begin + _ADDED], np.int64(1))
        else:
            self._calls[:end] += np.bincount(cells)

    def add_calls(self, cells: Ints, accounts: int, calls: Ints) -> None:
        """Add calls to cells, which may repeat; accounts are below ``accounts``."""
        with self._counting:
            self._make_room(accounts * self._rules.charges)
            np.add.at(self._calls, cells, calls)

    def _make_room(self, cells: int) -> None:
        if cells > len(self._calls):
            accounts = -(-max(cells, 2 * len(self._calls)) // self._rules.charges)
            grown = np.zeros(accounts * self._rules.charges, np.int64)
            grown[: len(self._calls)] = self._calls
            self._calls = grown

    def take_off(self, cells: Ints, calls: Ints) -> None:
        """Take calls off cells again; all must have been added."""
        self.flush()
        np.subtract.at(self._calls, cells, calls)

    def charged(self) -> tuple[Ints, Ints]:
        """Return the cells that are charged, ascending, and how many calls; none is added after."""
        self.flush()
        used = np.flatnonzero(self._calls)
        used = used[used % self._rules.charges != 0]
        return used, self._calls[used]

    def table(self, order: Order, threads: int = 1) -> pa.Table:
        """Return the calls as `tables.USAGE` has them, accounts in order.

        Items and interfaces, few texts again and again, are given as dictionaries. The tally is
        laid out anew in that order, some accounts at a time, so that nothing needs to be sorted.
        """
        self.flush()
        self._make_room(len(order.numbers) * self._rules.charges)
        layout = _Layout(self._rules)

        def lines(begin: int, _: threading.Event) -> tuple[int, pa.Table]:
            some = order.numbers[begin : begin + _STEP]
            calls = self._calls.reshape(-1, self._rules.charges).take(some, axis=0)
            return begin, layout.lines(order.texts.slice(begin, len(some)), calls)

        parts = dict(in_parallel(lines, range(0, len(order.numbers), _STEP), threads))
        return pa.concat_tables(parts[begin] for begin in sorted(parts))


class _Layout:
    """The order of usage within an account: by item first, where that of charges is by interface.

    Args:
        rules: what charges there are.
    """

    def __init__(self, rules: Rules) -> None:
        by_item = sorted(enumerate(rules.pairs, 1), key=lambda each: (each[1][1].encode(), each[0]))
        self._charges = np.array([charge for charge, _ in by_item], np.int32)
        self._items = strings([item for _, (_, item) in by_item])
        self._interfaces = strings([name for _, (name, _) in by_item])

    def lines(self, accounts: pa.Array, calls: Ints) -> pa.Table:
        """Return the usage of some accounts, given all their cells, a row each."""
        ordered = calls.take(self._charges, axis=1).ravel()
        cells = np.flatnonzero(ordered)
        row, place = np.divmod(cells, len(self._charges))
        places = integers(place.astype(np.int32))
        columns = [
            accounts.take(integers(row)),
            pa.DictionaryArray.from_arrays(places, self._items),
            pa.DictionaryArray.from_arrays(places, self._interfaces),
            integers(ordered.take(cells)),
        ]
        return pa.Table.from_arrays(columns, USAGE.names)
