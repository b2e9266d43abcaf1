"""Say what contestants found, so that only equal work is compared.

    python -m tests.bench.results FILE…

Prints for each file, an Arrow file of a contestant's or a published ``usage.parquet``, a digest
of (account, item, interface, calls) in one order, and the number of lines and calls. Where a
file names no item, an interface counts toward the item that the price book gives it.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from settlement.month import Month
from settlement.prices import PriceBook
from tests.bench.logs import MONTH, PRICES

_KEY = ("account_id", "item", "interface")


def found(path: Path) -> dict[str, Any]:
    """Return digest, lines and calls of a result."""
    table = _read(path)
    if "item" not in table.column_names:
        table = table.append_column("item", _items(table["interface"]))
    table = table.select([*_KEY, "calls"])
    text = [(name, pa.large_string()) for name in _KEY]
    table = table.cast(pa.schema([*text, ("calls", pa.int64())]))
    table = table.sort_by([(name, "ascending") for name in _KEY])
    digest = hashlib.sha256()
    for column in table.columns:
        for part in _parts(column):
            digest.update(part)
    calls = pc.sum(table["calls"]).as_py() or 0
    return {"digest": digest.hexdigest(), "lines": table.num_rows, "calls": calls}


def _read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path, partitioning=None)
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).read_all()


def _parts(column: pa.ChunkedArray) -> list[bytes]:
    """Return the bytes that tell a column from all others: text as its ends and characters."""
    if column.type != pa.large_string() or not len(column):
        return [column.to_numpy().tobytes()]
    array = pa.concat_arrays(column.chunks)
    _, offsets, characters = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return [(ends - ends[0]).tobytes(), memoryview(characters)[ends[0] : ends[-1]].tobytes()]


def _items(interfaces: pa.ChunkedArray) -> pa.ChunkedArray:
    version = PriceBook.parse(PRICES.read_bytes()).version_for(Month.parse(MONTH))
    names = sorted({name for item in version.items for name in item.interfaces})
    items = pa.array([version.bearing(name) for name in names])
    return items.take(pc.index_in(interfaces.cast(pa.string()), pa.array(names)))


def main() -> None:
    """Print what each file holds."""
    print(json.dumps({name: found(Path(name)) for name in sys.argv[1:]}))


if __name__ == "__main__":
    main()
