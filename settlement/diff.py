"""What differs between two statements of one month, and why.

A statement is a settlement, a draft that would become one, or nothing. Inputs, rules, counts
and money are set side by side; every line that differs gets a reason in words. The reasons
are inferred from what can have caused them: where files only came and the rules of counting
are the same, fewer calls can only mean that another row won their request id.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from settlement import frames, inputs, money, tables
from settlement.book import Settlement
from settlement.draft import Draft
from settlement.prices import Item, Version

_LINE = ("calls", "tier", "unit_price", "list_amount", "voucher_calls", "voucher_amount", "amount")
_COUNTING = ("billable_status", "unbilled_interfaces", "deduplicate", "shared", "option")
"""Rules by which calls are counted; the others say what they cost."""


@dataclass(frozen=True)
class Side:
    """One statement of a month, as it is compared; ``version`` is None where there is none."""

    name: str
    inputs: tuple[inputs.Input, ...]
    rows: Mapping[str, int]
    totals: Mapping[str, Any]
    options: Mapping[str, Any]
    program: str
    version: Version | None
    lines: pd.DataFrame
    invoices: pd.DataFrame

    @classmethod
    def of(cls, settlement: Settlement) -> "Side":
        """Read a settlement; raises `BadInput` where a file is not what was published."""
        manifest = settlement.manifest
        return cls(
            f"r{settlement.revision}",
            tuple(manifest["inputs"]),
            manifest["rows"],
            manifest["totals"],
            manifest["options"],
            manifest["program"],
            settlement.price_book.version_for(settlement.month),
            settlement.table(tables.LINES),
            settlement.table(tables.INVOICES),
        )

    @classmethod
    def planned(cls, draft: Draft, program: str) -> "Side":
        """Take what a run of this program would publish."""
        return cls(
            f"r{draft.revision} (planned)",
            tuple(asdict(file) for file in draft.inputs),
            draft.stated.rows,
            draft.totals,
            draft.options,
            program,
            draft.version,
            draft.stated.lines,
            draft.stated.invoices,
        )

    @classmethod
    def nothing(cls) -> "Side":
        """Return the statement before the first one."""
        empty = frames.empty
        return cls("r0", (), {}, {}, {}, "", None, empty(tables.LINES), empty(tables.INVOICES))


@dataclass(frozen=True)
class Changed:
    """A rule that differs, as text; None where a side does not have it."""

    rule: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Diff:
    """What differs between two statements of a month.

    Attributes:
        before: the older statement.
        after: the newer one.
        moves: the input files that came, went, changed or moved.
        rules: the keys of the price book's version in force, and options, that differ.
        lines: account_id, item, and each amount column of `tables.LINES` twice, the older
            one with ``_before`` after its name (0 where there is no such line), and reason.
        invoices: account_id, payable_before, payable; the accounts whose payable differs.
    """

    before: Side
    after: Side
    moves: inputs.Moves
    rules: tuple[Changed, ...]
    lines: pd.DataFrame
    invoices: pd.DataFrame

    def __bool__(self) -> bool:
        """Tell whether anything differs that is charged, or that it is charged from."""
        return bool(self.moves or self.rules or len(self.lines) or len(self.invoices))


def compare(before: Side, after: Side) -> Diff:
    """Compare two statements of one month."""
    moves = inputs.compare(before.inputs, after.inputs)
    rules = tuple(_changed_rules(before, after))
    lines = _paired(before.lines, after.lines, ["account_id", "item"], _LINE)
    lines["reason"] = _reasons(lines, before, after, moves, rules)
    invoices = _paired(before.invoices, after.invoices, ["account_id"], ("payable",))
    return Diff(before, after, moves, rules, lines, invoices)


# ---------------------------------------------------------------- rules


def _changed_rules(before: Side, after: Side) -> Iterator[Changed]:
    """Yield the rules that differ; none where a side is nothing, which has no rules to differ."""
    if before.version is None or after.version is None:
        return
    old, new = (dict(_rules(side)) for side in (before, after))
    for rule in [*old, *(rule for rule in new if rule not in old)]:
        if old.get(rule) != new.get(rule):
            yield Changed(rule, old.get(rule), new.get(rule))


def _rules(side: Side) -> Iterator[tuple[str, str]]:
    """Yield what a version says, defaults included, so that only what differs in effect does."""
    version = side.version
    assert version is not None
    yield "option naive_timestamps", str(side.options.get("naive_timestamps") or "none")
    own = side.options.get("columns") or {}
    yield "option columns", ", ".join(f"{name}={own[name]}" for name in sorted(own)) or "none"
    yield "contracts", str(side.options.get("terms_sha256") or "none")[:12]
    yield "effective_from", str(version.effective_from)
    statuses = version.billable_status
    yield "billable_status", "every one" if statuses is None else ", ".join(sorted(statuses))
    yield "unbilled_interfaces", ", ".join(sorted(version.unbilled_interfaces)) or "none"
    yield "deduplicate", str(version.deduplicate).lower()
    factor = money.text(int(version.freeze.factor * money.UNITS_PER_ONE), 2)
    yield "freeze", f"{factor} × {version.freeze.base}"
    for interface, item in sorted(version.shared.items()):
        yield f"shared {interface}", item
    for each in version.items:
        yield from _item_rules(each)


def _item_rules(item: Item) -> Iterator[tuple[str, str]]:
    yield f"{item.code} name", item.name
    yield f"{item.code} interfaces", ", ".join(sorted(item.interfaces))
    yield f"{item.code} free_calls", f"{item.free_calls:,}"
    yield f"{item.code} mode", item.mode
    yield f"{item.code} tier_basis", item.tier_basis
    for number, tier in enumerate(item.tiers, 1):
        bound = "open" if tier.up_to is None else f"up to {tier.up_to:,}"
        yield f"{item.code} tier {number}", f"{bound} at {money.text(tier.unit_price, 4)}"


# ---------------------------------------------------------------- rows side by side


def _paired(
    before: pd.DataFrame, after: pd.DataFrame, key: list[str], names: tuple[str, ...]
) -> pd.DataFrame:
    """Return the keys whose values differ, with the values before and after, sorted by key."""
    texts = {
        name: pa.concat_arrays([frames.arrow_text(rows[name]) for rows in (before, after)])
        for name in key
    }
    union, first, place = np.unique(_numbers(texts), return_index=True, return_inverse=True)
    old, new = place[: len(before)], place[len(before) :]
    changed = np.zeros(len(union), bool)
    values: dict[str, Any] = {}
    for name in names:
        was, now = np.zeros((2, len(union)), np.int64)
        was[old], now[new] = before[name].to_numpy(), after[name].to_numpy()
        changed |= was != now
        values |= {f"{name}_before": was, name: now}
    rows = np.flatnonzero(changed)
    found = pa.table({name: texts[name].take(pa.array(first[rows])) for name in key})
    rows = rows[pc.sort_indices(found, [(name, "ascending") for name in key]).to_numpy()]
    return pd.DataFrame(
        {name: pd.array(texts[name].take(pa.array(first[rows])), dtype="str") for name in key}
        | {name: column[rows] for name, column in values.items()}
    )


def _numbers(texts: Mapping[str, pa.Array]) -> Any:
    """Return a number per row, the same for rows of the same texts."""
    number: Any = 0
    for column in texts.values():
        coded = column.dictionary_encode()
        number = number * len(coded.dictionary) + coded.indices.to_numpy().astype(np.int64)
    return number


# ---------------------------------------------------------------- why


def _reasons(
    lines: pd.DataFrame,
    before: Side,
    after: Side,
    moves: inputs.Moves,
    rules: tuple[Changed, ...],
) -> Any:
    """Say of each line why it differs: each reason is tested on all lines at once."""
    more, fewer = _why_more(before, after, moves, rules), _why_fewer(before, after, moves, rules)
    now, was = lines["calls"], lines["calls_before"]
    both = (now > 0) & (was > 0)
    priced = lines["item"].isin(_items(rules, "mode", "tier_basis", "tier")) & both
    price = lines["unit_price"] != lines["unit_price_before"]
    tier = lines["tier"] != lines["tier_before"]
    same_calls = now == was
    costs = (lines["list_amount"] != lines["list_amount_before"]) & same_calls
    free = both & ~_same_free_calls(lines)
    in_book = lines["item"].isin(_items(rules, "free_calls"))
    contract = both & ~priced & (costs | (price & ~tier))
    tests = {
        more: now > was,
        fewer: now < was,
        "new line": (was == 0) & (before.version is not None),
        "line gone": now == 0,
        "tier crossed": both & tier & ~same_calls,
        "price changed": priced & (price | tier | costs),
        "free calls changed": free & in_book,
        "contract changed": contract | (free & ~in_book),
    }
    return _joined(tests, len(lines))


def _same_free_calls(lines: pd.DataFrame) -> "pd.Series[bool]":
    """Tell whether both voucher counts can be min(calls, the same free calls)."""
    now, was = lines["voucher_calls"], lines["voucher_calls_before"]
    as_now = np.minimum(lines["calls_before"], now) == was
    as_was = np.minimum(lines["calls"], was) == now
    same: pd.Series[bool] = as_now | as_was
    return same


def _items(rules: tuple[Changed, ...], *keys: str) -> list[str]:
    """Return the items one of whose rules of these names differs."""
    named = (changed.rule.split() for changed in rules)
    return [rule[0] for rule in named if len(rule) > 1 and rule[1] in keys]


def _joined(tests: Mapping[str, "pd.Series[bool]"], rows: int) -> Any:
    """Write each row's reasons; each combination of them is put into words once."""
    code = np.zeros(rows, np.int64)
    for bit, found in enumerate(tests.values()):
        code |= found.to_numpy().astype(np.int64) << bit
    distinct, where = np.unique(code, return_inverse=True)
    words = [
        ", ".join(reason for bit, reason in enumerate(tests) if combination >> bit & 1)
        for combination in distinct
    ]
    texts = pa.array([text or "rounding" for text in words], pa.large_string())
    return pd.array(texts.take(pa.array(where)), dtype="str")


def _why_more(before: Side, after: Side, moves: inputs.Moves, rules: tuple[Changed, ...]) -> str:
    """Say why a line has more calls than before."""
    if before.version is None:
        return "settled"
    if _counts_otherwise(rules):
        return "more calls: rules of counting changed"
    if not (moves.came or moves.changed):
        return _by_program(before, after, "more")
    # The set of requests charged only grows when files come; where it did not, they moved.
    if not (moves.went or moves.changed) and before.rows["billed"] == after.rows["billed"]:
        return "conflict resolved in its favour"
    return "late calls"


def _why_fewer(before: Side, after: Side, moves: inputs.Moves, rules: tuple[Changed, ...]) -> str:
    """Say why a line has fewer calls than before."""
    if _counts_otherwise(rules):
        return "fewer calls: rules of counting changed"
    if moves.went or moves.changed:
        return "fewer calls: files went or changed"
    return "conflict resolved" if moves.came else _by_program(before, after, "fewer")


def _counts_otherwise(rules: tuple[Changed, ...]) -> bool:
    words = (changed.rule.split() for changed in rules)
    return any(rule[0] in _COUNTING or rule[-1] == "interfaces" for rule in words)


def _by_program(before: Side, after: Side, change: str) -> str:
    if before.program != after.program:
        return f"{change} calls: program {before.program} → {after.program}"
    return f"{change} calls from the same files"
