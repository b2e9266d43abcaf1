"""Any history of a book, against a ledger that replays it from the start.

Months are settled in order, out of order and across gaps; calls arrive late, prices change for
months past and to come, months are revised, and the disk dies at any step of publishing. After
every step the book's entries, net debits and open holds are those of the naive reference, which
adds every balance up from the first posting, and the book proves itself.
"""

import errno
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from settlement import ledger, settle, tables
from settlement.book import Book
from settlement.check import check
from settlement.errors import CannotWrite, OtherOutcome, WrongUsage
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from tests import reference
from tests.reference import SECOND, Call, Invoice, Line

EXAMPLES = int(os.environ.get("SETTLE_TEST_EXAMPLES", "100")) // 7
"""How many histories to try, each of up to `STEPS` steps."""
STEPS = int(os.environ.get("SETTLE_TEST_STEPS", "20"))
ZONE = "Asia/Shanghai"
MONTHS = ("2025-11", "2025-12", "2026-01", "2026-02", "2026-03", "2026-04")
NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Rules(NamedTuple):
    """What a version of the price book says; the bounds lie within reach of a few calls."""

    unit_price: str = "1.005"
    factor: str = "1.20"
    base: str = "payable"
    free_calls: int = 1

    def text(self, month: str) -> str:
        return f"""
[[version]]
effective_from = "{month}"
billable_status = ["0"]
freeze = {{ factor = "{self.factor}", base = "{self.base}" }}
[[version.item]]
code = "detect"
name = "检测"
interfaces = ["Detect"]
free_calls = {self.free_calls}
tiers = [{{ up_to = 2, unit_price = "0" }}, {{ up_to = 5, unit_price = "{self.unit_price}" }},
         {{ unit_price = "0.5" }}]
[[version.item]]
code = "search"
name = "搜索"
interfaces = ["Search"]
mode = "graduated"
tiers = [{{ up_to = 3, unit_price = "2" }}, {{ unit_price = "0.333" }}]
"""


@dataclass(frozen=True)
class Stated:
    """A month as the reference works it out from every call and price there is."""

    usage: dict[tuple[str, str, str], int]
    lines: dict[tuple[str, str], Line]
    invoices: dict[str, Invoice]
    holds: dict[str, Decimal]


RULES = st.builds(
    Rules,
    st.sampled_from(["1.005", "1", "0"]),
    st.sampled_from(["1.20", "1.20", "0.5", "0"]),
    st.sampled_from(["payable", "list"]),
    st.sampled_from([0, 1, 4]),
)
# Few ids, so that late rows repeat and contradict those that were charged.
CALLS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(["007", "7", "anna", "张三"]),
        st.sampled_from(["Detect", "Detect", "Search"]),
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 0, 1]),
    ),
    min_size=1,
    max_size=16,
)


class History(RuleBasedStateMachine):
    """A book in a folder of its own, and all that ever happened to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.calls: list[Call] = []
        self.price_rules: dict[str, Rules] = {"2000-01": Rules()}
        self.published: list[tuple[str, Stated]] = []
        self.seen = 0

    def teardown(self) -> None:
        """Prove the book: what is published never changes, so a wrong step is still to be seen."""
        try:
            assert check(self.folder / "book").problems == ()
        finally:
            shutil.rmtree(self.folder)

    # ------------------------------------------------------------ what happens outside

    @initialize(months=st.lists(st.sampled_from(MONTHS), min_size=3, max_size=6), calls=st.data())
    def first_calls(self, months: list[str], calls: st.DataObject) -> None:
        for month in months:
            self.calls_arrive(month, calls.draw(CALLS))

    @rule(month=st.sampled_from(MONTHS), calls=CALLS)
    def calls_arrive(self, month: str, calls: list[tuple[int, str, str, int, int]]) -> None:
        begin = reference.start(month, ZONE)
        name = f"{len(list(self.folder.glob('log/*')))}.parquet"
        arrived = [
            Call(f"r{n}", account, interface, begin + day * 86_400 * SECOND, status, None, name, at)
            for at, (n, account, interface, day, status) in enumerate(calls)
        ]
        self.calls += arrived
        (self.folder / "log").mkdir(exist_ok=True)
        stamps = [call.instant // 1000 for call in arrived if call.instant is not None]
        columns = {
            "request_id": [call.request_id for call in arrived],
            "account_id": [call.account_id for call in arrived],
            "interface": [call.interface for call in arrived],
            "timestamp": pa.array(stamps, pa.timestamp("us", "UTC")),
            "status_code": pa.array([call.status_code for call in arrived], pa.int32()),
        }
        pq.write_table(pa.table(columns), self.folder / "log" / name)

    @rule(month=st.sampled_from(["2000-01", *MONTHS]), rules=RULES)
    def prices_change(self, month: str, rules: Rules) -> None:
        self.price_rules[month] = rules

    @rule(month=st.sampled_from(MONTHS), factor=st.sampled_from(["0", "1", "1.20", "1.5"]))
    def the_factor_changes(self, month: str, factor: str) -> None:
        in_force = self.price_rules[max(since for since in self.price_rules if since <= month)]
        self.price_rules[month] = in_force._replace(factor=factor)

    # ------------------------------------------------------------ what the program does

    @rule(skip=st.sampled_from([0, 0, 0, 0, 1, 2]), first=st.sampled_from(MONTHS[:3]))
    def settle_next(self, skip: int, first: str) -> None:
        month = reference.following(self.newest) if self.newest else first
        for _ in range(skip if self.newest else 0):
            if month < MONTHS[-1]:
                month = reference.following(month)
        if month > MONTHS[-1]:
            return
        if self.newest and month > reference.following(self.newest):
            with pytest.raises(WrongUsage, match="is not settled yet"):
                settle.run(self.order(month))
        self.settles(replace(self.order(month), allow_gap=True))

    @precondition(lambda self: self.missing())
    @rule(data=st.data())
    def settle_older(self, data: st.DataObject) -> None:
        month = data.draw(st.sampled_from(self.missing()))
        done = self.settles(self.order(month))
        assert done.settlement.manifest["totals"]["frozen"] == "0.00"
        assert done.settlement.manifest["totals"]["unfrozen"] == "0.00"

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def revise(self, data: st.DataObject) -> None:
        month = data.draw(st.sampled_from(self.settled()))
        order = replace(self.order(month), revise=True, reason="tested")
        if self.would_change(month):
            self.settles(order)
            assert not self.would_change(month)
        assert settle.run(order).outcome in {"settled already", "same outcome"}

    @precondition(lambda self: self.published)
    @rule(data=st.data(), late=st.lists(CALLS, min_size=1, max_size=3))
    def revise_for_late_calls(
        self, data: st.DataObject, late: list[list[tuple[int, str, str, int, int]]]
    ) -> None:
        """As often as they come: the third revision must know what the second one posted."""
        month = data.draw(st.sampled_from(self.settled()))
        for calls in late:
            self.calls_arrive(month, calls)
            if self.would_change(month):
                self.settles(replace(self.order(month), revise=True, reason="late calls"))

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        month = data.draw(st.sampled_from(self.settled()))
        if self.would_change(month):
            with pytest.raises(OtherOutcome):
                settle.run(self.order(month))
        else:
            assert settle.run(self.order(month)).outcome in {"settled already", "same outcome"}

    @rule(month=st.sampled_from(MONTHS), step=st.integers(1, 26), dead=st.booleans())
    def the_disk_fails(self, month: str, step: int, dead: bool) -> None:
        """At a step of publishing, and, when dead, at every one after it."""
        known = month in self.settled()
        if known and not self.would_change(month):
            return
        order = replace(self.order(month), allow_gap=True, revise=known, reason="tested")
        stated, before = self.stated(month), self.folders()
        with failing(step, dead=dead) as reached:
            try:
                settle.run(order)  # the lock file may stay behind, which hurts nobody
            except CannotWrite:
                assert reached()
        new = self.folders() - before
        assert len(new) <= 1
        if new:
            self.published.append((month, stated))
            self.seen = -1  # look at it before it is run again
            self.the_book_is_the_replay()
            assert settle.run(order).outcome == "settled already"
        else:
            self.settles(order)
        assert not list(self.folder.glob("book/.drafts/*"))

    # ------------------------------------------------------------ what must be

    @invariant()
    def the_book_is_the_replay(self) -> None:
        """Every entry of every settlement, what is open, and what is paid; nothing else."""
        if self.seen == len(self.published):
            assert len(self.folders()) == self.seen
            return
        book = Book.open(self.folder / "book")
        replay = reference.Replay()
        for month, stated in self.published:
            known = replay.revisions(month)
            post = replay.revise if known else backfilling(replay)
            post(month, stated.invoices, stated.holds)
        assert [(str(s.month), s.revision) for s in book.settlements] == [
            (posting.month, posting.revision) for posting in replay.postings
        ]
        for settlement, posting in zip(book.settlements, replay.postings, strict=True):
            assert entries_of(settlement.published(tables.ENTRIES)) == posting.entries
        open_holds = book.open_holds()
        assert {(h, a): v for a, h, v in open_holds.itertuples(index=False)} == {
            (held_in, account): int(amount * 10**8)
            for account in replay.accounts()
            for held_in, amount in replay.open_holds(account).items()
        }
        self.the_law_of_holds(open_holds)
        for month in self.settled():
            posted = [s.table(tables.ENTRIES) for s in book.revisions(Month.parse(month))]
            net: dict[str, int] = dict(ledger.net_debits(posted).itertuples(index=False))
            owed = {a: replay.debited(a, month) for a in replay.accounts()}
            assert net == {a: int(amount * 10**8) for a, amount in owed.items() if amount}
        self.seen = len(self.published)

    def the_law_of_holds(self, open_holds: Any) -> None:
        """They are factor × base of the newest statement of the newest month: no more, no less."""
        stated = next(s for month, s in reversed(self.published) if month == self.newest)
        held = {account: int(amount * 10**8) for account, amount in stated.holds.items() if amount}
        assert dict(zip(open_holds["account_id"], open_holds["amount"], strict=True)) == held
        assert set(open_holds["hold_month"]) <= {self.newest}

    # ------------------------------------------------------------ the model

    @property
    def newest(self) -> str | None:
        return max(self.settled(), default=None)

    def settled(self) -> list[str]:
        return sorted({month for month, _ in self.published})

    def missing(self) -> list[str]:
        known = self.settled()
        return [month for month in MONTHS if known and month < known[-1] and month not in known]

    def folders(self) -> set[Path]:
        return set(self.folder.glob("book/*/r*"))

    def prices(self) -> str:
        head = f'currency = "CNY"\ntimezone = "{ZONE}"\n'
        return head + "".join(
            rules.text(month) for month, rules in sorted(self.price_rules.items())
        )

    def order(self, month: str) -> Order:
        return Order(
            Month.parse(month),
            str(self.folder / "log"),
            self.folder / "book",
            PriceBook.parse(self.prices().encode()),
            NOW,
            max_rejects=Fraction(0),
            allow_empty=True,
            threads=1,
        )

    def stated(self, month: str) -> Stated:
        version = reference.version_for(tomllib.loads(self.prices()), month)
        usage = reference.count(self.calls, month, version, ZONE).usage
        lines = reference.rate(usage, version)
        invoices = reference.invoice(lines, 2)
        return Stated(usage, lines, invoices, reference.freeze(invoices, version, 2))

    def would_change(self, month: str) -> bool:
        old = next(stated for at, stated in reversed(self.published) if at == month)
        new = self.stated(month)
        if (old.usage, old.lines, old.invoices) != (new.usage, new.lines, new.invoices):
            return True
        return month == self.newest and old.holds != new.holds

    def settles(self, order: Order) -> settle.Done:
        stated = self.stated(str(order.month))
        done = settle.run(order)
        assert done.outcome == "published"
        self.published.append((str(order.month), stated))
        return done


def backfilling(replay: reference.Replay) -> Callable[..., Any]:
    """Settle in the replay, whatever was left out before."""
    return lambda month, invoices, holds: replay.settle(month, invoices, holds, allow_gap=True)


def entries_of(published: Any) -> list[reference.Entry]:
    names = reference.Entry._fields
    return [reference.Entry(*(row[name] for name in names)) for row in published.to_pylist()]


CHANGES = ("fsync", "mkdir", "rename", "unlink", "rmdir")
"""The functions of `os` by which publishing, and what clears up after it, change the disk."""


@contextmanager
def failing(step: int, *, dead: bool) -> Iterator[Callable[[], bool]]:
    """Let the nth change of the disk fail; dead, every later one too, as after a kill."""
    count = 0

    def wrapped(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == step or (dead and count > step):
                raise OSError(errno.EIO, "the disk has failed")
            return change(*args, **kwargs)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield lambda: count >= step


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
