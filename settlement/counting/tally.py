"""How many calls each account is charged for, by interface and item.

What a row charges is one number, its *cell*: the account's number times `Rules.charges`, plus
its charge. So a tally is an array, and counting is adding one to cells of it.
"""

import threading

import numpy as np
import pandas as pd
import pyarrow as pa

from settlement import frames, tables
from settlement.calls import Rules
from settlement.scan.names import Names
from settlement.scan.texts import Codes, Ints

_ONE = np.int64(1)
_DENSE = 4
"""Where there are so many cells to a row at most, rows are counted before they are added."""
_STEP = 1 << 14
"""So many accounts are laid out at a time: they stay in the processor's cache."""


class Tally:
    """Calls per cell: ``calls[account * charges + charge]``; threads may add at once.

    Rows that charge nothing have charge 0, so that all rows can be added at once.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._calls = np.zeros(0, np.int64)
        self._lock = threading.Lock()

    def add(self, cells: Codes | Ints, accounts: int) -> None:
        """Add a call to each of some cells, which may repeat; accounts are below ``accounts``."""
        if accounts * self._rules.charges > _DENSE * len(cells):
            self.add_calls(cells, accounts, _ONE)
            return
        calls = np.bincount(cells)  # outside the lock, so that nobody waits for it
        with self._lock:
            self._make_room(accounts)
            self._calls[: len(calls)] += calls

    def add_calls(self, cells: Codes | Ints, accounts: int, calls: Ints | np.int64) -> None:
        """Add calls to cells, which may repeat; accounts are below ``accounts``."""
        with self._lock:
            self._make_room(accounts)
            np.add.at(self._calls, cells, calls)

    def _make_room(self, accounts: int) -> None:
        need = accounts * self._rules.charges
        if need > len(self._calls):
            grown = np.zeros(max(need, 2 * len(self._calls)), np.int64)
            grown[: len(self._calls)] = self._calls
            self._calls = grown

    def take_off(self, cells: Ints) -> None:
        """Take calls off again."""
        np.subtract.at(self._calls, cells, _ONE)

    def charged(self) -> tuple[Ints, Ints]:
        """Return the cells that are charged, ascending, and how many calls each."""
        used = np.flatnonzero(self._calls)
        used = used[used % self._rules.charges != 0]
        return used, self._calls[used]

    def usage(self, names: Names, ranks: Ints) -> pd.DataFrame:
        """Return the calls as `tables.USAGE`; ``ranks`` is the order of the accounts."""
        # the order of pairs is by interface; the table's is by item first
        pairs = self._rules.pairs
        by_item = sorted(range(len(pairs)), key=lambda n: (pairs[n][1].encode(), n))
        accounts = np.empty_like(ranks)
        accounts[ranks] = np.arange(len(ranks))
        rank, place, calls = self._lines(accounts, 1 + np.array(by_item, np.int64))
        pair = pa.array(place)
        return frames.frame(
            tables.USAGE,
            {
                "account_id": names.texts().take(pa.array(accounts)).take(pa.array(rank)),
                "item": _texts([pairs[n][1] for n in by_item]).take(pair),
                "interface": _texts([pairs[n][0] for n in by_item]).take(pair),
                "calls": calls,
            },
        )

    def _lines(self, accounts: Ints, charges: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the cells with calls, by account and charge, both in a given order.

        Returns where in the orders they are, and the calls. The tally is laid out anew, some
        accounts at a time, so that nothing needs to be sorted.
        """
        self._make_room(len(accounts))
        by_account = self._calls.reshape(-1, self._rules.charges)
        parts = []
        for begin in range(0, len(accounts), _STEP):
            some = by_account.take(accounts[begin : begin + _STEP], axis=0)
            calls = some.take(charges, axis=1).ravel()
            at = np.flatnonzero(calls)
            parts.append((at // len(charges) + begin, at % len(charges), calls.take(at)))
        ranks, places, found = (np.concatenate(part) for part in zip(*parts, strict=True))
        return ranks, places, found


def _texts(values: list[str]) -> pa.Array:
    return pa.array(values, pa.large_string())
