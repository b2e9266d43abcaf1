"""Which months are due, and that they are settled in order up to the first refusal."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from settlement.book import Book, Settlement
from settlement.catchup import catch_up, due
from settlement.errors import MissingInput
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from tests.drawn import rows
from tests.small import PRICE_BOOK, write_world

SHANGHAI = "Asia/Shanghai"

DUE = """
now                    zone              settled                  first    due
---
2026-03-01T02:00+08:00 Asia/Shanghai     ·                        ·        2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     2026-01                  ·        2026-02
2026-03-31T23:59+08:00 Asia/Shanghai     2026-01                  ·        2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     2026-02                  ·        ·
2026-03-01T02:00+08:00 Asia/Shanghai     2026-03                  ·        ·
2026-03-01T02:00+08:00 Asia/Shanghai     2025-11                  ·        2025-12,2026-01,2026-02
2026-01-01T00:00+08:00 Asia/Shanghai     2025-11                  ·        2025-12
2026-03-01T02:00+08:00 Asia/Shanghai     2025-09,2025-12          ·        2026-01,2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     2025-12,2026-01,2025-11  ·        2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     ·                        2025-12  2025-12,2026-01,2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     ·                        2026-02  2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     ·                        2026-03  ·
2026-03-01T02:00+08:00 Asia/Shanghai     ·                        2027-01  ·
2026-03-01T02:00+08:00 Asia/Shanghai     2026-01                  2025-06  2026-02
2026-03-01T02:00+08:00 Asia/Shanghai     2025-12                  2026-02  2026-01,2026-02
2026-02-28T15:59:59Z   Asia/Shanghai     2026-01                  ·        ·
2026-02-28T16:00:00Z   Asia/Shanghai     2026-01                  ·        2026-02
2026-03-01T00:00:00Z   America/New_York  2026-01                  ·        ·
2026-03-01T05:00:00Z   America/New_York  2026-01                  ·        2026-02
2026-03-01T00:00:00Z   UTC               2026-01                  ·        2026-02
"""


def months(cell: str) -> list[Month]:
    return [] if cell == "·" else [Month.parse(text) for text in cell.split(",")]


def settled(cell: str) -> Book:
    """A book in which these months were published in this order."""
    return Book(
        Path("book"),
        tuple(
            Settlement(
                Path(f"book/{month}/r1"),
                {"month": str(month), "revision": 1, "number": number},
                sha256="",
            )
            for number, month in enumerate(months(cell), 1)
        ),
    )


@pytest.mark.parametrize("row", rows(DUE)[1:], ids=" ".join)
def test_months_over_and_not_settled_are_due_oldest_first(row: list[str]) -> None:
    now, zone, book, first, expected = row
    found = due(
        settled(book),
        datetime.fromisoformat(now),
        ZoneInfo(zone),
        next(iter(months(first)), None),
    )
    assert found == months(expected)


def test_catching_up_stops_at_the_first_refusal(tmp_path: Path) -> None:
    world = write_world(tmp_path, "2025-12", "2026-02")
    now = datetime.fromisoformat("2026-03-01T02:00+08:00")

    def order_of(month: Month) -> Order:
        prices = PriceBook.parse(PRICE_BOOK.encode())
        return Order(month, str(world / "logs"), world / "book", prices, now)

    book = Book.open(world / "book")
    runs = catch_up(due(book, now, ZoneInfo(SHANGHAI), Month(2025, 12)), order_of)
    assert next(runs).settlement.name == "2025-12 r1"
    with pytest.raises(MissingInput, match="no call in 2026-01"):
        next(runs)
    assert list(runs) == []
    assert list(Book.open(world / "book").months) == [Month(2025, 12)]
