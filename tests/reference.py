"""The settlement once more, naively: the oracle that the program's figures are compared with.

Written to be checked by reading, not to be fast: one call, one line and one entry at a time, in
plain dictionaries, with exact `Decimal` amounts, straight from the rules (README, Rules) and the
billing document. It shares no code with `settlement/`: where both say the same, two independent
readings of the rules agree. Instants are whole nanoseconds since 1970-01-01T00:00:00Z.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

SECOND = 10**9  # in nanoseconds

# Every call lands in exactly one, tested in this order.
BUCKETS = (
    "rejected.missing_timestamp",
    "outside_month",
    "rejected.missing_request_id",
    "rejected.missing_account_id",
    "unbilled_interface",
    "rejected.unknown_interface",
    "rejected.wrong_item",
    "rejected.missing_status",
    "unbillable_status",
    "billed",
    "duplicate",
    "conflict",
)


@dataclass(frozen=True)
class Call:
    """One row of the log, its cells as the file holds them, and where it was found."""

    request_id: bytes | str | None
    account_id: str | int | None
    interface: str | None
    instant: int | None
    status_code: int | str | None = None
    item: str | None = None
    file: str = ""
    row: int = 0


class Reject(NamedTuple):
    """A rejected row: where it lies, why, and its raw cells as text (the instant as it is)."""

    file: str
    row: int
    reason: str
    request_id: str | None
    account_id: str | None
    interface: str | None
    instant: int | None
    status_code: str | None
    item: str | None


@dataclass(frozen=True)
class Counted:
    """What the log says about one month."""

    usage: dict[tuple[str, str, str], int]  # (account, item, interface) -> calls
    buckets: dict[str, int]  # every one of BUCKETS, also those of 0
    rejects: list[Reject]

    @property
    def rows(self) -> dict[str, int]:
        """The manifest's `rows`: how many calls were read, and where each went."""
        return {"read": sum(self.buckets.values()), **self.buckets}

    @property
    def reject_share(self) -> Fraction:
        """The share that `--max-rejects` limits: rows without a timestamp are in neither part."""
        rejected = sum(n for name, n in self.buckets.items() if name.startswith("rejected."))
        undated = self.buckets["rejected.missing_timestamp"]
        of = sum(self.buckets.values()) - self.buckets["outside_month"] - undated
        return Fraction(rejected - undated, of) if of else Fraction(0)


# ---------------------------------------------------------------- months and prices


def instant(text: str) -> int:
    """Nanoseconds of an ISO instant in UTC with any fraction: `2026-01-31T16:00:00.5Z`."""
    found = re.fullmatch(r"(.{10})[T ](.{8})(?:\.(\d{1,9}))?(?:Z|\+00:00)", text)
    assert found, text
    whole = datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00")
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * SECOND + int((found[3] or "").ljust(9, "0"))


def following(month: str) -> str:
    """The next month: `2026-12` -> `2027-01`."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04}-{number % 12 + 1:02}"


@cache
def start(month: str, timezone: str) -> int:
    """The first instant whose local date is in the month, found by looking at every minute."""
    zone = ZoneInfo(timezone)
    minute = datetime.fromisoformat(f"{month}-01T00:00:00+00:00") - timedelta(hours=26)
    while f"{minute.astimezone(zone):%Y-%m}" != month:
        minute += timedelta(minutes=1)
    return int(minute.timestamp()) * SECOND


def version_for(prices: Mapping[str, Any], month: str) -> dict[str, Any]:
    """The newest version of the parsed price book that is not later than the month."""
    known = [version for version in prices["version"] if version["effective_from"] <= month]
    newest: dict[str, Any] = max(known, key=lambda version: version["effective_from"])
    return newest


def bearing(interface: str, named: str | None, version: Mapping[str, Any]) -> str | None:
    """The item a call counts toward; None where the named item does not list the interface."""
    listing = [item["code"] for item in version["item"] if interface in item["interfaces"]]
    if named:
        return named if named in listing else None
    return listing[0] if len(listing) == 1 else str(version["shared"][interface])


# ---------------------------------------------------------------- calls -> usage


def as_text(cell: bytes | str | int | None) -> str | None:
    """A cell as its text: a number's decimal digits, binary as lower-case hex."""
    if cell is None:
        return None
    return cell.hex() if isinstance(cell, bytes) else str(cell)


def as_bytes(cell: bytes | str) -> bytes:
    """What ids are compared by: the bytes themselves, or the text's UTF-8."""
    return cell if isinstance(cell, bytes) else cell.encode()


def count(calls: Iterable[Call], month: str, version: Mapping[str, Any], timezone: str) -> Counted:
    """Sort every call into its bucket, charge each request once, and add up what is charged."""
    begin, end = start(month, timezone), start(following(month), timezone)
    buckets = dict.fromkeys(BUCKETS, 0)
    usage: dict[tuple[str, str, str], int] = defaultdict(int)
    rejects: list[Reject] = []
    chargeable: dict[bytes | int, list[tuple[int, bytes, bytes, bytes]]] = defaultdict(list)
    for number, call in enumerate(calls):
        bucket = filtered(call, begin, end, version)
        if bucket is not None:
            buckets[bucket] += 1
            if bucket.startswith("rejected."):
                rejects.append(rejected(call, bucket.removeprefix("rejected.")))
            continue
        assert call.instant is not None
        assert call.interface
        item = bearing(call.interface, call.item, version)
        account = str(call.account_id).encode()
        claim = (call.instant, account, call.interface.encode(), str(item).encode())
        if version.get("deduplicate", True):
            assert call.request_id
            chargeable[as_bytes(call.request_id)].append(claim)
        else:
            chargeable[number].append(claim)

    for claims in chargeable.values():
        winner = min(claims)  # the earliest; then the bytewise smallest account, interface, item
        equal = claims.count(winner)
        buckets["billed"] += 1
        buckets["duplicate"] += equal - 1
        buckets["conflict"] += len(claims) - equal
        usage[winner[1].decode(), winner[3].decode(), winner[2].decode()] += 1

    rejects.sort(key=lambda reject: (reject.file.encode(), reject.row))
    return Counted(dict(sorted(usage.items())), buckets, rejects)


def filtered(call: Call, begin: int, end: int, version: Mapping[str, Any]) -> str | None:
    """The bucket of a call that is not charged, or None: then only its id is left to look at."""
    listed = {name for item in version["item"] for name in item["interfaces"]}
    billable = version.get("billable_status")
    if call.instant is None:
        return "rejected.missing_timestamp"
    if not begin <= call.instant < end:
        return "outside_month"
    if version.get("deduplicate", True) and not call.request_id:
        return "rejected.missing_request_id"
    if call.account_id is None or call.account_id == "":
        return "rejected.missing_account_id"
    if call.interface in version.get("unbilled_interfaces", []):
        return "unbilled_interface"
    if call.interface is None or call.interface not in listed:
        return "rejected.unknown_interface"
    if bearing(call.interface, call.item, version) is None:
        return "rejected.wrong_item"
    if billable is not None and (call.status_code is None or call.status_code == ""):
        return "rejected.missing_status"
    if billable is not None and str(call.status_code) not in billable:
        return "unbillable_status"
    return None


def rejected(call: Call, reason: str) -> Reject:
    """The row of `rejects` for a call."""
    return Reject(
        call.file,
        call.row,
        reason,
        as_text(call.request_id),
        as_text(call.account_id),
        call.interface,
        call.instant,
        as_text(call.status_code),
        call.item,
    )


# ---------------------------------------------------------------- usage -> lines -> invoices


@dataclass(frozen=True)
class Line:
    """What one account owes for one item; `unit_price` is None where bands have their own."""

    calls: int
    tier: int
    unit_price: Decimal | None
    list_amount: Decimal
    voucher_calls: int
    voucher_amount: Decimal
    amount: Decimal


@dataclass(frozen=True)
class Invoice:
    """What one account owes for the month; the only rounding is in `payable`."""

    list_amount: Decimal
    voucher_amount: Decimal
    amount: Decimal
    rounding: Decimal
    payable: Decimal


def tier_of(calls: int, tiers: Sequence[Mapping[str, Any]]) -> int:
    """The tier (from 1) that a number of calls reaches; a bound belongs to the tier it closes."""
    for number, tier in enumerate(tiers, start=1):
        if "up_to" not in tier or calls <= tier["up_to"]:
            return number
    raise AssertionError("the last tier is open")


def banded(calls: int, tiers: Sequence[Mapping[str, Any]]) -> Decimal:
    """What the first `calls` calls cost where each band has its own price (graduated)."""
    cost, below = Decimal(0), 0
    for tier in tiers:
        upper = min(calls, tier.get("up_to", calls))
        cost += max(upper - below, 0) * Decimal(tier["unit_price"])
        below = max(upper, below)
    return cost


def line(calls: int, item: Mapping[str, Any]) -> Line:
    """Price one account's calls of one item."""
    tiers, free = item["tiers"], item.get("free_calls", 0)
    covered = min(free, calls)
    if item.get("mode", "volume") == "graduated":
        price, tier = None, tier_of(calls, tiers)
        listed, voucher = banded(calls, tiers), banded(covered, tiers)
    else:
        net = item.get("tier_basis", "gross") == "net"
        tier = tier_of(max(calls - free, 0) if net else calls, tiers)
        price = Decimal(tiers[tier - 1]["unit_price"])
        listed, voucher = calls * price, covered * price
    return Line(calls, tier, price, listed, covered, voucher, listed - voucher)


def rate(
    usage: Mapping[tuple[str, str, str], int], version: Mapping[str, Any]
) -> dict[tuple[str, str], Line]:
    """Usage -> (account, item) -> line; the interfaces of an item are one quantity."""
    calls: dict[tuple[str, str], int] = defaultdict(int)
    for (account, item, _), number in usage.items():
        calls[account, item] += number
    items = {item["code"]: item for item in version["item"]}
    return {key: line(number, items[key[1]]) for key, number in sorted(calls.items())}


def half_up(amount: Decimal, digits: int) -> Decimal:
    """An amount to the currency's minor unit."""
    return amount.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)


def invoice(lines: Mapping[tuple[str, str], Line], digits: int) -> dict[str, Invoice]:
    """Lines -> account -> invoice, in a currency with so many minor digits."""
    invoices = {}
    for account in sorted({account for account, _ in lines}):
        own = [line for (payer, _), line in lines.items() if payer == account]
        listed = sum((line.list_amount for line in own), Decimal(0))
        voucher = sum((line.voucher_amount for line in own), Decimal(0))
        payable = half_up(listed - voucher, digits)
        rounding = payable - (listed - voucher)
        invoices[account] = Invoice(listed, voucher, listed - voucher, rounding, payable)
    return invoices


def freeze(
    invoices: Mapping[str, Invoice], version: Mapping[str, Any], digits: int
) -> dict[str, Decimal]:
    """Account -> what is to be held for the next month; also where that is 0."""
    factor, base = Decimal(version["freeze"]["factor"]), version["freeze"].get("base", "payable")
    return {
        account: half_up(factor * (own.payable if base == "payable" else own.list_amount), digits)
        for account, own in invoices.items()
    }


# ---------------------------------------------------------------- invoices -> entries


class Entry(NamedTuple):
    """One movement of an account's money; `hold_month` is None for debit and credit."""

    account_id: str
    sequence: int
    kind: str
    amount: Decimal
    hold_month: str | None


class Posting(NamedTuple):
    """One publication: a month, its revision, and the entries it made."""

    month: str
    revision: int
    entries: list[Entry]


@dataclass
class Replay:
    """A ledger that keeps nothing but its postings: every balance is added up from the start."""

    postings: list[Posting] = field(default_factory=list)

    @property
    def newest(self) -> str | None:
        """The newest settled month."""
        return max((posting.month for posting in self.postings), default=None)

    def gap(self, month: str) -> list[str]:
        """The unsettled months between the newest settled one and this one, oldest first."""
        missing = []
        between = following(self.newest) if self.newest else month
        while between < month:
            missing.append(between)
            between = following(between)
        return missing

    def revisions(self, month: str) -> int:
        """How often the month was published."""
        return sum(posting.month == month for posting in self.postings)

    def open_holds(self, account: str) -> dict[str, Decimal]:
        """Hold month -> what is still frozen of it, oldest first."""
        holds: dict[str, Decimal] = defaultdict(Decimal)
        for posting in self.postings:
            for entry in posting.entries:
                if entry.account_id == account and entry.hold_month:
                    holds[entry.hold_month] += {"freeze": 1, "unfreeze": -1}[
                        entry.kind
                    ] * entry.amount
        return {month: amount for month, amount in sorted(holds.items()) if amount}

    def debited(self, account: str, month: str) -> Decimal:
        """Debits less credits of the account for the month, over all its revisions."""
        sign = {"debit": 1, "credit": -1}
        moves = [e for p in self.postings if p.month == month for e in p.entries]
        own = [e for e in moves if e.account_id == account and e.kind in sign]
        return sum((sign[entry.kind] * entry.amount for entry in own), Decimal(0))

    def settle(
        self,
        month: str,
        invoices: Mapping[str, Invoice],
        holds: Mapping[str, Decimal],
        *,
        allow_gap: bool = False,
    ) -> list[Entry]:
        """Post a month for the first time: unfreeze what is held, debit the bill, freeze anew."""
        assert self.revisions(month) == 0, f"{month} is settled; revise it"
        assert allow_gap or not self.gap(month), f"first settle {self.gap(month)}"
        moves: dict[str, list[tuple[str, Decimal, str | None]]] = {}
        backfill = self.newest is not None and month < self.newest  # its holds have moved on
        for account in {*self.accounts(), *invoices}:
            own = moves[account] = []
            payable = invoices[account].payable if account in invoices else Decimal(0)
            if not backfill:
                for held_in, amount in self.open_holds(account).items():
                    own.append(("unfreeze", amount, held_in))
            own.append(("debit", payable, None))
            if not backfill:
                own.append(("freeze", holds.get(account, Decimal(0)), month))
        return self.post(month, moves)

    def revise(
        self, month: str, invoices: Mapping[str, Invoice], holds: Mapping[str, Decimal]
    ) -> list[Entry]:
        """Post the difference between a settled month and what it is now seen to be."""
        assert self.revisions(month) > 0, f"{month} is not settled; settle it"
        moves: dict[str, list[tuple[str, Decimal, str | None]]] = {}
        for account in {*self.accounts(), *invoices}:
            own = moves[account] = []
            payable = invoices[account].payable if account in invoices else Decimal(0)
            difference = payable - self.debited(account, month)
            held = self.open_holds(account).get(month, Decimal(0))
            hold = holds.get(account, Decimal(0)) if month == self.newest else held
            if hold != held:
                own.append(("unfreeze", held, month))
            own.append(("debit" if difference > 0 else "credit", abs(difference), None))
            if hold != held:
                own.append(("freeze", hold, month))
        return self.post(month, moves)

    def accounts(self) -> set[str]:
        """Everyone who ever had an entry."""
        return {entry.account_id for posting in self.postings for entry in posting.entries}

    def post(
        self, month: str, moves: Mapping[str, list[tuple[str, Decimal, str | None]]]
    ) -> list[Entry]:
        """Number each account's moves, leaving out those of amount 0."""
        entries = []
        for account in sorted(moves):
            real = [move for move in moves[account] if move[1]]
            entries += [Entry(account, number, *move) for number, move in enumerate(real, start=1)]
        self.postings.append(Posting(month, self.revisions(month) + 1, entries))
        return entries


# ---------------------------------------------------------------- the laws of a book


Row = Mapping[str, Any]  # one row of a published table: column -> value


@dataclass(frozen=True)
class Published:
    """One settlement as a reader of the book finds it; tables as lists of rows."""

    month: str
    revision: int
    rows: Mapping[str, int]  # of the manifest: read, and every bucket
    usage: Sequence[Row]
    lines: Sequence[Row]
    invoices: Sequence[Row]
    entries: Sequence[Row]


KEYS = {
    "usage": ("account_id", "item", "interface"),
    "lines": ("account_id", "item"),
    "invoices": ("account_id",),
    "entries": ("account_id", "sequence"),
}


def laws(book: Sequence[Published], digits: int) -> None:
    """Assert every law of the book, whose settlements are given in order of publication."""
    for one in book:
        counts_add_up(one)
        amounts_add_up(one, digits)
        entries_are_well_formed(one, digits)
    debits_equal_payables(book)
    holds_are_released_once(book)


def total(rows: Iterable[Row], column: str) -> Any:
    """The sum of a column, exact."""
    return sum((row[column] for row in rows), 0)


def grouped(rows: Iterable[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some columns."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return groups


def counts_add_up(one: Published) -> None:
    """Rows in = sum of the buckets; billed = usage = the lines' calls; keys are in order."""
    assert set(one.rows) == {"read", *BUCKETS}
    assert one.rows["read"] == sum(one.rows[bucket] for bucket in BUCKETS)
    assert one.rows["billed"] == total(one.usage, "calls") == total(one.lines, "calls")
    used, priced = (grouped(table, "account_id", "item") for table in (one.usage, one.lines))
    assert {k: total(v, "calls") for k, v in used.items()} == {
        k: total(v, "calls") for k, v in priced.items()
    }
    assert all(row["calls"] > 0 for row in (*one.usage, *one.lines))
    for table, key in KEYS.items():
        found = [tuple(row[column] for column in key) for row in getattr(one, table)]
        assert found == sorted(set(found)), f"{table}: key unsorted or doubled"
        for row in getattr(one, table):
            assert (row["month"], row["revision"]) == (one.month, one.revision)


def amounts_add_up(one: Published, digits: int) -> None:
    """Lines make the invoices; an invoice is off its exact amount by at most half a minor unit."""
    for row in (*one.lines, *one.invoices):
        assert row["amount"] == row["list_amount"] - row["voucher_amount"]
        assert 0 <= row["voucher_amount"] <= row["list_amount"]
    own = grouped(one.lines, "account_id")
    assert {(row["account_id"],) for row in one.invoices} == set(own)
    for row in one.invoices:
        for column in ("list_amount", "voucher_amount", "amount"):
            assert row[column] == total(own[row["account_id"],], column)
        assert row["payable"] - row["amount"] == row["rounding"]
        assert abs(row["rounding"]) <= Decimal("0.5").scaleb(-digits)
        assert row["payable"] == half_up(row["payable"], digits)


def entries_are_well_formed(one: Published, digits: int) -> None:
    """From 1, above 0, in whole minor units; unfreeze, then debit or credit, then freeze."""
    place = {"unfreeze": 0, "debit": 1, "credit": 1, "freeze": 2}
    for entries in grouped(one.entries, "account_id").values():
        assert [row["sequence"] for row in entries] == list(range(1, len(entries) + 1))
        places = [place[row["kind"]] for row in entries]
        assert places == sorted(places)
        assert places.count(1) <= 1 >= places.count(2)
        released = [row["hold_month"] for row in entries if row["kind"] == "unfreeze"]
        assert released == sorted(set(released)), "each hold once, the oldest first"
    for row in one.entries:
        assert row["amount"] > 0
        assert row["amount"] == half_up(row["amount"], digits)
        assert (row["hold_month"] is None) == (place[row["kind"]] == 1)
        assert one.revision > 1 or row["kind"] != "credit"


def debits_equal_payables(book: Sequence[Published]) -> None:
    """Per month and account, debits - credits over all revisions = the newest one's payable."""
    newest: dict[str, Published] = {}
    moved: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for one in book:
        assert one.revision == (newest[one.month].revision + 1 if one.month in newest else 1)
        newest[one.month] = one
        for row in one.entries:
            sign = {"debit": 1, "credit": -1}.get(row["kind"], 0)
            moved[one.month, row["account_id"]] += sign * row["amount"]
        payable = {(one.month, row["account_id"]): row["payable"] for row in one.invoices}
        for key in {key for key in moved if key[0] == one.month} | set(payable):
            assert moved[key] == payable.get(key, 0), key


def holds_are_released_once(book: Sequence[Published]) -> None:
    """A hold is released once and whole, by the next later month or a revision that changes it."""
    held: dict[tuple[str, str], Decimal] = {}  # (account, hold month) -> open amount
    for number, one in enumerate(book):
        for (account,), entries in grouped(one.entries, "account_id").items():
            ends = [row for row in entries if row["kind"] == "unfreeze"]
            begins = [row for row in entries if row["kind"] == "freeze"]
            for row in ends:
                assert held.pop((account, row["hold_month"])) == row["amount"], "whole, and once"
                own = row["hold_month"] == one.month
                assert own if one.revision > 1 else row["hold_month"] < one.month
            for row in begins:
                assert row["hold_month"] == one.month
                assert (account, one.month) not in held
                held[account, one.month] = row["amount"]
            if one.revision > 1 and ends and begins:
                assert ends[0]["amount"] != begins[0]["amount"], "an unchanged hold stays"
        newest = max(published.month for published in book[: number + 1])
        assert all(month == newest for _, month in held), "only the newest month has open holds"
