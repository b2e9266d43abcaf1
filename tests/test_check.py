"""A book damaged in every way: whatever is not as it was published is said, and where.

The book has three months and a revision, by contracts and price book, with rejected rows: every
kind of file that is ever published. Damage is a flipped bit anywhere; a file that is missing,
added, renamed, swapped or cut; a manifest replaced, a chain in another order; and forgeries, with
every digest worked out anew, which the laws or the chain see. The newest settlement has nothing
after it: what its tables do not tell, the digest that its run printed does, or a recount.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settlement import chain, check, recount, settle, tables
from settlement.book import MANIFEST, MANIFEST_KEYS, Settlement, digest_of, render
from settlement.contracts import Contracts
from settlement.errors import SettlementError
from settlement.month import Month
from settlement.order import Order
from settlement.prices import PriceBook
from settlement.scan import finding
from tests import small_logs
from tests.drawn import rows as drawn_rows

PRICES = b"""
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2020-01"
billable_status = ["0"]
freeze = { factor = "1.20" }
shared = { Enroll = "detect" }
[[version.item]]
code = "detect"
name = "\xe6\xa3\x80\xe6\xb5\x8b"
interfaces = ["Detect", "Enroll"]
free_calls = 2
tiers = [{ up_to = 4, unit_price = "0" }, { up_to = 9, unit_price = "1.005" }, { unit_price = "1" }]
[[version.item]]
code = "search"
name = "\xe6\x90\x9c\xe7\xb4\xa2"
interfaces = ["Search", "Enroll"]
mode = "graduated"
tiers = [{ up_to = 3, unit_price = "2" }, { unit_price = "0.333" }]
"""
CONTRACTS = b"account_id,item,from,discount\nanna,detect,2026-02,0.1\nbob,*,2026-02,0.2\n"
BOOK = PriceBook.parse(PRICES)
ORDER = ("2026-01/r1", "2026-02/r1", "2026-03/r1", "2026-02/r2")
"""The settlements, in the order of publication."""
CALLS = {
    "2026-01": """
        anna  Detect  12
        bob   Search   5
        carl  Detect   7
    """,
    "2026-02": """
        anna  Detect   6
        bob   Search   9
    """,
    "2026-03": """
        anna  Detect  30
        dora  Enroll   8
    """,
}
LATE = {("anna", "Detect"): 5, ("zoe", "Search"): 4}


def order(folder: Path, month: str, **more: Any) -> Order:
    contracts = Contracts.of(CONTRACTS, "contracts.csv", BOOK) if month > "2026-01" else None
    return Order(
        Month.parse(month),
        str(folder / "logs"),
        folder / "book",
        BOOK,
        datetime(2026, 5, 1, tzinfo=UTC),
        now_set=True,
        contracts=contracts,
        max_rejects=Fraction(1, 2),
        threads=1,
        **more,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log and the book."""
    folder = tmp_path_factory.mktemp("world")
    for month, drawing in CALLS.items():
        calls = small_logs.made(month, small_logs.drawn_calls(drawing))
        small_logs.write(calls, folder / "logs" / f"{month}.parquet")
        unknown = small_logs.made(month, {("eve", "Unheard"): 2}, "unknown ")
        small_logs.write(unknown, folder / "logs" / f"{month}-unknown.parquet")
    for month in CALLS:
        settle.run(order(folder, month))
    late = small_logs.made("2026-02", LATE, "late ")
    small_logs.write(late, folder / "logs" / "late" / "2026-02.parquet")
    settle.run(order(folder, "2026-02", revise=True, reason="late calls"))
    return folder


@pytest.fixture
def book(world: Path, tmp_path: Path) -> Path:
    """A copy of the book, to be spoiled."""
    return Path(shutil.copytree(world / "book", tmp_path / "book"))


def problems(book: Path, digest: str | None = None) -> tuple[str, ...]:
    return check.check(book, digest).problems


def newest_digest(world: Path) -> str:
    manifest: dict[str, Any] = json.loads((world / "book" / ORDER[-1] / MANIFEST).read_bytes())
    return str(manifest["digest"])


def test_the_book_is_sound_and_says_what_is_not_proved(world: Path) -> None:
    findings = check.check(world / "book")
    assert findings.problems == ()
    assert findings.trusted == ("2026-01 r1", "2026-02 r1", "2026-03 r1", "2026-02 r2")
    assert [what[:40] for what in findings.unproved] == [
        "that 2026-02 r2 is what was published: n",
        "that the usage is what the log says: set",
    ]
    vouched = check.check(world / "book", newest_digest(world))
    assert (vouched.problems, len(vouched.unproved)) == ((), 1)


def test_every_kind_of_file_is_in_it(world: Path) -> None:
    names = {path.name for path in (world / "book" / ORDER[-1]).iterdir()}
    every = {*tables.PUBLISHED, tables.ADJUSTMENTS, tables.CONTRACT_LINES}
    assert names == {f"{table.name}.parquet" for table in every} | {
        MANIFEST,
        "prices.toml",
        "contracts.csv",
    }
    for table in every:
        published = [
            pq.read_table(path, partitioning=None)
            for path in sorted((world / "book").glob(f"*/r*/{table.name}.parquet"))
        ]
        assert any(len(each) for each in published), table.name


# ---------------------------------------------------------------- a flipped bit


def files_of(book: Path) -> list[Path]:
    return sorted(path for path in book.rglob("*") if path.is_file())


def test_a_flipped_bit_in_any_byte_of_any_file_is_noticed(book: Path) -> None:
    """Each file's own guard, at every byte: digests of tables and rules, a manifest's bytes."""
    chance = random.Random(5)
    flipped = 0
    for path in files_of(book):
        sound = path.read_bytes()
        settlement = Settlement.load(path.parent)
        with path.open("r+b", buffering=0) as file:
            for at, byte in enumerate(sound):
                file.seek(at)
                file.write(bytes([byte ^ (1 << chance.randrange(8))]))
                assert is_noticed(settlement, path), f"{path} at {at}"
                file.seek(at)
                file.write(sound[at : at + 1])
                flipped += 1
        assert path.read_bytes() == sound
    assert flipped > 50_000
    assert problems(book) == ()


def is_noticed(settlement: Settlement, path: Path) -> bool:
    try:
        if path.suffix == ".parquet":
            settlement.published(next(t for t in every_table() if t.name == path.stem))
        elif path.name == MANIFEST:
            now = Settlement.load(path.parent)
            return bool([*chain.written(now)]) or now.sha256 != settlement.sha256
        else:
            fresh = Settlement(settlement.folder, settlement.manifest, settlement.sha256)
            _ = fresh.price_book if path.name == "prices.toml" else fresh.contracts
    except SettlementError:
        return True
    return False


def every_table() -> tuple[tables.Table, ...]:
    return (*tables.PUBLISHED, tables.ADJUSTMENTS, tables.CONTRACT_LINES)


def test_a_flipped_bit_is_found_by_a_whole_check_and_named(book: Path) -> None:
    """At some bit of every file."""
    chance = random.Random(6)
    for path in files_of(book):
        sound = path.read_bytes()
        spoiled = bytearray(sound)
        spoiled[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        path.write_bytes(spoiled)
        found = check.check(book).found
        name = str(path.relative_to(book))
        assert name in {each.file for each in found}, (name, found)
        path.write_bytes(sound)


def test_a_manifest_in_other_words_is_not_the_one_published(book: Path) -> None:
    """Spaces, the order of keys, a key twice: the contents are the same, the bytes are not."""
    path = book / ORDER[-1] / MANIFEST
    sound = path.read_bytes()
    manifest = json.loads(sound)
    for other in (
        json.dumps(manifest).encode(),
        sound.replace(b"\n", b"\r\n"),
        sound.rstrip(b"\n"),
        sound.replace(b'{\n "number"', b'{\n "number": 9,\n "number"', 1),
        json.dumps(manifest, indent=2).encode() + b"\n",
        sound.replace(b"\n ", b"\n\t", 1),
    ):
        assert other != sound
        path.write_bytes(other)
        assert problems(book) == (
            f"{ORDER[-1]}/{MANIFEST}: its bytes are not as a run writes them",
        )


# ---------------------------------------------------------------- structure


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


def swapped(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def linked(path: Path) -> None:
    elsewhere = path.parent.parent.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def renumbered(book: Path) -> None:
    """Two settlements in each other's place in the order."""
    for place, number in ((ORDER[1], 3), (ORDER[2], 2)):
        forge(book, place, lambda m, n=number: m.update(number=n))  # type: ignore[misc]


STRUCTURE: dict[str, tuple[Callable[[Path], Any], str]] = {
    f"{what} ({path})": (spoil, says)
    for what, path, spoil, says in (
        ("a table is missing", "2026-02/r1/lines.parquet", Path.unlink, "is missing"),
        ("a manifest is missing", "2026-02/r1/settlement.json", Path.unlink, "the file is missing"),
        ("prices are missing", "2026-03/r1/prices.toml", Path.unlink, "is missing"),
        ("contracts are missing", "2026-03/r1/contracts.csv", Path.unlink, "is missing"),
        ("a settlement is missing", "2026-01/r1", shutil.rmtree, "number 1 is missing"),
        ("a month is missing", "2026-03", shutil.rmtree, "number 3 is missing"),
        ("a first statement is missing", "2026-02/r1", shutil.rmtree, "number 2 is missing"),
        (
            "a file is added",
            "2026-02/r2/notes.txt",
            lambda path: path.write_text("x"),
            "was not published there",
        ),
        (
            "a table is added",
            "2026-01/r1/adjustments.parquet",
            lambda path: shutil.copy(path.with_name("lines.parquet"), path),
            "was not published there",
        ),
        ("a folder is added", "2026-02/r2/more", Path.mkdir, "was not published there"),
        ("a revision is added", "2026-01/r2", Path.mkdir, "the file is missing"),
        (
            "a revision is copied",
            "2026-01/r2",
            lambda path: shutil.copytree(path.with_name("r1"), path),
            "it belongs to another month or revision",
        ),
        (
            "a month is copied",
            "2026-04",
            lambda path: shutil.copytree(path.with_name("2026-03"), path),
            "it belongs to another month or revision",
        ),
        (
            "what globs would read",
            "zzz/r1",
            lambda path: shutil.copytree(path.parent.parent / ORDER[0], path),
            "does not belong into the book",
        ),
        ("not a revision", "2026-01/r01", Path.mkdir, "does not belong into the book"),
        ("not a month", "2026-13", Path.mkdir, "does not belong into the book"),
        (
            "a file for a month",
            "2025-12",
            lambda path: path.write_text("x"),
            "is not a folder",
        ),
        (
            "a link for a month",
            "2025-12",
            lambda path: path.symlink_to("/nowhere"),
            "is a link to nowhere",
        ),
        (
            "a table is renamed",
            "2026-01/r1/usage.parquet",
            lambda path: path.rename(path.with_name("Usage.parquet")),
            "was not published there",
        ),
        (
            "contracts are renamed",
            "2026-03/r1/contracts.csv",
            lambda path: path.rename(path.with_name("contracts.parquet")),
            "contracts.parquet",
        ),
        (
            "a revision is renamed",
            "2026-02/r2",
            lambda path: path.rename(path.with_name("r3")),
            "it belongs to another month or revision",
        ),
        (
            "a month is renamed",
            "2026-03",
            lambda path: path.rename(path.with_name("2026-05")),
            "it belongs to another month or revision",
        ),
        (
            "a month is renamed away",
            "2026-03",
            lambda path: path.rename(path.with_name("old-2026-03")),
            "number 3 is missing",
        ),
        (
            "tables are swapped",
            "2026-01/r1/lines.parquet",
            lambda path: swapped(path, path.with_name("usage.parquet")),
            "its digest is not the manifest's",
        ),
        (
            "tables of two months are swapped",
            "2026-01/r1/lines.parquet",
            lambda path: swapped(path, path.parent.parent.parent / ORDER[2] / "lines.parquet"),
            "its digest is not the manifest's",
        ),
        (
            "manifests are swapped",
            "2026-01/r1/settlement.json",
            lambda path: swapped(path, path.parent.parent.parent / ORDER[2] / MANIFEST),
            "it belongs to another month or revision",
        ),
        (
            "months are swapped",
            "2026-01",
            lambda path: swapped(path, path.with_name("2026-03")),
            "it belongs to another month or revision",
        ),
        (
            "revisions are swapped",
            "2026-02/r1",
            lambda path: swapped(path, path.with_name("r2")),
            "it belongs to another month or revision",
        ),
        ("empty", "2026-01/r1/entries.parquet", lambda path: cut(path, 0), "its digest is not"),
        ("cut by one", "2026-01/r1/entries.parquet", lambda path: cut(path, -1), "its digest is"),
        (
            "an empty manifest",
            "2026-01/r1/settlement.json",
            lambda path: cut(path, 0),
            "not a m",
        ),
        ("a manifest cut", "2026-01/r1/settlement.json", lambda path: cut(path, 900), "not a m"),
        ("prices cut", "2026-01/r1/prices.toml", lambda path: cut(path, 90), "its digest is not"),
        ("a link for a table", "2026-02/r1/lines.parquet", linked, "is not a regular file"),
        ("a link for a manifest", "2026-02/r1/settlement.json", linked, "is not a regular file"),
        (
            "a folder for a table",
            "2026-02/r1/lines.parquet",
            lambda path: (path.unlink(), path.mkdir()),
            "is not a regular file",
        ),
        (
            "a folder for a manifest",
            "2026-02/r1/settlement.json",
            lambda path: (path.unlink(), path.mkdir()),
            "cannot read",
        ),
        (
            "a manifest replaced by a list",
            "2026-02/r1/settlement.json",
            lambda path: path.write_text("[]"),
            "not a manifest",
        ),
        (
            "a manifest that nests without end",
            "2026-02/r1/settlement.json",
            lambda path: path.write_text("[" * 100_000),
            "not a manifest",
        ),
        ("the chain in another order", "", renumbered, "the chain is broken"),
    )
}


@pytest.mark.parametrize(
    ("spoil", "says", "path"),
    [
        (spoil, says, name.rpartition("(")[2].rstrip(")"))
        for name, (spoil, says) in STRUCTURE.items()
    ],
    ids=list(STRUCTURE),
)
def test_damage_to_the_structure_is_found_and_named(
    book: Path, spoil: Callable[[Path], Any], says: str, path: str
) -> None:
    place = book / path
    place.parent.mkdir(exist_ok=True)
    spoil(place)
    found = problems(book)
    assert any(says in each for each in found), found
    assert all("\n" not in each for each in found)


@pytest.mark.parametrize(
    "path",
    [
        *("2026-02/r1/lines.parquet", "2026-02/r1/settlement.json"),
        *("2026-03/r1/prices.toml", "2026-03/r1/contracts.csv"),
    ],
)
def test_a_missing_file_is_found_once(book: Path, path: str) -> None:
    (book / path).unlink()
    assert [each for each in problems(book) if path in each] == [f"{path}: the file is missing"]


def test_what_runs_leave_beside_the_months_is_no_damage(book: Path) -> None:
    (book / ".drafts" / "2026-04-r1-1").mkdir(parents=True)
    (book / ".lock").touch()
    (book / ".cache").mkdir()
    (book / "2026-04").mkdir()
    assert problems(book) == ()


# ---------------------------------------------------------------- forgeries


def forge(book: Path, place: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest, and work its digest out anew."""
    path = book / place / MANIFEST
    manifest = json.loads(path.read_bytes())
    change(manifest)
    manifest["digest"] = digest_of(manifest)
    path.write_bytes(render(manifest))


def forge_chain(book: Path, place: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Forge a manifest, and all that were published after it, so that they follow again."""
    forge(book, place, change)
    for one, other in pairwise(ORDER):
        if ORDER.index(other) > ORDER.index(place):
            digest = hashlib.sha256((book / one / MANIFEST).read_bytes()).hexdigest()
            forge(book, other, lambda m, d=digest: m.update(previous=d))  # type: ignore[misc]


def rewrite(path: Path, table: pa.Table) -> str:
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forge_table(
    book: Path, place: str, name: str, change: Callable[[pa.Table], pa.Table], *, chained: bool
) -> None:
    """Change a table, and work every digest and row count out anew."""
    path = book / place / f"{name}.parquet"
    table = change(pq.read_table(path, partitioning=None))
    described = {"rows": len(table), "sha256": rewrite(path, table)}
    by = forge_chain if chained else forge
    by(book, place, lambda manifest: manifest["tables"].update({name: described}))


def with_cell(column: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        cells = table[column].to_pylist()
        cells[row] = cells[row] + value if isinstance(value, int) else value
        at = table.schema.get_field_index(column)
        return table.set_column(at, table.schema.field(at), [pa.array(cells, table[column].type)])

    return change


def without_first(table: pa.Table) -> pa.Table:
    return table.slice(1)


def swap_entries(table: pa.Table) -> pa.Table:
    """An account debited before its hold is released."""
    order = [1, 0, *range(2, len(table))]
    moved = table.take(pa.array(order))
    at = table.schema.get_field_index("sequence")
    return moved.set_column(at, table.schema.field(at), table["sequence"])


FORGERIES = """
    table           what                    says
    usage           calls+1                 calls billed
    usage           interface=Search        which does not list it
    usage           account_id=aaron        lines do not follow from usage
    usage           first_row               calls billed
    usage           month=2026-09           a row of another month
    usage           revision+1              a row of another revision
    lines           calls+1                 lines do not follow
    lines           tier+1                  lines do not follow
    lines           unit_price+1            lines do not follow
    lines           list_amount+1           lines do not follow
    lines           voucher_calls+1         lines do not follow
    lines           voucher_amount+1        lines do not follow
    lines           amount+1                lines do not follow
    lines           first_row               lines do not follow
    invoices        account_id=aaron        invoices do not follow
    invoices        amount+1                invoices do not follow
    invoices        rounding+1              invoices do not follow
    invoices        payable+1               invoices do not follow
    invoices        currency=EUR            invoices do not follow
    invoices        first_row               invoices do not follow
    entries         amount+1                entries do not follow
    entries         kind=credit             entries do not follow
    entries         first_row               entries do not follow
    entries         account_id=aaron        entries do not follow
    adjustments     adjustment+1            adjustments do not follow
    adjustments     previous_payable+1      adjustments do not follow
    adjustments     document=2026-02-r2-X1  adjustments do not follow
    adjustments     first_row               adjustments do not follow
    contract_lines  amount+1                contract_lines do not follow
    contract_lines  book_amount+1           contract_lines do not follow
    contract_lines  terms=none              contract_lines do not follow
    contract_lines  first_row               contract_lines do not follow
    rejects         first_row               such rows of rejects
    rejects         reason=wrong_item       such rows of rejects
    rejects         reason=unheard          such rows of rejects
"""


def change_drawn(what: str) -> Callable[[pa.Table], pa.Table]:
    if what == "first_row":
        return without_first
    if "=" in what:
        column, _, text = what.partition("=")
        return with_cell(column, 0, text)
    return with_cell(what.removesuffix("+1"), 0, 1)


@pytest.mark.parametrize(
    ("table", "what", "says"),
    [(row[0], row[1], " ".join(row[2:])) for row in drawn_rows(FORGERIES)[1:]],
)
def test_an_edited_table_with_every_digest_worked_out_anew_is_found(
    book: Path, table: str, what: str, says: str
) -> None:
    """In the newest settlement, and with no chain to tell of it."""
    forge_table(book, ORDER[-1], table, change_drawn(what), chained=False)
    found = problems(book)
    assert any(says in each for each in found), found
    assert all(each.startswith(ORDER[-1]) for each in found), found


def test_entries_in_another_order_are_found(book: Path) -> None:
    forge_table(book, ORDER[2], "entries", swap_entries, chained=True)
    assert any("entries do not follow" in each for each in problems(book))


@pytest.mark.parametrize("place", ORDER[:-1])
@pytest.mark.parametrize("table", ["usage", "lines", "invoices", "entries", "rejects"])
def test_an_older_table_edited_is_named_by_the_chain(book: Path, place: str, table: str) -> None:
    forge_table(book, place, table, lambda rows: rows, chained=False)
    found = problems(book)
    if found:  # the same rows in the same bytes are no forgery
        assert found[0].startswith(f"{place}/{MANIFEST}: the chain is broken"), found


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "number": (lambda m: m.update(number=9), "missing"),
    "number 0": (lambda m: m.update(number=0), "its number cannot be 0"),
    "number 1": (lambda m: m.update(number=1), "number 1, as"),
    "number true": (lambda m: m.update(number=True), "'number' is not what it must be"),
    "month": (lambda m: m.update(month="2026-05"), "it belongs to another month or revision"),
    "no month": (lambda m: m.update(month="2026-13"), "'month' is not what it must be"),
    "revision": (lambda m: m.update(revision=3), "it belongs to another month or revision"),
    "period": (lambda m: m["period"].update(start="2026-01-31T16:00:01Z"), "the period is not"),
    "rows": (lambda m: m["rows"].update(billed=1), "≠"),
    "rows, one bucket for another": (
        lambda m: m["rows"].update(
            {"outside_month": 0, "duplicate": m["rows"]["outside_month"]},
        ),
        "inputs:",
    ),
    "rows, a bucket less": (lambda m: m["rows"].pop("conflict"), "the buckets are"),
    "rows, a bucket more": (lambda m: m["rows"].update(lost=0), "the buckets are"),
    "rows, text": (lambda m: m["rows"].update(read="many"), "'rows' is not what it must be"),
    "totals": (lambda m: m["totals"].update(payable="1.00"), "the sums of the tables"),
    "totals, a word": (lambda m: m["totals"].update(payable="all"), "'totals' is not what"),
    "totals, less": (lambda m: m["totals"].pop("frozen"), "'totals' is not what"),
    "totals, a float": (lambda m: m["totals"].update(payable=1.5), "'totals' is not what"),
    "totals, below 0": (lambda m: m["totals"].update(frozen="-72.19"), "'totals' is not what"),
    "totals, two signs": (lambda m: m["totals"].update(rounding="--0.01"), "'totals' is not what"),
    "tables, rows": (lambda m: m["tables"]["lines"].update(rows=9), "row count"),
    "tables, digest": (lambda m: m["tables"]["lines"].update(sha256="0" * 64), "its digest is not"),
    "tables, one less": (lambda m: m["tables"].pop("lines"), "no digest of a table"),
    "tables, one more": (
        lambda m: m["tables"].update(secret={"rows": 0, "sha256": ""}),
        "a table that is none",
    ),
    "tables, a list": (lambda m: m["tables"].update(lines=[]), "'tables' is not what it must be"),
    "inputs, none": (lambda m: m.update(inputs=[]), "inputs: 0 rows in 0 files"),
    "inputs, rows": (lambda m: m["inputs"][0].update(rows=10**9), "inputs: "),
    "inputs, no rows": (lambda m: m["inputs"][0].update(rows=0), "inputs: "),
    "inputs, size": (lambda m: m["inputs"][0].update(size=3), "inputs: "),
    "inputs, order": (lambda m: m["inputs"].reverse(), "out of order"),
    "inputs, twice": (lambda m: m["inputs"].append(m["inputs"][-1]), "inputs: "),
    "inputs, footer": (lambda m: m["inputs"][0].update(footer_sha256="x"), "no digest"),
    "inputs, more": (lambda m: m["inputs"][0].update(colour="red"), "colour"),
    "inputs, text": (lambda m: m["inputs"].append("x"), "'inputs'"),
    "options, unknown": (lambda m: m["options"].update(mood="good"), "no run records: 'mood'"),
    "options, zone": (lambda m: m["options"].update(naive_timestamps="Mars"), "unknown time zone"),
    "options, now": (lambda m: m["options"].update(now="2027-01-01T00:00:00Z"), "is not created"),
    "options, columns": (lambda m: m["options"].update(columns={"rid": "x"}), "no column 'rid'"),
    "options, a column": (lambda m: m["options"].update(columns={"item": 1}), "'options' is not"),
    "options, approved": (lambda m: m["options"].update(approved="0" * 64), "other figures"),
    "options, contracts": (lambda m: m["options"].pop("contracts_sha256"), "was not published"),
    "options, terms": (lambda m: m["options"].update(terms_sha256="0" * 64), "what was in force"),
    "options, a number": (lambda m: m["options"].update(now=3), "'options' is not what it must"),
    "rules_sha256": (lambda m: m.update(rules_sha256="0" * 64), "not the one in force"),
    "prices_sha256": (lambda m: m.update(prices_sha256="0" * 64), "its digest is not"),
    "program": (lambda m: m.update(program="by hand"), "is not a version"),
    "created_at": (lambda m: m.update(created_at="yesterday"), "is not an instant"),
    "created_at, too early": (
        lambda m: m.update(created_at="2026-02-28T15:59:59Z"),
        "before the month was over",
    ),
    "previous": (lambda m: m.update(previous="0" * 64), "do not fit: one was replaced"),
    "no previous": (lambda m: m.update(previous=None), "do not fit: one was replaced"),
    "another key": (lambda m: m.update(paid=True), "a key that no run writes: 'paid'"),
}
"""What is changed in the newest manifest, and what check says of it."""


def test_every_key_of_a_manifest_is_forged() -> None:
    named = {name.partition(",")[0].split()[-1] for name in MANIFESTS}
    assert set(MANIFEST_KEYS) - {"digest"} <= named


@pytest.mark.parametrize(("change", "says"), MANIFESTS.values(), ids=list(MANIFESTS))
def test_a_forged_manifest_is_found(
    book: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    forge(book, ORDER[-1], change)
    found = problems(book)
    assert any(says in each for each in found), found


def test_a_digest_that_is_wrong_is_found(book: Path) -> None:
    path = book / ORDER[-1] / MANIFEST
    manifest = json.loads(path.read_bytes())
    path.write_bytes(render(manifest | {"digest": "0" * 64}))
    assert any("its digest does not fit its contents" in each for each in problems(book))


# What follows from nothing else in the newest settlement: only its digest, or the log, can tell.
UNTOLD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "created_at": lambda m: (
        m.update(created_at="2026-06-01T00:00:00Z"),
        m["options"].update(now="2026-06-01T00:00:00Z"),
    ),
    "program": lambda m: m.update(program="0.0.1"),
    "reason": lambda m: m["options"].update(reason="a better one"),
    "a file's name": lambda m: m["inputs"][-1].update(file="zzz.parquet"),
    "a file's time": lambda m: m["inputs"][0].update(modified_ns=0),
    "rows outside": lambda m: m["rows"].update(
        read=m["rows"]["read"] + 1, outside_month=m["rows"]["outside_month"] + 1
    ),
}


@pytest.mark.parametrize("change", UNTOLD.values(), ids=list(UNTOLD))
def test_what_nothing_follows_from_only_the_digest_tells(
    book: Path, world: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    forge(book, ORDER[-1], change)
    assert problems(book) == ()
    assert problems(book, newest_digest(world)) == (
        (
            f"{ORDER[-1]}/{MANIFEST}: its digest is not the one given: replaced, or newer "
            "settlements were taken out"
        ),
    )


def test_a_newest_settlement_taken_out_only_the_digest_tells(book: Path, world: Path) -> None:
    shutil.rmtree(book / ORDER[-1])
    assert problems(book) == ()
    assert "newer settlements were taken out" in problems(book, newest_digest(world))[0]


def test_an_older_digest_is_told_from_a_wrong_one(book: Path) -> None:
    older = json.loads((book / ORDER[1] / MANIFEST).read_bytes())["digest"]
    assert "that digest is the one of 2026-02 r1" in problems(book, older)[0]


# ---------------------------------------------------------------- what is still to be trusted


def test_all_broken_settlements_are_named_and_what_is_to_be_trusted(book: Path) -> None:
    for place, name in ((ORDER[1], "lines"), (ORDER[3], "usage")):
        cut(book / place / f"{name}.parquet", -1)
    findings = check.check(book)
    assert [(each.settlement, each.file) for each in findings.found] == [
        ("2026-02 r1", "2026-02/r1/lines.parquet"),
        ("2026-02 r2", "2026-02/r2/usage.parquet"),
    ]
    assert findings.trusted == ("2026-01 r1",)
    assert findings.doubtful == ("2026-03 r1",)
    assert "the ledger from 2026-02 r1 on" in findings.unproved


def test_a_replaced_manifest_is_blamed_itself_not_the_one_after_it(book: Path) -> None:
    """For the one after it is vouched for by a third."""
    forge(book, ORDER[1], lambda m: m["inputs"][0].update(modified_ns=1))
    findings = check.check(book)
    assert findings.problems == (
        (
            f"{ORDER[1]}/{MANIFEST}: the chain is broken: was replaced: it is not the one that "
            "2026-03 r1 follows"
        ),
    )
    assert findings.trusted == ("2026-01 r1",)


def test_a_forged_entry_is_not_said_of_the_months_after_it(book: Path) -> None:
    """The ledger goes on from what should have been posted."""
    forge_table(book, ORDER[0], "entries", with_cell("amount", 0, 1), chained=True)
    found = check.check(book).found
    assert {each.settlement for each in found} == {"2026-01 r1"}


# ---------------------------------------------------------------- counted again


def again(world: Path, book: Path, place: str, **more: Any) -> tuple[str, ...]:
    settlement = Settlement.load(book / place)
    log = finding.find(str(world / "logs"))
    return tuple(map(str, recount.recount(settlement, log, threads=1, **more).found))


@pytest.mark.parametrize("place", ORDER)
def test_every_settlement_is_what_the_files_read_then_say(world: Path, place: str) -> None:
    """The first statement of February too, though late calls lie beside its files now."""
    assert again(world, world / "book", place) == ()


def test_a_forged_usage_is_told_by_a_recount_with_both_values(world: Path, tmp_path: Path) -> None:
    """Settled from other calls, so that everything in the book fits: only the log does not."""
    folder = Path(shutil.copytree(world, tmp_path / "other"))
    more = small_logs.made("2026-03", {("anna", "Detect"): 31, ("dora", "Enroll"): 8})
    (folder / "logs" / "2026-03.parquet").unlink()
    small_logs.write(more, folder / "logs" / "2026-03.parquet")
    for place in (ORDER[3], ORDER[2]):
        shutil.rmtree(folder / "book" / place)
    settle.run(order(folder, "2026-03"))
    truth = json.loads((world / "book" / ORDER[2] / MANIFEST).read_bytes())
    forge(folder / "book", ORDER[2], lambda m: m.update(inputs=truth["inputs"]))
    forge(
        folder / "book",
        ORDER[2],
        lambda m: m["rows"].update(read=m["rows"]["read"] + 1, duplicate=0),
    )
    found = again(world, folder / "book", ORDER[2])
    assert (
        f"{ORDER[2]}: recount: 1 row of usage, first 'anna' 'detect' 'Detect': calls: "
        "31 in the book, 30 by the log"
    ) in found
    assert any("rows: billed: 39 in the book, 38 by the log" in each for each in found)
    assert any("of invoices, first 'anna': list_amount: " in each for each in found)


def test_a_recount_needs_the_files_that_were_read(world: Path, tmp_path: Path) -> None:
    logs = Path(shutil.copytree(world / "logs", tmp_path / "logs"))
    (logs / "2026-03.parquet").unlink()
    (logs / "2026-03-unknown.parquet").rename(logs / "moved.parquet")
    settlement = Settlement.load(world / "book" / ORDER[2])
    found = recount.recount(settlement, finding.find(str(logs))).found
    assert [each.what for each in found] == ["recount: '2026-03.parquet' is gone from the log"]
    shutil.copy(world / "logs" / "2026-03.parquet", logs)
    assert recount.recount(settlement, finding.find(str(logs))).found == ()
    shutil.copy(logs / "2026-02.parquet", logs / "2026-03.parquet")
    found = recount.recount(settlement, finding.find(str(logs))).found
    assert [each.what for each in found] == [
        "recount: '2026-03.parquet' has other contents than then"
    ]


def test_a_recount_by_other_prices_says_so(world: Path) -> None:
    dearer = PriceBook.parse(PRICES.replace(b"0.333", b"0.334"))
    found = again(world, world / "book", ORDER[2], prices=dearer)
    assert "the price book given has other rules" in found[0]
    other = Contracts.of(CONTRACTS.replace(b"0.1", b"0.3"), "contracts.csv", BOOK)
    found = again(world, world / "book", ORDER[2], contracts=other)
    assert "the contracts given have other terms" in found[0]
    assert any("of lines, first 'anna' 'detect': " in each for each in found)


def test_a_recount_of_a_damaged_settlement_is_no_bug(world: Path, book: Path) -> None:
    cut(book / ORDER[0] / "usage.parquet", -1)
    assert again(world, book, ORDER[0]) == (
        f"{ORDER[0]}/usage.parquet: its digest is not the manifest's",
    )


def test_a_book_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert check.check(tmp_path / "book").problems == ()
