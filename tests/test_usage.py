"""The seam: what `count` says of a log, however its rows lie in files."""

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from settlement import dedup, frames, tables
from settlement.calls import BUCKETS
from settlement.counting import keys
from settlement.errors import BadInput
from settlement.scan import rows as rows_module
from settlement.scan.finding import find
from settlement.scan.hashing import hash_rows
from settlement.scan.texts import Bytes, Lanes
from settlement.tables import ROWS
from settlement.usage import Counted, count
from tests.logs import PERIOD, SCHEMA, START, VERSION, Row, call, table, version, write

END = PERIOD.end * 10**6 - START


@pytest.fixture(autouse=True, params=["quick", "general"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fact holds both ways of reading."""
    monkeypatch.setattr(rows_module, "QUICK_ROWS", range(10**6 * (request.param == "quick")))


def counted(path: Path, *files: Sequence[Row] | pa.Table, **options: Any) -> Counted:
    """Write each as a file of a new log, and count it."""
    for number, rows in enumerate(files):
        write(path / f"{number}.parquet", rows)
    return count(find(str(path)), PERIOD, options.pop("rules", VERSION), **options)


def usage_of(found: Counted) -> list[tuple[Any, ...]]:
    return list(found.usage.itertuples(index=False, name=None))


def test_usage_is_counted_per_account_item_and_interface(tmp_path: Path) -> None:
    rows = [
        call(1),
        call(2),
        call(3, account_id="7"),
        call(4, account_id="é"),
        call(5, account_id="\uffee"),
        call(6, account_id="\U0001d11e"),
        call(7, interface="CreateFace"),
        call(8, interface="CreateFace", item="search"),
        call(9, interface="VerifyFace"),
    ]
    found = counted(tmp_path, rows)
    frames.check(tables.USAGE, found.usage)
    assert usage_of(found) == [
        ("007", "detect", "DetectFace", 2),
        ("007", "search", "CreateFace", 1),
        ("007", "verify", "CreateFace", 1),
        ("007", "verify", "VerifyFace", 1),
        ("7", "detect", "DetectFace", 1),
        ("é", "detect", "DetectFace", 1),
        ("\uffee", "detect", "DetectFace", 1),
        ("\U0001d11e", "detect", "DetectFace", 1),
    ]


def test_every_bucket_is_told_in_its_order(tmp_path: Path) -> None:
    rows = [
        call(1),
        call(1),
        call(1, account_id="8"),
        call(2, timestamp=END),
        call(3, interface="HealthCheck"),
        call(4, status_code=500),
        call(5, timestamp=None),
        call(6, request_id=""),
        call(7, account_id=None),
        call(8, interface=None),
        call(9, item="nothing"),
        call(10, status_code=None),
    ]
    found = counted(tmp_path, rows)
    assert list(found.rows) == list(ROWS)
    assert found.rows == {"read": 12, **dict.fromkeys(ROWS[1:], 1)}
    assert found.rejected == 6
    assert set(ROWS) == {"read", "billed", "duplicate", "conflict", *BUCKETS} - {"charged"}
    assert [(row.row, row.reason) for row in found.rejects.itertuples()] == [
        (6, "missing_timestamp"),
        (7, "missing_request_id"),
        (8, "missing_account_id"),
        (9, "unknown_interface"),
        (10, "wrong_item"),
        (11, "missing_status"),
    ]


TEXT, BYTES = pa.string(), pa.binary()
CLAIMS: list[tuple[str, list[Row], tuple[int, int, int], list[tuple[Any, ...]]]] = [
    ("once", [call(1)], (1, 0, 0), [("007", "detect", "DetectFace", 1)]),
    ("twice", [call(1), call(1)], (1, 1, 0), [("007", "detect", "DetectFace", 1)]),
    (
        "the earliest wins",
        [call(1, timestamp=5, account_id="a"), call(1, timestamp=4, account_id="b")],
        (1, 0, 1),
        [("b", "detect", "DetectFace", 1)],
    ),
    (
        "then the smallest account by bytes",
        [call(1, account_id="\U0001d11e"), call(1, account_id="\uffee"), call(1, account_id="é")],
        (1, 0, 2),
        [("é", "detect", "DetectFace", 1)],
    ),
    (
        "then the smallest interface",
        [call(1, interface="DetectFace"), call(1, interface="CreateFace")],
        (1, 0, 1),
        [("007", "verify", "CreateFace", 1)],
    ),
    (
        "then the smallest bearing item, said or not",
        [call(1, interface="CreateFace"), call(1, interface="CreateFace", item="search")],
        (1, 0, 1),
        [("007", "search", "CreateFace", 1)],
    ),
    (
        "an item said and the same not said are equal",
        [call(1, interface="CreateFace"), call(1, interface="CreateFace", item="verify")],
        (1, 1, 0),
        [("007", "verify", "CreateFace", 1)],
    ),
    (
        "a failed call and its retry are one",
        [call(1, status_code=500, timestamp=0), call(1, timestamp=9)],
        (1, 0, 0),
        [("007", "detect", "DetectFace", 1)],
    ),
    (
        "a row of the month before takes no part",
        [call(1, timestamp=-1), call(1, timestamp=9), call(1, timestamp=END)],
        (1, 0, 0),
        [("007", "detect", "DetectFace", 1)],
    ),
]


@pytest.mark.parametrize(
    ("rows", "outcome", "charged"), [case[1:] for case in CLAIMS], ids=[case[0] for case in CLAIMS]
)
def test_each_request_is_charged_once(
    tmp_path: Path,
    rows: list[Row],
    outcome: tuple[int, int, int],
    charged: list[tuple[Any, ...]],
) -> None:
    for number, order in enumerate(itertools.permutations(rows)):
        for split in (False, True):
            files = [[row] for row in order] if split else [list(order)]
            found = counted(tmp_path / f"{number}-{split}", *files)
            rows_told = tuple(found.rows[name] for name in ("billed", "duplicate", "conflict"))
            assert (rows_told, usage_of(found)) == (outcome, charged)


def test_instants_are_compared_across_units_exactly(tmp_path: Path) -> None:
    early = table([call(1, account_id="b", timestamp=1)], SCHEMA)
    late = table([call(1, account_id="a", timestamp=2)], SCHEMA)
    nanoseconds = late.set_column(
        3, "timestamp", pa.array([START * 1000 + 1001], pa.timestamp("ns", "UTC"))
    )
    found = counted(tmp_path, early, nanoseconds)
    assert usage_of(found) == [("b", "detect", "DetectFace", 1)]
    assert found.rows["conflict"] == 1


def test_ids_are_compared_as_bytes(tmp_path: Path) -> None:
    text = table([call(1, request_id="ab"), call(2, request_id="é")])
    same = table(
        [call(1, request_id=b"ab"), call(2, request_id="é".encode())],
        SCHEMA | {"request_id": BYTES},
    )
    fixed = table([call(1, request_id=b"ab")], SCHEMA | {"request_id": pa.binary(2)})
    other = table([call(1, request_id="6162")])
    found = counted(tmp_path, text, same, fixed, other)
    assert (found.rows["billed"], found.rows["duplicate"]) == (3, 3)


def test_a_uuid_and_its_text_are_different_ids(tmp_path: Path) -> None:
    raw = bytes(range(16))
    binary = table([call(1)]).set_column(0, "request_id", pa.array([raw], pa.uuid()))
    text = table([call(1, request_id="00010203-0405-0607-0809-0a0b0c0d0e0f")])
    assert counted(tmp_path, binary, text).rows["billed"] == 2


def test_without_deduplication_ids_are_not_read(tmp_path: Path) -> None:
    rules = version(deduplicate="false")
    found = counted(tmp_path, [call(1), call(1), call(1, request_id=None)], rules=rules)
    assert (found.rows["billed"], found.rows["duplicate"]) == (3, 0)
    assert found.rows["rejected.missing_request_id"] == 0


def drawn_log(seed: int = 1, size: int = 400) -> list[Row]:
    """Rows with every kind of fault and repetition."""
    random = np.random.default_rng(seed)
    rows = []
    for n in range(size):
        changes: dict[str, Any] = {
            "request_id": f"r{random.integers(size)}",
            "account_id": str(random.integers(20)),
            "interface": random.choice(["DetectFace", "CreateFace", "VerifyFace", "SearchFaces"]),
            "timestamp": int(random.integers(-20, 60)),
        }
        if random.random() < 0.1:
            spoilt = random.choice(list(SCHEMA))
            changes[str(spoilt)] = None
        rows.append(call(n, **changes))
        if random.random() < 0.2:
            rows.append(rows[random.integers(len(rows))])
    return rows


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_files_change_nothing(tmp_path: Path, threads: int) -> None:
    rows = drawn_log()
    whole = counted(tmp_path / "whole", rows, threads=1)
    assert min(n for name, n in whole.rows.items() if name in ("duplicate", "conflict")) > 0
    layouts = {
        "split": [rows[n::7] for n in range(7)],
        "shuffled": [list(reversed(rows[200:])), rows[:200]],
        "single": [[row] for row in rows[:100]] + [rows[100:]],
    }
    for name, files in layouts.items():
        found = counted(tmp_path / name, *files, threads=threads)
        assert found.rows == whole.rows
        pd.testing.assert_frame_equal(found.usage, whole.usage)
        reasons = [sorted(one.rejects["reason"]) for one in (found, whole)]
        assert reasons[0] == reasons[1]


def all_alike(matrix: Bytes) -> Lanes:
    """A hash on which every id collides."""
    return np.zeros(len(matrix), np.uint64)


def test_a_hash_that_always_collides_changes_nothing(tmp_path: Path) -> None:
    rows = drawn_log(2)
    whole = counted(tmp_path, rows)
    collided = counted(tmp_path, rows, hashed=all_alike)
    assert collided.rows == whole.rows
    pd.testing.assert_frame_equal(collided.usage, whole.usage)


def first_half_alike(matrix: Bytes) -> Lanes:
    """A hash on which every id collides in what a key holds of it, and few in the rest."""
    return hash_rows(matrix) & np.uint64(0xFFFFFFFF)


@pytest.mark.parametrize("hashed", [hash_rows, first_half_alike, all_alike])
def test_rests_of_hashes_that_sift_suspects_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: Callable[[Bytes], Lanes]
) -> None:
    """As where rows are so many that the hashes in keys are short."""
    rows = drawn_log(2)
    whole = counted(tmp_path, rows)
    monkeypatch.setattr("settlement.usage.is_crowded", lambda _: True)
    monkeypatch.setattr("settlement.counting.keys.Keys.suspects.__defaults__", (1, 5))
    sifted = counted(tmp_path, rows, hashed=hashed)
    assert sifted.rows == whole.rows
    pd.testing.assert_frame_equal(sifted.usage, whole.usage)


def test_batches_and_lots_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn_log(3)
    whole = counted(tmp_path, rows)
    monkeypatch.setattr("settlement.scan.decoding.BATCH_ROWS", 17)
    monkeypatch.setattr(keys, "_BLOCK", 5)
    monkeypatch.setattr(dedup, "_CLAIMS", 3)
    monkeypatch.setattr(keys.Keys.suspects, "__defaults__", (1, 8))
    assert counted(tmp_path, rows).rows == whole.rows


def test_rejects_are_sorted_and_beyond_the_limit_only_ten_are_kept(tmp_path: Path) -> None:
    files = [[call(n, account_id=None) for n in range(8)] for _ in range(5)]
    whole = counted(tmp_path, *files, keep_rejects=40)
    frames.check(tables.REJECTS, whole.rejects)
    assert len(whole.rejects) == whole.rejected == 40
    for threads in (1, 3):
        few = counted(tmp_path, *files, keep_rejects=39, threads=threads)
        assert few.rejected == 40
        pd.testing.assert_frame_equal(few.rejects, whole.rejects.head(10))


def test_inputs_are_the_files_with_rows_in_the_month(tmp_path: Path) -> None:
    before, within = [call(1, timestamp=-1)], [call(2)]
    found = counted(tmp_path, before, within, [], [call(3, timestamp=None)], [call(4, item="x")])
    assert [file.file for file in found.inputs] == ["1.parquet", "4.parquet"]
    assert found.rows["read"] == 4
    assert found.inputs[0].size == (tmp_path / "1.parquet").stat().st_size


def test_a_log_without_rows_is_counted(tmp_path: Path) -> None:
    found = counted(tmp_path, [])
    assert set(found.rows.values()) == {0}
    assert found.usage.empty
    assert found.rejects.empty
    frames.check(tables.USAGE, found.usage)
    frames.check(tables.REJECTS, found.rejects)


def test_an_item_column_may_be_in_some_files_only(tmp_path: Path) -> None:
    named = [call(1, interface="CreateFace", item="search")]
    unnamed = table([call(2, interface="CreateFace")]).drop_columns(["item"])
    assert usage_of(counted(tmp_path, named, unnamed)) == [
        ("007", "search", "CreateFace", 1),
        ("007", "verify", "CreateFace", 1),
    ]


def test_progress_ends_with_all_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    files = [[call(n)] for n in range(4)] + [[call(9, timestamp=-1)]]
    counted(tmp_path, *files, progress=lambda rows, size: seen.append((rows, size)))
    log = find(str(tmp_path))
    assert seen[-1] == (log.rows, log.size)
    assert seen == sorted(seen)
    assert len(seen) == 5


class Stop(BaseException):
    """Stands for Ctrl-C."""


def test_interruption_stops_the_work(tmp_path: Path) -> None:
    """Whoever takes the results is interrupted: no further row group is begun."""
    for n in range(60):
        write(tmp_path / f"{n:02}.parquet", [call(n)])
    done = []

    def interrupt(rows: int, _: int) -> None:
        done.append(rows)
        raise Stop

    before = threading.active_count()
    with pytest.raises(Stop):
        count(find(str(tmp_path)), PERIOD, VERSION, threads=2, progress=interrupt)
    assert len(done) == 1
    assert threading.active_count() == before


def test_a_refusal_in_one_file_is_raised_and_stops_the_rest(tmp_path: Path) -> None:
    for n in range(20):
        write(tmp_path / f"{n:02}.parquet", [call(n)])
    path = tmp_path / "07.parquet"
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    log = find(str(tmp_path))
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=r"07\.parquet"):
        count(log, PERIOD, VERSION, threads=3)
