"""What is fuzzed: each target takes any bytes, and reads them or refuses them.

A target tells whether the bytes were read; where they were not, they were refused as the reader's
docstring says. Whatever else it raises is a finding.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from settlement.columns import COLUMNS
from settlement.contracts import COLUMNS as TERMS
from settlement.contracts import Contracts, tiers_of, tiers_text
from settlement.errors import BadConfig, BadInput, SettlementError
from settlement.month import Month
from settlement.operations import config
from settlement.operations.settings import SETTINGS
from settlement.prices import PriceBook, falls
from settlement.scan import boundary, finding, logfiles
from settlement.scan.footers import MAGIC, Broken, read

CORPUS = Path(__file__).parent / "corpus"
ROOM = 4096
"""Bytes before a footer, where its pages may lie."""
_MONTHS = (Month(1970, 1), Month(2026, 2), Month(9998, 12))


@dataclass(frozen=True)
class Target:
    """What is done with bytes and a folder to put them into, and words that may help to get on."""

    run: Callable[[bytes, Path], bool]
    words: tuple[str, ...] = ()


def prices(raw: bytes, _: Path) -> bool:
    """Read a price book, and look where the bills of its items fall."""
    try:
        book = PriceBook.parse(raw)
    except BadInput as refusal:
        return _refused(refusal)
    for version in book.versions:
        for item in version.items:
            deque(falls(item), maxlen=0)
            for interface in item.interfaces:
                assert version.bearing(interface) in version.listing(interface)
    return True


def contracts(raw: bytes, _: Path) -> bool:
    """Read a contracts file and what is in force in some months."""
    try:
        rows = Contracts("contracts.csv", raw, frozenset({"face", "live"})).rows
    except BadInput as refusal:
        return _refused(refusal)
    for month in _MONTHS:
        terms = rows.in_force(month)
        assert (terms.digest is None) == terms.rows.empty
    for tiers in rows.tariffs:
        assert tiers_of(tiers_text(tiers)) == tiers
    return True


def footers(raw: bytes, folder: Path) -> bool:
    """Read a footer, then a file that ends with it; Arrow must see as many rows in its groups."""
    with suppress(Broken):
        read(raw, ROOM)
    path = folder / "log.parquet"
    room = MAGIC.ljust(ROOM, b"\0")
    path.write_bytes(room + raw + len(raw).to_bytes(4, "little") + MAGIC)
    try:
        log = finding.find(str(path))
        logfiles.check(log.files, COLUMNS, ZoneInfo("UTC"))
        (file,) = log.files
        for group in file.groups:
            with boundary.reading(file.name):
                alone = pq.read_metadata(pa.BufferReader(file.footer.of_groups(group.number)))
            assert (alone.num_rows, alone.num_row_groups) == (group.rows, 1)
    except BadInput as refusal:
        return _refused(refusal)
    return True


def settings(raw: bytes, folder: Path) -> bool:
    """Read a settings file; its texts are such as could be typed."""
    path = folder / config.FILE
    path.write_bytes(raw)
    try:
        found = config.read(path)
    except BadConfig as refusal:
        return _refused(refusal)
    assert not any("\0" in value for value in found.given.values() if isinstance(value, str))
    assert found.given.keys() == found.places.keys()
    return True


def _refused(refusal: SettlementError) -> bool:
    told = str(refusal)
    assert told.encode()
    assert told.splitlines() == [told]
    return False


TARGETS = {
    "prices": Target(
        prices,
        (
            *("currency", "timezone", "version", "effective_from", "billable_status", "freeze"),
            *("unbilled_interfaces", "deduplicate", "shared", "item", "code", "name", "tiers"),
            *("interfaces", "free_calls", "mode", "graduated", "tier_basis", "net", "up_to"),
            *("unit_price", "factor", "base", "list", "[[version]]", "[[version.item]]"),
        ),
    ),
    "contracts": Target(contracts, (*TERMS, "2026-02", "*", "face", "100:0;:0.1", ",", "\r\n")),
    "footers": Target(footers, (*COLUMNS, "ARROW:schema")),
    "settings": Target(
        settings,
        (
            *{key for setting in SETTINGS for key in setting.key.split(".")},
            *("[[", "]]", '"""', "'''", "inf", "nan", "1e999", "0xff", "1979-05-27T07:32:00Z"),
        ),
    ),
}
