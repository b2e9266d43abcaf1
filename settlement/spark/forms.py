"""The files of a call log as Spark must be told to read them.

Files differ in physical form, and Spark reads many forms otherwise than they are meant. So it
is told each file's types, made from its footer, and never left to infer them: text, bytes,
whole numbers; and timestamps as the whole numbers that the file holds, whatever their unit, so
that nothing is shifted, rounded or wrapped. Files of one form can be read together.
"""

import os
import re
from dataclasses import dataclass

import pyarrow as pa

from settlement.errors import BadConfig, BadInput
from settlement.prices import Version
from settlement.scan.kinds import is_text, plain_type
from settlement.scan.logfiles import CallLog, LogFile, needed


@dataclass(frozen=True)
class Form:
    """What files that are read together share: Spark's type of each column, and the clock's.

    ``types`` has the columns that are read; one that the file lacks, or that is null
    throughout, is not there. ``names`` are the columns' names in the files, and ``unit`` is
    that of the timestamps.
    """

    types: tuple[tuple[str, str], ...]
    names: tuple[tuple[str, str], ...]
    unit: str
    is_naive: bool

    @property
    def schema(self) -> str:
        """The schema to read by, as SQL; rows are counted even where every column is null."""
        if not self.types:
            return f"{self.own('timestamp')} int"  # as Parquet holds a column without any value
        return ", ".join(f"{self.own(name)} {kind}" for name, kind in self.types)

    def own(self, name: str) -> str:
        """Return what the files call a column, as SQL."""
        return "`" + dict(self.names)[name].replace("`", "``") + "`"


@dataclass(frozen=True)
class Source:
    """A file of the log, its form, and its address for Spark."""

    file: LogFile
    form: Form
    address: str

    @classmethod
    def of(cls, log: CallLog, file: LogFile, version: Version) -> "Source":
        """Tell how to read what a version needs of a checked file.

        Raises:
            BadInput: Spark cannot read a column, or a file of that name.
            BadConfig: the log lies where Spark's name for the place is not known.
        """
        names = [name for name in needed(version) if name in file.types]
        types = [(name, spark_type(file, name)) for name in names]
        stamp = file.types["timestamp"]
        is_known = pa.types.is_timestamp(stamp)
        form = Form(
            tuple((name, kind) for name, kind in types if kind),
            tuple(sorted(file.names.items())),
            stamp.unit if is_known else "us",
            is_known and stamp.tz is None,
        )
        return cls(file, form, _address(log, file))


_PHYSICAL = {
    "string": ("BYTE_ARRAY",),
    "binary": ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"),
    "int": ("INT32",),
    "bigint": ("INT32", "INT64"),
    "decimal(20,0)": ("INT64",),
}
"""How Parquet must hold what is read as a type of Spark's."""


def spark_type(file: LogFile, name: str) -> str:
    """Return the type by which Spark reads a column's values as they are; empty: all null.

    Raises:
        BadInput: there is none, as for the 96-bit timestamps of old writers.
    """
    kind = plain_type(file.types[name])
    if pa.types.is_null(kind):
        return ""
    if is_text(kind):
        found = "string"
    elif pa.types.is_timestamp(kind):
        found = "bigint"
    elif pa.types.is_integer(kind):
        unsigned = pa.types.is_unsigned_integer(kind)
        small = kind.bit_width < 32 or (kind.bit_width == 32 and not unsigned)
        wide = "decimal(20,0)" if unsigned and kind.bit_width == 64 else "bigint"
        found = "int" if small else wide
    else:
        found = "binary"
    physical = file.footer.physical(file.names[name])
    if physical not in _PHYSICAL[found] or (name == "timestamp" and physical != "INT64"):
        raise BadInput(
            f"is written as {physical}, which Spark would not read as it is",
            where=f"{file.name}, {file.column(name)}",
            cure="have it written as 64-bit timestamps, or settle with --engine local",
        )
    return found


def _address(log: CallLog, file: LogFile) -> str:
    """Return where Spark finds a file.

    Raises:
        BadConfig: the log lies where Spark's name for the place is not known.
        BadInput: Spark cannot read a file of that name.
    """
    store = log.filesystem.type_name
    scheme = {"local": "file", "s3": "s3a", "gcs": "gs", "hdfs": "hdfs"}.get(store)
    if ":" in file.name:
        raise BadInput(
            "has a colon in its name, which Spark does not read",
            where=file.name,
            cure="give it another name, or settle with --engine local",
        )
    if scheme is None:
        raise BadConfig(
            f"Spark is not known to read {store}",
            where=log.root,
            cure="put the call log into S3, GCS, HDFS or a folder, or settle with --engine local",
        )
    return f"{scheme}://{os.path.realpath(file.path) if log.is_local else file.path}"


def place(address: str) -> str:
    """Return the path in an address, ours or as Spark writes it: without scheme and host."""
    return re.sub(r"^[a-z0-9+.-]+:(//[^/]*)?", "", address)
