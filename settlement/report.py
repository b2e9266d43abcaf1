"""What a person reads: summaries and tables for a terminal, in plain text.

Text from the log is made safe first, so that no control sequence of an account id reaches a
terminal.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from settlement.terminal import laid

LABELS = {
    "read": "read",
    "billed": "billed",
    "duplicate": "delivered again",
    "conflict": "same id, other call",
    "outside_month": "outside the month",
    "unbilled_interface": "unbilled interface",
    "unbillable_status": "not charged by status",
}
MONEY = {
    "list_amount": ("list amount", "原价"),
    "voucher_amount": ("vouchers", "代金券"),
    "rounding": ("rounding", "舍入"),
    "payable": ("payable", "应付"),
    "unfrozen": ("unfrozen", "解冻"),
    "debited": ("debited", "扣费"),
    "credited": ("credited", "退款"),
    "frozen": ("frozen", "冻结"),
}
POSTED = ("unfrozen", "debited", "credited", "frozen")
"""Totals of what a settlement posted: of a revision only the difference."""


def safe(text: str) -> str:
    """Return a text in which every control, format and private character is spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_text(value: object, encoding: str = "utf-8") -> str:
    """Write a value as JSON in which every such character is escaped, and others stand plainly.

    JSON by itself lets control characters from U+007F on and marks of direction through. Where
    the encoding does not know a character of the value, all that are not ASCII are escaped.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2, default=str)
    if text.replace("\n", "").isprintable():
        return text
    escape = json.encoder.encode_basestring_ascii
    return "".join(c if c.isprintable() or c == "\n" else escape(c)[1:-1] for c in text)


def aligned(rows: Sequence[Sequence[str]], right: Iterable[int] = (), indent: str = "") -> str:
    """Lay rows of cells out in columns, those in ``right`` to the right (see `terminal.laid`)."""
    return "\n".join(laid(rows, right, indent))


def summary(manifest: Mapping[str, Any], currency: str) -> str:
    """Say what a settlement came to: where each row went, and the money.

    What a revision posted is said to be its own, beside what it states of the month.
    """
    counts = [
        (label_of(bucket), f"{count:,}")
        for bucket, count in manifest["rows"].items()
        if count or bucket in {"read", "billed"}
    ]
    totals, revision = manifest["totals"], manifest["revision"]
    by = {name: f" by r{revision}" for name in POSTED if revision > 1}
    money = [("accounts", "账户", f"{totals['accounts']:,}")]
    money += [
        (english + by.get(name, ""), chinese, f"{grouped(totals[name])} {currency}")
        for name, (english, chinese) in MONEY.items()
        if name not in {"rounding", "credited"} or grouped(totals[name]).strip("-0.")
    ]
    return (
        "calls\n"
        + aligned(counts, right=[1], indent="  ")
        + "\nmoney\n"
        + aligned(money, right=[2], indent="  ")
    )


def label_of(bucket: str) -> str:
    """Name a bucket for a person."""
    kind, _, reason = bucket.partition(".")
    return f"{kind}: {reason.replace('_', ' ')}" if reason else LABELS[bucket]


def grouped(amount: str) -> str:
    """Part the thousands of a decimal written as text; at least two decimals, no idle zeros."""
    sign = "-" if amount.startswith("-") else ""
    whole, _, decimals = amount.removeprefix("-").partition(".")
    return f"{sign}{int(whole):,}.{decimals.rstrip('0').ljust(2, '0')}"


def seconds(stages: Mapping[str, float]) -> str:
    """Say how long a run took, and its stages."""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in stages.items())
    return f"{sum(stages.values()):.2f} s ({parts})"
