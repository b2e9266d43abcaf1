"""Small call logs for tests of whole runs: drawn numbers of calls, and every way to be wrong."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from tests.drawn import rows

SCHEMA = pa.schema(
    {
        "request_id": pa.string(),
        "account_id": pa.string(),
        "interface": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
        "status_code": pa.int32(),
    }
)


def made(month: str, calls: Mapping[tuple[str, str], int], prefix: str = "") -> pa.Table:
    """Charged calls of a month: so many per (account, interface), a second apart."""
    accounts = [account for (account, _), count in calls.items() for _ in range(count)]
    interfaces = [interface for (_, interface), count in calls.items() for _ in range(count)]
    year, number = map(int, month.split("-"))
    first = int(datetime(year, number, 2, tzinfo=UTC).timestamp()) * 1_000_000
    many = range(len(accounts))
    return pa.table(
        {
            "request_id": [f"{prefix}{month}-{n}" for n in many],
            "account_id": accounts,
            "interface": interfaces,
            "timestamp": pa.array([first + n * 1_000_000 for n in many], pa.timestamp("us", "UTC")),
            "status_code": pa.array([0] * len(accounts), pa.int32()),
        },
        schema=SCHEMA,
    )


def drawn_calls(drawing: str) -> dict[tuple[str, str], int]:
    """Read ``account interface calls`` rows."""
    return {(account, name): int(calls.replace("_", "")) for account, name, calls in rows(drawing)}


def write(table: pa.Table, path: Path, **how: Any) -> None:
    """Write a file of the log, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **how)


def with_cells(table: pa.Table, name: str, cells: Sequence[Any], kind: pa.DataType) -> pa.Table:
    """The table with another column of that name: these cells, over and over."""
    repeated = [cells[n % len(cells)] for n in range(len(table))]
    return table.set_column(table.schema.get_field_index(name), name, pa.array(repeated, kind))


def not_utf8(table: pa.Table, name: str) -> pa.Table:
    """The table with one cell of a text column that is not UTF-8."""
    cells = [cell.encode() for cell in table[name].to_pylist()]
    cells[1] = b"\xff\xfe"
    raw = pa.array(cells, pa.binary())
    bad = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    return table.set_column(table.schema.get_field_index(name), name, bad)


class _Keys(pe.KmsClient):  # type: ignore[misc]  # pyarrow has no types
    """Keys that are no secret."""

    def wrap_key(self, key_bytes: bytes, _master: str) -> bytes:
        return key_bytes.hex().encode()

    def unwrap_key(self, wrapped_key: bytes, _master: str) -> bytes:
        return bytes.fromhex(wrapped_key.decode())


def write_encrypted(table: pa.Table, path: Path, *, plaintext_footer: bool) -> None:
    """Write a file whose columns are encrypted, its footer too unless it is to stay plain."""
    factory = pe.CryptoFactory(lambda _: _Keys())
    how = pe.EncryptionConfiguration(
        footer_key="k",
        column_keys={"k": table.column_names},
        plaintext_footer=plaintext_footer,
        double_wrapping=False,
    )
    encryption = factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    write(table, path, encryption_properties=encryption)
