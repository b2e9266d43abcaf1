"""The tally: calls add up whichever way they are added, by however many threads."""

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from settlement.calls import Rules
from settlement.counting import tally as module
from settlement.counting.tally import Tally
from settlement.month import Month
from settlement.prices import PriceBook
from settlement.scan.names import Names
from settlement.scan.pages import Part, Piece
from settlement.scan.texts import of_arrow
from settlement.tables import USAGE

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


def test_calls_are_taken_off_though_rows_still_wait() -> None:
    tally = Tally(RULES)
    tally.add(np.array([1, 1, 2, RULES.charges + 1], np.int32), 5000)
    tally.take_off(np.array([1, RULES.charges + 1]), np.array([1, 1]))
    used, calls = tally.charged()
    assert (used.tolist(), calls.tolist()) == ([1, 2], [1, 1])


@pytest.mark.parametrize("waiting", [1, 100, 10**6])
def test_how_many_rows_wait_changes_nothing(monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    draw = np.random.default_rng(3)
    lots = [draw.integers(0, 900 * RULES.charges, 37) for _ in range(20)]
    monkeypatch.setattr(module, "_WAITING", waiting)
    tally = Tally(RULES)
    for lot in lots:
        tally.add(lot, 900)
    tally.flush()
    cells, calls = np.unique(np.concatenate(lots), return_counts=True)
    charged = cells % RULES.charges != 0
    used, found = tally.charged()
    assert used.tolist() == cells[charged].tolist()
    assert found.tolist() == calls[charged].tolist()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_usage_is_laid_out_by_account_item_and_interface(
    monkeypatch: pytest.MonkeyPatch, step: int, threads: int
) -> None:
    monkeypatch.setattr(module, "_STEP", step)
    accounts = ["7", "007", "é", "", "b", "a", "10"]
    texts = of_arrow(pa.array(accounts))
    names = Names()
    numbers = names.numbers([Piece(len(accounts), lambda _: Part(texts, None))], len(accounts))
    expected: dict[tuple[str, str, str], int] = {}
    tally = Tally(RULES)
    for account, number in zip(accounts, numbers.tolist(), strict=True):
        for charge, (interface, item) in enumerate(RULES.pairs, 1):
            if account and (number + charge) % 3:
                cells = np.full(number + charge, number * RULES.charges + charge)
                tally.add(cells, len(names))
                expected[account, item, interface] = len(cells)
    found = tally.table(names.order(), threads).to_pydict()
    lines = list(zip(*(found[name] for name in USAGE.names), strict=True))
    keys = sorted(expected, key=lambda key: [text.encode() for text in key])
    assert lines == [(*key, expected[key]) for key in keys]


def test_nobody_has_no_usage() -> None:
    found = Tally(RULES).table(Names().order())
    assert (found.column_names, found.num_rows) == (USAGE.names, 0)


@pytest.mark.parametrize(
    ("waiting", "most"),
    [(1 << 19, 1 << 22), (1, 1 << 40), (1, 1)],
    ids=["as it is", "none waits for another", "each waits for another"],
)
def test_later_accounts_find_room_and_threads_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, waiting: int, most: int
) -> None:
    monkeypatch.setattr(module, "_WAITING", waiting)
    monkeypatch.setattr(module, "_MOST_WAITING", most)
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
