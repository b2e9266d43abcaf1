"""The price book: dated versions of what is priced, how, and in which tiers.

A price book is TOML, read and checked as a whole: nothing is guessed, an unknown key is an
error that names the nearest right one, and the records below cannot exist invalid. The
newest version that is not later than a month is the whole truth for that month, so an old
month is always settled by the rules of its time.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from settlement import money
from settlement.errors import BadConfig, BadInput, SettlementError
from settlement.money import Currency
from settlement.month import Month, zone_named

Mode = Literal["volume", "graduated"]
TierBasis = Literal["gross", "net"]
FreezeBase = Literal["payable", "list"]

_T = TypeVar("_T")
_MOST_CALLS = 2**63 - 1
_MOST_TIERS = 1000
_FACTOR_LIMIT = 1000
_QUOTED = 10**9
"""Numbers below are shown in quotes where a text is wanted."""


@dataclass(frozen=True)
class Tier:
    """A band of calls, open below and closed above, with its unit price in units (1e-8)."""

    up_to: int | None
    unit_price: int


@dataclass(frozen=True)
class Item:
    """What is priced (计费项): the interfaces that count toward it, and its tiers.

    ``volume``: the month's calls reach one tier and all of them cost its price (阶梯到达).
    ``graduated``: each band of calls costs its own price (阶梯累进). ``tier_basis`` says
    whether free calls count toward reaching a tier (``gross``) or not (``net``).
    """

    code: str
    name: str
    interfaces: tuple[str, ...]
    tiers: tuple[Tier, ...]
    free_calls: int = 0
    mode: Mode = "volume"
    tier_basis: TierBasis = "gross"


@dataclass(frozen=True)
class Freeze:
    """How much is held for the next month: ``factor`` × the bill's ``base``."""

    factor: Fraction
    base: FreezeBase = "payable"


@dataclass(frozen=True)
class Version:
    """The rules in force from a month on.

    ``digest`` is the SHA-256 of the version as written, as canonical JSON.
    """

    effective_from: Month
    items: tuple[Item, ...]
    freeze: Freeze
    billable_status: tuple[str, ...] | None = None
    unbilled_interfaces: tuple[str, ...] = ()
    deduplicate: bool = True
    shared: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    def item(self, code: str) -> Item:
        """Return an item by its code; raises `KeyError`."""
        return next(item for item in self.items if item.code == code)

    def listing(self, interface: str) -> tuple[str, ...]:
        """Return the codes of the items that list an interface."""
        return tuple(item.code for item in self.items if interface in item.interfaces)

    def bearing(self, interface: str, named: str | None = None) -> str | None:
        """Return the item that a call counts toward, or None where the named item is wrong.

        A call that several items list counts once: toward the item named in the log, else
        toward the one that ``shared`` names. Raises `KeyError` for an unlisted interface.
        """
        listing = self.listing(interface)
        if not listing:
            raise KeyError(interface)
        if named:
            return named if named in listing else None
        return listing[0] if len(listing) == 1 else self.shared[interface]

    def bearings(self) -> "Bearings":
        """Return what all calls that can be charged count toward."""
        listing: dict[str, list[str]] = {}
        for item in self.items:
            for interface in item.interfaces:
                listing.setdefault(interface, []).append(item.code)
        named = {
            (interface, code): code or (codes[0] if len(codes) == 1 else self.shared[interface])
            for interface, codes in listing.items()
            for code in (None, *codes)
        }
        pairs = {(interface, item) for (interface, _), item in named.items()}
        in_order = sorted(pairs, key=lambda pair: (pair[0].encode(), pair[1].encode()))
        return Bearings(in_order, named)


class Bearings(NamedTuple):
    """All (interface, item) that a call can count toward, ordered by their bytes.

    ``named`` has the item for each interface and the item named with it in the log, or None.
    """

    pairs: list[tuple[str, str]]
    named: dict[tuple[str, str | None], str]


@dataclass(frozen=True)
class PriceBook:
    """All versions, oldest first, and the bytes they were read from."""

    currency: Currency
    timezone: str
    versions: tuple[Version, ...]
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes, name: str = "price book") -> "PriceBook":
        """Read and check a price book.

        Args:
            raw: the file's bytes, TOML in UTF-8.
            name: what to call it in messages.

        Raises:
            BadInput: it is not a price book; the message names the key and the cure.
        """
        try:
            return _price_book(_Reader(_toml(raw, name), name), raw)
        except RecursionError as error:
            raise BadInput("nested too deep", where=name, cure="write it flat") from error

    @property
    def zone(self) -> ZoneInfo:
        """The billing zone."""
        return zone_named(self.timezone)

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes it was read from."""
        return hashlib.sha256(self.raw).hexdigest()

    def version_for(self, month: Month) -> Version:
        """Return the newest version not later than a month; raises `BadInput` before the first."""
        found = [version for version in self.versions if version.effective_from <= month]
        if not found:
            raise BadInput(
                f"no version is in force: the first begins with {self.versions[0].effective_from}",
                where=f"price book, month {month}",
                cure="add a [[version]] that is effective_from that month or earlier",
            )
        return found[-1]


def canonical_json(value: object) -> bytes:
    """Write JSON in the one form that digests are taken of: sorted, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _toml(raw: bytes, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput("not UTF-8", where=name, cure="save it as UTF-8") from error
    except ValueError as error:  # not only TOMLDecodeError: a number of thousands of digits too
        raise BadInput(f"not TOML: {error}", where=name, cure="mend that line") from error


class _Reader:
    """One TOML table and where it stands: takes keys with their types, refuses the rest."""

    def __init__(self, table: object, where: str) -> None:
        self.where = where
        if not isinstance(table, dict):
            raise self.bad("not a table", "write it as { key = value, … }")
        self.table: dict[str, Any] = table

    def bad(self, what: str, cure: str, key: str = "") -> BadInput:
        return BadInput(what, where=f"{self.where}{', ' if key else ''}{key}", cure=cure)

    def only(self, *keys: str) -> None:
        """Refuse keys other than these, naming the nearest right one."""
        for key in self.table:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1, 0.5)
                cure = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(keys)}"
                raise self.bad(f"unknown key {key!r}", cure)

    def text(self, key: str, default: str | None = None) -> str:
        hint = 'a non-empty text in quotes, such as "x"'
        number: Any = self.table.get(key)
        if type(number) in (int, float) and 0 <= number < _QUOTED:
            hint = f'it in quotes: "{Decimal(repr(number)):f}"'
        return self._take(key, default, str, hint, bool)

    def number(self, key: str, default: int | None, least: int) -> int:
        hint = f"a whole number from {least} to 2^63 - 1"
        return self._take(key, default, int, hint, lambda n: least <= n <= _MOST_CALLS)

    def flag(self, key: str, *, default: bool) -> bool:
        return self._take(key, default, bool, "true or false")

    def choice(self, key: str, default: str, *choices: str) -> Any:
        hint = " or ".join(repr(choice) for choice in choices)
        return self._take(key, default, str, hint, lambda value: value in choices)

    def decimal(self, key: str) -> int:
        """A plain decimal string, as units."""
        written = self.text(key)
        try:
            return money.units(written)
        except ValueError as error:
            raise self.bad(str(error), "write a plain decimal in quotes", key) from error

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of different, non-empty texts."""
        hint = 'a list of non-empty texts, such as ["a", "b"]'
        listed = self._take(key, None if default is None else list(default), list, hint)
        if not all(isinstance(value, str) and value for value in listed):
            raise self.bad("not a list of texts", f"write {hint}", key)
        if len(set(listed)) < len(listed):
            raise self.bad("says the same twice", "name each once", key)
        return tuple(listed)

    def table_at(self, key: str, default: dict[str, Any] | None) -> "_Reader":
        return _Reader(self._take(key, default, dict, "{ … }"), f"{self.where}, {key}")

    def tables(self, key: str) -> "list[_Reader]":
        listed = self._take(key, None, list, "a list of tables", bool)
        return [_Reader(table, f"{self.where}, {key} {n}") for n, table in enumerate(listed, 1)]

    def _take(
        self,
        key: str,
        default: Any,
        kind: type[_T],
        hint: str,
        valid: Callable[[_T], object] = lambda _: True,
    ) -> _T:
        value = self.table.get(key, default)
        if value is None:
            raise self.bad(f"no {key!r}", f"add {key} = … ({hint})")
        if type(value) is not kind or not valid(value):
            raise self.bad(f"{_shown(value)} will not do", f"write {hint}", key)
        return value


def _shown(value: object) -> str:
    try:
        written = repr(value)
    except ValueError:  # Python refuses to write a number of thousands of digits
        return "so large a number"
    return written if len(written) <= 60 else written[:57] + "…"


def _price_book(reader: _Reader, raw: bytes) -> PriceBook:
    reader.only("currency", "timezone", "version")
    try:
        book_currency = money.currency(reader.text("currency"))
        zone_named(reader.text("timezone"))
    except BadConfig as error:
        raise reader.bad(error.what, error.cure, f"timezone {error.where}") from error
    except SettlementError as error:
        if error.where.startswith("currency"):
            raise reader.bad(error.what, error.cure, error.where) from error
        raise
    versions = sorted(map(_version, reader.tables("version")), key=lambda v: v.effective_from)
    for older, newer in pairwise(versions):
        if older.effective_from == newer.effective_from:
            raise reader.bad(
                f"two versions are effective_from {newer.effective_from}", "keep one of them"
            )
    return PriceBook(book_currency, reader.text("timezone"), tuple(versions), raw)


def _version(reader: _Reader) -> Version:
    reader.only(
        "effective_from",
        "billable_status",
        "unbilled_interfaces",
        "deduplicate",
        "freeze",
        "shared",
        "item",
    )
    try:
        effective_from = Month.parse(reader.text("effective_from"))
    except SettlementError as error:
        if isinstance(error, BadInput):
            raise
        raise reader.bad(error.what, error.cure, f"effective_from {error.where}") from error
    reader.where = f"{reader.where.rpartition(',')[0]}, version {effective_from}"
    billable = reader.texts("billable_status") if "billable_status" in reader.table else None
    if billable == ():
        raise reader.bad(
            "empty, so nothing would be charged",
            "name the codes that are charged, or leave the key out to charge every call",
            "billable_status",
        )
    items = tuple(map(_item, reader.tables("item")))
    shared = reader.table_at("shared", {})
    version = Version(
        effective_from,
        items,
        _freeze(reader.table_at("freeze", None)),
        billable,
        reader.texts("unbilled_interfaces", ()),
        reader.flag("deduplicate", default=True),
        MappingProxyType({interface: shared.text(interface) for interface in shared.table}),
        hashlib.sha256(canonical_json(reader.table)).hexdigest(),
    )
    _check_interfaces(version, reader)
    return version


def _freeze(reader: _Reader) -> Freeze:
    reader.only("factor", "base")
    factor = Fraction(reader.decimal("factor"), money.UNITS_PER_ONE)
    if factor > _FACTOR_LIMIT:
        raise reader.bad(f"beyond {_FACTOR_LIMIT}", 'write it as a factor: "1.20"', "factor")
    return Freeze(factor, reader.choice("base", "payable", "payable", "list"))


def _item(reader: _Reader) -> Item:
    reader.only("code", "name", "interfaces", "free_calls", "mode", "tier_basis", "tiers")
    code = reader.text("code")
    reader.where = f"{reader.where.rpartition(',')[0]}, item {code}"
    interfaces = reader.texts("interfaces")
    if not interfaces:
        raise reader.bad("lists no interface", "name at least one", "interfaces")
    if reader.table.get("mode") == "graduated" and "tier_basis" in reader.table:
        raise reader.bad("means nothing in graduated mode", "leave tier_basis out", "tier_basis")
    return Item(
        code,
        reader.text("name"),
        interfaces,
        _tiers(reader),
        reader.number("free_calls", 0, 0),
        reader.choice("mode", "volume", "volume", "graduated"),
        reader.choice("tier_basis", "gross", "gross", "net"),
    )


def _tiers(item: _Reader) -> tuple[Tier, ...]:
    """Read tiers: bounds ascending from 1 on, the last one open."""
    readers = item.tables("tiers")
    if len(readers) > _MOST_TIERS:
        raise item.bad(f"more than {_MOST_TIERS} tiers", "join some", "tiers")
    tiers: list[Tier] = []
    for position, reader in enumerate(readers, 1):
        reader.only("up_to", "unit_price")
        price = reader.decimal("unit_price")
        if price >= money.PRICE_LIMIT:
            raise reader.bad("10000 or more", "unit prices lie below 10000", "unit_price")
        if position == len(readers):
            if "up_to" in reader.table:
                raise reader.bad("the last tier is bounded", "leave its up_to out", "up_to")
            tiers.append(Tier(None, price))
            continue
        up_to = reader.number("up_to", None, 1)
        if tiers and up_to <= (tiers[-1].up_to or 0):
            raise reader.bad(f"{up_to} is not above the tier before", "let tiers ascend", "up_to")
        tiers.append(Tier(up_to, price))
    return tuple(tiers)


def _check_interfaces(version: Version, reader: _Reader) -> None:
    """Check what the items of a version say together."""
    _refuse_twice([item.code for item in version.items], "item code", reader)
    listed = {interface for item in version.items for interface in item.interfaces}
    for interface in version.unbilled_interfaces:
        if interface in listed:
            raise reader.bad(
                f"{interface!r} is both listed by an item and unbilled",
                "take it out of one of them",
                "unbilled_interfaces",
            )
    for interface in sorted(listed):
        listing = version.listing(interface)
        if len(listing) > 1 and interface not in version.shared:
            raise reader.bad(
                f"{interface!r} is listed by {', '.join(listing)}, and shared names none of them",
                f'add {interface} = "{listing[0]}" (or another of them)',
                "shared",
            )
    for interface, code in version.shared.items():
        listing = version.listing(interface)
        if code not in listing:
            cure = f"name one of {', '.join(listing)}" if listing else "take it out"
            raise reader.bad(f"{_shown(code)} does not list {interface!r}", cure, "shared")


def _refuse_twice(values: Sequence[str], what: str, reader: _Reader) -> None:
    for value in values:
        if values.count(value) > 1:
            raise reader.bad(f"two with {what} {value!r}", "keep one of them")


@dataclass(frozen=True)
class Fall:
    """A bound at which an item's bill falls.

    A month of ``bound`` calls costs ``before`` units; one of ``bound + 1`` costs ``after``,
    which is less, and the bill stays below ``before`` for months of up to ``until`` calls.
    """

    item: str
    bound: int
    before: int
    after: int
    until: int


def falls(item: Item) -> Iterator[Fall]:
    """Yield every bound at which the bill (list − voucher) of one more call is lower."""
    for tier in item.tiers[:-1]:
        assert tier.up_to is not None
        bound = tier.up_to + (item.free_calls if item.tier_basis == "net" else 0)
        before, after = amount_due(item, bound), amount_due(item, bound + 1)
        if after < before:
            yield Fall(item.code, bound, before, after, _below_until(item, bound, before))


def _below_until(item: Item, bound: int, before: int) -> int:
    """Return the last count after ``bound`` up to which the bill stays below ``before``.

    Within a tier the bill grows with every call (or stays, at price 0), so the first tier
    whose end is not below holds the answer, found by division. A bill that never comes back
    up gives the largest count there is.
    """
    shift = item.free_calls if item.tier_basis == "net" else 0
    for tier in item.tiers:
        end = _MOST_CALLS if tier.up_to is None else tier.up_to + shift
        if end <= bound or amount_due(item, end) < before:
            continue
        low, high = bound + 1, end
        while low < high:
            middle = (low + high) // 2
            if amount_due(item, middle) >= before:
                high = middle
            else:
                low = middle + 1
        return low - 1
    return _MOST_CALLS


def amount_due(item: Item, calls: int) -> int:
    """Price one month of one item in plain integers, in units: list amount − voucher.

    This is the lint's own arithmetic, for single counts; `rating` prices whole tables.
    """
    if item.mode == "graduated":
        return graduated_cost(item, calls) - graduated_cost(item, min(item.free_calls, calls))
    basis = calls if item.tier_basis == "gross" else max(calls - item.free_calls, 0)
    price = reached(item, basis).unit_price
    return price * (calls - min(item.free_calls, calls))


def reached(item: Item, basis: int) -> Tier:
    """Return the tier that a count reaches: bounds are open below and closed above."""
    return next(tier for tier in item.tiers if tier.up_to is None or basis <= tier.up_to)


def graduated_cost(item: Item, calls: int) -> int:
    """Return what the first ``calls`` calls cost, each band at its own price, in units."""
    cost, below = 0, 0
    for tier in item.tiers:
        upper = calls if tier.up_to is None else min(calls, tier.up_to)
        cost += max(upper - below, 0) * tier.unit_price
        below = max(below, upper)
    return cost
