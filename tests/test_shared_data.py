"""Real logs nobody here wrote, settled whole and compared with counts by other means.

The data is not part of the project: it is looked for in ``../shared/data`` beside it, or where
SETTLEMENT_SHARED_DATA says, and these tests are skipped where it is not. The first is thirteen
months of a shop's invoice lines, of which a quarter name no account; the second one day of
2.2 million calls; the third a web server's log.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from settlement.check import check
from settlement.month import Month, months_between
from settlement.order import Order
from settlement.prices import PriceBook
from settlement.settle import Done, run
from tests.processes import ROOT, tables_of

DATA = Path(os.environ.get("SETTLEMENT_SHARED_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA}")

DOCUMENT = PriceBook.parse((ROOT / "data" / "price_book.toml").read_bytes())
FIRST, LAST = Month(2024, 12), Month(2025, 12)
RETAIL_MONTHS = [FIRST, *months_between(FIRST, LAST), LAST]
MARCH = Month(2026, 3)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
CENT = Decimal("0.01")


def without_free_band() -> PriceBook:
    """The document's price book with a price below 10 000 calls, so that a shop's bills move."""
    text = (ROOT / "data" / "price_book.toml").read_text(encoding="utf-8")
    text = text.replace('unit_price = "0" }', 'unit_price = "0.0503" }')
    return PriceBook.parse(text.replace("free_calls = 1000", "free_calls = 10").encode())


PRICED = without_free_band()


def settled(
    logs: Path, book: Path, month: Month, prices: PriceBook = DOCUMENT, threads: int | None = None
) -> Done:
    """Settle one month, whatever share of it is rejected."""
    order = Order(month, str(logs), book, prices, NOW, max_rejects=Fraction(1), threads=threads)
    return run(order)


def frame_of(book: Path, month: Month, table: str) -> list[dict[str, Any]]:
    """A published table as rows."""
    rows = pq.read_table(book / str(month) / "r1" / f"{table}.parquet").to_pylist()
    assert isinstance(rows, list)
    return rows


# ---------------------------------------------------------------- counts by other means


def items_of(prices: PriceBook) -> dict[str, str]:
    """The item of each interface, as none of these logs names one."""
    version = prices.versions[-1]
    found = {interface: item.code for item in version.items for interface in item.interfaces}
    return found | dict(version.shared)


COUNT = """
    with month as (
        select request_id, account_id, interface, status_code, timestamp from read_parquet($logs)
        where timestamp >= $start::timestamptz and timestamp < $end::timestamptz
    ), charged as (
        select arg_min(struct_pack(account_id, interface), struct_pack(timestamp, account_id,
                       interface, item)) as call
        from month join items using (interface)
        where coalesce(request_id, '') != '' and coalesce(account_id, '') != '' and status_code = 0
        group by request_id
    )
    select call.account_id, item, call.interface, count(*)
    from charged join items on items.interface = call.interface
    group by all order by all
"""


def counted(logs: Path, month: Month) -> list[tuple[str, str, str, int]]:
    """Usage as DuckDB counts it, with one row per request id."""
    zone = DOCUMENT.zone
    begin, end = (datetime(m.year, m.number, 1, tzinfo=zone) for m in (month, month.next))
    parameters = {
        "logs": f"{logs}/**/*.parquet",
        "start": begin.isoformat(),
        "end": end.isoformat(),
    }
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.execute("create table items (interface text, item text)")
        db.executemany("insert into items values (?, ?)", list(items_of(DOCUMENT).items()))
        return db.execute(COUNT, parameters).fetchall()


def usage_of(book: Path, month: Month) -> list[tuple[str, str, str, int]]:
    """The published usage."""
    names = ("account_id", "item", "interface", "calls")
    return [tuple(row[name] for name in names) for row in frame_of(book, month, "usage")]


def invoiced(
    usage: list[tuple[str, str, str, int]], prices: PriceBook
) -> dict[str, tuple[Decimal, Decimal]]:
    """Amount and payable of each account, worked out row by row in decimals."""
    calls: dict[tuple[str, str], int] = {}
    for account, item, _, count in usage:
        calls[account, item] = calls.get((account, item), 0) + count
    items = {item.code: item for item in prices.versions[-1].items}
    amounts: dict[str, Decimal] = {}
    for (account, code), count in calls.items():
        tier = next(t for t in items[code].tiers if t.up_to is None or count <= t.up_to)
        price = Decimal(tier.unit_price).scaleb(-8)
        free = min(items[code].free_calls, count)
        amounts[account] = amounts.get(account, Decimal(0)) + (count - free) * price
    return {
        account: (amount, amount.quantize(CENT, ROUND_HALF_UP))
        for account, amount in amounts.items()
    }


# ---------------------------------------------------------------- thirteen months of a shop


@dataclass(frozen=True)
class Shop:
    """The shop's book after thirteen months, and what each run came to."""

    book: Path
    done: Mapping[Month, Done]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Settle the thirteen months in order; the book must prove itself after each."""
    book = tmp_path_factory.mktemp("shop") / "book"
    done = {}
    for number, month in enumerate(RETAIL_MONTHS, 1):
        done[month] = settled(DATA / "retail", book, month, PRICED)
        findings = check(book)
        assert (findings.problems, findings.settlements) == ((), number)
    return Shop(book, done)


def test_the_shop_keeps_every_row(shop: Shop) -> None:
    """541 909 rows, 135 080 without an account; each is in one bucket of one month."""
    assert len(shop.done) == 13
    sums: dict[str, int] = {}
    for done in shop.done.values():
        rows = dict(done.settlement.manifest["rows"])
        assert rows.pop("read") == sum(rows.values()) == 541_909
        for bucket, count in rows.items():
            sums[bucket] = sums.get(bucket, 0) + count
    assert sums.pop("outside_month") == 12 * 541_909
    assert sums["rejected.missing_account_id"] == 135_080
    assert sum(sums.values()) == 541_909
    assert sum(len(frame_of(shop.book, month, "rejects")) for month in shop.done) == 135_080


@pytest.mark.parametrize("month", [RETAIL_MONTHS[0], RETAIL_MONTHS[6], RETAIL_MONTHS[12]], ids=str)
def test_the_shops_usage_is_what_another_engine_counts(shop: Shop, month: Month) -> None:
    expected = counted(DATA / "retail", month)
    assert len(expected) > 1000
    assert usage_of(shop.book, month) == expected


def test_the_shops_holds_pass_from_month_to_month(shop: Shop) -> None:
    """Each month gives back exactly what the one before held, and holds 120 % of its bills."""
    held: dict[str, Decimal] = {}
    for month in RETAIL_MONTHS:
        bills = invoiced(usage_of(shop.book, month), PRICED)
        invoices = {
            row["account_id"]: (row["amount"], row["payable"])
            for row in frame_of(shop.book, month, "invoices")
        }
        assert invoices == bills
        moved: dict[str, dict[str, Decimal]] = {"unfreeze": {}, "debit": {}, "freeze": {}}
        for row in frame_of(shop.book, month, "entries"):
            assert row["account_id"] not in moved[row["kind"]]
            moved[row["kind"]][row["account_id"]] = row["amount"]
        payable = {account: bill for account, (_, bill) in bills.items() if bill}
        assert moved["unfreeze"] == held
        assert moved["debit"] == payable
        factor = Decimal("1.20")
        held = {
            account: (bill * factor).quantize(CENT, ROUND_HALF_UP)
            for account, bill in payable.items()
        }
        assert moved["freeze"] == held
        totals = shop.done[month].settlement.manifest["totals"]
        assert Decimal(totals["payable"]) == sum(payable.values())
        assert Decimal(totals["frozen"]) == sum(held.values())
    assert len(held) > 100


def test_a_shops_month_settled_late_is_only_debited(tmp_path: Path) -> None:
    book = tmp_path / "book"
    settled(DATA / "retail", book, LAST, PRICED)
    totals = settled(DATA / "retail", book, FIRST, PRICED).settlement.manifest["totals"]
    assert totals["payable"] == totals["debited"] != "0.00"
    assert (totals["unfrozen"], totals["frozen"]) == ("0.00", "0.00")
    assert check(book).problems == ()


def test_ten_days_that_come_a_month_late_end_in_the_same_balances(
    shop: Shop, tmp_path: Path
) -> None:
    """Each month is settled without its last ten days, and revised when they have come."""
    logs, book = tmp_path / "logs", tmp_path / "book"
    late: dict[Month, pa.Table] = {}
    for month in [*RETAIL_MONTHS, None]:
        if month is not None:
            late[month] = without_its_end(month, logs)
            settled(logs, book, month, PRICED)
        for before in [each for each in late if each != month]:
            pq.write_table(late.pop(before), logs / f"{before}-late.parquet")
            order = Order(before, str(logs), book, PRICED, NOW, max_rejects=Fraction(1))
            done = run(replace(order, revise=True, reason="ten days were late"))
            assert (done.outcome, done.settlement.revision) == ("published", 2)
    assert balances(book) == balances(shop.book)
    assert check(book).problems == ()


def without_its_end(month: Month, logs: Path) -> pa.Table:
    """Write the shop's file of a month but for its last ten days, and return these."""
    table = pq.read_table(DATA / "retail" / f"month={month}" / "calls.parquet")
    end = datetime.fromtimestamp(month.period(PRICED.zone).end, UTC) - timedelta(days=10)
    late = pc.greater_equal(table["timestamp"], pa.scalar(end, table["timestamp"].type))
    logs.mkdir(exist_ok=True)
    pq.write_table(table.filter(pc.invert(late)), logs / f"{month}.parquet")
    return table.filter(late)


def balances(book: Path) -> dict[tuple[str, str, str], Decimal]:
    """Per month, account and purse what all entries come to, but for what comes to nothing."""
    sums: dict[tuple[str, str, str], Decimal] = {}
    signs = {"debit": 1, "credit": -1, "freeze": 1, "unfreeze": -1}
    for path in book.glob("*/r*/entries.parquet"):
        for row in pq.read_table(path).to_pylist():
            purse = "revenue" if row["hold_month"] is None else "frozen"
            key = (row["hold_month"] or row["month"], row["account_id"], purse)
            sums[key] = sums.get(key, Decimal(0)) + signs[row["kind"]] * row["amount"]
    return {key: amount for key, amount in sums.items() if amount}


# ---------------------------------------------------------------- a day of inference, a web server


@pytest.mark.parametrize(("name", "rows"), [("inference-day", 2_202_279), ("web-log", 10_000)])
def test_a_log_of_march_is_what_another_engine_counts(tmp_path: Path, name: str, rows: int) -> None:
    book = tmp_path / "book"
    manifest = settled(DATA / name, book, MARCH).settlement.manifest
    assert manifest["rows"]["read"] == rows
    usage = counted(DATA / name, MARCH)
    assert usage_of(book, MARCH) == usage
    assert manifest["rows"]["billed"] == sum(calls for *_, calls in usage)
    bills = invoiced(usage, DOCUMENT)
    assert manifest["totals"]["accounts"] == len(bills)
    assert Decimal(manifest["totals"]["payable"]) == sum(payable for _, payable in bills.values())
    assert check(book).problems == ()


# ---------------------------------------------------------------- however the rows lie


def laid_out(table: pa.Table, folder: Path) -> dict[str, Path]:
    """The same rows in other files: renamed, split, merged with themselves shuffled."""
    mixed = table.take(pc.sort_indices(pc.utf8_reverse(table["request_id"])))
    thirds = [
        table.slice(len(table) * n // 3, len(table) * (n + 1) // 3 - len(table) * n // 3)
        for n in range(3)
    ]
    layouts: dict[str, dict[str, pa.Table]] = {
        "whole": {"calls": table},
        "renamed": {"another/name=1/z": table},
        "shuffled": {"calls": mixed},
        "split": {f"{2 - n}/part": part for n, part in enumerate(thirds)},
    }
    for name, files in layouts.items():
        for path, part in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            rows = 20_000 if name == "split" else 1 << 20
            pq.write_table(part, folder / name / f"{path}.parquet", row_group_size=rows)
    return {name: folder / name for name in layouts}


def test_tables_do_not_depend_on_threads_or_files(tmp_path: Path) -> None:
    """A shop's month, its ids made to repeat: byte for byte the same tables but for rejects."""
    table = pq.read_table(DATA / "retail" / f"month={FIRST}" / "calls.parquet")
    again = table.take(pa.array(range(0, len(table), 7)))
    conflicting = table.take(pa.array(range(0, len(table), 11)))
    accounts = pa.array([f"other-{n % 50}" for n in range(len(conflicting))])
    conflicting = conflicting.set_column(
        table.schema.get_field_index("account_id"), table.schema.field("account_id"), accounts
    )
    logs = laid_out(pa.concat_tables([table, again, conflicting]), tmp_path / "logs")
    outcomes = {}
    for name, folder in logs.items():
        for threads in (1, 2):
            book = tmp_path / f"book-{name}-{threads}"
            rows = settled(folder, book, FIRST, PRICED, threads).settlement.manifest["rows"]
            assert rows["duplicate"] > 1000
            assert rows["conflict"] > 1000
            outcomes[name, threads] = (rows, tables_of(book))
    assert usage_of(tmp_path / "book-whole-1", FIRST) == counted(logs["whole"], FIRST)
    rows, tables = outcomes["whole", 1]
    for (name, threads), (other_rows, other_tables) in outcomes.items():
        assert other_rows == rows, (name, threads)
        for path, raw in other_tables.items():
            if "rejects" not in path or name == "whole":
                assert raw == tables[path], (name, threads, path)
