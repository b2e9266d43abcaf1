"""The chain: what a book's folders hold, and whether its settlements follow each other.

Every manifest names its number in the order of publication, its own digest, and the digest of
the manifest before it. So each settlement vouches for all before it: nothing can be taken out,
put in, swapped or replaced unless everything after it is forged too, and then the newest digest
is not the one that its run printed. Only names, manifests and digests are read here, no table.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from settlement.book import (
    CONTRACTS,
    MANIFEST,
    MANIFEST_KEYS,
    MONTH_FOLDER,
    PRICES,
    REVISION_FOLDER,
    Settlement,
    cannot_read,
    read_bytes,
    render,
)
from settlement.errors import CannotRead, MissingInput, SettlementError

if TYPE_CHECKING:
    from settlement.month import Month


@dataclass(frozen=True)
class Finding:
    """Something wrong with a book.

    Attributes:
        settlement: month and revision, such as ``2026-02 r1``; empty where it is about none.
        file: the path of what is wrong, under the book.
        what: what is wrong.
    """

    settlement: str
    file: str
    what: str

    def __str__(self) -> str:
        return " ".join((f"{self.file}: {self.what}" if self.file else self.what).split("\n"))


@dataclass(frozen=True)
class Chain:
    """The settlements of a book as far as their manifests can be read.

    Attributes:
        settlements: those, by number.
        damaged: the numbers that damaged manifests have or must have had, by their folders.
        findings: what is wrong with names, manifests and their order.
    """

    settlements: tuple[Settlement, ...]
    damaged: Mapping[Path, int]
    findings: tuple[Finding, ...]

    def vouched(self, settlement: Settlement) -> bool:
        """Tell whether the settlement published next names this one's digest."""
        return any(
            each.number == settlement.number + 1 and each.manifest["previous"] == settlement.sha256
            for each in self.settlements
        )


def follow(book: Path) -> Chain:
    """Read every manifest, and hold each against the one before it.

    A book that is not there yet is empty, as `Book.open` has it.

    Raises:
        MissingInput: the book is a link to nowhere.
        CannotRead: the book's own folder cannot be read.
    """
    findings: list[Finding] = []
    loaded, damaged = [], []
    for month in sorted(_names(book) if os.path.lexists(book) else []):
        if not MONTH_FOLDER.fullmatch(month.name):
            if not month.name.startswith("."):
                findings.append(Finding("", month.name, "does not belong into the book"))
            continue
        try:
            revisions = sorted(_names(month))
        except SettlementError as error:
            findings.append(Finding("", month.name, error.what))
            continue
        for place in revisions:
            file = f"{month.name}/{place.name}"
            if not REVISION_FOLDER.fullmatch(place.name):
                findings.append(Finding("", file, "does not belong into the book"))
                continue
            try:
                loaded.append(Settlement.load(place))
            except SettlementError as error:
                damaged.append(place)
                findings.append(_of_damaged(place, error))
    loaded.sort(key=lambda settlement: settlement.number)
    numbers = _numbers(damaged, {each.number for each in loaded})
    findings += _links(loaded, numbers)
    return Chain(tuple(loaded), numbers, tuple(findings))


def name_of(place: Path) -> str:
    """Name a settlement's folder as `Settlement.name` does."""
    return f"{place.parent.name} {place.name}"


def files(settlement: Settlement, expected_tables: Sequence[str]) -> Iterator[Finding]:
    """Say where a folder holds anything but the regular files that were published in it."""
    present = {child.name: child for child in _names(settlement.folder)}
    expected = {f"{name}.parquet" for name in expected_tables} | {MANIFEST, PRICES}
    if settlement.manifest["options"].get("contracts_sha256"):
        expected |= set(CONTRACTS).intersection(present) or {CONTRACTS[0]}
    for name in sorted({*present, *expected}):
        if name not in expected:
            yield finding(settlement, name, "was not published there")
        elif name not in present:
            yield finding(settlement, name, "the file is missing")
        elif not stat.S_ISREG(present[name].lstat().st_mode):
            yield finding(settlement, name, "is not a regular file")
    described = set(settlement.manifest["tables"])
    for name in sorted(described ^ set(expected_tables)):
        what = "a table that is none" if name in described else "no digest of a table"
        yield finding(settlement, MANIFEST, f"{what}: {name}")


def written(settlement: Settlement) -> Iterator[Finding]:
    """Say where a manifest is not written, byte by byte, as a run writes it.

    Its own digest is over its contents; only the next settlement covers its bytes.
    """
    unknown = set(settlement.manifest) - set(MANIFEST_KEYS)
    for key in sorted(unknown):
        yield finding(settlement, MANIFEST, f"a key that no run writes: {key!r}")
    if read_bytes(settlement.folder / MANIFEST) != render(settlement.manifest):
        yield finding(settlement, MANIFEST, "its bytes are not as a run writes them")


def finding(settlement: Settlement, file: str, what: str) -> Finding:
    """Say what is wrong with a file of a settlement; with all of it where it is empty."""
    place = f"{settlement.month}/r{settlement.revision}"
    return Finding(settlement.name, f"{place}/{file}" if file else place, what)


def refusal(settlement: Settlement, error: SettlementError) -> Finding:
    """Turn a refusal that names a path of a settlement into a finding."""
    where = Path(error.where)
    inside = where.is_relative_to(settlement.folder) and where != settlement.folder
    return finding(settlement, where.name if inside else "", error.what)


def _of_damaged(place: Path, error: SettlementError) -> Finding:
    return Finding(name_of(place), f"{place.parent.name}/{place.name}/{MANIFEST}", error.what)


def _numbers(damaged: Sequence[Path], known: set[int]) -> dict[Path, int]:
    """Give each damaged manifest the number it says, or else the lowest that is missing."""
    free = (number for number in range(1, len(damaged) + len(known) + 1) if number not in known)
    said = {place: _said(place) for place in damaged}
    numbers = {
        place: number
        for place, number in said.items()
        if number and number not in known and list(said.values()).count(number) == 1
    }
    rest = (number for number in free if number not in numbers.values())
    return {place: numbers.get(place) or next(rest) for place in damaged}


def _said(place: Path) -> int:
    """Read the number off a damaged manifest; 0 where it cannot be told."""
    try:
        number = json.loads((place / MANIFEST).read_bytes())["number"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0
    return number if type(number) is int and number > 0 else 0


def _links(loaded: Sequence[Settlement], damaged: Mapping[Path, int]) -> Iterator[Finding]:
    """Hold each settlement against the one that was published before it."""
    by_number: dict[int, Settlement] = {}
    for settlement in loaded:
        if settlement.number in by_number:
            other = by_number[settlement.number].name
            yield finding(settlement, MANIFEST, f"number {settlement.number}, as {other} says too")
        by_number[settlement.number] = settlement
    taken = sorted({*by_number, *damaged.values()})
    for before, after in pairwise([0, *taken]):
        if after - before > 1:
            gap = f"number {before + 1}"
            gap += f" to {after - 1} are" if after - before > 2 else " is"
            yield Finding("", "", f"{gap} missing: taken out of the book, or renamed")
    for settlement in loaded:
        yield from _link(settlement, by_number)
    yield from _revisions(loaded, damaged)


def _link(settlement: Settlement, by_number: Mapping[int, Settlement]) -> Iterator[Finding]:
    number, said = settlement.number, settlement.manifest["previous"]
    if number < 1:
        yield finding(settlement, MANIFEST, f"its number cannot be {number}")
    before, after = by_number.get(number - 1), by_number.get(number + 1)
    if number == 1 and said is not None:
        yield finding(settlement, MANIFEST, "number 1 follows another settlement")
    if before is None or said == before.sha256:
        return
    if after and after.manifest["previous"] == settlement.sha256:
        what = f"was replaced: it is not the one that {settlement.name} follows"
    else:
        what = f"it and {settlement.name}, said to follow it, do not fit: one was replaced"
    yield finding(before, MANIFEST, f"the chain is broken: {what}")


def _revisions(loaded: Sequence[Settlement], damaged: Mapping[Path, int]) -> Iterator[Finding]:
    """Each month's revisions were published in their order, none left out."""
    standing: dict[Month, int] = {}
    names = {name_of(place) for place in damaged}
    for settlement in loaded:
        month, revision = settlement.month, settlement.revision
        if revision != standing.get(month, 0) + 1 and f"{month} r{revision - 1}" not in names:
            yield finding(settlement, "", "the revision before it is missing")
        standing[month] = revision


def _names(folder: Path) -> list[Path]:
    """List a folder, in which nothing may be unreadable."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError as error:
        raise MissingInput("is a link to nowhere", where=str(folder)) from error
    except NotADirectoryError as error:
        raise CannotRead("is not a folder", where=str(folder)) from error
    except OSError as error:
        raise cannot_read(folder, error) from error
