"""Each row lands in the first bucket whose test it fails, in every physical form."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from settlement.calls import BUCKETS, Batch, Rules, classify
from settlement.errors import BadInput
from settlement.month import Month
from settlement.prices import Version
from settlement.scan import rows as rows_module
from settlement.scan.finding import find
from settlement.scan.logfiles import CallLog, LogFile, RowGroup
from settlement.scan.names import Names
from settlement.scan.rows import Coded, Unread
from settlement.scan.stamps import Clock, Span
from tests.logs import PERIOD, SCHEMA, START, VERSION, Row, array, call, table, version, write

END = PERIOD.end * 10**6 - START
"""Microseconds from the month's first instant to the first after it."""


@pytest.fixture(autouse=True, params=["quick", "general"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fact holds both ways of reading."""
    monkeypatch.setattr(rows_module, "QUICK_ROWS", range(10**6 * (request.param == "quick")))


def classified(
    log: CallLog, file: LogFile, group: RowGroup, rules: Version, clock: Clock
) -> Iterator[Batch]:
    return classify(Unread(log, file, group), Rules(rules), clock, Names())


def buckets(path: Path, rows: Any, rules: Version = VERSION, **options: Any) -> list[str]:
    """The bucket of each row of a file, one row group per row."""
    write(path / "a.parquet", rows, row_group_size=1, **options)
    log = find(str(path))
    (file,) = log.files
    found = []
    for group in file.groups:
        for batch in classified(log, file, group, rules, Clock(PERIOD)):
            assert batch.counts.sum() == 1
            found.append(BUCKETS[int(batch.counts.argmax())])
    return found


GOOD = {
    "request_id": "r",
    "account_id": "007",
    "interface": "DetectFace",
    "timestamp": 0,
    "status_code": "0",
    "item": None,
}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("rejected.missing_timestamp", {"timestamp": None}),
    ("outside_month", {"timestamp": -1}),
    ("outside_month", {"timestamp": END}),
    ("rejected.missing_request_id", {"request_id": None}),
    ("rejected.missing_request_id", {"request_id": ""}),
    ("rejected.missing_account_id", {"account_id": None}),
    ("rejected.missing_account_id", {"account_id": ""}),
    ("unbilled_interface", {"interface": "HealthCheck"}),
    ("rejected.unknown_interface", {"interface": "Nope"}),
    ("rejected.unknown_interface", {"interface": None}),
    ("rejected.unknown_interface", {"interface": ""}),
    ("rejected.wrong_item", {"item": "verify"}),
    ("rejected.wrong_item", {"item": "nothing"}),
    ("rejected.missing_status", {"status_code": None}),
    ("rejected.missing_status", {"status_code": ""}),
    ("unbillable_status", {"status_code": "1"}),
    ("unbillable_status", {"status_code": "00"}),
]
TEXT_STATUS = SCHEMA | {"status_code": pa.string()}


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("statistics", [True, False])
def test_one_fault_at_a_time(tmp_path: Path, dictionary: bool, statistics: bool) -> None:
    rows = [tuple((GOOD | fault).values()) for _, fault in BAD]
    found = buckets(
        tmp_path,
        table(rows, TEXT_STATUS),
        use_dictionary=dictionary,
        write_statistics=statistics,
    )
    assert found == [bucket for bucket, _ in BAD]


def test_of_two_faults_the_first_tested_counts(tmp_path: Path) -> None:
    order = [name for name in BUCKETS if name != "charged"]
    pairs = [
        (min(one, other, key=order.index), GOOD | second | first)
        for one, first in BAD
        for other, second in BAD
        if one != other and not first.keys() & second.keys()
    ]
    rows = [tuple(cells.values()) for _, cells in pairs]
    unbilled_item = [n for n, (bucket, _) in enumerate(pairs) if bucket == "unbilled_interface"]
    assert len(pairs) > 150
    assert unbilled_item
    assert buckets(tmp_path, table(rows, TEXT_STATUS)) == [bucket for bucket, _ in pairs]


@pytest.mark.parametrize(
    ("interface", "item", "bucket"),
    [
        ("DetectFace", None, "charged"),
        ("DetectFace", "detect", "charged"),
        ("DetectFace", "", "charged"),
        ("CreateFace", None, "charged"),
        ("CreateFace", "search", "charged"),
        ("CreateFace", "detect", "rejected.wrong_item"),
        ("detectface", None, "rejected.unknown_interface"),
        (" DetectFace", None, "rejected.unknown_interface"),
        ("HealthCheck", "nothing", "unbilled_interface"),
    ],
)
def test_interfaces_and_items(
    tmp_path: Path, interface: str, item: str | None, bucket: str
) -> None:
    assert buckets(tmp_path, [call(0, interface=interface, item=item)]) == [bucket]


def test_pairs_are_ordered_by_bytes_and_shared_interfaces_know_their_item() -> None:
    rules = Rules(VERSION)
    assert rules.pairs == [
        ("CreateFace", "search"),
        ("CreateFace", "verify"),
        ("DetectFace", "detect"),
        ("SearchFaces", "search"),
        ("VerifyFace", "verify"),
    ]
    create, good = Coded.of(pa.array(["CreateFace"])), Coded.of(pa.array([0]))
    for items in (None, Coded.of(pa.array([""])), Coded.of(pa.array([None], pa.string()))):
        (kind,) = rules.kinds(create, items, good)
        assert rules.pairs[rules.charge[kind] - 1] == ("CreateFace", "verify")


def test_without_billable_status_and_ids_those_columns_decide_nothing(tmp_path: Path) -> None:
    lean = version(billable_status="", deduplicate="false")
    rows = [call(0, status_code=None, request_id=None), call(1, status_code=9)]
    assert buckets(tmp_path, rows, lean) == ["charged", "charged"]


# ---------------------------------------------------------------- physical forms

TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.uint16(), pa.large_string()),
    pa.dictionary(pa.int64(), pa.string()),
]
BINARIES = [
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(2),
    pa.dictionary(pa.int32(), pa.binary()),
]
INTEGERS = [pa.int8(), pa.int16(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()]
FORMS = (
    [{"request_id": kind} for kind in TEXTS + BINARIES]
    + [{"account_id": kind} for kind in TEXTS + INTEGERS]
    + [{"interface": kind} for kind in TEXTS]
    + [{"item": kind} for kind in TEXTS]
    + [{"status_code": kind} for kind in TEXTS + INTEGERS]
    + [
        {"timestamp": pa.timestamp(unit, zone)}
        for unit in ("s", "ms", "us", "ns")
        for zone in ("UTC", "Asia/Kathmandu", "-11:30")
    ]
)
SOME = [
    ("r1", "7", "DetectFace", 0, "0", None),
    ("r2", "8", "DetectFace", 10**6, "0", "detect"),
    ("r3", "7", "CreateFace", END - 10**6, "1", None),
    ("r3", "7", "CreateFace", END, "0", None),
    (None, None, None, None, None, None),
    (None, "7", "DetectFace", 0, None, None),
]


def as_type(rows: Sequence[Row], form: dict[str, pa.DataType]) -> pa.Table:
    """The rows with a column in another type, its cells converted."""
    types = TEXT_STATUS | form
    converted = []
    for row in rows:
        cells: list[Any] = []
        for cell, kind in zip(row, types.values(), strict=True):
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            if cell is not None and pa.types.is_integer(plain):
                cells.append(int(cell))
            elif isinstance(cell, str) and kind in BINARIES:
                cells.append(cell.encode())
            else:
                cells.append(cell)
        converted.append(tuple(cells))
    return table(converted, types)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("store_schema", [True, False])
def test_every_physical_form_means_the_same(
    tmp_path: Path, form: dict[str, pa.DataType], store_schema: bool
) -> None:
    found = buckets(tmp_path, as_type(SOME, form), store_schema=store_schema)
    assert found == [
        "charged",
        "charged",
        "unbillable_status",
        "outside_month",
        "rejected.missing_timestamp",
        "rejected.missing_request_id",
    ]


def test_a_column_of_nulls_alone_is_missing_cells(tmp_path: Path) -> None:
    for name, bucket in [
        ("request_id", "rejected.missing_request_id"),
        ("account_id", "rejected.missing_account_id"),
        ("interface", "rejected.unknown_interface"),
        ("timestamp", "rejected.missing_timestamp"),
        ("status_code", "rejected.missing_status"),
        ("item", "charged"),
    ]:
        bare = table([call(0)])
        at = bare.column_names.index(name)
        assert buckets(tmp_path, bare.set_column(at, name, pa.nulls(1))) == [bucket]


def test_uuids_are_their_sixteen_bytes(tmp_path: Path) -> None:
    ids = pa.array([bytes(range(16)), None], pa.uuid())
    good = table([call(0), call(1)]).set_column(0, "request_id", ids)
    assert buckets(tmp_path, good) == ["charged", "rejected.missing_request_id"]
    assert raw_cells(tmp_path, "request_id", [0, 1]) == [bytes(range(16)).hex(), None]


def test_integers_are_their_decimal_text() -> None:
    cells = pa.array([2**63, 0, None, 2**64 - 1], pa.uint64())
    column = Coded.of(cells)
    texts = column.cells(np.arange(4)).to_pylist()
    assert texts == ["9223372036854775808", "0", None, "18446744073709551615"]
    assert Coded.of(pa.array([-5], pa.int8())).texts == ["-5"]


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_month_begins_and_ends_at_the_very_tick(unit: str) -> None:
    low, high = PERIOD.bounds(unit)
    column = pa.array([low - 1, low, low + 1, high - 1, high, None], pa.timestamp(unit, "UTC"))
    stamps = Clock(PERIOD).read(column)
    assert stamps.inside.tolist() == [False, True, True, True, False, False]
    since = stamps.since(PERIOD.start, np.array([1, 2])).tolist()
    assert since == [0, {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]]


def test_far_years_neither_wrap_nor_fail() -> None:
    far = Month.parse("9998-12").period(ZoneInfo("Asia/Shanghai"))
    column = pa.array([2**63 - 1, -(2**63), 0], pa.timestamp("ns", "UTC"))
    assert not Clock(far).read(column).inside.any()
    assert (
        not Clock(far, ZoneInfo("Asia/Shanghai")).read(column.cast(pa.timestamp("ns"))).inside.any()
    )
    low, _ = far.bounds("us")
    assert Clock(far).read(pa.array([low], pa.timestamp("us", "UTC"))).inside.all()


@pytest.mark.parametrize(
    ("span", "excludes", "includes", "overlaps"),
    [
        (Span(0, 9, 0), True, False, False),
        (Span(0, 9, 1), False, False, False),
        (Span(0, 9, None), False, False, False),
        (Span(START, START, 0), False, True, True),
        (Span(START, START + END - 1, 0), False, True, True),
        (Span(START, START + END, 0), False, False, True),
        (Span(START - 1, START + END, 0), False, False, None),
        (Span(START, START, 1), False, False, True),
        (Span(START + END, START + END, 0), True, False, False),
        (Span(None, None, 0), False, False, None),
        (Span(9, 0, 0), False, False, None),
    ],
)
def test_what_footers_decide(
    span: Span, excludes: bool, includes: bool, overlaps: bool | None
) -> None:
    kind = pa.timestamp("us", "UTC")
    clock = Clock(PERIOD)
    found = clock.excludes(kind, span), clock.includes(kind, span), clock.overlaps(kind, span)
    assert found == (excludes, includes, overlaps)


def test_wall_clocks_are_excluded_a_day_away_only() -> None:
    kind, clock = pa.timestamp("us"), Clock(PERIOD, ZoneInfo("Asia/Shanghai"))
    day = 86_400 * 10**6
    assert clock.excludes(kind, Span(0, START - day - 1, 0))
    assert not clock.excludes(kind, Span(0, START - day, 0))
    assert not clock.includes(kind, Span(START + day, START + day, 0))


ZONES = ["America/New_York", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("month", ["2011-12", "2025-03", "2025-10", "2025-11", "2025-04"])
def test_wall_clocks_mean_what_the_zone_says(name: str, month: str) -> None:
    """Every quarter of an hour, against the standard library; what never was is refused."""
    zone = ZoneInfo(name)
    period = Month.parse(month).period(zone)
    clock = Clock(period, zone)
    begin = datetime.fromisoformat(f"{month}-01") - timedelta(hours=12)
    walls = [begin + timedelta(minutes=15 * n) for n in range(32 * 96)]
    exist: list[tuple[datetime, int]] = []
    never: list[tuple[datetime, int]] = []
    for wall in walls:
        instant = wall.replace(tzinfo=zone).timestamp()
        back = datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)
        (exist if back == wall else never).append((wall, int(instant)))
    column = pa.array([wall for wall, _ in exist], pa.timestamp("s"))
    stamps = clock.read(column)
    inside = [period.start <= instant < period.end for _, instant in exist]
    assert stamps.inside.tolist() == inside
    assert stamps.values[stamps.inside].tolist() == [
        instant for (_, instant), within in zip(exist, inside, strict=True) if within
    ]
    for wall, _ in never[:3] + never[-3:]:
        with pytest.raises(ValueError, match="never was"):
            clock.read(pa.array([wall], pa.timestamp("ms")))


def test_a_wall_clock_time_that_never_was_is_refused(tmp_path: Path) -> None:
    zone = ZoneInfo("America/New_York")
    naive = table([call(0)], SCHEMA | {"timestamp": pa.timestamp("us")})
    never = pa.array([datetime(2026, 3, 8, 2, 30)], pa.timestamp("us"))
    write(tmp_path / "a.parquet", naive.set_column(3, "timestamp", never))
    log = find(str(tmp_path))
    clock = Clock(Month.parse("2026-03").period(zone), zone)
    with pytest.raises(BadInput, match=r"a\.parquet.*2026-03-08T02:30:00.* never was"):
        list(classified(log, log.files[0], log.files[0].groups[0], VERSION, clock))


# ---------------------------------------------------------------- rejects


def test_rejects_keep_their_raw_cells(tmp_path: Path) -> None:
    rows = [
        call(0),
        call(1, request_id=None, item="", status_code=None),
        call(2, interface="Nope", account_id="=1+1"),
        call(3, timestamp=None),
        call(4, timestamp=-1, account_id=None),
    ]
    write(tmp_path / "x" / "a.parquet", rows, row_group_size=3)
    log = find(str(tmp_path))
    (file,) = log.files
    kept = [
        row
        for group in file.groups
        for batch in classified(log, file, group, VERSION, Clock(PERIOD))
        if batch.rejects is not None
        for row in batch.rejects.to_pylist()
    ]
    where: dict[str, Any] = {"file": "x/a.parquet", "account_id": "007", "interface": "DetectFace"}
    where |= {"status_code": "0", "item": None}
    assert kept == [
        where
        | {"row": 1, "reason": "missing_request_id", "request_id": None, "status_code": None}
        | {"timestamp": "2026-01-31T16:00:00.000001Z", "item": ""},
        where
        | {"row": 2, "reason": "unknown_interface", "request_id": "r2", "account_id": "=1+1"}
        | {"timestamp": "2026-01-31T16:00:00.000002Z", "interface": "Nope"},
        where | {"row": 3, "reason": "missing_timestamp", "request_id": "r3", "timestamp": None},
    ]


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (pa.timestamp("s", "UTC"), "2026-01-31T16:00:01Z"),
        (pa.timestamp("ms", "Asia/Shanghai"), "2026-01-31T16:00:01.000Z"),
        (pa.timestamp("ns", "UTC"), "2026-01-31T16:00:01.000000000Z"),
        (pa.timestamp("us"), "2026-01-31T08:00:01.000000Z"),
    ],
    ids=str,
)
def test_rejects_tell_instants_in_utc(kind: pa.DataType, written: str) -> None:
    clock = Clock(PERIOD, ZoneInfo("Asia/Shanghai"))
    column = pa.array([START + 10**6], pa.timestamp("us", "UTC")).cast(kind)
    assert clock.read(column).cells(np.array([0])).to_pylist() == [written]


def raw_cells(path: Path, name: str, rows: list[int]) -> list[str | None]:
    """Cells of a file's column, read row group by row group."""
    log = find(str(path))
    (file,) = log.files
    found: list[str | None] = []
    for group in file.groups:
        for some in Unread(log, file, group).rows([name]):
            own = [row - some.first for row in rows if 0 <= row - some.first < some.count]
            if own:
                found += some.cells(name, np.array(own)).to_pylist()
    return found


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int16(), pa.string()),
        pa.binary(),
        pa.binary(5),
        pa.dictionary(pa.int32(), pa.binary()),
        pa.int32(),
    ],
    ids=str,
)
def test_raw_cells_are_told_whatever_their_form(
    tmp_path: Path, kind: pa.DataType, dictionary: bool, nulls: bool
) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    cells: list[Any] = [f"é{n}" * (n % 7) + "x" for n in range(200)]
    told = cells
    if pa.types.is_integer(plain):
        cells, told = [*range(200)], [str(n) for n in range(200)]
    elif not pa.types.is_string(plain) and not pa.types.is_large_string(plain):
        cells = [
            (b"\0\xff" + bytes([n]) * 3 * (plain == pa.binary(5) or n % 3)) for n in range(200)
        ]
        told = [cell.hex() for cell in cells]
    if nulls:
        cells, told = [[None, *some[1:]] for some in (cells, told)]
    ids = array(cells, kind)
    good = table([call(n) for n in range(200)])
    good = good.set_column(0, pa.field("request_id", kind), ids)
    options = {"use_dictionary": dictionary, "data_page_size": 100, "write_batch_size": 8}
    write(tmp_path / "a.parquet", good, row_group_size=120, **options)
    rows = [0, 3, 4, 77, 119, 120, 199]
    assert raw_cells(tmp_path, "request_id", rows) == [told[row] for row in rows]


def test_counts_are_the_same_however_rows_are_grouped(tmp_path: Path) -> None:
    rows = [tuple((GOOD | fault).values()) for _, fault in BAD] * 3
    totals = []
    for size in (1, 2, 7, 1000):
        write(tmp_path / "a.parquet", table(rows, TEXT_STATUS), row_group_size=size)
        log = find(str(tmp_path))
        (file,) = log.files
        total: Counter[str] = Counter()
        for group in file.groups:
            for batch in classified(log, file, group, VERSION, Clock(PERIOD)):
                total.update(dict(zip(BUCKETS, batch.counts.tolist(), strict=True)))
        totals.append(total)
    assert totals[0] == Counter(bucket for bucket, _ in BAD * 3)
    assert all(total == totals[0] for total in totals)
