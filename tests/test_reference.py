"""The oracle itself, pinned by figures that a finance reader can work out on paper."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import months
from tests.reference import (
    BUCKETS,
    SECOND,
    Call,
    Counted,
    Entry,
    Invoice,
    Published,
    Replay,
    count,
    following,
    freeze,
    instant,
    invoice,
    laws,
    line,
    rate,
    start,
    version_for,
)

ZONE = "Asia/Shanghai"
TIERS = [
    {"up_to": 10_000, "unit_price": "0"},
    {"up_to": 3_000_000, "unit_price": "0.0032"},
    {"up_to": 15_000_000, "unit_price": "0.003"},
    {"unit_price": "0.0027"},
]
COMPARISON = {
    "code": "face-comparison",
    "interfaces": ["CompareFace", "CreateFace"],
    "free_calls": 1000,
    "tiers": TIERS,
}
SEARCH = {"code": "face-search", "interfaces": ["SearchFaces", "CreateFace"], "tiers": TIERS}
VERSION: dict[str, Any] = {
    "effective_from": "2018-01",
    "billable_status": ["0"],
    "unbilled_interfaces": ["Ping"],
    "freeze": {"factor": "1.20"},
    "shared": {"CreateFace": "face-search"},
    "item": [COMPARISON, SEARCH],
}
FEBRUARY = instant("2026-01-31T16:00:00Z")  # its first instant in Shanghai
MARCH = instant("2026-02-28T16:00:00Z")


def figures(calls: int, **changes: Any) -> tuple[str, ...]:
    """List, voucher, amount, payable and hold of so many calls."""
    usage = {("a", "face-comparison", "CompareFace"): calls}
    version = {**VERSION, "item": [{**COMPARISON, **changes}]}
    invoices = invoice(rate(usage, version), 2)
    own = invoices["a"]
    amounts = (own.list_amount, own.voucher_amount, own.amount, own.payable)
    return tuple(str(amount) for amount in (*amounts, freeze(invoices, version, 2)["a"]))


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (1, ("0", "0", "0", "0.00", "0.00")),
        (10_000, ("0", "0", "0", "0.00", "0.00")),
        (10_001, ("32.0032", "3.2000", "28.8032", "28.80", "34.56")),
        (3_000_000, ("9600.0000", "3.2000", "9596.8000", "9596.80", "11516.16")),
        (3_000_001, ("9000.003", "3.000", "8997.003", "8997.00", "10796.40")),
        (15_000_001, ("40500.0027", "2.7000", "40497.3027", "40497.30", "48596.76")),
    ],
)
def test_the_whole_quantity_costs_what_the_reached_tier_says(
    calls: int, expected: tuple[str, ...]
) -> None:
    assert figures(calls) == expected


def test_net_picks_the_tier_on_what_the_voucher_leaves() -> None:
    assert figures(11_000, tier_basis="net")[0] == "0"
    assert figures(11_001, tier_basis="net")[:3] == ("35.2032", "3.2000", "32.0032")
    assert line(5, {**COMPARISON, "tier_basis": "net"}).tier == 1


def test_graduated_prices_each_band_by_itself() -> None:
    bands = [{"up_to": 2, "unit_price": "2"}, {"unit_price": "3"}]
    priced = line(5, {"mode": "graduated", "free_calls": 3, "tiers": bands})
    assert (priced.tier, priced.unit_price, priced.voucher_calls) == (2, None, 3)
    amounts = (priced.list_amount, priced.voucher_amount, priced.amount)
    assert amounts == (Decimal(13), Decimal(7), Decimal(6))


@pytest.mark.parametrize(
    ("amount", "digits", "payable"),
    [("0.005", 2, "0.01"), ("0.0049", 2, "0.00"), ("1.015", 2, "1.02"), ("0.5", 0, "1")],
)
def test_the_one_rounding_is_half_up(amount: str, digits: int, payable: str) -> None:
    only = line(1, {"tiers": [{"unit_price": amount}]})
    assert invoice({("a", "x"): only}, digits)["a"].payable == Decimal(payable)


def test_a_hold_may_be_taken_from_the_list_amount() -> None:
    own = Invoice(Decimal("32.0032"), Decimal("3.2"), Decimal("28.8032"), Decimal(0), Decimal(28))
    assert freeze({"a": own}, {"freeze": {"factor": "1.20", "base": "list"}}, 2)["a"] == Decimal(
        "38.40"
    )


@pytest.mark.parametrize(
    ("month", "zone", "first"),
    [
        ("2026-02", "Asia/Shanghai", "2026-01-31T16:00:00Z"),
        ("2025-11", "America/New_York", "2025-11-01T04:00:00Z"),
        ("2025-12", "America/New_York", "2025-12-01T05:00:00Z"),
        ("2023-10", "America/Asuncion", "2023-10-01T04:00:00Z"),  # 00:00 was 01:00
        ("2020-11", "America/Havana", "2020-11-01T04:00:00Z"),  # 00:00 came twice
        ("2009-11", "America/St_Johns", "2009-11-01T02:30:00Z"),  # a minute, then 23:01 again
    ],
)
def test_a_month_begins_with_its_first_local_instant(month: str, zone: str, first: str) -> None:
    assert start(month, zone) == instant(first)
    assert [following("2026-01"), following("2026-12")] == ["2026-02", "2027-01"]


GOOD = Call(b"r", "007", "CompareFace", FEBRUARY, 0)


@pytest.mark.parametrize(
    ("change", "bucket"),
    [
        ({}, "billed"),
        ({"instant": None, "request_id": None}, "rejected.missing_timestamp"),
        ({"instant": FEBRUARY - 1, "request_id": None}, "outside_month"),
        ({"instant": MARCH}, "outside_month"),
        ({"instant": MARCH - 1}, "billed"),
        ({"request_id": "", "account_id": None}, "rejected.missing_request_id"),
        ({"account_id": "", "interface": "Ping"}, "rejected.missing_account_id"),
        ({"interface": "Ping", "status_code": None}, "unbilled_interface"),
        ({"interface": None}, "rejected.unknown_interface"),
        ({"interface": "compareface", "item": "x"}, "rejected.unknown_interface"),
        ({"item": "face-search", "status_code": 1}, "rejected.wrong_item"),
        ({"item": ""}, "billed"),
        ({"item": "face-comparison"}, "billed"),
        ({"status_code": ""}, "rejected.missing_status"),
        ({"status_code": "00"}, "unbillable_status"),
        ({"status_code": "0", "account_id": 7}, "billed"),
    ],
)
def test_every_call_lands_in_one_bucket(change: dict[str, Any], bucket: str) -> None:
    counted = count([replace(GOOD, **change)], "2026-02", VERSION, ZONE)
    assert counted.buckets == {**dict.fromkeys(BUCKETS, 0), bucket: 1}
    assert [reject.reason for reject in counted.rejects] == [
        bucket.removeprefix("rejected.") for _ in [0] if bucket.startswith("rejected.")
    ]


def test_a_shared_interface_counts_for_the_named_item_else_the_one_that_shared_names() -> None:
    calls = [replace(GOOD, interface="CreateFace", item=item) for item in (None, "face-comparison")]
    for number, (call, item) in enumerate(zip(calls, ("search", "comparison"), strict=True)):
        one = replace(call, request_id=f"r{number}")
        usage = count([one], "2026-02", VERSION, ZONE).usage
        assert usage == {("007", f"face-{item}", "CreateFace"): 1}


def test_one_id_is_charged_once_and_the_earliest_row_wins() -> None:
    calls = [
        replace(GOOD, instant=FEBRUARY - 1),  # outside
        replace(GOOD, instant=FEBRUARY, status_code=500),  # failed: no claim to the id
        replace(GOOD, instant=FEBRUARY + 5, request_id="r"),  # text and bytes are one id
        replace(GOOD, instant=FEBRUARY + 5, account_id=7),  # '007' is the smaller
        replace(GOOD, instant=FEBRUARY + 5, status_code="0", item="face-comparison"),
        replace(GOOD, instant=FEBRUARY + 6),
    ]
    for order in (calls, calls[::-1]):
        counted = count(order, "2026-02", VERSION, ZONE)
        assert counted.usage == {("007", "face-comparison", "CompareFace"): 1}
        found = {name: n for name, n in counted.buckets.items() if n}
        assert found == {
            "outside_month": 1,
            "unbillable_status": 1,
            "billed": 1,
            "duplicate": 1,
            "conflict": 2,
        }


def test_without_deduplication_ids_are_not_looked_at() -> None:
    calls = [GOOD, GOOD, replace(GOOD, request_id=None)]
    counted = count(calls, "2026-02", {**VERSION, "deduplicate": False}, ZONE)
    assert counted.rows["read"] == counted.buckets["billed"] == 3


# ---------------------------------------------------------------- the ledger, drawn


def bills(drawn: str) -> tuple[dict[str, Invoice], dict[str, Decimal]]:
    """`a 10 b 5` -> invoices of 10 and 5, and holds of 120 % of them."""
    words = drawn.split()
    payable = {a: Decimal(n) for a, n in zip(words[::2], words[1::2], strict=True)}
    zero = Decimal(0)
    invoices = {a: Invoice(n, zero, n, zero, n) for a, n in payable.items()}
    return invoices, freeze(invoices, VERSION, 2)


LEDGER = [
    # what is done        the bills        the entries it must make
    ("settle 2026-01", "a 10 b 5 z 0",
     "a debit 10, a freeze 12 2026-01, b debit 5, b freeze 6 2026-01"),
    ("settle 2026-02", "a 20",
     "a unfreeze 12 2026-01, a debit 20, a freeze 24 2026-02, b unfreeze 6 2026-01"),
    ("settle 2025-12", "a 3 c 1", "a debit 3, c debit 1"),
    ("revise 2026-02", "a 20 b 5", "b debit 5, b freeze 6 2026-02"),
    ("revise 2026-02", "a 15 b 5", "a unfreeze 24 2026-02, a credit 5, a freeze 18 2026-02"),
    ("revise 2026-02", "b 5", "a unfreeze 18 2026-02, a credit 15"),
    ("revise 2026-02", "b 5", ""),
    ("revise 2026-01", "b 5 c 2", "a credit 10, c debit 2"),
    ("revise 2025-12", "a 4", "a debit 1, c credit 1"),
    ("settle 2026-04", "", "b unfreeze 6 2026-02"),
    ("settle 2026-03", "b 7", "b debit 7"),
]  # fmt: skip


def test_the_ledger_drawn() -> None:
    ledger, book = Replay(), []
    for done, drawn, expected in LEDGER:
        verb, month = done.split()
        invoices, holds = bills(drawn)
        if verb == "settle":
            assert ledger.gap(month) == (["2026-03"] if month == "2026-04" else [])
            entries = ledger.settle(month, invoices, holds, allow_gap=True)
        else:
            entries = ledger.revise(month, invoices, holds)
        shown = [f"{e.account_id} {e.kind} {e.amount.normalize():f}" for e in entries]
        months_held = [f" {e.hold_month}" if e.hold_month else "" for e in entries]
        assert ", ".join(map("".join, zip(shown, months_held, strict=True))) == expected, done
        book.append(published(ledger, Counted({}, dict.fromkeys(BUCKETS, 0), []), {}, invoices))
    for one in book:  # these invoices have no calls behind them: give each its line
        lines = [{**row, "item": "x", "calls": 1} for row in one.invoices]
        usage = [{**row, "interface": "X"} for row in lines]
        rows = {**one.rows, "read": len(lines), "billed": len(lines)}
        book[book.index(one)] = replace(one, lines=lines, usage=usage, rows=rows)
    laws(book, 2)


def published(
    ledger: Replay, counted: Counted, lines: dict[Any, Any], invoices: dict[str, Invoice]
) -> Published:
    """The newest posting with its tables, as a reader of a book would find them."""
    month, revision, entries = ledger.postings[-1]
    place = {"month": month, "revision": revision}
    usage = [
        {**place, "account_id": account, "item": item, "interface": interface, "calls": calls}
        for (account, item, interface), calls in counted.usage.items()
    ]
    return Published(
        month,
        revision,
        counted.rows,
        usage,
        [{**place, "account_id": a, "item": i, **asdict(own)} for (a, i), own in lines.items()],
        [{**place, "account_id": a, **asdict(own)} for a, own in invoices.items()],
        [{**place, **entry._asdict()} for entry in entries],
    )


BREAKS = {
    "a row lost": lambda one: replace(one, rows={**one.rows, "read": 3}),
    "a call lost": lambda one: replace(one, usage=[]),
    "a cent lost": lambda one: replace(
        one, invoices=[{**row, "payable": row["payable"] - Decimal("0.01")} for row in one.invoices]
    ),
    "a debit lost": lambda one: replace(one, entries=one.entries[:1]),
    "half a hold released": lambda one: replace(
        one, entries=[{**one.entries[0], "amount": Decimal(1)}, *one.entries[1:]]
    ),
    "a hold kept open": lambda one: replace(
        one,
        entries=[{**row, "sequence": n} for n, row in enumerate(one.entries[1:], start=1)],
    ),
    "a number skipped": lambda one: replace(
        one, entries=[{**row, "sequence": row["sequence"] + 1} for row in one.entries]
    ),
}


@pytest.mark.parametrize("broken", [None, *BREAKS])
def test_the_laws_see_what_breaks_them(broken: str | None) -> None:
    version = {**VERSION, "item": [{**COMPARISON, "tiers": [{"unit_price": "2.505"}]}]}
    version["item"][0]["free_calls"] = 0
    ledger, book = Replay(), []
    for month, at in (("2026-02", FEBRUARY), ("2026-03", MARCH)):
        counted = count([replace(GOOD, instant=at)], month, version, ZONE)
        lines = rate(counted.usage, version)
        invoices = invoice(lines, 2)
        ledger.settle(month, invoices, freeze(invoices, version, 2))
        book.append(published(ledger, counted, lines, invoices))
    assert ledger.postings[-1].entries == [
        Entry("007", 1, "unfreeze", Decimal("3.01"), "2026-02"),
        Entry("007", 2, "debit", Decimal("2.51"), None),
        Entry("007", 3, "freeze", Decimal("3.01"), "2026-03"),
    ]
    if broken is None:
        laws(book, 2)
        return
    book[1] = BREAKS[broken](book[1])
    with pytest.raises((AssertionError, KeyError)):
        laws(book, 2)


# ---------------------------------------------------------------- random months


@settings(max_examples=60, deadline=None)
@given(history=months.histories(), data=st.data())
def test_random_months_obey_the_laws(history: months.History, data: st.DataObject) -> None:
    prices = history.prices
    ledger, book = Replay(), []
    order = data.draw(st.permutations(prices.months))
    for month in order:
        version = version_for(prices.parsed, month)
        counted = count(history.log.calls, month, version, prices.timezone)
        by_facts = count(history.facts, month, version, prices.timezone)
        assert (counted.usage, counted.rows) == (by_facts.usage, by_facts.rows)
        lines = rate(counted.usage, version)
        invoices = invoice(lines, prices.digits)
        holds = freeze(invoices, version, prices.digits)
        ledger.settle(month, invoices, holds, allow_gap=True)
        book.append(published(ledger, counted, lines, invoices))
        assert ledger.revise(month, invoices, holds) == []
        book.append(published(ledger, counted, lines, invoices))
    laws(book, prices.digits)


@settings(max_examples=60, deadline=None)
@given(history=months.histories())
def test_a_written_log_holds_the_drawn_calls(history: months.History) -> None:
    with TemporaryDirectory() as folder:
        months.write_log(Path(folder), history.log.calls, history.log)
        found: Counter[tuple[Any, ...]] = Counter()
        for form in history.log.files:
            table = pq.ParquetFile(Path(folder) / form.name).read()
            assert set(table.column_names) == set(form.schema.names)
            unit = months.TICKS[table.schema.field("timestamp").type.unit]
            moments = table.column("timestamp").cast(pa.int64()).to_pylist()
            for row, (cells, at) in enumerate(
                zip(table.drop("timestamp").to_pylist(), moments, strict=True)
            ):
                names = ("request_id", "account_id", "interface", "status_code", "item")
                when = None if at is None else at * unit
                found[*(cells.get(name) for name in names), when, form.name, row] += 1
    drawn = [
        (c.request_id, c.account_id, c.interface, c.status_code, c.item, c.instant, c.file, c.row)
        for c in history.log.calls
    ]
    assert found == Counter(drawn)
    assert len(drawn) == len(history.facts) == found.total()


def test_instants_are_exact_to_the_nanosecond() -> None:
    assert instant("1970-01-01T00:00:01.000000001Z") == SECOND + 1
    assert instant("1969-12-31T23:59:59.5Z") == -SECOND // 2
