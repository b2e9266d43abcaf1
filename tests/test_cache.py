"""The cache: with all of it, some of it, none of it or a broken one, a month comes to the same."""

import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settlement import settle
from settlement.book import Book
from settlement.counting import digesting, keys, reading, repetitions
from settlement.counting.digesting import digest, remember
from settlement.counting.finder import Finder
from settlement.errors import BadInput, BookHeld
from settlement.ingest import Intake, ingest
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from settlement.scan import cache as cache_module
from settlement.scan.cache import Cache, Digests, Entry, Key, write_memo
from settlement.scan.finding import find
from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.logfiles import CallLog
from settlement.scan.pieces import Writer
from settlement.scan.texts import Bytes, Lanes
from settlement.usage import Counted, count
from tests import months, small
from tests.logs import MONTH, PERIOD, PRICES, VERSION, Row, call, write
from tests.processes import PROGRAM, environment, start, tables_of
from tests.test_random_months import EXAMPLES, order_for

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    """Even small files have many pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "NOTES", 3)
        patch.setattr(keys, "_BLOCK", 8)
        yield


def intake(folder: Path, month: str | None = None) -> Intake:
    """Ingest the folder's log into the folder's book."""
    prices = PriceBook.parse((folder / "prices.toml").read_bytes())
    asked = Month.parse(month) if month else None
    return Intake(str(folder / "logs"), folder / "book", prices, NOW, asked)


def files_of(book: Path, suffix: str) -> list[Path]:
    return sorted((book / ".cache").rglob(f"*{suffix}"))


# ---------------------------------------------------------------- whole months


@settings(
    max_examples=EXAMPLES // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(months.histories(), st.data())
def test_months_are_the_same_with_any_part_of_the_cache(
    history: months.History, data: st.DataObject
) -> None:
    """Some files are digested first, then some more, then the months are settled."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        months.write_log(folder / "log", history.log.calls, history.log)
        orders = [order_for(folder, history, month, "cold") for month in history.prices.months]
        for order in orders:
            settle.run(order)
        names = [form.name for form in history.log.files]
        taking = Intake(
            str(folder / "log"), folder / "warm", orders[0].prices, datetime(2027, 1, 1, tzinfo=UTC)
        )
        for some in (data.draw(st.sets(st.sampled_from(names))), set(names)):
            hidden = [name for name in names if name not in some]
            if len(hidden) == len(names):
                continue
            for name in hidden:
                (folder / "log" / name).rename(folder / "log" / f"{name}.hidden")
            ingest(replace(taking, threads=data.draw(st.sampled_from([1, 2]))))
            for name in hidden:
                (folder / "log" / f"{name}.hidden").rename(folder / "log" / name)
            if data.draw(st.booleans()):
                break
        for order in orders:
            threads = data.draw(st.sampled_from([1, 2]))
            settle.run(replace(order, book=folder / "warm", threads=threads))
        assert tables_of(folder / "warm") == tables_of(folder / "cold")


# ---------------------------------------------------------------- one count


def alike(matrix: Bytes) -> Lanes:
    """A hash on which all ids collide."""
    return np.zeros(len(matrix), np.uint64)


def upper_half_alike(matrix: Bytes) -> Lanes:
    """A hash on which all ids collide but for the lower half, which no key has."""
    return hash_rows(matrix) >> np.uint64(32)


def log_of(folder: Path, *files: Sequence[Row]) -> CallLog:
    for number, rows in enumerate(files):
        write(folder / f"{number}.parquet", rows, row_group_size=4)
    return find(str(folder))


def key_of(log: CallLog, number: int) -> Key:
    return Key.of(log.files[number], PERIOD, None, {"rules": VERSION.digest})


def digested(
    folder: Path, log: CallLog, numbers: Sequence[int], hashed: Hash = hash_rows
) -> Digests:
    """Digest some of a log's files, and remember what must be read again."""
    cache = Cache(folder)
    own = [key_of(log, number) for number in numbers]
    for number, key in zip(numbers, own, strict=True):
        if cache.path(MONTH, key).exists():
            continue
        with Writer(cache.path(MONTH, key)) as writer:
            alone = CallLog(log.root, (log.files[number],), 0, log.filesystem)
            about = digest(alone, PERIOD, VERSION, writer, threads=1, hashed=hashed)
            assert not isinstance(about, str)
            writer.commit(key.json, about)
    found = cache.find(MONTH, own)
    some = CallLog(log.root, tuple(log.files[n] for n in numbers), 0, log.filesystem)
    memo = partial(write_memo, cache.memo_path(MONTH, own[0]), own[0], found)
    remember(some, PERIOD, VERSION, found, memo, threads=1, hashed=hashed)
    return cache.find(MONTH, own)


def same(one: Counted, two: Counted) -> bool:
    assert one.usage.equals(two.usage)
    assert one.rejects.equals(two.rejects)
    return (one.rows, one.inputs) == (two.rows, two.inputs)


FILES = [
    [call(n) for n in range(9)] + [call(2), call(3, account_id="8", timestamp=1)],
    [call(n) for n in range(5, 12)] + [call(50, interface="Nope"), call(51, status_code=500)],
    [call(1, account_id="other"), call(60), call(61, request_id=""), call(62, timestamp=None)],
    [call(n, interface="CreateFace", item="search", timestamp=2) for n in (1, 7, 60, 70)],
]


@pytest.mark.parametrize("lent", [0, cache_module.LENT])
@pytest.mark.parametrize("hashed", [hash_rows, alike, upper_half_alike])
@pytest.mark.parametrize("numbers", [(0,), (0, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_repetitions_across_files_are_found_with_any_hash(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    numbers: Sequence[int],
    hashed: Hash,
    lent: int,
) -> None:
    """Whether the keys of entries are copied or read where they lie."""
    monkeypatch.setattr(cache_module, "LENT", lent)
    log = log_of(tmp_path / "log", *FILES)
    cold = count(log, PERIOD, VERSION, threads=1)
    assert cold.rows["conflict"] > 2
    assert cold.rows["duplicate"] > 2
    digests = digested(tmp_path / "book", log, numbers, hashed)
    assert len(digests.entries) == len(numbers)
    assert same(count(log, PERIOD, VERSION, threads=2, hashed=hashed, digests=digests), cold)


def test_what_is_digested_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at first nor, if it was looked at twice before, a second time."""
    log = log_of(tmp_path / "log", *FILES)
    cold = count(log, PERIOD, VERSION)
    digests = digested(tmp_path / "book", log, range(4))

    def refuse(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(reading, "classify", refuse)
    monkeypatch.setattr(repetitions, "recall", refuse)
    assert same(count(log, PERIOD, VERSION, digests=digests), cold)


@pytest.mark.parametrize("lent", [0, cache_module.LENT])
@pytest.mark.parametrize("hashed", [hash_rows, alike, upper_half_alike])
@pytest.mark.parametrize("days", [[(0,), (0, 1), (0, 1, 2)], [(1, 3), (0, 1, 2, 3)], [(2,), (3,)]])
def test_a_memo_grows_with_its_month(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    days: list[Sequence[int]],
    hashed: Hash,
    lent: int,
) -> None:
    """What the memo of some files knows is enough for them; others are compared with them.

    Of fewer files it says nothing.
    """
    monkeypatch.setattr(cache_module, "LENT", lent)
    log = log_of(tmp_path / "log", *FILES)
    cold = count(log, PERIOD, VERSION)
    for numbers in days:
        memo = digested(tmp_path / "book", log, numbers, hashed).memo
        digests = Cache(tmp_path / "book").find(MONTH, [key_of(log, n) for n in range(4)])
        assert memo
        covered = [name for name, entry in digests.entries.items() if digests.is_compared(entry)]
        assert covered == [log.files[number].name for number in numbers]
        assert same(count(log, PERIOD, VERSION, hashed=hashed, digests=digests), cold)
    some = CallLog(log.root, tuple(log.files[n] for n in numbers), 0, log.filesystem)
    fewer = CallLog(log.root, some.files[1:], 0, log.filesystem)
    assert same(
        count(fewer, PERIOD, VERSION, hashed=hashed, digests=digests), count(fewer, PERIOD, VERSION)
    )
    monkeypatch.setattr(repetitions, "recall", lambda *_: pytest.fail("read"))
    cold = count(some, PERIOD, VERSION, hashed=hashed, digests=digests)
    monkeypatch.undo()
    assert same(count(some, PERIOD, VERSION), cold)


def test_rows_that_were_compared_are_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows are looked for among them, and they are not looked at where none are new."""
    log = log_of(tmp_path / "log", *FILES)
    digests = digested(tmp_path / "book", log, range(4))
    given: list[int] = []
    look = Finder.groups

    def counting(finder: Finder, some: Lanes) -> Any:
        given.append(len(some))
        return look(finder, some)

    monkeypatch.setattr(Finder, "groups", counting)
    count(log, PERIOD, VERSION, digests=digests)
    assert sum(given) == 0
    given.clear()
    count(log, PERIOD, VERSION)
    charged = [row for rows in FILES for row in rows]
    assert 0 < sum(given) < len(charged)


def test_rows_whose_hashes_agree_by_halves_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [[call(n) for n in range(6)], [call(n) for n in range(10, 16)]]
    log = log_of(tmp_path / "log", *files)
    entries: dict[str, Entry] = {}
    for number in (0, 1):
        entries |= digested(tmp_path / str(number), log, [number], upper_half_alike).entries
    monkeypatch.setattr(repetitions, "recall", lambda *_: pytest.fail("read"))
    found = count(log, PERIOD, VERSION, hashed=upper_half_alike, digests=Digests(entries))
    assert found.rows["billed"] == 12


# ---------------------------------------------------------------- damage


def check_damaged(folder: Path, log: CallLog, cold: Counted) -> None:
    """Whatever the cache looks like, the count is the same."""
    digests = Cache(folder).find(MONTH, [key_of(log, n) for n in range(4)])
    assert same(count(log, PERIOD, VERSION, threads=1, digests=digests), cold)


@pytest.mark.parametrize("suffix", [".entry", ".memo"])
def test_every_flipped_byte_is_noticed(tmp_path: Path, suffix: str) -> None:
    log = log_of(tmp_path / "log", *FILES)
    cold = count(log, PERIOD, VERSION)
    digested(tmp_path, log, range(4))
    path = max(files_of(tmp_path, suffix), key=lambda file: file.stat().st_size)
    whole = path.read_bytes()
    places = [*range(0, len(whole), max(len(whole) // 150, 1)), *range(-60, 0)]
    for number, place in enumerate(place % len(whole) for place in places):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        sound = Cache(tmp_path).find(MONTH, [key_of(log, n) for n in range(4)])
        is_sound = all(entry.is_sound() for entry in sound.entries.values())
        memo_is_sound = sound.memo is not None and sound.memo.is_sound()
        assert len(sound.entries) < 4 or not is_sound or not memo_is_sound, place
        if number % 8 == 0:
            check_damaged(tmp_path, log, cold)


@pytest.mark.parametrize("suffix", [".entry", ".memo"])
def test_truncated_and_swapped_files_are_noticed(tmp_path: Path, suffix: str) -> None:
    log = log_of(tmp_path / "log", *FILES)
    cold = count(log, PERIOD, VERSION)
    digested(tmp_path, log, range(4))
    path = files_of(tmp_path, suffix)[0]
    whole = path.read_bytes()
    others = [file.read_bytes() for file in (tmp_path / ".cache").rglob("*.*") if file != path]
    for contents in (b"", b"x", whole[:40], whole[: len(whole) // 2], whole[:-1], whole + b"x"):
        path.write_bytes(contents)
        check_damaged(tmp_path, log, cold)
    for contents in others:
        path.write_bytes(contents)
        check_damaged(tmp_path, log, cold)


def test_a_memo_of_another_entry_is_not_believed(tmp_path: Path) -> None:
    """An entry made anew may number its accounts otherwise."""
    log = log_of(tmp_path / "log", *FILES)
    cold = count(log, PERIOD, VERSION)
    digested(tmp_path / "one", log, range(4))
    digested(tmp_path / "two", log, range(4), alike)
    for memo in files_of(tmp_path / "two", ".memo"):
        shutil.copy(memo, tmp_path / "one" / memo.relative_to(tmp_path / "two"))
    check_damaged(tmp_path / "one", log, cold)


def test_entries_that_vanish_meanwhile_are_counted(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", *FILES)
    digests = digested(tmp_path, log, range(4))
    shutil.rmtree(tmp_path / ".cache")
    cold = count(log, PERIOD, VERSION)
    assert same(count(log, PERIOD, VERSION, digests=digests), cold)


# ---------------------------------------------------------------- what is digested


def test_only_what_is_new_is_digested(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01", "2026-02", "2026-03")
    first = ingest(intake(world))
    assert [str(each.month) for each in first.digested] == ["2026-01", "2026-02", "2026-03"]
    assert (first.kept, first.removed) == (0, 0)
    again = ingest(intake(world))
    assert (again.digested, again.kept, again.removed) == ((), 3, 0)
    small.write_month(world / "logs", "2026-02").touch()
    (world / "logs" / "2026-01.parquet").unlink()
    third = ingest(intake(world))
    assert [each.file for each in third.digested] == ["2026-02.parquet"]
    assert (third.kept, third.removed) == (1, 2)


@pytest.mark.parametrize(
    ("limit", "most", "says"),
    [
        ("_CELLS", 1, "too many accounts"),
        ("_CELLS", 50, "too many rows"),
        ("KEPT", 0, "too many rejected rows"),
    ],
)
def test_what_has_no_room_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, says: str
) -> None:
    """The month has 90 rows of two accounts; a third of them is of an interface unknown."""
    path = small.write_month(small.write_world(tmp_path, "2026-01") / "logs", "2026-01")
    rows = pa.concat_tables([pq.read_table(path)] * 30)
    interfaces = pa.array(["Detect", "Detect", "Unheard"] * 30)
    pq.write_table(rows.set_column(2, "interface", interfaces), path)
    monkeypatch.setattr(digesting, limit, most)
    done = ingest(intake(tmp_path))
    assert f"1 of them not kept: {says};" in str(done)
    assert [(each.size, each.excess) for each in done.digested] == [(0, says)]
    assert not files_of(tmp_path / "book", cache_module.ENTRY)


def test_a_settled_month_is_digested_only_if_asked(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01", "2026-02", "2026-03")
    ingest(intake(world))
    plain = intake(world)
    settle.run(Order(Month(2026, 1), plain.logs, plain.book, plain.prices, NOW, allow_gap=True))
    assert [(done.kept, done.removed) for done in [ingest(intake(world))]] == [(2, 1)]
    assert len(ingest(intake(world, "2026-01")).digested) == 1
    assert ingest(intake(world, "2026-01")).kept == 1
    assert ingest(intake(world)).removed == 1


def test_other_rules_need_other_entries_and_other_prices_do_not(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01")
    ingest(intake(world))
    for new, digested_again in (("0.7", 0), ('"Detect", "Other"', 1)):
        old = "0.5" if new == "0.7" else '"Detect"'
        text = (world / "prices.toml").read_text().replace(old, new)
        (world / "prices.toml").write_text(text)
        assert len(ingest(intake(world)).digested) == digested_again


def test_a_damaged_entry_is_digested_again(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01", "2026-02")
    ingest(intake(world))
    path = files_of(world / "book", ".entry")[0]
    path.write_bytes(b"x" + path.read_bytes()[1:])
    done = ingest(intake(world))
    assert (len(done.digested), done.kept) == (1, 1)
    assert ingest(intake(world)).kept == 2


def test_a_damaged_memo_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    log_of(tmp_path / "logs", *FILES)
    ingest(intake(tmp_path))
    memo = files_of(tmp_path / "book", ".memo")[0]
    memo.write_bytes(memo.read_bytes()[:-1])
    done = ingest(intake(tmp_path))
    assert (len(done.digested), done.kept) == (0, len(FILES))
    assert files_of(tmp_path / "book", ".memo") == [memo]
    before = memo.read_bytes()
    assert ingest(intake(tmp_path)).kept == len(FILES)
    assert memo.read_bytes() == before


def test_a_memo_is_made_again_where_a_file_is_gone(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    log_of(tmp_path / "logs", *FILES)
    ingest(intake(tmp_path))
    (memo,) = files_of(tmp_path / "book", ".memo")
    before = memo.read_bytes()
    (tmp_path / "logs" / "1.parquet").unlink()
    done = ingest(intake(tmp_path))
    assert (len(done.digested), done.kept, done.removed) == (0, 3, 1)
    assert memo.read_bytes() != before
    after = memo.read_bytes()
    assert ingest(intake(tmp_path)).kept == 3
    assert memo.read_bytes() == after


def test_the_book_does_not_know_its_cache(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01")
    ingest(intake(world))
    assert Book.open(world / "book").settlements == ()
    assert list((world / "book").glob("*/r*/*")) == []


# ---------------------------------------------------------------- refusals and kills


def test_only_one_ingest_at_a_time_and_a_run_does_not_wait(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01")
    plain = intake(world)
    with Cache(world / "book").held():
        with pytest.raises(BookHeld, match="another ingest"):
            ingest(plain)
        settle.run(Order(Month(2026, 1), plain.logs, plain.book, plain.prices, NOW))


def test_a_log_that_is_refused_leaves_no_book(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01")
    (world / "logs" / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadInput, match="truncated"):
        ingest(intake(world))
    assert not (world / "book").exists()


def command(world: Path, verb: str, *more: str) -> list[str]:
    paths = ["--logs", "logs", "--book", "book", "--prices", "prices.toml"]
    return [verb, *more, *(str(world / p) if p[0] != "-" else p for p in paths), "--threads", "1"]


def test_a_full_disk_is_one_line_and_the_book_stays(tmp_path: Path) -> None:
    """A limit on the size of files refuses as a full disk does."""
    world = small.write_world(tmp_path, "2026-01", "2026-02")
    refused = subprocess.run(
        [PROGRAM, *command(world, "ingest")],
        env=environment(SETTLE_NOW="2026-03-02T00:00:00Z"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 73, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert list((world / "book" / ".cache").rglob("*.entry")) == []
    assert list((world / "book" / ".cache").rglob(".new-*")) == []


def test_a_killed_ingest_leaves_nothing_that_a_run_would_believe(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, *(f"2025-{n:02d}" for n in range(1, 13)), "2026-01")
    plain = intake(world)
    order = Order(Month(2026, 1), plain.logs, tmp_path / "cold", plain.prices, NOW)
    settle.run(order)
    choice = random.Random(7)
    began = time.monotonic()
    start(*command(world, "ingest")).communicate()
    whole = time.monotonic() - began
    for number in range(5):
        shutil.rmtree(world / "book", ignore_errors=True)
        process = start(*command(world, "ingest"))
        time.sleep(whole * choice.uniform(0.4, 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if number % 2:
            ingest(intake(world))
            assert list((world / "book" / ".cache").rglob(".new-*")) == []
        settle.run(replace(order, book=world / "book"))
        assert tables_of(world / "book") == tables_of(tmp_path / "cold")


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    world = small.write_world(tmp_path, "2026-01")
    process = start(*command(world, "ingest"), SETTLE_NOW="2026-03-02T00:00:00Z")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "digested 1 file, 3 rows (2026-01); kept 0, removed 0 entries" in out
