"""The tally: calls add up whichever way they are added, by however many threads."""

import threading
from pathlib import Path

import numpy as np
import pytest

from settlement.calls import Rules
from settlement.counting.tally import Tally
from settlement.month import Month
from settlement.prices import PriceBook

PRICES = Path(__file__).parents[1] / "data" / "price_book.toml"
RULES = Rules(PriceBook.parse(PRICES.read_bytes()).version_for(Month.parse("2026-02")))


@pytest.mark.parametrize(
    ("accounts", "rows"),
    [(3, 1000), (5000, 1000), (1, 0)],
    ids=["many rows to a cell", "few rows to a cell", "no rows"],
)
def test_cells_are_counted(accounts: int, rows: int) -> None:
    cells = np.random.default_rng(1).integers(0, accounts * RULES.charges, rows)
    tally = Tally(RULES)
    tally.add(cells.astype(np.int32), accounts)
    tally.add(cells, accounts)
    expected: dict[int, int] = {}
    for cell in cells.tolist():
        if cell % RULES.charges:
            expected[cell] = expected.get(cell, 0) + 2
    used, calls = tally.charged()
    assert dict(zip(used.tolist(), calls.tolist(), strict=True)) == expected


def test_later_accounts_find_room_and_threads_lose_nothing() -> None:
    tally = Tally(RULES)
    rounds, accounts = 50, 2000

    def add(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for n in range(1, rounds + 1):
            seen = accounts * n // rounds
            tally.add(draw.integers(0, seen, 400 * n) * RULES.charges + 1, seen)

    threads = [threading.Thread(target=add, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert int(tally.charged()[1].sum()) == 4 * 400 * rounds * (rounds + 1) // 2
