"""How many calls each account is charged for, by interface and item.

What a row charges is one number, its *cell*: the account's number times `Rules.charges`, plus
its charge. So a tally is an array, and counting is adding one to cells of it.
"""

import threading

import numpy as np
import pandas as pd
import pyarrow as pa

from settlement import tables
from settlement.calls import Rules
from settlement.scan.names import Names
from settlement.scan.texts import Codes, Ints

_ONE = np.int64(1)


class Tally:
    """Calls per cell: ``calls[account * charges + charge]``; threads may add at once.

    Rows that charge nothing have charge 0, so that all rows can be added at once.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._calls = np.zeros(0, np.int64)
        self._lock = threading.Lock()

    def add(self, cells: Codes | Ints, accounts: int, calls: Ints | np.int64 = _ONE) -> None:
        """Add calls to cells, which may repeat; accounts have numbers below ``accounts``."""
        with self._lock:
            need = accounts * self._rules.charges
            if need > len(self._calls):
                grown = np.zeros(max(need, 2 * len(self._calls)), np.int64)
                grown[: len(self._calls)] = self._calls
                self._calls = grown
            np.add.at(self._calls, cells, calls)

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
        pairs = self._rules.pairs
        charges = self._rules.charges
        used, calls = self.charged()
        # the order of pairs is by interface; the table's is by item first
        by_item = sorted(range(len(pairs)), key=lambda n: (pairs[n][1].encode(), n))
        place = np.argsort([-1, *by_item])
        accounts, charge = used // charges, used % charges
        order = np.argsort(ranks[accounts] * charges + place[charge], kind="stable")
        accounts, charge = pa.array(accounts[order]), charge[order]
        pair = pa.array(charge - 1)
        return tables.frame(
            tables.USAGE,
            {
                "account_id": names.texts().take(accounts),
                "item": pa.array([item for _, item in pairs], pa.large_string()).take(pair),
                "interface": pa.array([name for name, _ in pairs], pa.large_string()).take(pair),
                "calls": calls[order],
            },
        )
