"""Make a call log of any size quickly, the same for the same description.

Every call is a pure function of its number: who called what, when, and whether it failed are
bits of mixed numbers. One row in 200 is delivered again: it repeats the call of an earlier row,
from a moment to days later, byte for byte. One call in 64 fails. Accounts call by Zipf's law.
Files hold equal shares of the month in order of delivery, from an hour before it begins to an
hour after it ends, written by pyarrow as it writes by default.

    python -m tests.bench.generate FOLDER --rows=1000000 … (every field of `logs.Log`)
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from settlement.month import Month
from settlement.prices import PriceBook
from tests.bench.logs import IDS, MONTH, PRICES, Log

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

SECOND = 1_000_000  # of the timestamps' unit
_ROWS_PER_REPETITION = 200
_REPETITIONS_PER_CONFLICT = 250
_CALLS_PER_FAILURE = 64
_FIRST_ACCOUNT = 1_000_000_000
_SHUFFLE = 15_485_863  # a prime: accounts that call much are spread over all numbers
_SHARES = {
    "DetectFace": 75,
    "CompareFace": 62,
    "VerifyFace": 38,
    "SearchFaces": 26,
    "AnalyzeFace": 20,
    "DetectLiveFace": 14,
    "CreateFace": 8,
    "SearchMultiFaces": 7,
    "CreatePerson": 6,
}
"""How the calls fall on the interfaces, in 256ths."""
_INTERFACES = np.repeat(np.arange(len(_SHARES), dtype=np.int8), list(_SHARES.values()))
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)
_HYPHENS = (8, 13, 18, 23)
_UUID_TEXT = np.delete(np.arange(36), _HYPHENS)
_ID_HIGH, _ID_LOW, _WHO, _WHAT = (np.uint64(purpose) << np.uint64(60) for purpose in range(4))


@dataclass(frozen=True)
class _Repetitions:
    """Rows that repeat a call, ascending; the calls; and which of them are conflicts."""

    rows: Ints
    calls: Ints
    conflicts: npt.NDArray[np.bool_]


def generate(folder: Path, log: Log) -> None:
    """Write the files of a log."""
    repetitions = _repetitions(log)
    cuts = [log.rows * file // log.files for file in range(log.files + 1)]
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(_write, folder / f"part-{number:03d}.parquet", log, repetitions, *span)
            for number, span in enumerate(pairwise(cuts))
        ]
        for future in futures:
            future.result()


def _write(path: Path, log: Log, repetitions: _Repetitions, first: int, end: int) -> None:
    schema = _table(log, repetitions, 0, 0).schema
    with pq.ParquetWriter(path, schema, compression=log.codec, store_schema=False) as writer:
        for start in range(first, end, log.group_rows):
            rows = _table(log, repetitions, start, min(end, start + log.group_rows))
            writer.write_table(rows, row_group_size=log.group_rows)


def _repetitions(log: Log) -> _Repetitions:
    """Choose the rows that repeat a call; a repetition of a repetition repeats its call."""
    rng = np.random.default_rng(2026)
    rows = np.unique(rng.integers(1, max(log.rows, 2), log.rows // _ROWS_PER_REPETITION))
    latest = np.log(max(log.rows // 10, 2))
    delay = np.exp(rng.uniform(0, latest, len(rows))).astype(np.int64)
    calls = np.maximum(rows - delay, 0)
    while len(rows):
        place = np.searchsorted(rows, calls)
        place[place == len(rows)] = 0
        again = rows[place] == calls
        if not again.any():
            break
        calls[again] = calls[place[again]]
    conflicts = (np.arange(len(rows)) % _REPETITIONS_PER_CONFLICT == 0) & log.conflicts
    return _Repetitions(rows, calls, conflicts)


def _table(log: Log, repetitions: _Repetitions, first: int, end: int) -> pa.Table:
    """Compute the rows of a range."""
    calls = np.arange(first, end, dtype=np.int64)
    span = slice(*np.searchsorted(repetitions.rows, [first, end]))
    place = repetitions.rows[span] - first
    calls[place] = repetitions.calls[span]
    conflict = np.zeros(len(calls), bool)
    conflict[place] = repetitions.conflicts[span]
    what = _mixed(calls, _WHAT)
    failed = what % np.uint64(_CALLS_PER_FAILURE) == 0
    interface = _INTERFACES[what >> np.uint64(56)]
    return pa.table(
        {
            "request_id": _ids(log, calls),
            "account_id": _accounts(log, calls + conflict),
            "interface": pa.DictionaryArray.from_arrays(pa.array(interface), [*_SHARES]),
            "timestamp": _timestamps(log, calls, what, conflict),
            "status_code": pa.array(np.where(failed, np.int32(500), np.int32(0))),
        }
    )


def _mixed(numbers: Ints, purpose: np.uint64) -> Bits:
    """Mix numbers into 64 bits that look random (splitmix64, a bijection), per purpose."""
    with np.errstate(over="ignore"):
        mixed = (numbers.astype(np.uint64) | purpose) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ mixed >> np.uint64(31))


def _timestamps(log: Log, calls: Ints, what: Bits, conflict: npt.NDArray[np.bool_]) -> pa.Array:
    """Spread the calls evenly; one that conflicts came a second after the one it contradicts."""
    period = Month.parse(MONTH).period(PriceBook.parse(PRICES.read_bytes()).zone)
    start, end = (period.start - 3600) * SECOND, (period.end + 3600) * SECOND
    jitter = (what >> np.uint64(8) & np.uint64(0xFFFFF)).astype(np.int64)
    at = start + calls * ((end - start) // log.rows) + jitter + conflict * SECOND
    return pa.array(at, pa.timestamp("us", "UTC"))


def _accounts(log: Log, calls: Ints) -> pa.DictionaryArray:
    """Return the accounts as ten digits, each number written once."""
    even = (_mixed(calls, _WHO) >> np.uint64(11)) * 2.0**-53
    rank = np.exp(even * np.log(log.accounts + 1)).astype(np.int64) - 1
    numbers = np.minimum(rank, log.accounts - 1) * _SHUFFLE % log.accounts
    coded = pa.array(numbers).dictionary_encode()
    texts = pc.add(coded.dictionary, _FIRST_ACCOUNT).cast(pa.string())
    return pa.DictionaryArray.from_arrays(coded.indices, texts)


def _ids(log: Log, calls: Ints) -> pa.Array:
    """Return the request ids: 128 bits, of which the first 64 are a call's alone."""
    raw = np.empty((len(calls), 2), np.uint64)
    raw[:, 0], raw[:, 1] = _mixed(calls, _ID_HIGH), _mixed(calls, _ID_LOW)
    sixteen = raw.view(np.uint8).reshape(-1, 16)
    if log.ids == "binary16":
        return pa.Array.from_buffers(pa.binary(16), len(raw), [None, pa.py_buffer(sixteen)])
    digits = _HEX[sixteen].view(np.uint8).reshape(-1, 32)
    if log.ids == "uuid":
        text = np.full((len(raw), 36), ord("-"), np.uint8)
        text[:, _UUID_TEXT] = digits
        return _texts(text, np.full(len(raw), 36))
    widths = np.full(len(raw), 32)
    if log.ids == "variable":
        widths = 16 + sixteen[:, 15].astype(np.int64) % 17
        digits = digits[np.arange(32) < widths[:, None]]
    return _texts(digits, widths)


def _texts(characters: Bytes, widths: Ints) -> pa.Array:
    ends = np.zeros(len(widths) + 1, np.int32)
    np.cumsum(widths, out=ends[1:])
    flat = np.ascontiguousarray(characters)
    return pa.StringArray.from_buffers(len(widths), pa.py_buffer(ends), pa.py_buffer(flat))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a log as its options describe it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generate")
    parser.add_argument("folder", type=Path)
    for name in ("rows", "accounts", "group_rows", "files"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, required=True)
    parser.add_argument("--ids", choices=IDS, required=True)
    parser.add_argument("--codec", required=True)
    parser.add_argument("--conflicts", choices=("True", "False"), required=True)
    chosen = vars(parser.parse_args(arguments))
    conflicts = chosen.pop("conflicts") == "True"
    generate(chosen.pop("folder"), Log(**chosen, conflicts=conflicts))


if __name__ == "__main__":
    main()
