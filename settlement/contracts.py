"""Contracts: which account pays by terms of its own, from which month to which.

A contracts file lies beside the price book and is edited in a spreadsheet: one row per
account, item (or all items) and span of months. It is read and checked as a whole, column by
column, so that a million rows take seconds; a mistake names its row and the cure. What is in
force in a month (`Terms`) is all that counts for it, and has a digest of its own: a row that
begins next year does not change what this month was settled by.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, money, sheets
from settlement.errors import BadInput, WrongUsage
from settlement.month import Month
from settlement.prices import Item, PriceBook, Tier
from settlement.sheets import Sheet

if TYPE_CHECKING:
    from settlement.money import Ints

    Bools = np.ndarray[Any, np.dtype[np.bool_]]

COLUMNS = (
    "account_id",
    "item",
    "from",
    "to",
    "tiers",
    "discount",
    "free_calls",
    "freeze_factor",
)
REQUIRED = ("account_id", "from")
TERMS = COLUMNS[4:]
"""The columns that say something; a row fills at least one of them."""
ALL_ITEMS = "*"
UNSAID = -1
"""Stands for an empty cell in a column of numbers."""

_OPEN = 12 * 10_000
"""Stands for no end, in months since year 0."""
_MOST_TIERS = 1000
_MOST_CALLS = 2**63 - 1
_FACTOR_LIMIT = 1000 * money.UNITS_PER_ONE


@dataclass(frozen=True)
class Terms:
    """What the contracts say in one month.

    Attributes:
        rows: account_id and item (empty for all items), sorted, no pair twice; then tiers (a
            position in ``tariffs``), discount (the share off, in units), free_calls and
            freeze_factor (in units), all int64, `UNSAID` where the cell is empty.
        tariffs: the distinct own tiers.
    """

    rows: pd.DataFrame
    tariffs: tuple[tuple[Tier, ...], ...]

    @property
    def factors(self) -> pd.DataFrame:
        """account_id and freeze_factor (in units) of the accounts that have one of their own."""
        own = self.rows[self.rows["freeze_factor"] != UNSAID]
        return own[["account_id", "freeze_factor"]].reset_index(drop=True)

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the rows as CSV in the one form documented; None where there are none.

        Account and item in double quotes, the terms plain and without idle zeros, an empty
        cell where nothing is said, a line feed after each row.
        """
        if self.rows.empty:
            return None
        cells: list[pa.Array] = []
        for name in ("account_id", "item"):
            inner = pc.replace_substring(frames.arrow_text(self.rows[name]), '"', '""')
            cells.append(frames.joined(['"', inner, '"'], ""))
        cells += self.texts(np.arange(len(self.rows)))
        lines = frames.joined([frames.joined(cells, ","), ""], "\n")
        size = int(pc.sum(pc.binary_length(lines)).as_py())
        return hashlib.sha256(lines.buffers()[2][:size]).hexdigest()

    def texts(self, rows: "Ints") -> list[pa.Array]:
        """Write the terms of some rows: a column for each of `TERMS`, null where unsaid."""
        writers: tuple[Callable[[int], str], ...] = (
            lambda at: tiers_text(self.tariffs[at]),
            money_text,
            str,
            money_text,
        )
        return [
            _written(self.rows[name].to_numpy()[rows], write)
            for name, write in zip(TERMS, writers, strict=True)
        ]

    def for_item(self, account: str, item: Item) -> Item:
        """Return an item as an account pays for it: the item's own row, else that for all."""
        mine = self.rows[self.rows["account_id"] == account]
        for code in (item.code, ""):
            for row in mine[mine["item"] == code].itertuples():
                return _agreed(item, row, self.tariffs)
        return item


def _agreed(item: Item, row: Any, tariffs: Sequence[tuple[Tier, ...]]) -> Item:
    tiers = item.tiers if row.tiers == UNSAID else tariffs[row.tiers]
    if row.discount != UNSAID:
        before = np.array([tier.unit_price for tier in tiers], np.int64)
        after = money.discounted(before, np.full_like(before, row.discount)).tolist()
        tiers = tuple(replace(tier, unit_price=now) for tier, now in zip(tiers, after, strict=True))
    free = item.free_calls if row.free_calls == UNSAID else row.free_calls
    return replace(item, tiers=tiers, free_calls=free)


@dataclass(frozen=True)
class Contracts:
    """A contracts file, and the items its rows may name.

    It is checked when `in_force` is asked for the first time, as a whole and whatever the
    month.

    Attributes:
        name: what to call it in messages.
        raw: the file's bytes, CSV or Parquet.
        items: the codes of all items of the price book, of any of its versions.
    """

    name: str
    raw: bytes
    items: frozenset[str]

    @classmethod
    def of(cls, raw: bytes, name: str, book: PriceBook) -> "Contracts":
        """Return contracts whose rows may name every item of a price book."""
        codes = (item.code for version in book.versions for item in version.items)
        return cls(name, raw, frozenset(codes))

    @property
    def copy(self) -> str:
        """The name of its copy beside a settlement: contracts.csv or contracts.parquet."""
        return f"contracts.{sheets.kind(self.raw, self.name)}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes it was read from."""
        return hashlib.sha256(self.raw).hexdigest()

    @cached_property
    def rows(self) -> "Rows":
        """All rows, checked.

        Raises:
            BadInput: something is wrong; the message names file, row, column and the cure.
        """
        return check(sheets.read(self.raw, self.name, COLUMNS, REQUIRED), self.items)

    def in_force(self, month: Month) -> Terms:
        """Return the terms of a month; raises `BadInput` where the file is wrong."""
        return self.rows.in_force(month)

    def in_force_for(self, account: str, month: Month) -> Terms:
        """Return the terms of one account in a month; only its rows are checked."""
        sheet = sheets.read(self.raw, self.name, COLUMNS, REQUIRED)
        mine = sheet.where(pc.equal(sheet.column("account_id"), account))
        return check(mine, self.items).in_force(month)


@dataclass(frozen=True)
class Rows:
    """Rows of a contracts file, checked, sorted by account, item and first month.

    ``first`` and ``end`` (excluded) count months since year 0; the rest is as in `Terms`.
    """

    first: "Ints"
    end: "Ints"
    columns: pd.DataFrame
    tariffs: tuple[tuple[Tier, ...], ...]

    def in_force(self, month: Month) -> Terms:
        """Return the terms of a month."""
        now = _months(month)
        rows = np.flatnonzero((self.first <= now) & (now < self.end))
        return Terms(self.columns.iloc[rows].reset_index(drop=True), self.tariffs)


def check(sheet: Sheet, items: Collection[str]) -> Rows:
    """Check a sheet as a whole, and turn its text into numbers.

    Args:
        sheet: columns of text, `COLUMNS`.
        items: the codes that its rows may name.

    Raises:
        BadInput: a cell is not what it must be, a row says nothing or says what excludes
            each other, or two rows of one account and item overlap in time.
    """
    _check_accounts(sheet)
    codes = ["", *sorted(items, key=str.encode)]
    item = sheet.numbers(
        "item", lambda text: _item(text, codes), f"known are {', '.join(codes[1:])}"
    )
    cure = "write it as YYYY-MM, such as 2026-02, in a column formatted as text"
    first = sheet.numbers("from", _month, cure)
    end = sheet.numbers("to", lambda text: _month(text) if text else _OPEN, cure)
    sheet.refuse(
        end <= first,
        "to",
        lambda row: f"{sheet.cell('to', row)} is not after {sheet.cell('from', row)}",
        "to is the first month in which the terms no longer hold; empty: they hold on",
    )
    tariffs: dict[tuple[Tier, ...], int] = {}
    columns = _terms(sheet, tariffs)
    _check_terms(sheet, columns, item)
    order = _order(sheet, item, first, end)
    rows = {
        "account_id": sheet.column("account_id").take(pa.array(order)),
        "item": pa.array(codes, pa.large_string()).take(pa.array(item[order])),
    }
    texts = {name: pd.array(values, dtype="str") for name, values in rows.items()}
    numbers = {name: values[order] for name, values in columns.items()}
    return Rows(first[order], end[order], pd.DataFrame(texts | numbers), tuple(tariffs))


def _check_accounts(sheet: Sheet) -> None:
    accounts = sheet.column("account_id")
    sheet.refuse(_mask(pc.equal(accounts, "")), "account_id", lambda _: "no account", "name it")
    trimmed = pc.utf8_trim_whitespace(accounts)
    sheet.refuse(
        _mask(pc.not_equal(accounts, trimmed)),
        "account_id",
        lambda row: f"{sheet.cell('account_id', row)!r} begins or ends with a blank",
        "take the blank out: accounts are compared as they stand",
    )


def _item(text: str, codes: Sequence[str]) -> int:
    if text in {"", ALL_ITEMS}:
        return 0
    if text not in codes:
        raise ValueError(f"unknown item {text!r}{sheets.nearest(text, codes)}")
    return codes.index(text)


def _month(text: str) -> int:
    try:
        return _months(Month.parse(text))
    except WrongUsage as error:
        raise ValueError(f"{text!r} is not a month") from error


def _months(month: Month) -> int:
    return 12 * month.year + month.number - 1


def _month_text(months: int) -> str:
    return "" if months == _OPEN else f"{months // 12:04d}-{months % 12 + 1:02d}"


def _terms(sheet: Sheet, tariffs: dict[tuple[Tier, ...], int]) -> "dict[str, Ints]":
    """Read the columns of `TERMS`; distinct own tiers are added to ``tariffs``."""

    def tiers(text: str) -> int:
        return tariffs.setdefault(tiers_of(text), len(tariffs))

    readers: tuple[tuple[Callable[[str], int], str], ...] = (
        (tiers, "write bound:price pairs, the last without bound: 10000:0;3000000:0.0004;:0.0003"),
        (_discount, "write the share off as a plain decimal: 0.15 for 15 %"),
        (_free_calls, "write a whole number"),
        (_factor, "write a plain decimal of at most 1000, such as 1.20"),
    )
    return {
        name: sheet.numbers(name, _or_unsaid(read), cure)
        for name, (read, cure) in zip(TERMS, readers, strict=True)
    }


def _or_unsaid(read: Callable[[str], int]) -> Callable[[str], int]:
    return lambda text: read(text) if text else UNSAID


def _check_terms(sheet: Sheet, columns: "dict[str, Ints]", item: "Ints") -> None:
    said = {name: values != UNSAID for name, values in columns.items()}
    sheet.refuse(
        ~np.logical_or.reduce([*said.values()]),
        "tiers",
        lambda _: "the row says nothing",
        f"fill at least one of {', '.join(TERMS)}, or take the row out",
    )
    sheet.refuse(
        said["tiers"] & said["discount"],
        "discount",
        lambda _: "both tiers and a discount",
        "write the lower prices into the tiers, and leave the discount empty",
    )
    sheet.refuse(
        said["freeze_factor"] & (item != 0),
        "freeze_factor",
        lambda row: f"a freeze factor for item {sheet.cell('item', row)!r} alone",
        "a hold is made for the whole bill: write it in a row whose item is *",
    )


def _order(sheet: Sheet, item: "Ints", first: "Ints", end: "Ints") -> "Ints":
    """Return the order of rows by account, item and first month; refuse overlaps."""
    encoded = sheet.column("account_id").dictionary_encode()
    ranks = np.empty(len(encoded.dictionary), np.int64)
    ranks[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(ranks))
    account = ranks[encoded.indices.to_numpy()]
    key = account * (int(item.max(initial=0)) + 1) + item
    order = np.argsort(key * (_OPEN + 1) + first)
    before, after = order[:-1], order[1:]
    meets = (key[before] == key[after]) & (first[after] < end[before])
    if meets.any():
        raise _overlap(sheet, first, end, list(zip(before[meets], after[meets], strict=True)))
    return order


def _overlap(sheet: Sheet, first: "Ints", end: "Ints", pairs: list[tuple[int, int]]) -> BadInput:
    pairs.sort(key=max)

    def said(one: int, other: int) -> str:
        one, other = sorted((one, other))
        item = sheet.cell("item", one)
        spans = [
            f"{_month_text(first[row])} to {_month_text(end[row]) or 'open'} (row "
            f"{sheet.number(row)})"
            for row in (one, other)
        ]
        what = "all items" if item in {"", ALL_ITEMS} else f"item {item}"
        return f"account {sheet.cell('account_id', one)!r}, {what}: {' overlaps '.join(spans)}"

    rows = " and ".join(str(sheet.number(row)) for row in sorted(pairs[0]))
    return BadInput(
        said(*pairs[0]),
        where=f"{sheet.name}, rows {rows}, columns from and to",
        cure="end the one where the other begins; to is excluded",
        details=sheets.shortened([said(*pair) for pair in pairs[1 : sheets.SHOWN + 2]], len(pairs)),
    )


def tiers_of(text: str) -> tuple[Tier, ...]:
    """Read tiers: ``bound:price`` pairs parted by ``;``, ascending, the last without a bound.

    Raises:
        ValueError: it is not that; the message says why.
    """
    pairs = [pair.strip() for pair in text.split(";")]
    if len(pairs) > _MOST_TIERS:
        raise ValueError(f"more than {_MOST_TIERS} tiers")
    tiers = tuple(_tier(pair, last=n == len(pairs)) for n, pair in enumerate(pairs, 1))
    for one, other in pairwise(tiers[:-1]):
        if (one.up_to or 0) >= (other.up_to or 0):
            raise ValueError(f"bound {other.up_to} is not above {one.up_to}, the one before")
    return tiers


def _tier(pair: str, *, last: bool) -> Tier:
    bound, colon, price = (part.strip() for part in pair.partition(":"))
    if not colon:
        raise ValueError(f"{pair!r} is not bound:price")
    unit_price = money.units(price)
    if unit_price >= money.PRICE_LIMIT:
        raise ValueError(f"a unit price of {price}, which is not below 10000")
    if last:
        if bound:
            raise ValueError(f"the last tier has a bound, {bound!r}")
        return Tier(None, unit_price)
    up_to = _free_calls(bound)
    if not up_to:
        raise ValueError("a bound of 0")
    return Tier(up_to, unit_price)


def tiers_text(tiers: Sequence[Tier]) -> str:
    """Write tiers as `tiers_of` reads them, prices without idle zeros."""
    return ";".join(
        f"{'' if tier.up_to is None else tier.up_to}:{money_text(tier.unit_price)}"
        for tier in tiers
    )


def money_text(units: int) -> str:
    """Write units without idle zeros."""
    return money.text(units, 0)


def _discount(text: str) -> int:
    share = money.units(text)
    if share > money.UNITS_PER_ONE:
        raise ValueError(f"a discount of {text}, which is more than the price")
    return share


def _factor(text: str) -> int:
    factor = money.units(text)
    if factor > _FACTOR_LIMIT:
        raise ValueError(f"a factor of {text}, which is beyond 1000")
    return factor


def _free_calls(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number")
    if len(text) > 19 or int(text) > _MOST_CALLS:
        raise ValueError(f"{text} is beyond 2^63 - 1")
    return int(text)


def _written(values: "Ints", write: Callable[[int], str]) -> pa.Array:
    """Write each distinct number once; null where `UNSAID`."""
    encoded = pa.array(values).dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    texts = [None if value == UNSAID else write(value) for value in distinct]
    return pa.array(texts, pa.large_string()).take(encoded.indices)


def _mask(values: pa.Array) -> "Bools":
    mask: Bools = values.to_numpy(zero_copy_only=False)
    return mask
