"""The book: every published settlement, read.

``BOOK/2026-02/r1/`` holds one settlement, complete or absent; nothing under it ever changes.
Its manifest, ``settlement.json``, names the digest of every file beside it, the digest of
the manifest published before it, and its own. A month folder without an ``rN`` is an
unsettled month. Only the standard library is needed to know what is settled.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from shlex import quote
from types import NoneType
from typing import TYPE_CHECKING, Any

from settlement import money
from settlement.errors import BadInput, CannotRead, MissingInput, SettlementError, in_the_way
from settlement.month import Month, last_ended, months_between
from settlement.prices import PriceBook, canonical_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from settlement.contracts import Contracts
    from settlement.tables import Table

MANIFEST = "settlement.json"
PRICES = "prices.toml"
CONTRACTS = ("contracts.csv", "contracts.parquet")
DRAFTS = ".drafts"
LOCK = ".lock"
RUNS = ".runs"
"""Where news of runs lie, on which nothing depends that is settled."""
MANIFEST_KEYS: dict[str, type | tuple[type, ...]] = {
    "number": int,
    "month": str,
    "revision": int,
    "period": dict,
    "rows": dict,
    "totals": dict,
    "tables": dict,
    "inputs": list,
    "options": dict,
    "rules_sha256": str,
    "prices_sha256": str,
    "program": str,
    "created_at": str,
    "previous": (str, NoneType),
    "digest": str,
}
"""What a manifest says, and of which kind each value is."""
INPUT_KEYS = {
    "file": str,
    "size": int,
    "modified_ns": int,
    "rows": int,
    "footer_sha256": str,
}
"""What a manifest says of a file of the log."""
TOTALS = (
    *("list_amount", "voucher_amount", "amount", "rounding", "payable"),
    *("unfrozen", "debited", "credited", "frozen"),
)
"""The totals that are money; accounts are counted beside them."""
_AMOUNT = re.compile(r"[0-9]{1,20}\.[0-9]{2,8}")
MONTH_FOLDER = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
REVISION_FOLDER = re.compile(r"r[1-9][0-9]*")


@dataclass(frozen=True)
class Settlement:
    """One published settlement: its folder, its manifest, and the manifest's own digest."""

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str

    @classmethod
    def load(cls, folder: Path) -> "Settlement":
        """Read a manifest; raises `BadInput` where it is not what was published there."""
        path = folder / MANIFEST
        raw = read_bytes(path)
        try:
            manifest = json.loads(raw)
            missing = [key for key in MANIFEST_KEYS if key not in manifest]
            digest = digest_of(manifest)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(path, "not a manifest") from error
        if missing:
            raise damaged(path, f"no {missing[0]!r} in the manifest")
        if manifest["digest"] != digest:
            raise damaged(path, "its digest does not fit its contents")
        for key, kind in MANIFEST_KEYS.items():
            if not isinstance(manifest[key], kind) or manifest[key] is True:
                raise damaged(path, f"{key!r} is not what it must be")
        for wrong in _misshapen(manifest):
            raise damaged(path, f"{wrong} is not what it must be")
        if folder != folder.parent.parent / manifest["month"] / f"r{manifest['revision']}":
            raise damaged(path, "it belongs to another month or revision")
        return cls(folder, manifest, hashlib.sha256(raw).hexdigest())

    @cached_property
    def month(self) -> Month:
        """The month settled."""
        return Month.parse(self.manifest["month"])

    @property
    def revision(self) -> int:
        """Which statement of the month this is: 1 is the first, 2 its first revision."""
        return int(self.manifest["revision"])

    @property
    def number(self) -> int:
        """Its place in the order of publication, from 1."""
        return int(self.manifest["number"])

    @property
    def name(self) -> str:
        """Month and revision, for people."""
        return f"{self.month} r{self.revision}"

    @cached_property
    def price_book(self) -> PriceBook:
        """The price book it was settled by; raises `BadInput` where it was altered."""
        raw = read_bytes(self.folder / PRICES)
        if hashlib.sha256(raw).hexdigest() != self.manifest["prices_sha256"]:
            raise damaged(self.folder / PRICES, "its digest is not the manifest's")
        return PriceBook.parse(raw, str(self.folder / PRICES))

    @property
    def contracts(self) -> "Contracts | None":
        """The contracts it was settled by, if any; raises `BadInput` where they were altered."""
        digest = self.manifest["options"].get("contracts_sha256")
        if digest is None:
            return None
        from settlement.contracts import Contracts

        path = next((p for p in map(self.folder.joinpath, CONTRACTS) if p.exists()), None)
        path = path or self.folder / CONTRACTS[0]
        contracts = Contracts.of(read_bytes(path), str(path), self.price_book)
        if contracts.digest != digest:
            raise damaged(path, "its digest is not the manifest's")
        return contracts

    def published(self, table: "Table") -> "pa.Table":
        """Read a table as published, after its digest has been verified."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / f"{table.name}.parquet"
        raw = read_bytes(path)
        if hashlib.sha256(raw).hexdigest() != self.manifest["tables"][table.name]["sha256"]:
            raise damaged(path, "its digest is not the manifest's")
        try:
            return pq.read_table(pa.BufferReader(raw), page_checksum_verification=True)
        except Exception as error:
            raise damaged(path, "not readable as Parquet") from error

    def table(self, table: "Table") -> "pd.DataFrame":
        """Read a table as the program holds it, after its digest has been verified."""
        from settlement.frames import to_frame
        from settlement.tables import WrongTable

        try:
            return to_frame(table, self.published(table))
        except WrongTable as error:
            raise damaged(self.folder / f"{table.name}.parquet", str(error)) from error


@dataclass(frozen=True)
class Book:
    """All settlements under one folder, in the order of publication."""

    folder: Path
    settlements: tuple[Settlement, ...]

    @classmethod
    def open(cls, folder: Path, known: "Book | None" = None) -> "Book":
        """Read every manifest; a folder that is not there is an empty book.

        Args:
            folder: where the book is.
            known: the book as it was a moment ago; what is published never changes, so that
                only what came since is read.

        Raises:
            BadInput: a manifest is damaged, or two claim one number.
        """
        read = {each.folder: each for each in known.settlements} if known else {}
        found = [read.get(place) or Settlement.load(place) for place in settlement_folders(folder)]
        found.sort(key=lambda settlement: settlement.number)
        for position, settlement in enumerate(found, 1):
            if settlement.number != position:
                raise damaged(
                    settlement.folder / MANIFEST,
                    f"it says number {settlement.number}, its place in the book is {position}",
                )
        return cls(folder, tuple(found))

    @cached_property
    def newest_month(self) -> Month | None:
        """The newest settled month."""
        return max((settlement.month for settlement in self.settlements), default=None)

    @cached_property
    def months(self) -> dict[Month, Settlement]:
        """The newest settlement of each settled month, oldest month first."""
        newest = {
            settlement.month: settlement
            for settlement in sorted(self.settlements, key=lambda each: each.revision)
        }
        return dict(sorted(newest.items()))

    def missing(self, now: datetime) -> list[Month]:
        """Return the months since the oldest settled one that are over and not settled."""
        if not self.months:
            return []
        over = max(last_ended(now, self.settlements[-1].price_book.zone), *self.months).next
        months = months_between(min(self.months), over)
        return [month for month in months if month not in self.months]

    def revisions(self, month: Month) -> tuple[Settlement, ...]:
        """Every settlement of a month, oldest first."""
        found = [settlement for settlement in self.settlements if settlement.month == month]
        return tuple(sorted(found, key=lambda settlement: settlement.revision))

    def settlement(self, month: Month, given: str = "") -> Settlement:
        """Return the newest settlement of a month; raises `MissingInput`.

        ``given`` are the options with which a person named this book; the cure repeats them.
        """
        if not self.settlements:
            raise self.nothing_settled(f"{month} {given}")
        if month not in self.months:
            known = ", ".join(map(str, list(self.months)[-3:]))
            again = f"settle run {month} {given}".rstrip()
            raise MissingInput(
                "the month is not settled",
                where=f"{self.folder}, {month}",
                cure=f"settled are {known}; settle it with: {again}",
            )
        return self.months[month]

    def nothing_settled(self, order: str) -> MissingInput:
        """Return the refusal of a book without a settlement: it may not be the one meant.

        ``order`` is what `settle run` is told to begin it.
        """
        again = f"settle run {order}".rstrip()
        return MissingInput(
            "no month is settled yet" if is_folder(self.folder) else "no book",
            where=str(self.folder),
            cure=f"name it with --book, or begin it with: {again}",
        )

    def revision(self, month: Month, revision: int) -> Settlement:
        """Return one settlement of a month; raises `MissingInput`."""
        newest = self.settlement(month)
        for settlement in self.revisions(month):
            if settlement.revision == revision:
                return settlement
        raise MissingInput(
            f"there is no r{revision}",
            where=f"{self.folder}, {month}",
            cure=f"its newest revision is r{newest.revision}",
        )

    def frozen(self, month: Month) -> str:
        """Return what a month's settlements have frozen together, as text with two decimals.

        The first one freezes; a revision unfreezes what it changes and freezes it anew.
        """
        held = 0
        for settlement in self.revisions(month):
            totals = settlement.manifest["totals"]
            held += money.units(totals["frozen"])
            if settlement.revision > 1:
                held -= money.units(totals["unfrozen"])
        return money.grouped(held)

    def before(self, month: Month) -> Settlement | None:
        """Return the newest settlement of the newest settled month before one."""
        return next((s for m, s in reversed(self.months.items()) if m < month), None)

    def open_holds(self) -> "pd.DataFrame":
        """Derive the open holds (`ledger.HOLDS`) from the newest settled month's entries."""
        from settlement import ledger, tables

        newest = self.newest_month
        posted = [s.table(tables.ENTRIES) for s in self.revisions(newest)] if newest else []
        return ledger.open_holds(posted, newest)


def _misshapen(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Name the keys whose values hold something of another kind than a settlement's do."""
    try:
        Month.parse(manifest["month"])
    except SettlementError:
        yield "'month'"
    if any(type(count) is not int for count in manifest["rows"].values()):
        yield "'rows'"
    totals = manifest["totals"]
    whole = type(totals.get("accounts")) is int and len(totals) == len(TOTALS) + 1
    if not whole or not all(_is_amount(totals.get(name), name) for name in TOTALS):
        yield "'totals'"
    if not all(
        isinstance(each, dict) and {key: type(value) for key, value in each.items()} == _DESCRIBED
        for each in manifest["tables"].values()
    ):
        yield "'tables'"
    for each in manifest["inputs"]:
        kinds = {key: type(value) for key, value in each.items()} if type(each) is dict else {}
        if kinds != INPUT_KEYS:
            keys = sorted(kinds.items() ^ INPUT_KEYS.items(), key=str)
            yield f"'inputs' ({', '.join(dict(keys))})"
            return
    if not all(map(_is_option, manifest["options"], manifest["options"].values())):
        yield "'options'"


_DESCRIBED = {"rows": int, "sha256": str}


def _is_option(name: str, value: object) -> bool:
    """Tell whether an option is text or nothing; only columns are texts by name."""
    if name == "columns":
        return isinstance(value, dict) and all(isinstance(own, str) for own in value.values())
    return value is None or isinstance(value, str)


def _is_amount(value: object, name: str) -> bool:
    """Tell whether a total is a plain decimal; only a rounding can be below 0."""
    signed = isinstance(value, str) and name == "rounding"
    plain = str(value).removeprefix("-") if signed else value
    return isinstance(plain, str) and _AMOUNT.fullmatch(plain) is not None


def settlement_folders(book: Path) -> list[Path]:
    """Return the folders of a book that hold a settlement, by month and revision.

    A book that is not there holds none. A month that cannot be read (a link to nowhere, a
    file in its place) is refused: taken for unsettled, it would be settled a second time.

    Raises:
        CannotRead: the book, or a month of it, cannot be read.
    """
    months = [m for m in _children(book) if MONTH_FOLDER.fullmatch(m.name)]
    revisions = (
        child
        for month in months
        for child in _children(month, must_exist=True)
        if REVISION_FOLDER.fullmatch(child.name)
    )
    return sorted(revisions, key=lambda folder: (folder.parent.name, int(folder.name[1:])))


def is_folder(path: Path) -> bool:
    """Tell whether a folder is there; raises `CannotRead` where the disk does not say."""
    try:
        return path.is_dir()
    except OSError as error:
        raise cannot_read(path, error) from error


def _children(folder: Path, *, must_exist: bool = False) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError as error:
        if not must_exist:
            return []
        raise cannot_read(folder, error) from error
    except OSError as error:
        raise cannot_read(folder, error) from error


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a manifest: of its canonical JSON without the digest itself."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(canonical_json(rest)).hexdigest()


def render(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as it is written, byte by byte."""
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def read_bytes(path: Path) -> bytes:
    """Read a file; raises `BadInput` where it is missing, `CannotRead` where it is refused."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path, "the file is missing") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def damaged(path: Path, what: str) -> BadInput:
    """Say that a file of the book is not what was published."""
    then = on_book("check", path.parents[2])
    return BadInput(what, where=str(path), cure=f"restore it from a backup, then run: {then}")


def on_book(command: str, book: Path) -> str:
    """Spell a command that looks at this very book, for a cure."""
    return f"settle {command} --book {quote(str(book))}"


def cannot_read(path: Path, error: OSError) -> SettlementError:
    """Say that the file system refused to read."""
    if found := in_the_way(path):
        cure = "move it away, or name another book"
        return CannotRead(found[1], where=str(found[0]), cure=cure)
    return CannotRead(
        f"cannot read ({error.strerror or error})", where=str(path), cure="check its permissions"
    )
