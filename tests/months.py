"""Random price books and random logs of three months in a row, for hypothesis.

`histories()` draws a whole story: prices, the calls as facts, and a layout of those facts as files.
Facts hold every cell as text (ids as bytes); a layout gives each file its own physical types and
the calls their place in it. The same facts may be laid out twice (`layouts(facts)`): every figure
but the rejects' places must be the same. `write_log` writes a layout as Parquet.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.reference import SECOND, Call, following, instant, start

TICKS = {"s": SECOND, "ms": 10**6, "us": 10**3, "ns": 1}  # in nanoseconds

# Where clocks do something at a month's edge: no such midnight, midnight twice, an hour later.
PLACES = (
    ("Asia/Shanghai", "2025-12"),
    ("America/New_York", "2025-10"),
    ("Asia/Kolkata", "2024-01"),
    ("America/Asuncion", "2023-09"),
    ("America/Havana", "2020-10"),
    ("America/St_Johns", "2009-10"),
    ("Africa/Cairo", "2024-09"),
    ("Pacific/Kiritimati", "2026-01"),
)

CODES = ("face-detection", "B", "b", "a-1")
INTERFACES = ("DetectFace", "CreateFace", "CompareFace", "人脸检索", "detectface")
UNIT_PRICES = (
    "0",
    "0.0005",
    "0.0032",
    "0.005",
    "0.125",
    "1",
    "2.50",
    "0.00000001",
    "9999.99999999",
)


# ---------------------------------------------------------------- price books


@dataclass(frozen=True)
class Prices:
    """A price book as its TOML text, and the three months to settle by it."""

    text: str
    months: tuple[str, str, str]

    @property
    def parsed(self) -> dict[str, Any]:
        """The price book as `tomllib` reads it."""
        return tomllib.loads(self.text)

    @property
    def timezone(self) -> str:
        """The billing zone."""
        return str(self.parsed["timezone"])

    @property
    def digits(self) -> int:
        """Minor digits of the currency."""
        return {"CNY": 2, "JPY": 0}[self.parsed["currency"]]


@st.composite
def price_books(draw: st.DrawFn) -> Prices:
    """One to three versions of two to four items, in any mode, in a zone with or without DST."""
    zone, first = draw(st.sampled_from(PLACES))
    months = (first, following(first), following(following(first)))
    currency = draw(st.sampled_from(["CNY", "CNY", "JPY"]))
    later = draw(st.lists(st.sampled_from(months[1:]), max_size=2, unique=True))
    since = [draw(st.sampled_from(["2000-01", first])), *sorted(later)]
    head = f'currency = "{currency}"\ntimezone = "{zone}"\n'
    return Prices("\n".join([head, *(draw(versions(month)) for month in since)]), months)


@st.composite
def versions(draw: st.DrawFn, month: str) -> str:
    """One `[[version]]` with its items."""
    codes = draw(st.lists(st.sampled_from(CODES), min_size=2, max_size=4, unique=True))
    some = st.lists(st.sampled_from(INTERFACES), min_size=1, max_size=3, unique=True)
    listing = {code: draw(some) for code in codes}
    lines = ["[[version]]", f'effective_from = "{month}"']
    statuses = draw(st.sampled_from([None, ["0"], ["0"], ["200", "0"], ["ok", "0"]]))
    if statuses:
        lines.append(f"billable_status = {quoted(statuses)}")
    listed = {interface for names in listing.values() for interface in names}
    free = ["HealthCheck", *(name for name in INTERFACES if name not in listed)]
    if unbilled := draw(st.sampled_from([[], free[:1], free[:2]])):
        lines.append(f"unbilled_interfaces = {quoted(unbilled)}")
    if draw(st.sampled_from([True, True, True, False])) is False:
        lines.append("deduplicate = false")
    factor, base = draw(st.sampled_from(["1.20", "1.2", "1", "0.5", "1.005"])), draw(BASES)
    lines.append(f'freeze = {{ factor = "{factor}"{base} }}')
    shared = {}
    for interface in sorted(listed):
        bearers = [code for code in codes if interface in listing[code]]
        if len(bearers) > 1:
            shared[interface] = draw(st.sampled_from(bearers))
    if shared:
        pairs = ", ".join(f"{quoted(name)} = {quoted(code)}" for name, code in shared.items())
        lines.append(f"shared = {{ {pairs} }}")
    return "\n".join([*lines, *(draw(items(code, listing[code])) for code in codes)]) + "\n"


BASES = st.sampled_from(["", "", ', base = "payable"', ', base = "list"'])


@st.composite
def items(draw: st.DrawFn, code: str, interfaces: Sequence[str]) -> str:
    """One `[[version.item]]`, its bounds low enough for a few calls to pass them."""
    lines = ["[[version.item]]", f"code = {quoted(code)}", f"name = {quoted('人脸 ' + code)}"]
    lines.append(f"interfaces = {quoted(interfaces)}")
    if free := draw(st.sampled_from([None, 1, 2, 3, 0, 10])):
        lines.append(f"free_calls = {free}")
    modes = ["", 'mode = "volume"', 'tier_basis = "gross"', *['tier_basis = "net"'] * 2]
    modes += ['mode = "graduated"'] * 2
    lines += filter(None, [draw(st.sampled_from(modes))])
    bounds = sorted(draw(st.lists(st.integers(1, 12), max_size=3, unique=True)))
    prices = [draw(st.sampled_from(UNIT_PRICES)) for _ in range(len(bounds) + 1)]
    tiers = [
        f'{{ up_to = {bound}, unit_price = "{price}" }}'
        for bound, price in zip(bounds, prices, strict=False)
    ]
    tiers.append(f'{{ unit_price = "{prices[-1]}" }}')
    return "\n".join([*lines, f"tiers = [{', '.join(tiers)}]"])


def quoted(value: object) -> str:
    """Text, or a list of text, as TOML (whose basic strings are JSON's)."""
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- calls as facts

# Account ids that whole programs have confused: leading zeros, other digits, other composition.
ACCOUNTS = (
    ("7", "12", "9223372036854775807", "0", "-5"),
    ("7", "12", "65536"),
    ("7", "007", "7.0", " 7", "٧", "1e3"),
    ("账户", "é", "e\u0301", "\U0001d11e", "\uffee", "NaN", "null", "=1+1"),
    ("alpha", "beta"),
)
# What spoils a call: cells that are missing, or say what no price book knows.
FAULTS: tuple[tuple[str, Any], ...] = (
    ("instant", None),
    ("request_id", None),
    ("request_id", b""),
    ("account_id", None),
    ("account_id", ""),
    ("interface", None),
    ("interface", ""),
    ("interface", "Nope"),
    ("interface", "HealthCheck"),
    ("item", "nothing"),
    ("item", ""),
    ("status_code", None),
    ("status_code", ""),
    ("status_code", "00"),
    ("status_code", "500"),
    ("status_code", "-1"),
)
# The columns in which a row that is sent again may follow another call; "" is a plain duplicate,
# "tick" is the smallest step later.
CONTRADICTIONS = (
    "",
    "",
    "instant",
    "account_id",
    "interface item",
    "tick account_id",
    "instant account_id interface item",
)
FAR = ("1700-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2262-01-01T00:00:00Z")
# The first and last second that a date can name, and milliseconds taken for seconds.
FARTHER = (instant("0001-01-01T00:00:00Z"), instant("9999-12-31T23:59:59Z"), 10**12 * SECOND)


def ids(kind: str) -> list[bytes]:
    """Request ids: `text` of any width, `uuid` (16 bytes), `hex` (36 characters), `both`."""
    uuids = [hashlib.md5(bytes([n])).digest() for n in range(60)]
    hexes = [str(UUID(bytes=uuid)).encode() for uuid in uuids]
    odd = [b"a", b"a\0", b"\0", "ü".encode(), b"x" * 64, b"x" * 64 + b"y", b"x" * 65, b"X"]
    texts = [f"r{n}".encode() for n in range(52)]
    both = [one for pair in zip(uuids, hexes, strict=True) for one in pair]
    return {"text": odd + texts, "uuid": uuids, "hex": hexes, "both": both[:60]}[kind]


def instants(prices: Prices, unit: str) -> list[int]:
    """Instants in multiples of the unit, most of them inside, many of them at a month's edge."""
    tick = TICKS[unit]
    edges = [start(month, prices.timezone) for month in prices.months]
    edges.append(start(following(prices.months[-1]), prices.timezone))
    day = 86_400 * SECOND
    inside = [edge + 9 * day + n * tick for edge in edges[:3] for n in (0, 1, 2, SECOND)]
    near = [edge + n for edge in edges for n in (0, -tick, tick, -SECOND, -max(tick, 1000))]
    far = [instant(text) for text in FAR] + ([] if unit == "ns" else list(FARTHER))
    return inside * 3 + near + far


@st.composite
def facts(draw: st.DrawFn, prices: Prices) -> list[Call]:
    """Up to 60 calls of the three months and around, in bursts that reach the upper tiers.

    A third of them at most are sent again: as they were, or contradicting, or spoilt.
    """
    listed = [item for version in prices.parsed["version"] for item in version["item"]]
    known = sorted({name for item in listed for name in item["interfaces"]})
    codes = sorted({item["code"] for item in listed})
    pool = ids(draw(st.sampled_from(["text", "uuid", "hex", "both"])))
    unit = draw(st.sampled_from(["us", "s", "ms", "ns"]))
    moments = draw(st.lists(st.sampled_from(instants(prices, unit)), min_size=2, max_size=6))
    calls = st.builds(
        Call,
        request_id=st.none(),
        account_id=st.sampled_from(draw(st.sampled_from(ACCOUNTS))),
        interface=st.sampled_from(known),
        instant=st.sampled_from(moments),
        status_code=st.sampled_from(draw(st.sampled_from([["0"], ["0", "0", "0", "200", "ok"]]))),
        item=st.sampled_from([None] * 12 + codes),
    )
    bursts = st.tuples(calls, st.sampled_from([1, 1, 2, 4, 7, 14]))
    sent = [
        call
        for call, times in draw(st.lists(bursts, min_size=draw(st.integers(0, 8)), max_size=12))
        for _ in range(times)
    ]
    first = [replace(call, request_id=one) for call, one in zip(sent[:40], pool, strict=False)]
    if not first:
        return []
    which = st.integers(0, len(first) - 1)
    changes = st.one_of(st.tuples(st.sampled_from(CONTRADICTIONS), which), st.sampled_from(FAULTS))
    again = draw(st.lists(st.tuples(which, changes), min_size=len(first) // 4, max_size=20))
    for one, (columns, value) in again:
        cells = vars(first[value]) if isinstance(value, int) else {columns: value}  # a fault
        changed = {name: cells[name] for name in columns.split() if name in cells}
        at = first[one].instant
        if "tick" in columns and at is not None:
            changed["instant"] = at + TICKS[unit]
        first.append(replace(first[one], **changed))
    return first


# ---------------------------------------------------------------- facts as files


@dataclass(frozen=True)
class FileForm:
    """One file: its name under the log, its columns and their types, and how it is written."""

    name: str
    schema: pa.Schema
    options: dict[str, Any]  # of `pyarrow.parquet.write_table`


@dataclass(frozen=True)
class Log:
    """Calls with their places, the files that hold them, and files that are none of the log's."""

    calls: list[Call]
    files: tuple[FileForm, ...]
    decoys: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """Prices, what happened, and the log that tells it."""

    prices: Prices
    facts: list[Call]
    log: Log


FOLDERS = ("", "day=03/", "日志/a b/", "x/y/z/", "account_id=9/", "2026/01/")
DECOYS = (
    "_SUCCESS",
    "_temporary/0/part-0.parquet",
    ".spool/part.parquet",
    ".part.parquet",
    "a.txt",
)
ZONES = ("UTC", "Asia/Shanghai", "America/New_York", "+05:30")
TEXTS = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
)
BINARIES = (
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.binary()),
)
WHOLE = {
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int16(): (-(2**15), 2**15 - 1),
    pa.uint64(): (0, 2**64 - 1),
}


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A price book, calls of its three months, and their log."""
    prices = draw(price_books())
    happened = draw(facts(prices))
    read = any("billable_status" in version for version in prices.parsed["version"])
    return History(prices, happened, draw(layouts(happened, status_read=read)))


@st.composite
def layouts(draw: st.DrawFn, happened: Sequence[Call], *, status_read: bool = True) -> Log:
    """The facts dealt to one to five files; without `status_read`, that column may be missing."""
    folders = draw(st.lists(st.sampled_from(FOLDERS), min_size=1, max_size=5))
    dealt = st.lists(st.integers(0, len(folders) - 1), min_size=len(happened))
    places = draw(dealt.map(lambda deal: deal[: len(happened)]))
    calls: list[Call] = []
    files = []
    for number, folder in enumerate(folders):
        own = [call for call, place in zip(happened, places, strict=True) if place == number]
        if draw(st.booleans()):
            own.reverse()
        name = f"{folder}part-{number}.parquet"
        form, held = draw(file_forms(name, own, status_read=status_read))
        files.append(form)
        calls += held
    decoys = draw(st.lists(st.sampled_from(DECOYS), max_size=2, unique=True))
    return Log(calls, tuple(files), tuple(decoys))


@st.composite
def file_forms(
    draw: st.DrawFn, name: str, own: Sequence[Call], *, status_read: bool
) -> tuple[FileForm, list[Call]]:
    """A physical form that can hold these calls, and the calls as it holds them."""
    columns = {
        "request_id": draw(st.sampled_from(id_types(own))),
        "account_id": draw(st.sampled_from(number_types(call.account_id for call in own))),
        "interface": draw(st.sampled_from(TEXTS)),
        "timestamp": draw(st.sampled_from(timestamp_types(own))),
        "status_code": draw(st.sampled_from(number_types(call.status_code for call in own))),
        "item": draw(st.sampled_from(TEXTS)),
    }
    if not any(call.item is not None for call in own) and draw(st.booleans()):
        del columns["item"]
    if not status_read and draw(st.booleans()):
        del columns["status_code"]
    if draw(st.booleans()):
        columns["latency_ms"] = pa.float32()  # a column that is nobody's business
    order = draw(st.permutations(list(columns)))
    options = {
        "row_group_size": draw(st.sampled_from([1000, 1, 2, 5])),
        "compression": draw(st.sampled_from(["snappy", "zstd", "none"])),
        "use_dictionary": draw(st.booleans()),
        "write_statistics": draw(st.sampled_from([True, True, False])),
        "store_schema": draw(st.sampled_from([True, True, False])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
    }
    held = [as_held(call, name, row, columns) for row, call in enumerate(own)]
    return FileForm(name, pa.schema([(key, columns[key]) for key in order]), options), held


def id_types(own: Sequence[Call]) -> list[Any]:
    """Types that can hold these ids; an empty id is only written as text."""
    found = [call.request_id for call in own if isinstance(call.request_id, bytes)]
    types: list[Any] = []
    if all(is_text(cell) for cell in found):
        types += TEXTS
    if b"" not in found or not types:
        types += BINARIES
        widths = {len(cell) for cell in found}
        types += [pa.binary(width) for width in widths if len(widths) == 1] * 3
    return types


def number_types(cells: Iterable[str | int | None]) -> list[Any]:
    """Text, and integers where every cell is the decimal text of one."""
    found = [cell for cell in cells if cell is not None]
    if not all(str(cell).removeprefix("-").isascii() for cell in found):
        return list(TEXTS)
    if not all(str(cell).removeprefix("-").isdigit() for cell in found):
        return list(TEXTS)
    if not all(str(int(cell)) == cell for cell in found):
        return list(TEXTS)
    whole = [t for t, (low, high) in WHOLE.items() if all(low <= int(c) <= high for c in found)]
    return [*whole, *TEXTS]


def timestamp_types(own: Sequence[Call]) -> list[Any]:
    """Timestamps of every unit that holds these instants exactly, in several zones."""
    found = [call.instant for call in own if call.instant is not None]
    return [
        pa.timestamp(unit, zone)
        for unit, tick in TICKS.items()
        for zone in ZONES
        if all(at % tick == 0 and -(2**63) < at // tick < 2**63 for at in found)
    ]


def is_text(cell: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def as_held(call: Call, name: str, row: int, columns: dict[str, Any]) -> Call:
    """The call with its cells as columns of these types hold them, and its place."""

    def cell(column: str, value: Any) -> Any:
        kind = columns.get(column)
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
        if value is None or kind is None:
            return None
        if pa.types.is_integer(kind):
            return int(value)
        if column == "request_id" and kind not in TEXTS:
            return value or None  # an empty id in a file of other bytes: not given
        return value.decode() if isinstance(value, bytes) else value

    return replace(
        call,
        request_id=cell("request_id", call.request_id),
        account_id=cell("account_id", call.account_id),
        status_code=cell("status_code", call.status_code),
        file=name,
        row=row,
    )


def write_log(folder: Path, calls: Sequence[Call], log: Log) -> None:
    """Write the calls of a layout under the folder, one Parquet file per form, and the decoys."""
    for form in log.files:
        own = [call for call in calls if call.file == form.name]
        assert [call.row for call in own] == list(range(len(own)))
        arrays = [column(own, part.name, part.type) for part in form.schema]
        path = folder / form.name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_arrays(arrays, schema=form.schema), path, **form.options)
    for name in log.decoys:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not a Parquet file")


def column(own: Sequence[Call], name: str, kind: Any) -> Any:
    """One column of a file as an Arrow array."""
    if name == "latency_ms":
        return pa.array([float(call.row) for call in own], kind)
    if name == "timestamp":
        tick = TICKS[kind.unit]
        ticks = [None if call.instant is None else call.instant // tick for call in own]
        return pa.array(ticks, pa.int64()).cast(kind)
    return pa.array([getattr(call, name) for call in own], kind)
