"""Finance CSV: a settlement's invoices, lines, entries, adjustments, as a spreadsheet wants them.

UTF-8 with a byte order mark (Excel takes Chinese for another encoding without it), CRLF, and
quotes as in RFC 4180; fixed decimals and never an exponent. Control totals stand in a file
beside, not in a last row: a trailer would turn every numeric column into text. A text cell
that a spreadsheet would compute gets a leading apostrophe, since account ids come from
outside. Everything is done by whole columns, a slice of rows at a time, so the memory used
does not depend on the number of rows where a table is read as it is written.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settlement.decimals import from_decimals
from settlement.disk import flush_folder
from settlement.errors import CannotWrite
from settlement.frames import joined
from settlement.ledger import KINDS
from settlement.money import UNIT_DIGITS, UNITS_PER_ONE, exact_sum, text
from settlement.tables import (
    ADJUSTMENTS,
    ENTRIES,
    INVOICES,
    LINES,
    STAMP,
    Column,
    Kind,
    Table,
    WrongTable,
)

if TYPE_CHECKING:
    from settlement.money import Ints

FILES = {f"{table.name}.csv": table for table in (INVOICES, LINES, ENTRIES, ADJUSTMENTS)}
"""The files, and the tables in them; adjustments only where the month was revised."""
CONTROL = "control.json"
_BATCH = 1 << 16
"""Rows turned into text at once: a few tens of MB, and they stay near the processor."""
_BOM = "\ufeff"
_DECIMALS = {Kind.AMOUNT: 8, Kind.PAYABLE: 2}
_SPARE_ZEROS = "0{1,4}$"
"""A unit price keeps 4 of its 8 decimals, and those of the rest that it needs."""
_COMPUTED = r"^\x00*[=+\-@\t\r]"
"""How a cell begins that a spreadsheet takes for a formula; LibreOffice drops NUL first."""
_QUOTED = r'[\x00-\x1f\x7f",;]|^ | $|^$'
"""What must stand in quotes, and what readers would trim, split or take for null."""
_FOUR_DIGITS = np.array([f"{number:04d}" for number in range(10_000)], "S4")

_AMOUNT = next(column for column in ENTRIES.columns if column.name == "amount")

Source: TypeAlias = "pa.Table | pa.RecordBatchReader"
"""A published table, whole or read as it is written."""


def export(
    tables: Mapping[str, Source],
    *,
    month: str,
    revision: int,
    currency: str,
    digest: str,
    out: Path,
) -> dict[str, Any]:
    """Write invoices.csv, lines.csv, entries.csv and control.json into a folder.

    Of a revised month adjustments.csv too. The files are written aside, flushed, and only then
    put in place of those of an earlier export; other files in the folder stay. control.json
    goes first and comes last: a folder that has one is complete. The same settlement gives the
    same bytes.

    Args:
        tables: the published tables by name; each is asked for once, and one at a time.
            ``adjustments`` may be left out.
        month: the month, ``YYYY-MM``.
        revision: the revision of it, from 1.
        currency: the ISO 4217 code.
        digest: the settlement's digest, so that an export can be traced to it.
        out: the folder; made where it is missing.

    Returns what control.json holds: month, revision, currency, digest, and of each CSV the
    rows, the column sums and the sha256. Raises `CannotWrite` where the folder or a file in
    it cannot be written: nothing was replaced, or control.json is missing.
    """
    control: dict[str, Any] = {"month": month, "revision": revision, "currency": currency}
    control |= {"digest": digest, "files": {}}
    with _draft(out) as draft:
        for name, table in FILES.items():
            if table is ADJUSTMENTS and table.name not in tables:
                continue
            control["files"][name] = write_csv(table, tables[table.name], draft / name)
        with _durable(draft / CONTROL) as write:
            write((json.dumps(control, ensure_ascii=False, indent=2) + "\n").encode())
        _put_in_place(draft, out)
    return control


def write_csv(table: Table, published: Source, path: Path) -> dict[str, Any]:
    """Write a published table as CSV, durably, and return its rows, column sums and sha256.

    Columns stand in the table's order under ``中文名 english_key``. Null is an empty cell.
    Summed are calls (integers), amounts and payables (decimal text); a price, a tier or a
    sequence means nothing as a sum. Entries are summed by kind too, for they run both ways.
    Raises `WrongTable` for other columns than the declared ones, `CannotWrite` where the path
    cannot be written.
    """
    if not published.schema.equals(table.published):
        raise WrongTable(f"{table.name}: the columns to export are not the declared ones")
    columns = (*STAMP, *table.columns)
    header = _BOM + ",".join(f"{column.label} {column.name}" for column in columns) + "\r\n"
    sums = {column: 0 for column in columns if _is_summed(column)}
    by_kind = dict.fromkeys(KINDS, 0) if table is ENTRIES else {}
    rows, checksum = 0, sha256()
    with _durable(path) as write:
        _hash_and_write(header.encode(), checksum, write)
        for batch in _batches(published):
            rows += batch.num_rows
            for column in sums:
                sums[column] += _sum(column, batch[column.name])
            for kind in by_kind:
                by_kind[kind] += _sum(
                    _AMOUNT, batch.filter(pc.equal(batch["kind"], kind))["amount"]
                )
            _hash_and_write(_csv(columns, batch), checksum, write)
    shown = {column.name: _total(column, total) for column, total in sums.items()}
    kinds = {kind: _total(_AMOUNT, total) for kind, total in by_kind.items()}
    return (
        {"rows": rows, "sums": shown}
        | ({"sums_by_kind": kinds} if kinds else {})
        | {"sha256": checksum.hexdigest()}
    )


def _batches(published: Source) -> Iterator[pa.RecordBatch]:
    whole = isinstance(published, pa.Table)
    for batch in published.to_reader(max_chunksize=_BATCH) if whole else published:
        for start in range(0, batch.num_rows, _BATCH):
            yield batch.slice(start, _BATCH)


def _csv(columns: tuple[Column, ...], batch: pa.RecordBatch) -> memoryview:
    """Return rows as the bytes of CSV: Arrow keeps a column of text as one run of them."""
    cells = [_cells(column, batch[column.name]) for column in columns]
    cells[-1] = joined([cells[-1], ""], "\r\n")
    lines = joined(cells, ",")
    ends = np.frombuffer(lines.buffers()[1], np.int64)
    return memoryview(lines.buffers()[2])[: int(ends[len(lines)])]


def _cells(column: Column, values: pa.Array) -> pa.Array:
    if column.kind is Kind.TEXT:
        return _text_cells(values.cast(pa.large_string()))
    if not column.kind.is_money:
        return values.cast(pa.large_string())
    amounts = from_decimals(pa.chunked_array([values]), column.kind)
    shown = _money_cells(amounts, _DECIMALS.get(column.kind, UNIT_DIGITS))
    if column.kind is Kind.PRICE:
        shown = pc.replace_substring_regex(shown, _SPARE_ZEROS, "")
    return pc.if_else(values.is_valid(), shown, None) if values.null_count else shown


def _text_cells(values: pa.Array) -> pa.Array:
    """Disarm what a spreadsheet would compute, then quote what CSV must quote."""
    if not pc.any(pc.match_substring_regex(values, f"{_COMPUTED}|{_QUOTED}")).as_py():
        return values
    computed = pc.match_substring_regex(values, _COMPUTED)
    values = pc.if_else(computed, joined(["'", values], ""), values)
    quoted = joined(['"', pc.replace_substring(values, '"', '""'), '"'], "")
    return pc.if_else(pc.match_substring_regex(values, _QUOTED), quoted, values)


def _money_cells(amounts: "Ints", decimals: int) -> pa.Array:
    """Write units of 1e-8 with a fixed number of decimals.

    Not Arrow's own cast: it writes 0.00000032 as 3.2E-7. The sign is set apart, so that
    -0.0032 keeps it; as unsigned numbers the sizes cannot overflow.
    """
    whole, rest = np.divmod(np.abs(amounts).view(np.uint64), np.uint64(UNITS_PER_ONE))
    fours = _FOUR_DIGITS[np.stack(np.divmod(rest, np.uint64(10_000)), axis=1)]
    digits = np.ascontiguousarray(fours.view(np.uint8)[:, :decimals])
    ends = np.arange(len(amounts) + 1, dtype=np.int64) * decimals
    fraction = pa.LargeStringArray.from_buffers(
        len(amounts), pa.py_buffer(ends), pa.py_buffer(digits)
    )
    shown = joined([pa.array(whole).cast(pa.large_string()), fraction], ".")
    negative = amounts < 0
    if not negative.any():
        return shown
    return pc.if_else(pa.array(negative), joined(["-", shown], ""), shown)


def _is_summed(column: Column) -> bool:
    return column.kind in (Kind.INT64, Kind.AMOUNT, Kind.PAYABLE)


def _sum(column: Column, values: pa.Array) -> int:
    if column.kind.is_money:
        return exact_sum(from_decimals(pa.chunked_array([values]), column.kind))
    return exact_sum(values.to_numpy())


def _total(column: Column, total: int) -> str | int:
    return text(total, _DECIMALS[column.kind]) if column.kind.is_money else total


def _hash_and_write(piece: Any, checksum: Any, write: Callable[[Any], object]) -> None:
    checksum.update(piece)
    write(piece)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """Yield a folder for the files to be written in, and leave none behind.

    It lies inside ``out``: on the same file system and under the same rights, also where
    ``out`` is a mounted volume. One export at a time, so that two cannot mix their files
    and what a killed one left can be swept away.
    """
    draft = out / ".draft"
    with _writing(out):
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        if made:
            flush_folder(out.parent)
        opened = os.open(out, os.O_RDONLY)
    try:
        with _writing(out):
            _hold(opened, out)
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except BaseException:
        if made:
            with suppress(OSError):
                out.rmdir()
        raise
    finally:
        os.close(opened)


def _hold(opened: int, out: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotWrite(
            "another export is writing here", where=str(out), cure="wait for it, then export again"
        ) from None


def _put_in_place(draft: Path, out: Path) -> None:
    """Replace an earlier export; whenever this is cut short, control.json is missing."""
    with _writing(out):
        (out / CONTROL).unlink(missing_ok=True)
        flush_folder(out)
        for name in (*FILES, CONTROL):
            if (draft / name).exists():
                (draft / name).replace(out / name)
            else:  # of a month that was revised, exported here before
                (out / name).unlink(missing_ok=True)
            flush_folder(out)


@contextmanager
def _durable(path: Path) -> Iterator[Callable[[Any], object]]:
    """Open a new file and yield what writes to it; on disk when the block ends."""
    with _writing(path):
        file = path.open("wb")

    def write(piece: Any) -> None:
        with _writing(path):
            file.write(piece)

    try:
        yield write
        with _writing(path):
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):  # closing tries once more what was refused before
            file.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the file system's refusal into ours; a failed read of a table is not one."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write ({error.strerror or error})",
            where=str(path),
            cure="make room or get the rights to write there, then export again",
        ) from error
