"""The sample log: what it says of itself is what an independent count finds, byte for byte."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.check import _OPTIONS
from settlement.errors import CannotWrite, WrongUsage
from settlement.month import Month
from settlement.sample.__main__ import main
from settlement.sample.calls import BUCKETS, Quota
from settlement.sample.shipped import write_demo, write_shipped
from settlement.sample.writing import SampleSummary, write_sample
from settlement.tables import ADJUSTMENTS, CONTRACT_LINES, PUBLISHED, STAMP, Table
from tests.reference import BUCKETS as EVERY_BUCKET
from tests.reference import Call, Counted, count, invoice, rate, version_for

DATA = Path(__file__).parent.parent / "data"
JANUARY = Month(2026, 1)
CHINA = "Asia/Shanghai"
STAMP_ONLY = Table("every table", 2, STAMP)
SCHEMA = pa.schema(
    {
        "request_id": pa.string(),
        "account_id": pa.string(),
        "interface": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
        "status_code": pa.int32(),
        "item": pa.string(),
    }
)


@cache
def prices() -> dict[str, Any]:
    """The price book of the repository."""
    return tomllib.loads((DATA / "price_book.toml").read_text(encoding="utf-8"))


def read(folder: Path) -> pa.Table:
    """All rows under a folder, in the order of the file names, every page checked."""
    files = sorted(folder.rglob("*.parquet"))
    return pa.concat_tables(
        pq.ParquetFile(file, page_checksum_verification=True).read() for file in files
    )


def counted(folder: Path, month: Month, zone: str = CHINA) -> Counted:
    """What the naive reference finds for a month under a folder."""
    table = read(folder)
    nanoseconds = [
        None if at is None else at * 1000 for at in table["timestamp"].cast(pa.int64()).to_pylist()
    ]
    rest = (table[name].to_pylist() for name in ("request_id", "account_id", "interface"))
    last = (table[name].to_pylist() for name in ("status_code", "item"))
    calls = (Call(*row) for row in zip(*rest, nanoseconds, *last, strict=True))
    return count(calls, str(month), version_for(prices(), str(month)), zone)


def found(result: Counted) -> dict[str, int]:
    """The buckets that have rows."""
    return {bucket: rows for bucket, rows in result.buckets.items() if rows}


def digests(folder: Path) -> dict[str, str]:
    """The file names under a folder, and what is in them."""
    return {
        file.relative_to(folder).as_posix(): sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def sixty_thousand(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    """A log large enough for some rows of every kind."""
    return write_sample(tmp_path_factory.mktemp("log"), JANUARY, 500, 60_000, 1)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped months, made anew."""
    out = tmp_path_factory.mktemp("shipped")
    write_shipped(out)
    return out


# ---------------------------------------------------------------- what is in it


@pytest.mark.parametrize(
    ("calls", "accounts", "month", "zone", "days"),
    [
        (1, 1, "2026-01", CHINA, 1),
        (7, 1, "2026-02", CHINA, 31),
        (5_000, 30, "2024-02", "UTC", 7),
        (20_000, 10_000, "2026-03", "America/New_York", 1),  # an hour is skipped
        (40_000, 100, "2026-11", "America/New_York", 2),  # an hour comes twice
        (20_000, 100, "2026-04", "Australia/Lord_Howe", 1),  # half an hour comes twice
        (20_000, 3, "2023-10", "America/Asuncion", 1),  # a month that begins at 1 o'clock
    ],
)
def test_every_row_lands_in_the_bucket_it_was_made_for(
    tmp_path: Path, calls: int, accounts: int, month: str, zone: str, days: int
) -> None:
    summary = write_sample(
        tmp_path, Month.parse(month), accounts, calls, 7, zone=ZoneInfo(zone), days_per_file=days
    )
    assert found(counted(summary.folder, summary.month, zone)) == summary.buckets
    assert read(summary.folder).num_rows == summary.rows == sum(summary.buckets.values())
    assert digests(summary.folder).keys() == {file.name for file in summary.folder.iterdir()}
    assert summary.files == len(digests(summary.folder))
    assert summary.size == sum(file.stat().st_size for file in summary.folder.iterdir())


@settings(max_examples=25, deadline=None)
@given(
    calls=st.integers(1, 4_000),
    accounts=st.integers(1, 10**8),
    seed=st.integers(0, 2**63),
    compact=st.booleans(),
    share=st.floats(0, 1),
)
def test_any_numbers_make_a_log_that_counts_as_it_says(
    tmp_path_factory: pytest.TempPathFactory,
    calls: int,
    accounts: int,
    seed: int,
    compact: bool,
    share: float,
) -> None:
    quota = Quota(200_000_000, "face-search", int(calls * share))
    summary = write_sample(
        tmp_path_factory.mktemp("any"),
        JANUARY,
        accounts,
        calls,
        seed,
        quotas=[quota],
        days_per_file=16,
        compact=compact,
    )
    result = counted(summary.folder, JANUARY)
    assert found(result) == summary.buckets
    charged = {key[:2]: 0 for key in result.usage if key[0] == "0300000000"}
    for (account, item, _), number in result.usage.items():
        if account == "0300000000":
            charged[account, item] += number
    assert charged == ({("0300000000", "face-search"): quota.calls} if quota.calls else {})


def test_retries_stay_in_the_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("calls", "columns"):
        monkeypatch.setattr(
            f"settlement.sample.{module}.lag", lambda fate: np.full(len(fate), 40 * 86_400 * 10**6)
        )
    summary = write_sample(tmp_path, JANUARY, 10, 2_000, 1)
    assert found(counted(tmp_path, JANUARY)) == summary.buckets


def test_a_log_has_every_kind_of_row_in_a_realistic_share(sixty_thousand: SampleSummary) -> None:
    buckets, rows = sixty_thousand.buckets, sixty_thousand.rows
    assert 0.015 < buckets["unbillable_status"] / rows < 0.025
    assert 0.004 < buckets["duplicate"] / rows < 0.006
    assert 0 < buckets["conflict"] < 10
    assert 0 < buckets["outside_month"] < 10
    rejected = sum(n for bucket, n in buckets.items() if bucket.startswith("rejected."))
    assert 0 < rejected / rows < 0.0001
    assert list(buckets) == [bucket for bucket in BUCKETS if bucket in buckets]


def test_columns_are_plain_and_pages_are_checked(sixty_thousand: SampleSummary) -> None:
    for file in sixty_thousand.folder.iterdir():
        assert pq.read_schema(file).equals(SCHEMA)
    table = read(sixty_thousand.folder)
    assert pc.all(pc.match_substring_regex(table["account_id"], "^(01[0-9]{8})?$")).as_py()
    version_four = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
    assert pc.all(pc.match_substring_regex(table["request_id"], version_four)).as_py()


def test_a_flipped_bit_is_noticed(sixty_thousand: SampleSummary, tmp_path: Path) -> None:
    whole = next(sixty_thousand.folder.iterdir())
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    (tmp_path / whole.name).write_bytes(damaged)
    with pytest.raises(OSError, match="CRC"):
        read(tmp_path)


def test_accounts_follow_zipf(sixty_thousand: SampleSummary) -> None:
    calls = pc.value_counts(read(sixty_thousand.folder)["account_id"]).to_pylist()
    ranked = {row["values"]: row["counts"] for row in calls}
    first, tenth = ranked["0100000001"], ranked["0100000010"]
    assert 5 < first / tenth < 10  # log 2 : log 1.1 = 7.3
    assert len(ranked) > 450


def test_days_have_nights_and_weeks_have_ends(sixty_thousand: SampleSummary) -> None:
    local = pc.local_timestamp(
        read(sixty_thousand.folder)["timestamp"].cast(pa.timestamp("us", CHINA))
    )
    hours = np.bincount(pc.hour(local).drop_null(), minlength=24)
    assert hours[2:5].max() * 5 < hours[9:12].min()
    weekdays = np.bincount(pc.day_of_week(local).drop_null(), minlength=7) / [4, 4, 4, 5, 5, 5, 4]
    assert weekdays[5:].max() * 1.2 < weekdays[:5].min()


def test_shared_interfaces_come_with_and_without_item(sixty_thousand: SampleSummary) -> None:
    table = read(sixty_thousand.folder)
    shared = table.filter(pc.is_in(table["interface"], pa.array(["CreatePerson", "CreateFace"])))
    said = {row["values"]: row["counts"] for row in pc.value_counts(shared["item"]).to_pylist()}
    for item in (None, "face-verification", "face-search", "multi-face-search"):
        assert said.pop(item) > 200
    assert said.keys() <= {"static-liveness"}  # the malformed ones


def test_redeliveries_come_seconds_to_days_later(sixty_thousand: SampleSummary) -> None:
    days: dict[tuple[str, ...], list[int]] = {}
    for number, file in enumerate(sorted(sixty_thousand.folder.iterdir())):
        for row in zip(*(map(str, column) for column in pq.read_table(file)), strict=True):
            days.setdefault(row, []).append(number)
    apart = [max(found) - min(found) for found in days.values() if len(found) > 1]
    assert len(apart) > 200
    assert 100 < apart.count(0) < len(apart) - 10
    assert 2 <= max(apart) <= 5


def test_a_failed_call_is_retried_under_its_id(sixty_thousand: SampleSummary) -> None:
    table = read(sixty_thousand.folder)
    failed = table.filter(pc.not_equal(table["status_code"], 0))["request_id"]
    served = table.filter(pc.equal(table["status_code"], 0))["request_id"]
    both = len(set(failed.to_pylist()) & set(served.to_pylist()))
    assert 0.4 < both / pc.count_distinct(failed).as_py() < 0.6


# ---------------------------------------------------------------- the same again


def test_the_same_seed_is_the_same_log_on_any_number_of_threads(tmp_path: Path) -> None:
    def make(name: str, seed: int, threads: int) -> dict[str, str]:
        write_sample(tmp_path / name, JANUARY, 50, 30_000, seed, threads=threads)
        return digests(tmp_path / name)

    one = make("one", 1, 1)
    assert make("three", 1, 3) == one
    assert set(make("other", 2, 1).values()).isdisjoint(one.values())


def test_row_groups_do_not_change_what_is_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A re-delivery finds its place whatever row group or file its call is in."""
    write_sample(tmp_path / "whole", JANUARY, 50, 30_000, 1)
    monkeypatch.setattr("settlement.sample.writing.ROW_GROUP", 100)
    write_sample(tmp_path / "cut", JANUARY, 50, 30_000, 1, days_per_file=9)
    whole, cut = read(tmp_path / "whole"), read(tmp_path / "cut")
    key = [(name, "ascending") for name in SCHEMA.names]
    assert whole.sort_by(key).equals(cut.sort_by(key))


def test_progress_is_told_every_row(tmp_path: Path) -> None:
    told: list[int] = []
    summary = write_sample(tmp_path, JANUARY, 5, 1000, 1, progress=told.append)
    assert (sum(told), len(told)) == (summary.rows, summary.files)


# ---------------------------------------------------------------- the shipped months


@pytest.mark.skipif(pa.__version__ != "26.0.1", reason="made with the locked pyarrow 26.0.1")
def test_shipped_files_are_what_this_program_writes(shipped: Path) -> None:
    assert digests(shipped) == digests(DATA / "logs")


def test_shipped_months_are_small() -> None:
    assert sum(file.stat().st_size for file in (DATA / "logs").rglob("*.parquet")) <= 1 << 20


@pytest.mark.parametrize(
    ("month", "bills"),
    [
        ("2026-01", {"0100000042": "28.80", "0100000050": "31.36"}),
        ("2026-02", {"0100000042": "0.00", "0100000060": "32.64"}),
    ],
)
def test_shipped_months_show_the_rules(month: str, bills: dict[str, str]) -> None:
    result = counted(DATA / "logs", Month.parse(month))
    invoices = invoice(rate(result.usage, version_for(prices(), month)), 2)
    payable = {account: own.payable for account, own in invoices.items()}
    for account, bill in bills.items():
        assert payable.pop(account) == Decimal(bill)
    assert payable == {f"01000000{n:02}": Decimal("0.00") for n in range(1, 13)}  # the free band
    assert result.reject_share <= Decimal("0.0001")
    compared = result.usage["0100000042", "face-comparison", "CompareFace"]
    assert compared == {"2026-01": 10_001, "2026-02": 10_000}[month]
    assert all(found(result).get(bucket) for bucket in ("duplicate", "conflict", "outside_month"))
    assert any(bucket.startswith("rejected.") for bucket in found(result))


@pytest.mark.parametrize(
    "table", [STAMP_ONLY, *PUBLISHED, ADJUSTMENTS, CONTRACT_LINES], ids=lambda table: table.name
)
def test_the_readme_of_the_data_explains_every_column(table: Table) -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    heading = f"### `{table.name}.parquet`" if table is not STAMP_ONLY else "## What is published"
    section = re.split("^##", text.split(heading)[1], maxsplit=1, flags=re.MULTILINE)[0]
    explained = re.findall(r"^\| \**`(\w+)`\** \| (\S+) \|", section, flags=re.MULTILINE)
    columns = [(column.name, column.label) for column in table.columns]
    assert explained[: len(columns)] == columns


def test_the_readme_of_the_data_explains_every_bucket() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    buckets = text.split("The buckets of `rows`")[1]
    assert tuple(re.findall(r"^\| `([a-z_.]+)` \|", buckets, flags=re.MULTILINE)) == EVERY_BUCKET


def test_the_readme_of_the_data_explains_every_option_of_a_manifest() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `options\.(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(explained) == sorted(_OPTIONS)


# ---------------------------------------------------------------- refusals and the command


@pytest.mark.parametrize(
    ("accounts", "calls", "seed", "quota", "says"),
    [
        (0, 1, 1, 0, "0 accounts"),
        (10**8 + 1, 1, 1, 0, "accounts"),
        (1, 0, 1, 0, "0 calls"),
        (1, 2**31 + 1, 1, 0, "calls"),
        (1, 1, -1, 0, "-1 seed"),
        (1, 10, 1, 11, "quotas"),
    ],
)
def test_numbers_out_of_bounds_are_refused(
    tmp_path: Path, accounts: int, calls: int, seed: int, quota: int, says: str
) -> None:
    quotas = [Quota(1, "face-search", quota)]
    with pytest.raises(WrongUsage, match=says):
        write_sample(tmp_path / "log", JANUARY, accounts, calls, seed, quotas=quotas)
    assert not (tmp_path / "log").exists()


def test_a_log_is_never_written_over(tmp_path: Path) -> None:
    write_sample(tmp_path, JANUARY, 1, 100, 1)
    before = digests(tmp_path)
    with pytest.raises(CannotWrite, match="already"):
        write_sample(tmp_path, JANUARY, 1, 100, 2)
    assert digests(tmp_path) == before


def test_a_failure_leaves_no_half_log(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path, JANUARY, 1, 100, 1, progress=fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="month=2026-01"):
        write_sample(tmp_path / "file", JANUARY, 1, 100, 1)


def test_the_module_writes_the_shipped_months(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--shipped", str(tmp_path)])
    assert "month=2026-02" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"month=2026-01", "month=2026-02"}
    with pytest.raises(SystemExit) as stop:
        main(["--shipped", str(tmp_path)])
    assert stop.value.code == CannotWrite.exit_code
    assert "already" in capsys.readouterr().err


def test_the_demonstration_reaches_tiers_three_and_four(tmp_path: Path) -> None:
    """At a thousandth of its size, where the shares are the same."""
    summary = write_demo(tmp_path, calls=20_000)
    usage = counted(summary.folder, summary.month).usage
    assert usage["0100009001", "face-detection", "DetectFace"] == 15_200
    assert usage["0100009002", "face-comparison", "CompareFace"] == 3_200
