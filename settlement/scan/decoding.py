"""Columns of the call log as Arrow decodes them: whatever their form, in parts that fit in memory.

What Arrow makes of them is compared with what the footer says: rows, nulls, and the bounds of
whole numbers. So neither a file that lost rows nor a footer that tells something else is counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import reduce
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from settlement.errors import BadInput
from settlement.month import Period
from settlement.scan.boundary import believing, lies, reading
from settlement.scan.footers import Chunk, Stated
from settlement.scan.kinds import is_text, plain_type
from settlement.scan.logfiles import CallLog, InputFile, LogFile, RowGroup, check
from settlement.scan.pages import LARGE
from settlement.scan.sizes import (
    AT_ONCE,
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
    few = {file.names[name] for name in present if _is_coded(name, file.types[name])}
    with reading(file.name), believing(file.name):
        chunks = _Chunks(file, group, [file.names[name] for name in present])
    row, seen = group.first_row, {name: _Seen() for name in present}
    with reading(file.name), log.filesystem.open_input_file(file.path) as source:
        for batch in _batches(source, file, group, chunks, few, is_local=log.is_local):
            cells = {name: _simple(batch.column(file.names[name])) for name in present}
            for name, column in cells.items():
                seen[name].add(column)
            yield row, cells
            row += len(batch)
    if row != group.first_row + group.rows:
        raise lies(
            file.name,
            f"has {row - group.first_row} rows in row group {group}, "
            f"where its footer says {group.rows}",
        )
    for name in present:
        seen[name].check(file, group, name, chunks.stated(file.names[name]))


def _batches(
    source: pa.NativeFile,
    file: LogFile,
    group: RowGroup,
    chunks: "_Chunks",
    few: AbstractSet[str],
    *,
    is_local: bool,
) -> Iterator[pa.RecordBatch]:
    """Decode columns, as many rows at once as fit in memory; texts in ``few`` as dictionaries.

    Of joined row groups whose dictionaries would be too large as one, one after another.
    """
    found = chunks.sizes(source if is_local else None, few)
    if group.count > 1 and any(sizes.dictionary > AT_ONCE for sizes in found.values()):
        for number in group.numbers:
            alone = file.groups[number]
            own = _Chunks(file, alone, list(found))
            yield from _batches(source, file, alone, own, few, is_local=is_local)
        return
    coded = {name for name, sizes in found.items() if sizes.is_coded(is_few=name in few)}
    footer = file.footer.of_groups(group.number, group.count)
    opened = pq.ParquetFile(
        source,
        metadata=pq.read_metadata(pa.BufferReader(footer)),
        read_dictionary=[name for name in found if name in coded],
        coerce_int96_timestamp_unit="us",
        buffer_size=_BUFFER if chunks.are_large else 0,
        pre_buffer=not is_local and not chunks.are_large,
        page_checksum_verification=True,
    )
    decoded = [sizes.decoded(is_coded=name in coded) for name, sizes in found.items()]
    page = max((sizes.largest for sizes in found.values()), default=0)
    count = rows_at_once(decoded, page, BATCH_ROWS)
    batches = opened.iter_batches(
        count, row_groups=range(group.count), columns=list(found), use_threads=False
    )
    yield from batches if group.count == 1 else _joined(batches, count)


def _joined(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Put batches together, to at most so many rows: Arrow ends one with each row group."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        if waiting and held + len(batch) > rows:
            yield _one(waiting)
            waiting, held = [], 0
        waiting.append(batch)
        held += len(batch)
    if waiting:
        yield _one(waiting)


def _one(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]


class _Chunks:
    """Some columns of a row group, or of several in a row, as the footer tells them."""

    def __init__(self, file: LogFile, group: RowGroup, names: Sequence[str]) -> None:
        self._file, self._group = file, group
        every = [file.footer.chunks(number, names) for number in group.numbers]
        self._by_name = {name: [chunks[name] for chunks in every] for name in every[0]}

    @property
    def are_large(self) -> bool:
        """Whether they have so many bytes that a column should not be read at once."""
        return sum(chunk.size for each in self._by_name.values() for chunk in each) > LARGE

    def stated(self, name: str) -> Stated:
        """Return what the footer says of a column's values."""
        return reduce(Stated.joined, (chunk.stated for chunk in self._by_name[name]))

    def sizes(self, source: pa.NativeFile | None, few: AbstractSet[str]) -> dict[str, Sizes]:
        """Return what the columns come to; refuse those too large for memory.

        Without a source, of remote files, only the footer is asked: each look at a page would
        be a wait.
        """
        if source is None:
            return {
                name: Sizes.joined([stated(chunk) for chunk in chunks])
                for name, chunks in self._by_name.items()
            }
        found = {
            name: Sizes.joined([self._looked_up(source, name, c, is_few=name in few) for c in each])
            for name, each in self._by_name.items()
        }
        largest = sum(column.largest for column in found.values())
        if largest > LARGEST:
            name = max(found, key=lambda name: found[name].largest)
            raise self._too_large(name, "page", found[name].largest)
        return found

    def _looked_up(self, source: pa.NativeFile, name: str, chunk: Chunk, *, is_few: bool) -> Sizes:
        where = f"{self._file.name}, column {name!r}"
        with believing(where):
            sizes = looked_up(
                lambda at, size: source.read_at(size, at),
                chunk,
                is_few=is_few,
                is_alone=self._group.count == 1,
            )
        if sizes.total > max(LARGE, chunk.raw_size):
            what = f"has {sizes.total >> 20} MiB in row group {self._group}"
            raise lies(where, f"{what}, more than the footer says")
        if sizes.dictionary > LARGEST_DICTIONARY:
            raise self._too_large(name, "dictionary", sizes.dictionary)
        return sizes

    def _too_large(self, name: str, what: str, size: int) -> BadInput:
        return BadInput(
            f"has a {what} of {size >> 20} MiB in row group {self._group}, too much for memory",
            where=f"{self._file.name}, column {name!r}",
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
                f"its values in row group {group} are not what the footer says of them",
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
