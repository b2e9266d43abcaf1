"""De-duplication: its keys, its finder, and who wins among rows of one id."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import dedup
from settlement.counting import keys as keys_module
from settlement.counting.finder import Finder
from settlement.counting.keys import Keys, Suspects, is_crowded, joined
from settlement.dedup import Claim, Claims, same_ids, winners
from settlement.scan import texts
from settlement.scan.hashing import hash_rows, hash_texts
from settlement.scan.texts import Bytes, Lanes, lanes

IDS = st.lists(st.binary(max_size=64), max_size=60)


def all_alike(matrix: Bytes) -> Lanes:
    """A hash on which every id collides."""
    return np.zeros(len(matrix), np.uint64)


def by_width(matrix: Bytes) -> Lanes:
    """A hash on which ids of one length collide."""
    return matrix[:, 0].astype(np.uint64) << np.uint64(56)


def by_last_hash_bit(matrix: Bytes) -> Lanes:
    """A hash whose values differ in one bit alone, far below those that make slots."""
    return (matrix[:, 0].astype(np.uint64) & np.uint64(1)) << np.uint64(20)


def all_different(matrix: Bytes) -> Lanes:
    """A hash that tells every id apart by far."""
    return hash_rows(matrix)


HASHES = [all_different, by_width, by_last_hash_bit, all_alike]


# ---------------------------------------------------------------- suspects


def lots(
    ids: list[bytes], hashed: Callable[[Bytes], Lanes], at_most: int = 1 << 20, threads: int = 1
) -> list[Suspects]:
    keys = Keys(len(ids))
    places = np.arange(len(ids))
    for some in np.array_split(places, 3):
        array = pa.array([ids[n] for n in some], pa.binary())
        keys.add(hash_texts(texts.of_arrow(array), hashed), some)
    found = list(keys.suspects(threads, at_most))
    keys.close()
    return found


def positions(found: list[Suspects]) -> list[int]:
    return [place for lot in found for place in lot.positions.tolist()]


@pytest.mark.parametrize("hashed", HASHES)
@settings(max_examples=25, deadline=None)
@given(ids=IDS)
def test_rows_are_suspect_where_their_hash_is_not_theirs_alone(
    hashed: Callable[[Bytes], Lanes], ids: list[bytes]
) -> None:
    ids = ids + ids[::2]
    hashes = hash_texts(texts.of_arrow(pa.array(ids, pa.binary())), hashed).tolist()
    times = Counter(hashes)
    (lot,) = lots(ids, hashed) or [Suspects(np.zeros(0, np.uint64), 0, 32)]
    assert lot.positions.tolist() == [n for n, one in enumerate(hashes) if times[one] > 1]
    groups = lot.group(slice(None)).tolist()
    assert sorted(set(groups)) == list(range(lot.groups))
    together = {(hashes[n], group) for n, group in zip(lot.positions, groups, strict=True)}
    assert len(together) == lot.groups == sum(count > 1 for count in times.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=80), st.integers(10, 40), st.integers(0, 15))
def test_a_finder_compares_all_bits_of_a_hash(hashes: list[int], bits: int, shift: int) -> None:
    """Hashes agree in the bits that make slots, in the others, or in none."""
    keys = np.array([one << min(bits + shift, 59) for one in hashes], np.uint64)
    keys |= np.arange(len(keys), dtype=np.uint64)
    times = Counter((keys >> np.uint64(bits)).tolist())
    finder = Finder(bits)
    for _ in range(2):  # what a finder held before does not matter
        found, groups = finder.groups(keys)
        rows = [n for n, key in enumerate(keys.tolist()) if times[key >> bits] > 1]
        assert sorted(found.tolist()) == rows
        pairs = {(int(keys[n]) >> bits, g) for n, g in zip(found, groups, strict=True)}
        assert len(pairs) == len(set(groups.tolist())) == len({high for high, _ in pairs})


def test_ids_that_occur_once_are_rarely_suspect() -> None:
    assert lots([b"%08d" % n for n in range(50_000)], hash_rows) == []


@pytest.mark.parametrize("at_most", [1, 7, 100, 10**6])
def test_lots_put_together_are_as_one(at_most: int) -> None:
    ids = [b"%d" % (n % 50) for n in range(200)]
    (whole,) = lots(ids, hash_rows)
    apart = lots(ids, hash_rows, 1)
    assert len(apart) > 10
    found = list(joined(apart, at_most))
    assert all(len(lot) <= max(at_most, 4) or len(apart) == len(found) for lot in found)
    assert sorted(positions(found)) == whole.positions.tolist()
    if at_most >= 200:
        (lot,) = found
        pairs = zip(lot.group(slice(None)).tolist(), whole.group(slice(None)).tolist(), strict=True)
        assert len(set(pairs)) == whole.groups == lot.groups


def test_lots_without_rows_vanish() -> None:
    (whole,) = lots([b"a", b"a"], hash_rows)
    none = whole.only(np.zeros(2, bool))
    assert list(joined([none, none])) == []
    (lot,) = joined([none, whole, none])
    assert lot.positions.tolist() == [0, 1]


def test_lots_may_be_filled() -> None:
    (whole,) = lots([b"a", b"a"], hash_rows)
    assert [len(lot) for lot in joined([whole, whole, whole], 4)] == [4, 2]


@pytest.mark.parametrize(
    ("rows", "crowded"), [(1, False), (10**8, False), (3 * 10**8, True), (10**9, True)]
)
def test_a_log_is_crowded_where_keys_have_little_of_a_hash(rows: int, crowded: bool) -> None:
    assert is_crowded(rows) is crowded


@pytest.mark.parametrize("at_most", [1, 7, 100, 10**6])
def test_all_rows_of_an_id_are_in_one_lot(at_most: int) -> None:
    ids = [b"%d" % (n % 50) for n in range(200)]
    found = lots(ids, hash_rows, at_most)
    assert sorted(positions(found)) == list(range(200))
    homes = [{ids[place] for place in lot.positions} for lot in found]
    assert sum(map(len, homes)) == 50
    for lot in found:
        assert lot.positions.tolist() == sorted(lot.positions.tolist())
        members: dict[int, set[bytes]] = {}
        for place, group in zip(lot.positions, lot.group(slice(None)), strict=True):
            members.setdefault(int(group), set()).add(ids[place])
        assert sorted(members) == list(range(lot.groups))
        assert all(len(one) == 1 for one in members.values())


@pytest.mark.parametrize("ids", [[], [b"a"], [b""], [b"a", b"b"]])
def test_few_rows_have_no_suspects(ids: list[bytes]) -> None:
    assert lots(ids, hash_rows) == []


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    ids = [b"%d" % (n % 700) for n in range(1000)]
    whole = positions(lots(ids, hash_rows))
    monkeypatch.setattr(keys_module, "_BLOCK", block)
    assert positions(lots(ids, hash_rows)) == whole
    assert positions(lots(ids, hash_rows, threads=3)) == whole


@pytest.mark.parametrize("hashed", HASHES)
@pytest.mark.parametrize("together", [1, 40, 100_000])
def test_partitions_searched_together_change_nothing(
    monkeypatch: pytest.MonkeyPatch, together: int, hashed: Callable[[Bytes], Lanes]
) -> None:
    ids = [b"%d" % (n % 700) * (1 + n % 9) for n in range(1000)]
    hashes = hash_texts(texts.of_arrow(pa.array(ids)), hashed).tolist()
    times = Counter(hashes)
    monkeypatch.setattr(keys_module, "_TOGETHER", together)
    assert positions(lots(ids, hashed)) == [n for n, one in enumerate(hashes) if times[one] > 1]


def test_far_positions_leave_room_for_the_hash() -> None:
    keys = Keys(1 << 40)
    near, far = np.array([0, 1]), np.array([(1 << 40) - 1, (1 << 40) - 2])
    for places in (near, far):
        keys.add(hash_rows(np.array([[1], [2]], np.uint8)), places)
    (lot,) = keys.suspects()
    keys.close()
    assert lot.positions.tolist() == [0, 1, (1 << 40) - 2, (1 << 40) - 1]
    first, second, third, fourth = lot.group(slice(None)).tolist()
    assert (first, second) == (fourth, third) != (second, first)


def test_more_rows_than_positions_can_tell_apart_are_refused() -> None:
    with pytest.raises(OverflowError):
        Keys(1 << 45)


class Partitions:
    """Keys that lie elsewhere, as `Keys.partitions` gave them."""

    def __init__(self, keys: Keys) -> None:
        self._partitions = list(keys.partitions())

    def sizes(self) -> Any:
        return np.array([len(each) for each in self._partitions])

    def read(self, partitions: range) -> Lanes:
        return np.concatenate(self._partitions[partitions.start : partitions.stop])


def hand_over(other: Keys, keys: Keys, first: int, *, lent: bool, compared: bool) -> None:
    """Give other keys to these, at once or to be read where they lie."""
    if lent:
        keys.borrow(Partitions(other), other.position_bits, first, compared=compared)
        return
    for block in other.blocks():
        keys.take_over(block, other.position_bits, first, compared=compared)


@pytest.mark.parametrize("lent", [False, True], ids=["taken over", "lent"])
@pytest.mark.parametrize("block", [2, 16, 1 << 18])
@settings(deadline=None, max_examples=25)
@given(ids=IDS, share=st.integers(0, 3))
def test_keys_of_others_find_the_same_suspects(
    block: int, lent: bool, ids: list[bytes], share: int
) -> None:
    """As if all rows had been added to one, whatever the blocks."""
    ids, cut = ids * 2, len(ids) * share // 2
    hashes = hash_texts(texts.of_arrow(pa.array(ids, pa.binary())), all_different)
    rows = np.arange(len(ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_module, "_BLOCK", block)
        patch.setattr(keys_module, "_JOINED", 2)
        whole, part, joined = Keys(len(ids)), Keys(len(ids[cut:])), Keys(len(ids))
        whole.add(hashes, rows)
        part.add(hashes[cut:], rows[: len(ids[cut:])])
        assert part.count() == len(ids[cut:])
        joined.add(hashes[:cut], rows[:cut])
        hand_over(part, joined, cut, lent=lent, compared=False)
        one, two = ([lot.positions.tolist() for lot in each.suspects()] for each in (whole, joined))
        for each in (whole, part, joined):
            each.close()
    assert one == two


@pytest.mark.parametrize("lent", [False, True], ids=["taken over", "lent"])
@pytest.mark.parametrize(
    ("new", "suspects"),
    [
        ([], []),
        ([b"new"], []),
        ([b"new", b"new"], [5, 6]),
        ([b"once"], [2, 5]),
        ([b"twice"], [0, 1, 5]),
        ([b"once", b"new", b"again"], [2, 3, 4, 5, 7]),
    ],
)
def test_what_was_compared_is_not_compared_again(
    lent: bool, new: list[bytes], suspects: list[int]
) -> None:
    """Rows of one id that were compared are suspects where they meet a new one."""
    ids = [b"twice", b"twice", b"once", b"again", b"again", *new]
    hashes = hash_texts(texts.of_arrow(pa.array(ids, pa.binary())), hash_rows)
    old, keys, rows = Keys(5), Keys(len(ids)), np.arange(len(ids))
    old.add(hashes[:5], rows[:5])
    hand_over(old, keys, 0, lent=lent, compared=True)
    keys.add(hashes[5:], rows[5:])
    found = positions(list(keys.suspects()))
    old.close()
    keys.close()
    assert found == suspects


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", [1, 2])
def test_keys_that_cannot_be_read_are_no_hang(threads: int) -> None:
    class Unreadable(Partitions):
        def read(self, partitions: range) -> Lanes:
            raise OSError(partitions.stop)

    old, keys = Keys(2), Keys(2)
    keys.borrow(Unreadable(old), old.position_bits, 0)
    with pytest.raises(OSError, match=r"\d"):
        list(keys.suspects(threads))
    old.close()
    keys.close()


def test_more_groups_than_can_be_told_apart_are_refused() -> None:
    one = Suspects(np.array([0, 2], np.uint64), 1, 1)
    assert [lot.groups for lot in joined([one])] == [1]
    with pytest.raises(OverflowError, match="more suspects than can be told apart"):
        list(joined([one, one]))


# ---------------------------------------------------------------- who wins

IDS_ALIKE = [b"a", b"b", b"a\0", b"ab", b"a longer one", b"a longer two"]
ROWS = st.lists(
    st.tuples(
        st.sampled_from([*IDS_ALIKE, b"", b"\xff" * 20]),  # the last is no number, as a float
        st.integers(-2, 2),  # instant
        st.integers(0, 3),  # account
        st.integers(0, 2),  # pair
    ),
    max_size=40,
)
RANKS = np.array([2, 0, 3, 1])
Drawn = tuple[bytes, int, int, int]


def order(cells: Any) -> Any:
    return RANKS[cells // 3] * 3 + cells % 3


def decided(rows: list[Drawn], step: int, hashed: Callable[[bytes], int]) -> tuple[Any, ...]:
    """Duplicates, conflicts, and what remains charged per account and pair."""
    numbers = sorted({hashed(row[0]) for row in rows})
    groups = np.array([numbers.index(hashed(row[0])) for row in rows], np.int64)
    claims = Claims(Suspects(np.zeros(len(rows), np.uint64), len(numbers), 32), order)
    cells = np.array([row[2] * 3 + row[3] for row in rows], np.int64)
    instants = np.array([row[1] for row in rows], np.int64)
    for begin in range(0, len(rows), step):
        some = slice(begin, begin + step)
        ids = texts.of_arrow(pa.array([row[0] for row in rows[some]], pa.binary()))
        for own, matrix in ids.lots:
            claims.add(
                Claim(groups[some][own], lanes(matrix), instants[some][own], cells[some][own])
            )
    left = Counter(cells.tolist())
    for lost, calls in claims.lost():
        for cell, times in zip(lost.tolist(), calls.tolist(), strict=True):
            left[cell] -= times
    claims.close()
    return claims.duplicates, claims.conflicts, {divmod(c, 3): n for c, n in (+left).items()}


def expected(rows: list[Drawn]) -> tuple[int, int, dict[tuple[int, int], int]]:
    duplicates = conflicts = 0
    left: Counter = Counter()
    for one in {row[0] for row in rows}:
        own = [(row[1], int(RANKS[row[2]]), row[3], row[2]) for row in rows if row[0] == one]
        winner = min(own)
        duplicates += own.count(winner) - 1
        conflicts += len(own) - own.count(winner)
        left[winner[3], winner[2]] += 1
    return duplicates, conflicts, dict(left)


@pytest.mark.parametrize("hashed", [hash, len, lambda _: 0], ids=["good", "by length", "one"])
@settings(deadline=None)
@given(
    rows=ROWS,
    step=st.integers(1, 40),
    at_once=st.sampled_from([1, 5, 1 << 20]),
    crowded=st.sampled_from([0, 1, 3, 100]),
)
def test_the_earliest_wins_then_account_then_pair(
    hashed: Callable[[bytes], int], rows: list[Drawn], step: int, at_once: int, crowded: int
) -> None:
    """However many are decided about at once, and whether claims are thinned out before."""
    before = dedup._CLAIMS, dedup._CROWDED
    dedup._CLAIMS, dedup._CROWDED = at_once, crowded
    try:
        assert decided(rows, step, hashed) == expected(rows)
    finally:
        dedup._CLAIMS, dedup._CROWDED = before


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([], (0, 0, {})),
        ([(b"a", 0, 0, 0)], (0, 0, {(0, 0): 1})),
        ([(b"a", 0, 0, 0)] * 5, (4, 0, {(0, 0): 1})),
        ([(b"a", 1, 0, 0), (b"a", 0, 1, 1)], (0, 1, {(1, 1): 1})),
        ([(b"a", 0, 0, 0), (b"a", 0, 1, 1)], (0, 1, {(1, 1): 1})),
        ([(b"a", 0, 0, 1), (b"a", 0, 0, 0)], (0, 1, {(0, 0): 1})),
        ([(b"a", 0, 0, 0), (b"a", 1, 0, 0), (b"a", 0, 0, 0)], (1, 1, {(0, 0): 1})),
        ([(b"a", 0, 0, 0), (b"b", 0, 0, 0)], (0, 0, {(0, 0): 2})),
    ],
)
def test_drawn_claims(rows: list[Drawn], outcome: tuple[int, int, dict]) -> None:
    for drawn in itertools.permutations(rows[:4]):
        assert decided([*drawn, *rows[4:]], 2, lambda _: 0) == outcome


def test_ids_of_one_group_are_told_apart_by_all_their_bytes() -> None:
    ids = np.array([[1, 0], [1, 1], [1, 0], [2, 0], [1, 1]], np.uint64)
    number = same_ids(np.array([0, 0, 0, 0, 1]), ids).tolist()
    assert number[0] == number[2]
    assert len(set(number)) == 4


def test_without_suspects_nobody_loses() -> None:
    none = np.zeros(0, np.int64)
    assert winners(none, np.zeros((0, 1), np.uint64), (none, none)).size == 0
