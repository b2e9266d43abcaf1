"""The laws every settlement obeys, whatever the log and the prices.

They are checked before publishing and again by ``settle check``. Each law is a sentence with
both sides and the difference. A broken one before publishing is a bug; in a published book it
is damage or forgery.

The law of holds: after every publication, what is open is exactly what the newest statement of
the newest settled month freezes, factor × base of each of its bills; nothing else is open. It
does not matter in which order months were settled, backfilled and revised, nor how often. It
follows from four rules, each checked by itself as well:

    a hold is made by its own month            a freeze in 2026-02 says 2026-02
    it is released once, and whole             an unfreeze is exactly one open hold
    a later month releases all that is open    before it freezes its own
    an older month moves no hold               neither settled late nor revised; its debit alone

A revision of the newest month replaces the holds that change, and no others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, ledger, money
from settlement.money import Currency
from settlement.month import Month
from settlement.tables import ROWS
from settlement.words import count_of

if TYPE_CHECKING:
    from settlement.money import Ints

READ, BILLED = "read", "billed"
_HOLD = ledger.HOLDS.names


@dataclass(frozen=True)
class Statement:
    """A month's bucket counts and tables, as they are published."""

    rows: Mapping[str, int]
    usage: pd.DataFrame
    lines: pd.DataFrame
    invoices: pd.DataFrame
    entries: pd.DataFrame
    rejects: pd.DataFrame
    adjustments: pd.DataFrame | None = None
    contract_lines: pd.DataFrame | None = None


@dataclass(frozen=True)
class Posted:
    """The entries of one settlement, in the order of publication.

    ``frozen`` is what its bills freeze by the rules of its time (`ledger.HOLDS`), whether or
    not its month was the newest; left out, the law of holds is not checked in amounts.
    """

    month: Month
    revision: int
    invoices: pd.DataFrame
    entries: pd.DataFrame
    frozen: pd.DataFrame | None = None


def broken(stated: Statement, currency: Currency) -> list[str]:
    """Return the laws that one settlement breaks by itself, as sentences; none when sound."""
    return [
        *_counts(stated),
        *_sums(stated.lines, stated.invoices),
        *_rounding(stated.invoices, currency),
        *_entries(stated.entries),
        *_adjustments(stated),
        *_contract_lines(stated),
    ]


def broken_posting(
    entries: pd.DataFrame, released: pd.DataFrame, due: pd.DataFrame, frozen: pd.DataFrame
) -> list[str]:
    """Return what entries about to be published get wrong, as sentences.

    Args:
        entries: `tables.ENTRIES`.
        released: `ledger.HOLDS`, what is open before them.
        due: account_id and amount, what they must debit less credit.
        frozen: `ledger.HOLDS`, what must be open after them.
    """
    moved = ledger.moved(entries)
    before, after, debits = (
        money.exact_sum(rows["amount"].to_numpy()) for rows in (released, frozen, due)
    )
    return [
        *_equal("debited − credited", moved["debited"] - moved["credited"], "due", debits),
        *_equal("frozen − unfrozen", moved["frozen"] - moved["unfrozen"], "due", after - before),
    ]


def broken_ledger(history: Sequence[Posted]) -> list[str]:
    """Return the laws that the entries of a whole book break, as sentences.

    Args:
        history: every settlement of the book, in the order of publication.
    """
    followed = History()
    return [*(law for posted in history for law in followed.post(posted)), *followed.left_open()]


class History:
    """The ledger of a book, followed from one settlement to the next.

    Attributes:
        newest: the newest month posted so far.
        open_holds: `ledger.HOLDS`, what is open after the last settlement.
    """

    def __init__(self) -> None:
        self.newest: Month | None = None
        self.open_holds = frames.empty(ledger.HOLDS)
        self._debited: dict[Month, pd.DataFrame] = {}

    def debited(self, month: Month) -> pd.DataFrame | None:
        """What a month's settlements have debited less credited; None before the first.

        account_id and amount, as from `ledger.net_debits`.
        """
        return self._debited.get(month)

    def post(self, posted: Posted, entries: pd.DataFrame | None = None) -> list[str]:
        """Return the laws that the next settlement breaks, and go on from it.

        Args:
            posted: what it says.
            entries: what it should have posted (`tables.ENTRIES`), to go on from where that is
                known, so that what is wrong in it is not said of all that follow.
        """
        said = [*self._debits(posted), *self._holds(posted)]
        later = self.newest is None or posted.month > self.newest
        self.newest = posted.month if later else self.newest
        open_now = _carry(self.open_holds, _of_holds(posted.entries))
        if posted.month == self.newest and posted.frozen is not None:
            said += _as_frozen(f"{posted.month} r{posted.revision}", open_now, posted.frozen)
        if entries is not None and not entries.equals(posted.entries):
            open_now = _carry(self.open_holds, _of_holds(entries))
        self.open_holds = open_now
        self._debited[posted.month] = self._net(
            posted, posted.entries if entries is None else entries
        )
        return said

    def forget(self, month: Month) -> None:
        """Let go of a month that has no further settlement."""
        self._debited.pop(month, None)

    def left_open(self) -> Iterator[str]:
        """Return the law broken where holds of an older month are open at the end."""
        months = set(self.open_holds["hold_month"]) - {str(self.newest)}
        if months:
            listed = ", ".join(sorted(months))
            yield f"open holds of {listed}, though {self.newest} is the newest month"

    def _net(self, posted: Posted, entries: pd.DataFrame) -> pd.DataFrame:
        before = self._debited.get(posted.month)
        net = ledger.net_debits([entries])
        return net if before is None else ledger.added([before, net])

    def _debits(self, posted: Posted) -> Iterator[str]:
        """Debits − credits over all revisions of a month = what its newest one says is payable."""
        net = self._net(posted, posted.entries)
        owed = posted.invoices[posted.invoices["payable"] != 0]
        yield from _same_rows(
            f"{posted.month}: debits − credits and payable",
            net,
            net["amount"].to_numpy(),
            owed,
            owed["payable"].to_numpy(),
        )

    def _holds(self, posted: Posted) -> Iterator[str]:
        """Holds are made by their own month, released once and whole, open for the newest only."""
        name, newest, open_now = f"{posted.month} r{posted.revision}", self.newest, self.open_holds
        entries = _of_holds(posted.entries)
        kind = entries["kind"]
        made = entries[kind == "freeze"]
        other = made[made["hold_month"] != str(posted.month)]
        if len(other):
            yield f"{name}: a freeze under another month, first {_hold(other)}"
        released = entries[kind == "unfreeze"][_HOLD]
        wrong = _not_open(open_now, released)
        if len(wrong):
            yield f"{name}: an unfreeze that is not exactly one open hold, first {_hold(wrong)}"
        later = newest is None or posted.month > newest
        if later and len(released) < len(open_now):
            left = _not_open(released, open_now)
            yield f"{name}: {count_of(len(left), 'hold')} not released, first {_hold(left)}"
        if not later and posted.month != newest and (len(made) or len(released)):
            yield f"{name}: moves holds, though {newest} was settled before it"
        left_open = _carry(open_now, entries[kind != "freeze"])
        both = pd.concat([left_open, made[_HOLD]])
        second = both[both.duplicated(_HOLD[:2])]
        if len(second):
            yield f"{name}: an account with two open holds of one month, first {_hold(second)}"


def _counts(stated: Statement) -> Iterator[str]:
    rows, usage, lines = stated.rows, stated.usage, stated.lines
    if set(rows) != set(ROWS) or min(rows.values()) < 0:
        yield f"the buckets are {dict(rows)}, not counts of {', '.join(ROWS)}"
        return
    kept = stated.rejects["reason"].value_counts().to_dict()
    for reason in (bucket for bucket in ROWS if bucket.startswith("rejected.")):
        in_table = int(kept.get(reason.removeprefix("rejected."), 0))
        yield from _equal(reason, rows[reason], "such rows of rejects", in_table, _number)
    buckets = sum(count for bucket, count in rows.items() if bucket != READ)
    yield from _equal("rows read", rows[READ], "the sum of the buckets", buckets, _number)
    calls = int(usage["calls"].sum())
    yield from _equal("calls billed", rows[BILLED], "the calls of usage", calls, _number)
    line = ["account_id", "item"]
    starts = frames.starts(usage, line)
    per_line = money.group_sums(usage["calls"].to_numpy(), starts, "the calls of a line")
    yield from _same_rows(
        "usage and lines",
        usage[line].iloc[starts],
        per_line,
        lines,
        lines["calls"].to_numpy(),
        line,
        _number,
    )


def _sums(lines: pd.DataFrame, invoices: pd.DataFrame) -> Iterator[str]:
    starts = frames.starts(lines, ["account_id"])
    heads = lines[["account_id"]].iloc[starts]
    for name in ("list_amount", "voucher_amount", "amount"):
        values = lines[name].to_numpy()
        sums = money.group_sums(values, starts, "an account's total")
        what = f"the {name} of lines and of invoices"
        yield from _same_rows(what, heads, sums, invoices, invoices[name].to_numpy())
    for what, rows in (("lines", lines), ("invoices", invoices)):
        if (rows["list_amount"] - rows["voucher_amount"] != rows["amount"]).any():
            yield f"list − voucher is not amount in {what}"
        if (rows[["list_amount", "voucher_amount", "amount"]] < 0).any(axis=None):
            yield f"an amount below 0 in {what}"


def _rounding(invoices: pd.DataFrame, currency: Currency) -> Iterator[str]:
    rounding = invoices["rounding"]
    if (invoices["payable"] - invoices["amount"] != rounding).any():
        yield "payable − amount is not rounding in invoices"
    if (rounding.abs() * 2 > currency.minor_unit).any():
        yield "a rounding of more than half a minor unit in invoices"
    if (invoices["payable"] % currency.minor_unit != 0).any():
        yield "a payable that is not whole in minor units"
    if (invoices["currency"] != currency.code).any():
        yield f"an invoice in another currency than {currency.code}"


def _entries(entries: pd.DataFrame) -> Iterator[str]:
    if (entries["amount"] <= 0).any():
        yield "an entry of 0 or less"
    kind = frames.arrow_text(entries["kind"])
    if not pc.all(pc.is_in(kind, pa.array(ledger.KINDS, pa.large_string()))).as_py() and len(kind):
        yield "an entry of an unknown kind"
    of_hold = pc.is_in(kind, pa.array(["unfreeze", "freeze"], pa.large_string()))
    has_month = pa.array(entries["hold_month"].notna().to_numpy())
    if not of_hold.equals(has_month):
        yield "an entry whose hold_month does not fit its kind"
    starts = frames.starts(entries, ["account_id"])
    lengths = np.diff(starts, append=len(entries))
    counted = np.arange(len(entries)) - np.repeat(starts, lengths) + 1
    if (entries["sequence"].to_numpy() != counted).any():
        yield "an account whose entries are not numbered 1, 2, …"


def _adjustments(stated: Statement) -> Iterator[str]:
    """An adjustment is the difference of two payables, and is what the entries move."""
    rows = stated.adjustments
    if rows is None:
        return
    if (rows["payable"] - rows["previous_payable"] != rows["adjustment"]).any():
        yield "payable − previous payable is not adjustment"
    net = ledger.net_debits([stated.entries])
    yield from _same_rows(
        "debits − credits and adjustments",
        net,
        net["amount"].to_numpy(),
        rows,
        rows["adjustment"].to_numpy(),
    )


def _contract_lines(stated: Statement) -> Iterator[str]:
    """What contracts price are lines, at the same amounts."""
    rows = stated.contract_lines
    if rows is None:
        return
    place = _line_of_each(rows, stated.lines)
    same = place >= 0
    for name in ("calls", "list_amount", "voucher_amount", "amount"):
        lines = stated.lines[name].to_numpy()[place[same]]
        same[same] = rows[name].to_numpy()[same] == lines
    if not same.all():
        yield f"{count_of(int(np.count_nonzero(~same)), 'row')} of contract_lines not among lines"
    if (rows["book_list_amount"] - rows["book_voucher_amount"] != rows["book_amount"]).any():
        yield "list − voucher is not amount by the price book in contract_lines"


def _line_of_each(rows: pd.DataFrame, lines: pd.DataFrame) -> "Ints":
    """Return the place among lines of each row's account and item, -1 where there is none.

    Both are sorted by account, so their texts are compared once an account; a merge of
    millions of texts would take longer than the pricing.
    """
    items = pc.unique(frames.arrow_text(lines["item"]))
    items = items.take(pc.sort_indices(items))
    begins = frames.starts(lines, ["account_id"])
    known = frames.arrow_text(lines["account_id"].iloc[begins])

    def keys(table: pd.DataFrame, account: "Ints", begins: "Ints") -> "Ints":
        item = pc.fill_null(pc.index_in(frames.arrow_text(table["item"]), items), len(items))
        lengths = np.diff(begins, append=len(table))
        found: Ints = np.repeat(account, lengths) * (len(items) + 1) + item.to_numpy()
        return found

    of_lines = keys(lines, np.arange(len(begins)), begins)
    begins = frames.starts(rows, ["account_id"])
    mine = frames.arrow_text(rows["account_id"].iloc[begins])
    account = pc.fill_null(pc.index_in(mine, known), -1).to_numpy().astype(np.int64)
    of_rows = keys(rows, account, begins)
    place = np.searchsorted(of_lines, of_rows)
    hit = place < len(of_lines)
    hit[hit] = of_lines[place[hit]] == of_rows[hit]
    return np.where(hit, place, -1)


def _as_frozen(name: str, open_now: pd.DataFrame, frozen: pd.DataFrame) -> Iterator[str]:
    """Compare what is open with what the newest statement of the newest month freezes."""
    if not open_now.equals(frozen):
        yield from _same_rows(
            f"{name}: open holds and what its bills freeze",
            open_now,
            open_now["amount"].to_numpy(),
            frozen,
            frozen["amount"].to_numpy(),
            _HOLD[:2],
        )


def _of_holds(entries: pd.DataFrame) -> pd.DataFrame:
    return entries[entries["hold_month"].notna()]


def _carry(open_now: pd.DataFrame, posted: pd.DataFrame) -> pd.DataFrame:
    """Return the open holds after some more entries."""
    opening = pd.DataFrame(
        {
            "account_id": open_now["account_id"],
            "kind": pd.Series(["freeze"] * len(open_now), dtype="str"),
            "amount": open_now["amount"],
            "hold_month": open_now["hold_month"],
        }
    )
    return ledger.open_holds([opening, posted])


def _not_open(holds: pd.DataFrame, released: pd.DataFrame) -> pd.DataFrame:
    """Return the released rows that are not each exactly one of the holds, which differ."""
    is_there = pd.concat([holds, released]).duplicated().to_numpy()[len(holds) :]
    wrong: pd.DataFrame = released[~is_there | released.duplicated().to_numpy()]
    return wrong


def _hold(rows: pd.DataFrame) -> str:
    """Name the first of some holds."""
    account, month, amount = rows[_HOLD].iloc[0]
    return f"account_id {account!r}: {money.grouped(int(amount))} of {month}"


def _number(value: int) -> str:
    return f"{value:,}"


def _equal(
    left: str,
    left_value: int,
    right: str,
    right_value: int,
    say: Callable[[int], str] = money.grouped,
) -> Iterator[str]:
    """Compare two amounts, or whatever ``say`` writes."""
    if left_value != right_value:
        yield (
            f"{left} {say(left_value)} ≠ {right} {say(right_value)} "
            f"(difference {say(left_value - right_value)})"
        )


def _same_rows(
    what: str,
    left: pd.DataFrame,
    left_values: "Ints",
    right: pd.DataFrame,
    right_values: "Ints",
    names: Sequence[str] = ("account_id",),
    say: Callable[[int], str] = money.grouped,
) -> Iterator[str]:
    """Compare two sorted lists of key and value: their sums, and the first key that differs."""
    place = _first_unlike(left, left_values, right, right_values, names)
    if place is None:
        return
    sums = _equal("sum", money.exact_sum(left_values), "sum", money.exact_sum(right_values), say)
    rows = _row(left[[*names]], left_values, place), _row(right[[*names]], right_values, place)
    keys = [row[0] for row in rows if row]
    key = min(keys, key=lambda key: [each.encode(errors="surrogatepass") for each in key])
    one, other = (say(row[1]) if row and row[0] == key else "nothing" for row in rows)
    named = ", ".join(f"{name} {each!r}" for name, each in zip(names, key, strict=True))
    yield f"{what}: " + ", ".join([*sums, f"first {named}: {one} ≠ {other}"])


def _first_unlike(
    left: pd.DataFrame,
    left_values: "Ints",
    right: pd.DataFrame,
    right_values: "Ints",
    names: Sequence[str],
) -> int | None:
    """Return the first place at which two lists of key and value differ."""
    both = min(len(left), len(right))
    unlike = np.asarray(left_values[:both] != right_values[:both])
    for name in names:
        texts = (frames.arrow_text(rows[name].iloc[:both]) for rows in (left, right))
        unlike |= pc.not_equal(*texts).to_numpy(zero_copy_only=False)
    if unlike.any():
        return int(unlike.argmax())
    return both if len(left) != len(right) else None


def _row(keys: pd.DataFrame, values: "Ints", place: int) -> tuple[tuple[str, ...], int] | None:
    """Return the key and value at a place; None after the end."""
    return (tuple(keys.iloc[place]), int(values[place])) if place < len(keys) else None
