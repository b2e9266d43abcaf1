"""Random months, settled by the program and by the naive reference: every table is equal."""

import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settlement import settle, tables
from settlement.book import Book
from settlement.check import check
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from settlement.scan import rows
from tests import months, reference

NOW = datetime(2027, 1, 1, tzinfo=UTC)
EXAMPLES = int(os.environ.get("SETTLE_TEST_EXAMPLES", "100"))
"""How many random histories to try; `make test-long` tries more."""


def order_for(folder: Path, history: months.History, month: str, book: str) -> Order:
    return Order(
        Month.parse(month),
        str(folder / "log"),
        folder / book,
        PriceBook.parse(history.prices.text.encode()),
        NOW,
        max_rejects=Fraction(1),
        allow_empty=True,
        threads=1,
    )


def published(book: Path, month: str, table: tables.Table) -> list[dict[str, Any]]:
    rows = Book.open(book).settlement(Month.parse(month)).published(table).to_pylist()
    for row in rows:
        assert (row["month"], row["revision"]) == (month, 1)
    return rows  # type: ignore[no-any-return]


def check_month(
    book: Path, history: months.History, month: str, replay: reference.Replay
) -> reference.Published:
    """Compare one published month with the reference, table by table."""
    prices = history.prices
    version = reference.version_for(prices.parsed, month)
    counted = reference.count(history.log.calls, month, version, prices.timezone)
    lines = reference.rate(counted.usage, version)
    invoices = reference.invoice(lines, prices.digits)
    expected_entries = replay.settle(
        month, invoices, reference.freeze(invoices, version, prices.digits)
    )
    manifest = Book.open(book).settlement(Month.parse(month)).manifest
    assert manifest["rows"] == counted.rows
    read = {table.name: published(book, month, table) for table in tables.PUBLISHED}
    usage = {(r["account_id"], r["item"], r["interface"]): r["calls"] for r in read["usage"]}
    assert usage == counted.usage
    assert {(r["account_id"], r["item"]): line_of(r) for r in read["lines"]} == {
        key: plain(line) for key, line in lines.items()
    }
    assert {r["account_id"]: invoice_of(r) for r in read["invoices"]} == {
        account: plain(invoice) for account, invoice in invoices.items()
    }
    assert [
        (r["account_id"], r["sequence"], r["kind"], r["amount"], r["hold_month"])
        for r in read["entries"]
    ] == [(e.account_id, e.sequence, e.kind, e.amount, e.hold_month) for e in expected_entries]
    assert [(r["file"], r["row"], r["reason"]) for r in read["rejects"]] == [
        (r.file, r.row, r.reason) for r in counted.rejects
    ]
    return reference.Published(
        month,
        1,
        manifest["rows"],
        read["usage"],
        read["lines"],
        read["invoices"],
        read["entries"],
    )


def plain(record: Any) -> dict[str, Any]:
    return dict(vars(record)) if hasattr(record, "__dict__") else dict(record._asdict())


def line_of(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in {"month", "revision", "account_id", "item"}}


def invoice_of(row: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v for k, v in row.items() if k not in {"month", "revision", "account_id", "currency"}
    }


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(months.histories())
def test_three_months_in_a_row_equal_the_reference(history: months.History) -> None:
    """Usage, lines, invoices, entries, buckets, rejects; and the laws on every one."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        months.write_log(folder / "log", history.log.calls, history.log)
        replay = reference.Replay()
        stated = []
        for month in history.prices.months:
            settle.run(order_for(folder, history, month, "book"))
            stated.append(check_month(folder / "book", history, month, replay))
        reference.laws(stated, history.prices.digits)
        assert check(folder / "book").problems == ()


@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(months.histories(), st.data())
def test_layout_and_threads_do_not_matter(history: months.History, data: st.DataObject) -> None:
    """The same calls laid out anew, read in place by two threads: byte-identical tables."""
    other = data.draw(months.layouts(history.facts))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        months.write_log(folder / "log", history.log.calls, history.log)
        months.write_log(folder / "other", other.calls, other)
        for month in history.prices.months:
            order = order_for(folder, history, month, "one")
            settle.run(order)
            again = replace(order, logs=str(folder / "other"), book=folder / "two", threads=2)
            with patch.object(rows, "QUICK_ROWS", range(1, 1 << 20)):
                settle.run(again)
            for table in tables.PUBLISHED:
                if table is not tables.REJECTS:
                    name = f"{month}/r1/{table.name}.parquet"
                    one, two = ((folder / book / name).read_bytes() for book in ("one", "two"))
                    assert one == two, name
