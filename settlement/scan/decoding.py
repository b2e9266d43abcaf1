"""Columns of the call log as Arrow decodes them: whatever their form, in parts that fit in memory.

What Arrow makes of them is compared with what the footer says: rows, nulls, and the bounds of
whole numbers. So neither a file that lost rows nor a footer that tells something else is counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from settlement.errors import BadInput
from settlement.month import Period
from settlement.scan.footers import Chunk, Stated
from settlement.scan.logfiles import (
    CallLog,
    InputFile,
    LogFile,
    RowGroup,
    believing,
    check,
    is_text,
    lies,
    plain_type,
    reading,
)
from settlement.scan.pages import LARGE
from settlement.scan.sizes import (
    LARGEST,
    LARGEST_DICTIONARY,
    Sizes,
    looked_up,
    rows_at_once,
    stated,
)
from settlement.scan.stamps import Clock, Stamps

BATCH_ROWS = 1 << 20
"""Row groups are decoded in batches of at most this many rows."""
_BUFFER = 1 << 20
"""Large row groups are read from the file so many bytes at a time, not a column at once."""


def columns(
    log: CallLog, file: LogFile, group: RowGroup, names: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, pa.Array]]]:
    """Decode some columns of a row group, in batches of at most `BATCH_ROWS` rows.

    Where rows are long, batches are shorter. Texts come as dictionaries, ids as they are
    written, unless bytes speak against it (`sizes`). Yields the first row of each batch (in the
    file) and its columns; a column that the file lacks is not there.

    Raises:
        BadInput: the file is damaged, has pages too large for memory, or has fewer or more rows
            than its footer says.
        MissingInput, CannotRead: it is gone, or cannot be read.
    """
    present = [name for name in names if name in file.types]
    own = [file.names[name] for name in present]
    few = {file.names[name] for name in present if _is_coded(name, file.types[name])}
    row = group.first_row
    with reading(file.name), believing(file.name):
        chunks = file.footer.chunks(group.number, own)
    with reading(file.name), log.filesystem.open_input_file(file.path) as source:
        found = _sizes(log, file, group, source, chunks, few)
        coded = {name for name, sizes in found.items() if sizes.is_coded(is_few=name in few)}
        is_large = sum(chunk.size for chunk in chunks.values()) > LARGE
        opened = pq.ParquetFile(
            source,
            metadata=pq.read_metadata(pa.BufferReader(file.footer.of_group(group.number))),
            read_dictionary=[name for name in own if name in coded],
            coerce_int96_timestamp_unit="us",
            buffer_size=_BUFFER if is_large else 0,
            pre_buffer=not log.is_local and not is_large,
            page_checksum_verification=True,
        )
        decoded = [sizes.decoded(is_coded=name in coded) for name, sizes in found.items()]
        page = max((sizes.largest for sizes in found.values()), default=0)
        count = rows_at_once(decoded, page, BATCH_ROWS)
        batches = opened.iter_batches(count, row_groups=[0], columns=own, use_threads=False)
        seen = {name: _Seen() for name in present}
        for batch in batches:
            cells = {name: _simple(batch.column(file.names[name])) for name in present}
            for name, column in cells.items():
                seen[name].add(column)
            yield row, cells
            row += len(batch)
    if row != group.first_row + group.rows:
        raise lies(
            file.name,
            f"has {row - group.first_row} rows in row group {group.number}, "
            f"where its footer says {group.rows}",
        )
    for name in present:
        seen[name].check(file, group, name, chunks[file.names[name]].stated)


def _sizes(
    log: CallLog,
    file: LogFile,
    group: RowGroup,
    source: pa.NativeFile,
    chunks: Mapping[str, Chunk],
    few: AbstractSet[str],
) -> dict[str, Sizes]:
    """Return what some columns of a row group come to; refuse those too large for memory.

    Of remote files only the footer is asked: each look at a page would be a wait.
    """
    if not log.is_local:
        return {name: stated(chunk) for name, chunk in chunks.items()}
    found = {}
    for name, chunk in chunks.items():
        where = f"{file.name}, column {name!r}"
        with believing(where):
            found[name] = looked_up(
                lambda at, size: source.read_at(size, at), chunk, is_few=name in few
            )
        if found[name].total > max(LARGE, chunk.raw_size):
            raise lies(
                where,
                f"has {found[name].total >> 20} MiB in row group {group.number}, "
                "more than the footer says",
            )
        if found[name].dictionary > LARGEST_DICTIONARY:
            raise _too_large(where, group, "dictionary", found[name].dictionary)
    largest = sum(column.largest for column in found.values())
    if largest > LARGEST:
        name = max(found, key=lambda name: found[name].largest)
        raise _too_large(f"{file.name}, column {name!r}", group, "page", found[name].largest)
    return found


def _too_large(where: str, group: RowGroup, what: str, size: int) -> BadInput:
    return BadInput(
        f"has a {what} of {size >> 20} MiB in row group {group.number}, too much for memory",
        where=where,
        cure=f"have it written with a smaller {what}; 1 MiB is usual",
    )


class _Seen:
    """What was decoded of a column of a row group, to be compared with what its footer says."""

    def __init__(self) -> None:
        self._nulls = 0
        self._bounds: list[int] = []

    def add(self, column: pa.Array) -> None:
        """Look at some cells: nulls, and bounds; raises `ValueError` for codes of nothing."""
        self._nulls += column.null_count
        if pa.types.is_dictionary(column.type):
            highest = pc.max(column.indices).as_py()
            if highest is not None and highest >= len(column.dictionary):
                raise ValueError("a code beyond its dictionary")
        if pa.types.is_timestamp(column.type):
            column = column.view(pa.int64())
        if pa.types.is_signed_integer(column.type):
            found = pc.min_max(column).as_py()
            self._bounds += [bound for bound in found.values() if bound is not None]

    def check(self, file: LogFile, group: RowGroup, name: str, stated: Stated) -> None:
        """Refuse a file whose footer says otherwise."""
        wrong = stated.nulls is not None and stated.nulls != self._nulls
        if self._bounds and stated.low is not None:
            wrong |= (stated.low, stated.high) != (min(self._bounds), max(self._bounds))
        if wrong:
            raise lies(
                f"{file.name}, {file.column(name)}",
                f"its values in row group {group.number} are not what the footer says of them",
            )


def _simple(column: pa.Array) -> pa.Array:
    """Return a column without its extension type, and views as the arrays all functions know."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(column.type) else column


def _is_coded(name: str, kind: pa.DataType) -> bool:
    if name == "request_id":
        return bool(pa.types.is_dictionary(kind))
    return is_text(plain_type(kind))


def read_stamps(clock: Clock, file: LogFile, column: pa.Array) -> Stamps:
    """Read a timestamp column of a file; raises `BadInput` for times that never were."""
    try:
        return clock.read(column)
    except ValueError as error:
        raise BadInput(
            str(error),
            where=f"{file.name}, {file.column('timestamp')}",
            cure="write timestamps with a zone",
        ) from error


def touching(
    log: CallLog, period: Period, naive_zone: ZoneInfo | None = None
) -> tuple[InputFile, ...]:
    """Return the files with at least one row in a month.

    Footers decide; only where they leave it open is the timestamp column decoded.

    Raises:
        BadInput: a timestamp column is missing or mistyped, or a file is damaged.
    """
    check(log.files, ["timestamp"], naive_zone)
    clock = Clock(period, naive_zone)
    return tuple(InputFile.of(file) for file in log.files if _touches(log, file, clock))


def _touches(log: CallLog, file: LogFile, clock: Clock) -> bool:
    known = [
        (group, clock.overlaps(file.types["timestamp"], group.span))
        for group in file.groups
        if group.rows
    ]
    if any(overlaps for _, overlaps in known):
        return True
    return any(
        read_stamps(clock, file, cells["timestamp"]).inside.any()
        for group, overlaps in known
        if overlaps is None
        for _, cells in columns(log, file, group, ["timestamp"])
    )
