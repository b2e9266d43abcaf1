"""Revisions as drawings: what was called and settled before, what is posted, what is open after.

Every call costs 1.00, and 120 % of a bill is frozen, so that calls, bills and entries are read
off each other. Each drawing is a real book, settled and revised from real files.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from settlement import settle
from settlement.book import Book
from settlement.check import check
from settlement.ledger import HOLDS
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from settlement.settle import Done
from settlement.tables import ADJUSTMENTS, ENTRIES
from tests import small_logs
from tests.drawn import drawn, rows
from tests.small import PRICE_BOOK

PRICES = PRICE_BOOK.replace('unit_price = "0.5"', 'unit_price = "1"')
NOW = datetime(2027, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Ledger:
    """A log and a book in a folder."""

    folder: Path
    prices: str = PRICES

    def called(self, month: str, calls: str) -> None:
        """Let the log of a month hold so many calls: ``anna 10, bob 5``."""
        pairs = [pair.split() for pair in calls.split(",") if pair.strip()]
        table = small_logs.made(month, {(name, "Detect"): int(count) for name, count in pairs})
        small_logs.write(table, self.folder / "logs" / f"{month}.parquet")

    def order(self, month: str) -> Order:
        prices = PriceBook.parse(self.prices.encode())
        logs, book = str(self.folder / "logs"), self.folder / "book"
        return Order(Month.parse(month), logs, book, prices, NOW, allow_empty=True)

    def settle(self, month: str, calls: str) -> Done:
        self.called(month, calls)
        return settle.run(replace(self.order(month), allow_gap=True))

    def revise(self, month: str) -> Done:
        return settle.run(replace(self.order(month), revise=True, reason="drawn"))

    @property
    def holds(self) -> pd.DataFrame:
        return Book.open(self.folder / "book").open_holds()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@dataclass(frozen=True)
class Case:
    """Months settled in this order, one of them called otherwise since, and what follows."""

    before: str
    since: str
    posted: str
    after: str


CASES = {
    "the hold is still open: unfreeze, debit or credit the difference, freeze": Case(
        """
        2026-01  anna 10, bob 20, carol 5
        """,
        "2026-01  anna 15, bob 10, carol 5",
        """
        anna 1 unfreeze 12.00 2026-01
        anna 2 debit     5.00 ·
        anna 3 freeze   18.00 2026-01
        bob  1 unfreeze 24.00 2026-01
        bob  2 credit   10.00 ·
        bob  3 freeze   12.00 2026-01
        """,
        """
        anna  2026-01 18.00
        bob   2026-01 12.00
        carol 2026-01  6.00
        """,
    ),
    "a later month is settled: only debit or credit": Case(
        """
        2026-01  anna 10, bob 20
        2026-02  anna 1
        """,
        "2026-01  anna 15, bob 10",
        """
        anna 1 debit   5.00 ·
        bob  1 credit 10.00 ·
        """,
        """
        anna 2026-02 1.20
        """,
    ),
    "an account vanished: its whole debit is credited, its hold given back": Case(
        """
        2026-01  anna 10, bob 20
        """,
        "2026-01  anna 10",
        """
        bob 1 unfreeze 24.00 2026-01
        bob 2 credit   20.00 ·
        """,
        """
        anna 2026-01 12.00
        """,
    ),
    "an account vanished from a month long past": Case(
        """
        2026-01  anna 10, bob 20
        2026-02  bob 10
        """,
        "2026-01  anna 10",
        """
        bob 1 credit 20.00 ·
        """,
        """
        bob 2026-02 12.00
        """,
    ),
    "an account appeared: it is debited, and its hold made": Case(
        """
        2026-01  anna 10
        """,
        "2026-01  anna 10, zoe 3",
        """
        zoe 1 debit  3.00 ·
        zoe 2 freeze 3.60 2026-01
        """,
        """
        anna 2026-01 12.00
        zoe  2026-01  3.60
        """,
    ),
    "an account appeared in a month long past": Case(
        """
        2026-01  anna 10
        2026-02  anna 10
        """,
        "2026-01  anna 10, zoe 3",
        """
        zoe 1 debit 3.00 ·
        """,
        """
        anna 2026-02 12.00
        """,
    ),
    "a month settled late is revised: its debit alone, as when it was settled": Case(
        """
        2026-03  anna 10
        2026-01  anna 10, bob 20
        """,
        "2026-01  anna 12, bob 19",
        """
        anna 1 debit  2.00 ·
        bob  1 credit 1.00 ·
        """,
        """
        anna 2026-03 12.00
        """,
    ),
    "everybody vanished": Case(
        """
        2026-01  anna 10
        2026-02  anna 7, bob 1
        """,
        "2026-02  ",
        """
        anna 1 unfreeze 8.40 2026-02
        anna 2 credit   7.00 ·
        bob  1 unfreeze 1.20 2026-02
        bob  2 credit   1.00 ·
        """,
        "",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_revision_posts_the_difference(ledger: Ledger, case: Case) -> None:
    for line in case.before.strip().splitlines():
        month, _, calls = line.strip().partition("  ")
        ledger.settle(month, calls)
    month, _, calls = case.since.partition("  ")
    ledger.called(month, calls)
    done = ledger.revise(month)
    assert (done.outcome, done.settlement.revision) == ("published", 2)
    posted = drawn(ENTRIES, f"account_id sequence kind amount hold_month\n{case.posted}")
    pd.testing.assert_frame_equal(done.settlement.table(ENTRIES), posted)
    after = drawn(HOLDS, f"account_id hold_month amount\n{case.after}")
    pd.testing.assert_frame_equal(ledger.holds, after)
    assert check(ledger.folder / "book").problems == ()

    again = ledger.revise(month)  # unchanged since
    assert (again.outcome, again.settlement.revision) == ("settled already", 2)


def test_no_difference_for_an_account_is_no_entry_for_it(ledger: Ledger) -> None:
    ledger.settle("2026-01", "anna 10, bob 20")
    ledger.called("2026-01", "anna 10, bob 21")
    entries = ledger.revise("2026-01").settlement.table(ENTRIES)
    assert set(entries["account_id"]) == {"bob"}


def test_unchanged_inputs_publish_nothing(ledger: Ledger) -> None:
    ledger.settle("2026-01", "anna 10")
    assert ledger.revise("2026-01").outcome == "settled already"
    (ledger.folder / "logs" / "2026-01.parquet").touch()  # another time, the same calls
    assert ledger.revise("2026-01").outcome == "same outcome"
    assert len(Book.open(ledger.folder / "book").settlements) == 1


def test_another_factor_alone_moves_the_holds_alone(ledger: Ledger) -> None:
    ledger.settle("2026-01", "anna 10, bob 20")
    more = replace(ledger, prices=PRICES.replace('"1.20"', '"1.50"'))
    done = more.revise("2026-01")
    expected = drawn(
        ENTRIES,
        """
        account_id sequence kind amount hold_month
        anna 1 unfreeze 12.00 2026-01
        anna 2 freeze   15.00 2026-01
        bob  1 unfreeze 24.00 2026-01
        bob  2 freeze   30.00 2026-01
        """,
    )
    pd.testing.assert_frame_equal(done.settlement.table(ENTRIES), expected)
    assert done.settlement.table(ADJUSTMENTS).empty
    assert check(ledger.folder / "book").problems == ()
    none = replace(ledger, prices=PRICES.replace('"1.20"', '"0"'))
    assert list(none.revise("2026-01").settlement.table(ENTRIES)["kind"]) == ["unfreeze"] * 2
    assert ledger.holds.empty


def test_another_factor_for_a_month_long_past_is_no_other_outcome(ledger: Ledger) -> None:
    ledger.settle("2026-01", "anna 10")
    ledger.settle("2026-02", "anna 10")
    more = replace(ledger, prices=PRICES.replace('"1.20"', '"1.50"'))
    assert more.revise("2026-01").outcome == "same outcome"


def test_every_difference_has_a_numbered_document(ledger: Ledger) -> None:
    """``S`` for a supplementary bill, ``C`` for a credit note; each revision by itself."""
    ledger.settle("2026-01", "anna 10, bob 20, carol 5")
    ledger.called("2026-01", "anna 15, bob 10, carol 5, zoe 1")
    columns = "account_id previous_payable payable adjustment document\n"
    second = drawn(
        ADJUSTMENTS,
        f"""{columns}
        anna 10.00 15.00   5.00 2026-01-r2-S0000001
        bob  20.00 10.00 -10.00 2026-01-r2-C0000002
        zoe   0.00  1.00   1.00 2026-01-r2-S0000003
        """,
    )
    pd.testing.assert_frame_equal(ledger.revise("2026-01").settlement.table(ADJUSTMENTS), second)
    ledger.called("2026-01", "anna 15, carol 5, zoe 1")
    third = drawn(ADJUSTMENTS, f"{columns}bob 10.00 0.00 -10.00 2026-01-r3-C0000001")
    pd.testing.assert_frame_equal(ledger.revise("2026-01").settlement.table(ADJUSTMENTS), third)


ORDERS = """
order
---
2026-01,2026-02,2026-03
2026-03,2026-01,2026-02
2026-01,2026-03,2026-02
2026-02,2026-03,2026-01
"""


@pytest.mark.parametrize("order", [row[0] for row in rows(ORDERS)[1:]])
def test_any_order_ends_with_the_same_holds_and_debits(ledger: Ledger, order: str) -> None:
    calls = {"2026-01": "anna 10", "2026-02": "anna 20, bob 3", "2026-03": "bob 5"}
    for month in order.split(","):
        ledger.settle(month, calls[month])
    pd.testing.assert_frame_equal(
        ledger.holds, drawn(HOLDS, "account_id hold_month amount\nbob 2026-03 6.00")
    )
    assert check(ledger.folder / "book").problems == ()
