"""Showing the price book: tiers, free calls, and the bounds at which a bill falls."""

from typing import TYPE_CHECKING, Any

from settlement import money
from settlement.month import Month
from settlement.prices import Fall, Item, PriceBook, Version, falls
from settlement.report import aligned, safe

if TYPE_CHECKING:
    from settlement.contracts import Contracts

_FOREVER = 2**63 - 1


def described(book: PriceBook) -> dict[str, Any]:
    """Return a price book as JSON values, money as text: what `settle prices --json` prints."""
    return {
        "currency": book.currency.code,
        "timezone": book.timezone,
        "prices_sha256": book.digest,
        "versions": [_version_described(version) for version in book.versions],
    }


def _version_described(version: Version) -> dict[str, Any]:
    return {
        "effective_from": str(version.effective_from),
        "rules_sha256": version.digest,
        "billable_status": list(version.billable_status) if version.billable_status else None,
        "unbilled_interfaces": list(version.unbilled_interfaces),
        "deduplicate": version.deduplicate,
        "freeze": {"factor": _factor(version), "base": version.freeze.base},
        "shared": dict(version.shared),
        "items": [_item_described(item) for item in version.items],
    }


def _item_described(item: Item) -> dict[str, Any]:
    return {
        "code": item.code,
        "name": item.name,
        "interfaces": list(item.interfaces),
        "free_calls": item.free_calls,
        "mode": item.mode,
        "tier_basis": item.tier_basis if item.mode == "volume" else None,
        "tiers": [
            {"up_to": tier.up_to, "unit_price": money.text(tier.unit_price, 4)}
            for tier in item.tiers
        ],
        "falls": [
            {
                "bound": fall.bound,
                "from_calls": fall.bound + 1,
                "until_calls": None if fall.until >= _FOREVER else fall.until,
                "before": money.text(fall.before, 2),
                "after": money.text(fall.after, 2),
            }
            for fall in falls(item)
        ],
    }


def contracts_described(contracts: "Contracts", month: Month) -> dict[str, Any]:
    """Return what a contracts file holds; raises `BadInput` where it is wrong."""
    terms = contracts.in_force(month)
    rows = contracts.rows.columns
    return {
        "file": contracts.name,
        "contracts_sha256": contracts.digest,
        "rows": len(rows),
        "accounts": int(rows["account_id"].nunique()),
        "month": str(month),
        "in_force": len(terms.rows),
        "terms_sha256": terms.digest,
    }


def shown(book: PriceBook) -> str:
    """Return a price book for a person: one table of tiers a version, then what to know."""
    parts = [f"price book in {book.currency.code}, months of {book.timezone}"]
    for version in book.versions:
        parts += ["", *_version_shown(version)]
    return "\n".join(parts)


def _version_shown(version: Version) -> list[str]:
    status = ", ".join(version.billable_status) if version.billable_status else "any"
    once = "once a request_id" if version.deduplicate else "every row, request_id is not read"
    rules = f"charged are calls of status {safe(status)}, {once}"
    held = f"held are {_factor(version)} × {version.freeze.base}"
    parts = [
        f"from {version.effective_from}: {rules}; {held}",
        aligned(_tier_rows(version), right=[3, 4, 5], indent="  "),
        "interfaces that count toward each item",
        aligned(_interface_rows(version), indent="  "),
    ]
    if version.unbilled_interfaces:
        parts.append(f"cost nothing: {safe(', '.join(version.unbilled_interfaces))}")
    drops = [(item, fall) for item in version.items for fall in falls(item)]
    if drops:
        parts.append("a bill falls where one more call reaches a cheaper tier")
        heads = ("item", "from calls", "bill falls to", "from", "and stays below until calls")
        rows = [heads, *(_fall_row(item, fall) for item, fall in drops)]
        parts.append(aligned(rows, right=[1, 2, 3, 4], indent="  "))
    else:
        parts.append("no bound at which a bill falls")
    return parts


def _tier_rows(version: Version) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("item", "计费项", "mode", "free calls", "calls up to", "unit price")
    ]
    for item in version.items:
        mode = item.mode if item.tier_basis == "gross" else f"{item.mode}, net"
        for position, tier in enumerate(item.tiers):
            first = (safe(item.code), safe(item.name), mode, f"{item.free_calls:,}")
            up_to = "and more" if tier.up_to is None else f"{tier.up_to:,}"
            price = money.text(tier.unit_price, 4)
            rows.append(
                ((*first, up_to, price)) if not position else ("", "", "", "", up_to, price)
            )
    return rows


def _interface_rows(version: Version) -> list[tuple[str, str]]:
    return [
        (
            safe(item.code),
            ", ".join(
                safe(name) if len(version.listing(name)) == 1 else _shared(version, item, name)
                for name in item.interfaces
            ),
        )
        for item in version.items
    ]


def _shared(version: Version, item: Item, interface: str) -> str:
    """Name an interface that several items list, and when it counts toward this one."""
    own = version.shared[interface] == item.code
    return f"{safe(interface)} ({'unless the log names another' if own else 'if the log says so'})"


def _fall_row(item: Item, fall: Fall) -> tuple[str, ...]:
    until = "ever after" if fall.until >= _FOREVER else f"{fall.until:,}"
    return (
        f"{safe(item.code)}",
        f"{fall.bound + 1:,}",
        money.grouped(fall.after),
        money.grouped(fall.before),
        until,
    )


def _factor(version: Version) -> str:
    return money.text(int(version.freeze.factor * money.UNITS_PER_ONE), 2)
