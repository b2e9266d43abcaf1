"""What any engine must say of a call log: the definition that an author of one starts from.

An engine is a function like `settlement.usage.count`: a log, a month and the rules in force go
in; usage, the number of rows in every bucket, the rejected rows, the files that had a part and
the number of names skipped come out, or the refusal of one file. `CASES` are small logs with
what must be said of them, written by hand; `REFUSALS` are logs that must be refused; `drawn`
makes logs with every fault and every physical form at once, which are held to the naive
`tests.reference`. `conforms` and `refuses` judge. `tests/test_engines.py` runs all of it for each
engine there is.
"""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from settlement import frames, tables
from settlement.columns import mapping
from settlement.errors import BadInput, MissingInput, SettlementError
from settlement.month import Month, Period
from settlement.prices import PriceBook, Version
from settlement.scan.finding import find
from settlement.scan.logfiles import CallLog
from settlement.tables import ROWS
from settlement.usage import Counted
from tests import months, reference
from tests.logs import PERIOD, PRICES, SCHEMA, START, VERSION, Row, call, table, version, write
from tests.small_logs import not_utf8

END = PERIOD.end * 10**6 - START
"""The first instant after the month, in microseconds since it began."""
BYTES = pa.binary()
Files = Mapping[str, Sequence[Row] | pa.Table]


class Engine(Protocol):
    """What counts."""

    def __call__(
        self,
        log: CallLog,
        period: Period,
        version: Version,
        *,
        naive_zone: ZoneInfo | None = None,
        keep_rejects: int = 1_000_000,
    ) -> Counted:
        """Count a month."""


# ---------------------------------------------------------------- logs with known outcomes


@dataclass(frozen=True)
class Case:
    """A log, and what must be said of it: the buckets that are not 0, usage, rejected rows.

    Usage is (account, item, interface, calls); a rejected row as in the table of rejects.
    """

    name: str
    files: Files
    rows: dict[str, int]
    usage: list[tuple[str, str, str, int]]
    rejects: list[tuple[Any, ...]] = field(default_factory=list)
    inputs: list[str] | None = None
    rules: Version = VERSION
    period: Period = PERIOD
    naive_zone: str | None = None
    keep_rejects: int = 1_000_000
    skipped: int = 0
    columns: tuple[tuple[str, str], ...] = ()


def conforms(engine: Engine, case: Case, folder: Path) -> None:
    """Write a log and hold what an engine says of it to what must be said."""
    for name, rows in case.files.items():
        write(folder / name, rows)
    log = find(str(folder), mapping(case.columns))
    zone = ZoneInfo(case.naive_zone) if case.naive_zone else None
    found = engine(log, case.period, case.rules, naive_zone=zone, keep_rejects=case.keep_rejects)
    assert list(found.rows) == list(ROWS)
    assert {name: rows for name, rows in found.rows.items() if rows} == case.rows
    assert list(found.usage.itertuples(index=False, name=None)) == case.usage
    told = found.rejects.astype(object).where(found.rejects.notna(), None)
    assert list(told.itertuples(index=False, name=None)) == case.rejects
    if case.inputs is not None:
        assert [file.file for file in found.inputs] == case.inputs
    assert found.skipped == case.skipped
    frames.check(tables.USAGE, found.usage)
    frames.check(tables.REJECTS, found.rejects)


def of(rows: Sequence[Row], **types: pa.DataType) -> pa.Table:
    """Rows as a table with some columns of other types."""
    return table(rows, SCHEMA | types)


def stamped(ticks: Sequence[int | None], kind: pa.DataType, **changes: Any) -> pa.Table:
    """Calls with these timestamps, as the whole numbers that a file of the type holds."""
    rows = [call(0, request_id=f"{kind}{n}", **changes) for n in range(len(ticks))]
    return of(rows).set_column(3, "timestamp", pa.array(ticks, pa.int64()).cast(kind))


def at_edges(unit: str, zone: str = "UTC") -> pa.Table:
    """Four calls in a unit: a tick before the month, its first and last tick, a tick after."""
    low, high = PERIOD.bounds(unit)
    return stamped([low - 1, low, high - 1, high], pa.timestamp(unit, zone))


OWN = {"request_id": "r.id", "account_id": "账户", "timestamp": "Time `UTC`", "status_code": "s"}
"""What a log may call its columns."""


def as_own(rows: pa.Table) -> pa.Table:
    """Rows under the log's own names."""
    return rows.rename_columns([OWN.get(name, name) for name in rows.column_names])


DETECT = ("detect", "DetectFace")
TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
WHOLE = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32())

# The rows of one id each, who must win, how many are duplicates and how many conflicts.
CLAIMS: list[tuple[list[dict[str, Any]], tuple[str, str, str], int, int]] = [
    ([{}, {}, {}], ("007", *DETECT), 2, 0),
    ([{"account_id": "a", "timestamp": 5}, {"account_id": "b"}], ("b", *DETECT), 0, 1),
    (
        [{"account_id": "\U0001d11e"}, {"account_id": "\uffee"}, {"account_id": "é"}] * 2,
        ("é", *DETECT),
        1,
        4,
    ),
    ([{"account_id": "70"}, {"account_id": "7"}], ("7", *DETECT), 0, 1),
    ([{}, {"interface": "CreateFace"}], ("007", "verify", "CreateFace"), 0, 1),
    (
        [{"interface": "CreateFace"}, {"interface": "CreateFace", "item": "search"}],
        ("007", "search", "CreateFace"),
        0,
        1,
    ),
    (
        [{"interface": "CreateFace"}, {"interface": "CreateFace", "item": "verify"}],
        ("007", "verify", "CreateFace"),
        1,
        0,
    ),
]


def claims() -> Case:
    """Every way in which rows of one id can differ, in one log of three files."""
    rows = [
        call(n, **({"timestamp": 0, "account_id": "007"} | changes))
        for n, (claim, *_) in enumerate(CLAIMS)
        for changes in claim
    ]
    failed = [call(99, status_code=500, timestamp=0), call(99, timestamp=9)]
    before = [call(98, timestamp=-1), call(98, account_id="8"), call(98, timestamp=END)]
    usage: dict[tuple[str, str, str], int] = {("8", *DETECT): 1}
    for winner in [*(winner for _, winner, _, _ in CLAIMS), ("007", *DETECT)]:
        usage[winner] = usage.get(winner, 0) + 1
    ordered = sorted(usage.items(), key=lambda cell: [part.encode() for part in cell[0]])
    everything = rows + failed + before
    return Case(
        "of one id the earliest, then the bytewise smallest row is charged",
        {f"{n}.parquet": everything[n::3] for n in range(3)},
        {
            "read": len(everything),
            "billed": len(CLAIMS) + 2,
            "duplicate": sum(duplicates for *_, duplicates, _ in CLAIMS),
            "conflict": sum(conflicts for *_, conflicts in CLAIMS),
            "outside_month": 2,
            "unbillable_status": 1,
        },
        [(*key, calls) for key, calls in ordered],
    )


BUCKETED = [
    call(1),
    call(1),
    call(1, account_id="8"),
    call(2, timestamp=END, request_id=None),
    call(3, interface="HealthCheck", item="nothing", status_code=None),
    call(4, status_code=500),
    call(5, timestamp=None, request_id=None),
    call(6, request_id="", account_id=""),
    call(7, account_id=None, interface=None),
    call(8, account_id="", interface="HealthCheck"),
    call(9, interface=None, item="nothing"),
    call(10, interface="", status_code=500),
    call(11, item="nothing", status_code=None),
    call(12, item="search"),
    call(13, status_code=None),
    call(14, item=""),
]
_AT = "2026-01-31T16:00:00."
BUCKETS = Case(
    "each row lands in the first bucket that fits",
    {"0.parquet": BUCKETED},
    {
        "read": 16,
        "billed": 2,
        "conflict": 1,
        "duplicate": 1,
        "outside_month": 1,
        "unbilled_interface": 1,
        "unbillable_status": 1,
        "rejected.missing_timestamp": 1,
        "rejected.missing_request_id": 1,
        "rejected.missing_account_id": 2,
        "rejected.unknown_interface": 2,
        "rejected.wrong_item": 2,
        "rejected.missing_status": 1,
    },
    [("007", *DETECT, 2)],
    [
        ("0.parquet", row, reason, *cells)
        for row, reason, *cells in [
            (6, "missing_timestamp", None, "007", "DetectFace", None, "0", None),
            (7, "missing_request_id", "", "", "DetectFace", _AT + "000006Z", "0", None),
            (8, "missing_account_id", "r7", None, None, _AT + "000007Z", "0", None),
            (9, "missing_account_id", "r8", "", "HealthCheck", _AT + "000008Z", "0", None),
            (10, "unknown_interface", "r9", "007", None, _AT + "000009Z", "0", "nothing"),
            (11, "unknown_interface", "r10", "007", "", _AT + "000010Z", "500", None),
            (12, "wrong_item", "r11", "007", "DetectFace", _AT + "000011Z", None, "nothing"),
            (13, "wrong_item", "r12", "007", "DetectFace", _AT + "000012Z", "0", "search"),
            (14, "missing_status", "r13", "007", "DetectFace", _AT + "000013Z", None, None),
        ]
    ],
)

_BOTH = [call(1, account_id="7", timestamp=0), call(2, account_id="7", timestamp=1_000_000)]
FORMS: dict[str, pa.Table] = (
    {f"text/{n}.parquet": of(_BOTH, **{c: t for c in SCHEMA if SCHEMA[c] == pa.string()})
     for n, t in enumerate(TEXTS) for c in ["request_id"]}
    | {f"whole/{t}.parquet": of([(*r[:1], 7, *r[2:]) for r in _BOTH], account_id=t, status_code=t)
       for t in (*WHOLE, pa.uint64())}
    | {f"bytes/{n}.parquet": of([(r[0].encode(), *r[1:]) for r in _BOTH], request_id=t)
       for n, t in enumerate([BYTES, pa.large_binary(), pa.binary_view(), pa.binary(2)])}
    | {f"time/{unit}{len(zone)}.parquet": of(_BOTH, timestamp=pa.timestamp(unit, zone))
       for unit in ("s", "ms", "us", "ns") for zone in ("UTC", "+05:30")}
    | {"status/text.parquet": of([(*r[:4], "0", None) for r in _BOTH], status_code=pa.string()),
       "item/none.parquet": of(_BOTH).drop_columns(["item"]),
       "item/null.parquet": of(_BOTH, item=pa.null()),
       "more/columns.parquet": of(_BOTH).append_column("Timestamp", pa.array(["?", "?"]))
                                        .append_column("ITEM", pa.array(["search", "?"]))
                                        .append_column("nested", pa.array([{"item": "?"}] * 2)),
       "order/turned.parquet": of(_BOTH).select(list(reversed(SCHEMA)))}
)  # fmt: skip
"""The same two calls in every physical form that a file may have."""

_NY = "America/New_York"
_MARCH = Month.parse("2026-03").period(ZoneInfo(_NY))
_WALL = 1772323200
"""The wall clock of the first instant of March 2026 in New York, read as UTC."""
_CHANGE = 1772935200
"""Two o'clock of 8 March there: from then on there is no such hour."""

CASES: list[Case] = [
    claims(),
    BUCKETS,
    Case(
        "every physical form means the same",
        FORMS,
        {"read": 2 * len(FORMS), "billed": 2, "duplicate": 2 * len(FORMS) - 2},
        [("7", *DETECT, 2)],
        inputs=sorted(FORMS),
    ),
    Case(
        "a month begins with its first tick and ends before the next month's, in every unit",
        {
            f"{unit}.parquet": at_edges(unit, zone)
            for unit, zone in [("s", "UTC"), ("ms", "+05:30"), ("us", "UTC"), ("ns", "UTC")]
        },
        {"read": 16, "billed": 8, "outside_month": 8},
        [("007", *DETECT, 8)],
    ),
    Case(
        "instants far away are outside, whatever they would be in another unit",
        {
            "ms.parquet": stamped([-(2**63) + 1, 10**15, 2**63 - 1, 0], pa.timestamp("ms", "UTC")),
            "us.parquet": stamped([-(2**63) + 1, 2**63 - 1, 0], pa.timestamp("us", "UTC")),
            "ns.parquet": stamped([-(2**63) + 1, 2**63 - 1, 0], pa.timestamp("ns", "UTC")),
            "in.parquet": [call(1), call(2, timestamp=-(START + 10**15))],
        },
        {"read": 12, "billed": 1, "outside_month": 11},
        [("007", *DETECT, 1)],
        inputs=["in.parquet"],
    ),
    Case(
        "instants are compared across units to the nanosecond",
        {
            "us.parquet": [call(0, account_id="b", timestamp=1)],
            "ns.parquet": of([call(0, account_id="a")]).set_column(
                3, "timestamp", pa.array([START * 1000 + 1001], pa.timestamp("ns", "UTC"))
            ),
        },
        {"read": 2, "billed": 1, "conflict": 1},
        [("b", *DETECT, 1)],
    ),
    Case(
        "ids are compared as bytes",
        {
            "text.parquet": [call(0, request_id=i) for i in ("ab", "é", "6162", "a", "a\0", "AB")],
            "bytes.parquet": of(
                [call(0, request_id=i) for i in (b"ab", "é".encode(), b"\xff\xfe")],
                request_id=BYTES,
            ),
            "fixed.parquet": of([call(0, request_id=b"ab")], request_id=pa.binary(2)),
            "uuid.parquet": of([call(0)]).set_column(
                0, "request_id", pa.array([bytes(range(16))], pa.uuid())
            ),
            "uuid-text.parquet": [call(0, request_id="00010203-0405-0607-0809-0a0b0c0d0e0f")],
        },
        {"read": 12, "billed": 9, "duplicate": 3},
        [("007", *DETECT, 9)],
    ),
    Case(
        "accounts are texts: zeros, digits and compositions count; order is by bytes",
        {
            "text.parquet": [
                call(n, account_id=account)
                for n, account in enumerate(["7", "007", " 7", "é", "e\u0301", "\uffee", "𝄞"])
            ],
            "whole.parquet": of(
                [call(n, account_id=2**64 - n) for n in (31, 32)], account_id=pa.uint64()
            ),
            "small.parquet": of([call(20, account_id=-5)], account_id=pa.int8()),
        },
        {"read": 10, "billed": 10},
        [
            (account, *DETECT, 1)
            for account in sorted(
                (*["7", "007", "é", "é", "￮", "𝄞", "-5"], " 7", str(2**64 - 31), str(2**64 - 32)),
                key=str.encode,
            )
        ],
    ),
    Case(
        "a shared interface counts for the item named with it, else for the one assigned",
        {
            "named.parquet": [
                call(n, interface="CreateFace", item=item)
                for n, item in enumerate(["search", "verify", None, "", "search"])
            ],
            "unnamed.parquet": of([call(9, interface="CreateFace")]).drop_columns(["item"]),
            "null.parquet": of([call(10, interface="CreateFace")], item=pa.null()),
        },
        {"read": 7, "billed": 7},
        [("007", "search", "CreateFace", 2), ("007", "verify", "CreateFace", 5)],
    ),
    Case(
        "late files count wherever they lie; hidden names do not; folder names are no columns",
        {
            "day=31/a b/100%25.parquet": [call(1)],
            "account_id=9/item=search/[x]{y}*.parquet": [call(2), call(1)],
            "日志/x.y.parquet": [call(3, timestamp=-1), call(4, account_id=None)],
            "_temporary/part.parquet": [call(5)],
            "day=31/.part.parquet": [call(6)],
            "empty.parquet": [],
            "unused.parquet": [call(7, timestamp=-1), call(8, timestamp=None)],
        },
        {
            "read": 7,
            "billed": 2,
            "duplicate": 1,
            "outside_month": 2,
            "rejected.missing_account_id": 1,
            "rejected.missing_timestamp": 1,
        },
        [("007", *DETECT, 2)],
        [
            ("unused.parquet", 1, "missing_timestamp", "r8", "007", "DetectFace", None, "0", None),
            (
                *("日志/x.y.parquet", 1, "missing_account_id", "r4", None, "DetectFace"),
                *(_AT + "000004Z", "0", None),
            ),
        ],
        inputs=[
            "account_id=9/item=search/[x]{y}*.parquet",
            "day=31/a b/100%25.parquet",
            "日志/x.y.parquet",
        ],
        skipped=2,
    ),
    Case(
        "a log may have other names for its columns",
        {
            "own.parquet": as_own(
                of([call(n, account_id=account) for n, account in enumerate(["7", "8", None, "7"])])
            ),
            "decoy.parquet": as_own(of([call(3, account_id="7"), call(4, status_code=9)]))
            .append_column("request_id", pa.array([1.5, 2.5]))
            .append_column("account_id", pa.array(["no", "no"])),
            "large.parquet": as_own(
                of([call(n + 10, account_id=str(n % 2)) for n in range(10_000)])
            ),
        },
        {
            "read": 10_006,
            "billed": 10_003,
            "duplicate": 1,
            "unbillable_status": 1,
            "rejected.missing_account_id": 1,
        },
        [
            ("0", *DETECT, 5000),
            ("1", *DETECT, 5000),
            ("7", *DETECT, 2),
            ("8", *DETECT, 1),
        ],
        [
            (
                *("own.parquet", 2, "missing_account_id", "r2", None, "DetectFace"),
                *("2026-01-31T16:00:00.000002Z", "0", None),
            )
        ],
        columns=tuple(OWN.items()),
    ),
    Case(
        "two columns that have each other's names",
        {
            "swapped.parquet": of([call(0)]).rename_columns(
                [{"account_id": "interface", "interface": "account_id"}.get(n, n) for n in SCHEMA]
            )
        },
        {"read": 1, "billed": 1},
        [("007", *DETECT, 1)],
        columns=(("account_id", "interface"), ("interface", "account_id")),
    ),
    Case(
        "rejected rows are shown as they are written",
        {
            "bytes.parquet": of(
                [call(1, request_id=b"\x00\xab", account_id=None)], request_id=BYTES
            ),
            "whole.parquet": of(
                [call(1, account_id=2**64 - 1, status_code=None, item="verify")],
                account_id=pa.uint64(),
                interface=pa.large_string(),
            ),
            "ns.parquet": stamped(
                [START * 1000 + 1], pa.timestamp("ns", "+05:30"), interface="CreateFace", item="x"
            ),
            "ms.parquet": stamped([START // 1000 + 1], pa.timestamp("ms", "UTC"), interface="x"),
        },
        {
            "read": 4,
            "rejected.missing_account_id": 1,
            "rejected.wrong_item": 2,
            "rejected.unknown_interface": 1,
        },
        [],
        [
            (
                *("bytes.parquet", 0, "missing_account_id", "00ab", None, "DetectFace"),
                *(_AT + "000001Z", "0", None),
            ),
            (
                *("ms.parquet", 0, "unknown_interface", "timestamp[ms, tz=UTC]0", "007", "x"),
                *(_AT + "001Z", "0", None),
            ),
            (
                *("ns.parquet", 0, "wrong_item", "timestamp[ns, tz=+05:30]0", "007", "CreateFace"),
                *(_AT + "000000001Z", "0", "x"),
            ),
            (
                *("whole.parquet", 0, "wrong_item", "r1", str(2**64 - 1), "DetectFace"),
                *(_AT + "000001Z", None, "verify"),
            ),
        ],
    ),
    Case(
        "beyond the limit the first ten rejected rows are kept",
        {
            f"{n}.parquet": [call(row, interface="x", timestamp=0) for row in range(n % 2 * 8)]
            for n in range(10)
        },
        {"read": 40, "rejected.unknown_interface": 40},
        [],
        [
            (
                *(f"{n}.parquet", row, "unknown_interface", f"r{row}", "007", "x"),
                *(_AT + "000000Z", "0", None),
            )
            for n, row in [(1, row) for row in range(8)] + [(3, 0), (3, 1)]
        ],
        keep_rejects=39,
    ),
    Case(
        "without de-duplication ids are not read, and need not be there",
        {
            "0.parquet": [call(1), call(1), call(1, request_id=None)],
            "1.parquet": of([call(1)]).drop_columns(["request_id"]),
        },
        {"read": 4, "billed": 4},
        [("007", *DETECT, 4)],
        rules=version(deduplicate="false"),
    ),
    Case(
        "where every status is billed the column is not read, and need not be there",
        {
            "0.parquet": [call(1, status_code=500), call(2, status_code=None)],
            "1.parquet": of([call(3)]).drop_columns(["status_code"]),
        },
        {"read": 3, "billed": 3},
        [("007", *DETECT, 3)],
        rules=version(billable_status=""),
    ),
    Case(
        "columns may be null throughout",
        {
            "0.parquet": pa.table({name: pa.nulls(2) for name in SCHEMA}),
            "1.parquet": of([call(1, account_id=None)], account_id=pa.null(), item=pa.null()),
            "2.parquet": of([call(2, request_id=None)], request_id=pa.null()),
        },
        {
            "read": 4,
            "rejected.missing_timestamp": 2,
            "rejected.missing_account_id": 1,
            "rejected.missing_request_id": 1,
        },
        [],
        [
            *(("0.parquet", n, "missing_timestamp", *[None] * 6) for n in range(2)),
            (
                *("1.parquet", 0, "missing_account_id", "r1", None, "DetectFace"),
                *(_AT + "000001Z", "0", None),
            ),
            (
                *("2.parquet", 0, "missing_request_id", None, "007", "DetectFace"),
                *(_AT + "000002Z", "0", None),
            ),
        ],
    ),
    Case("a log without rows is counted", {"0.parquet": [], "1.parquet": []}, {}, [], inputs=[]),
    Case(
        "a log with nothing in the month is counted",
        {"0.parquet": [call(1, timestamp=-1)], "1.parquet": [call(2, timestamp=END)]},
        {"read": 2, "outside_month": 2},
        [],
        inputs=[],
    ),
    Case(
        "wall clock times are instants of the zone that was named",
        {
            "0.parquet": stamped([_WALL - 1, _WALL, _CHANGE - 1], pa.timestamp("s")),
            "1.parquet": stamped(
                [(_CHANGE + 3600) * 10**9, (_CHANGE + 3600) * 10**9 - 3600 * 10**9 - 1],
                pa.timestamp("ns"),
                account_id="a",
                interface="VerifyFace",
            ),
            "2.parquet": stamped([_WALL - 1 + 5 * 3600, None], pa.timestamp("ms", "UTC")),
        },
        {"read": 7, "billed": 4, "outside_month": 2, "rejected.missing_timestamp": 1},
        [("007", *DETECT, 2), ("a", "verify", "VerifyFace", 2)],
        [
            (
                *("2.parquet", 1, "missing_timestamp", "timestamp[ms, tz=UTC]1", "007"),
                *("DetectFace", None, "0", None),
            )
        ],
        period=_MARCH,
        naive_zone=_NY,
    ),
]


# ---------------------------------------------------------------- logs that are refused


@dataclass(frozen=True)
class Refusal:
    """A log that must be refused: what spoils it, the kind of refusal, and what it names."""

    name: str
    files: Files
    names: str
    kind: type[SettlementError] = BadInput
    after: Callable[[Path], object] = lambda _: None
    naive_zone: str | None = None
    period: Period = PERIOD
    columns: tuple[tuple[str, str], ...] = ()


def refuses(engine: Engine, refusal: Refusal, folder: Path) -> None:
    """Write a log, find it, spoil it, and see the engine refuse it on one line with a cure."""
    for name, rows in refusal.files.items():
        write(folder / name, rows)
    zone = ZoneInfo(refusal.naive_zone) if refusal.naive_zone else None
    said = ""
    try:
        log = find(str(folder), mapping(refusal.columns))
        refusal.after(folder)
        engine(log, refusal.period, VERSION, naive_zone=zone)
    except refusal.kind as error:
        said = str(error)
    assert refusal.names in said
    assert "; " in said
    assert "\n" not in said


def flipped(folder: Path) -> None:
    """Flip one bit in the data of a file, and leave no other trace of it."""
    path = folder / "1.parquet"
    status, raw = path.stat(), bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


_GOOD = {"0.parquet": [call(n) for n in range(3)]}


def spoilt(rows: pa.Table) -> Files:
    """A good file, and another."""
    return _GOOD | {"1.parquet": rows}


_ROWS = of([call(n) for n in range(10, 13)])
REFUSALS = [
    *(
        Refusal(f"no {name}", spoilt(_ROWS.drop_columns([name])), f"1.parquet, column {name!r}")
        for name in SCHEMA
        if name != "item"
    ),
    Refusal(
        "a column of another name",
        spoilt(_ROWS.rename_columns([n.replace("interface", "Interface") for n in SCHEMA])),
        "1.parquet, column 'interface'",
    ),
    Refusal(
        "a column that was named is not there",
        {"0.parquet": as_own(_ROWS), "1.parquet": as_own(_ROWS).drop_columns(["账户"])},
        "1.parquet, column '账户' (account_id)",
        columns=tuple(OWN.items()),
    ),
    Refusal(
        "a column that was named is not UTF-8",
        {"1.parquet": as_own(not_utf8(_ROWS, "account_id"))},
        "1.parquet, column '账户' (account_id)",
        columns=tuple(OWN.items()),
    ),
    Refusal(
        "a number for a text",
        spoilt(_ROWS.set_column(2, "interface", pa.array([1.5] * 3))),
        "1.parquet, column 'interface'",
    ),
    Refusal(
        "a text for a timestamp",
        spoilt(_ROWS.set_column(3, "timestamp", pa.array(["2026-02-02"] * 3))),
        "1.parquet, column 'timestamp'",
    ),
    Refusal(
        "a column twice",
        spoilt(_ROWS.append_column("account_id", pa.array(["8"] * 3))),
        "1.parquet, column 'account_id'",
    ),
    Refusal(
        "timestamps without a zone",
        spoilt(of([call(1)], timestamp=pa.timestamp("us"))),
        "1.parquet, column 'timestamp'",
    ),
    Refusal(
        "a wall clock time that never was",
        spoilt(stamped([_CHANGE * 10**6], pa.timestamp("us"))),
        "2026-03-08T02:00:00.000000 never was in America/New_York",
        naive_zone=_NY,
        period=_MARCH,
    ),
    Refusal(
        "a folder that stands for a column",
        {"item=search/1.parquet": of([call(1)]).drop_columns(["item"])},
        "item=search/1.parquet",
    ),
    *(
        Refusal(
            f"{name} that is not UTF-8",
            spoilt(not_utf8(of([call(n, item="detect") for n in range(3)]), name)),
            f"1.parquet, column {name!r}",
        )
        for name in ("request_id", "account_id", "interface", "item")
    ),
    Refusal("a bit that fell over", spoilt(_ROWS), "1.parquet", after=flipped),
    Refusal(
        "a file that is cut off",
        spoilt(_ROWS),
        "1.parquet",
        after=lambda folder: os.truncate(folder / "1.parquet", 100),
    ),
    Refusal(
        "a file that is gone",
        spoilt(_ROWS),
        "1.parquet",
        kind=MissingInput,
        after=lambda folder: (folder / "1.parquet").unlink(),
    ),
    Refusal(
        "a file that was written to meanwhile",
        spoilt(_ROWS),
        "1.parquet",
        after=lambda folder: write(folder / "1.parquet", _ROWS.slice(1)),
    ),
]


# ---------------------------------------------------------------- everything at once


def without(made: reference.Call, column: str, nothing: str | None) -> reference.Call:
    """A call without one of its cells."""
    cells: dict[str, Any] = {column: nothing}
    return replace(made, **cells)


def drawn(seed: int, size: int = 300) -> list[reference.Call]:
    """Calls with every kind of fault, repetition and contradiction, dealt to files in turn."""
    random = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[random.integers(len(values))]

    calls: list[reference.Call] = []
    for _ in range(size):
        made = reference.Call(
            request_id=f"r{random.integers(size // 2)}",
            account_id=one_of("7", "007", "é", "e\u0301", "\uffee", "𝄞", "alpha"),
            interface=one_of("DetectFace", "CreateFace", "VerifyFace", "SearchFaces"),
            instant=(START + int(one_of(-1, 0, 1, 2, 3, END - 1, END))) * 1000,
            status_code=one_of("0", "0", "0", "500"),
            item=one_of(None, None, None, "", "verify", "search"),
        )
        if random.random() < 0.1:
            fault = one_of("request_id", "account_id", "interface", "instant", "status_code")
            made = without(made, fault, None)
        if random.random() < 0.05:
            made = without(made, one_of("request_id", "account_id", "interface"), "")
        if random.random() < 0.05:
            made = replace(made, interface=one_of("HealthCheck", "Nope"))
        calls += [made] * int(one_of(1, 1, 1, 2))
    order = random.permutation(len(calls)).tolist()
    return [
        replace(calls[at], file=f"{place % 5}.parquet", row=place // 5)
        for place, at in enumerate(order)
    ]


def write_drawn(calls: Sequence[reference.Call], folder: Path, seed: int) -> None:
    """Write drawn calls, each file in a form of its own."""
    random = np.random.default_rng(seed)
    for name in sorted({one.file for one in calls}):
        own = sorted((one for one in calls if one.file == name), key=lambda one: one.row)
        types = {column: TEXTS[random.integers(len(TEXTS))] for column in SCHEMA}
        types["timestamp"] = pa.timestamp(["us", "ns"][random.integers(2)], "UTC")
        arrays = [months.column(own, column, kind) for column, kind in types.items()]
        made = pa.Table.from_arrays(arrays, schema=pa.schema(list(types.items())))
        write(folder / name, made, row_group_size=int(random.integers(5, 60)))


def agrees(engine: Engine, seed: int, folder: Path) -> None:
    """Hold what an engine says of a drawn log to the naive reference."""
    calls = drawn(seed)
    write_drawn(calls, folder, seed)
    rules = reference.version_for(tomllib.loads(PRICES), "2026-02")
    expected = reference.count(calls, "2026-02", rules, "Asia/Shanghai")
    found = engine(find(str(folder)), PERIOD, VERSION)
    assert found.rows == {name: expected.rows[name] for name in ROWS}
    assert min(rows for name, rows in found.rows.items()) > 0, "a bucket is not tried"
    usage = {(r.account_id, r.item, r.interface): r.calls for r in found.usage.itertuples()}
    assert usage == expected.usage
    told = found.rejects.astype(object).where(found.rejects.notna(), None)
    assert [tuple(row) for row in told.drop(columns="timestamp").itertuples(index=False)] == [
        (r.file, r.row, r.reason, r.request_id, r.account_id, r.interface, r.status_code, r.item)
        for r in expected.rejects
    ]
    moments = [cell and reference.instant(cell) for cell in told["timestamp"]]
    assert moments == [reject.instant for reject in expected.rejects]


def same(one: Counted, other: Counted) -> None:
    """See two engines say the same of a log, to the last bit."""
    assert one.rows == other.rows
    assert list(one.rows) == list(other.rows)
    for table_, a, b in [
        (tables.USAGE, one.usage, other.usage),
        (tables.REJECTS, one.rejects, other.rejects),
    ]:
        month = Month.parse("2026-02")
        assert frames.to_arrow(table_, a, month, 1).equals(frames.to_arrow(table_, b, month, 1))
    assert one.inputs == other.inputs
    assert one.skipped == other.skipped


def same_history(engine: Engine, other: Engine, history: months.History, folder: Path) -> None:
    """Hold two engines to each other on a random history of three months."""
    months.write_log(folder, history.log.calls, history.log)
    prices = PriceBook.parse(history.prices.text.encode())
    log = find(str(folder))
    for text in history.prices.months:
        month = Month.parse(text)
        period, rules = month.period(prices.zone), prices.version_for(month)
        same(engine(log, period, rules), other(log, period, rules))
