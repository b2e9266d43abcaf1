"""The seam once more, on a Spark cluster: for logs that one machine cannot hold.

`count` says of a log what `usage.count` says, row for row and byte for byte. Footers are read
and checked here, where the program runs; rows are read, sorted into buckets, de-duplicated
and added up on the cluster, by SQL expressions alone, so that executors need nothing of ours.

Files differ in physical form (`forms`). Those of one form are read together, and brought to
the same columns by expressions.

Two passes are made over the files of the month. The first counts rows per file and bucket,
which must agree with the footers. The second shuffles what is charged by request id, and
keeps of each id the smallest (instant, account, interface, item): a set of rows has one
smallest, so neither order nor a task that is run again can change it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settlement import tables
from settlement.calls import BUCKETS, CHARGED, NUMBER
from settlement.counting.reading import Progress
from settlement.errors import BadInput, MissingInput
from settlement.month import UNITS_PER_SECOND, Period
from settlement.prices import Version
from settlement.scan.logfiles import CallLog, LogFile, check, check_unchanged, needed
from settlement.scan.stamps import Clock, Stamps
from settlement.spark.cluster import Cluster, gave_up, said, session
from settlement.spark.forms import Form, Source, place
from settlement.usage import KEPT_REJECTS, Counted

_REJECTED = [number for number, name in enumerate(BUCKETS) if name.startswith("rejected.")]
_NOT_OF_THE_MONTH = {NUMBER["rejected.missing_timestamp"], NUMBER["outside_month"]}
_TEXTS = ("account_id", "interface", "item", "status_code")
_FIRST_REJECTS = 10
_SHUFFLED_ROW = 100
"""About how many bytes a charged row is in a shuffle, with an id of 36 characters."""
_NS = 10**9
_DAY = 86_400


def count(
    log: CallLog,
    period: Period,
    version: Version,
    *,
    cluster: Cluster,
    naive_zone: ZoneInfo | None = None,
    keep_rejects: int = KEPT_REJECTS,
    progress: Progress | None = None,
) -> Counted:
    """Count the calls of a month on a cluster; says what `usage.count` says, and refuses alike.

    Args:
        log: the call log; the cluster must reach its files by the same paths.
        period: the month's instants, in the billing zone.
        version: the rules in force.
        cluster: which cluster, and its settings.
        naive_zone: what timestamps without a zone mean; without it they are refused.
        keep_rejects: keep at most so many rejected rows; beyond, only the first ten.
        progress: called with the rows and bytes done, once they are.

    Raises:
        BadInput: a file is damaged, changed meanwhile, or its columns are not what they must be.
        MissingInput: a file is gone.
        BadConfig: Spark or Java is missing, or the log lies where Spark is not known to read.
        CannotRead: the cluster cannot be reached, or gave up.
    """
    check(log.files, needed(version), naive_zone)
    clock = Clock(period, naive_zone)
    files = [file for file in log.files if file.rows and not _is_outside(clock, file)]
    sources = [Source.of(log, file, version) for file in files]
    counting = _Counting(log, sources, version, clock)
    if sources:
        shuffled = sum(file.rows for file in files) * _SHUFFLED_ROW
        with session(cluster, shuffled) as spark, _refusing(cluster, counting.files):
            counting.run(spark, keep_rejects)
    check_unchanged(log)
    if progress is not None:
        progress(log.rows, log.size)
    return counting.result()


def _is_outside(clock: Clock, file: LogFile) -> bool:
    """Tell whether the footer alone says that no row lies in the month."""
    return all(
        clock.excludes(file.types["timestamp"], group.span) for group in file.groups if group.rows
    )


@contextmanager
def _refusing(cluster: Cluster, files: dict[str, LogFile]) -> Iterator[None]:
    """Turn what Spark raises into a refusal: of a file where it names one, else of the cluster."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("py4j", "pyspark")):
            raise
        text = str(error)
        named = (unquote(place(name)) for name in re.findall(r"\w+:/\S*?\.parquet", text))
        file = next((files[path] for path in named if path in files), None)
        if file is None:
            raise gave_up(cluster, error) from error
        if "FILE_NOT_EXIST" in text or "PATH_NOT_FOUND" in text or "FileNotFound" in text:
            raise MissingInput(
                "is gone", where=file.name, cure="do not move files of the call log; run again"
            ) from error
        raise BadInput(
            f"cannot be read as Parquet by Spark ({said(error)})",
            where=file.name,
            cure="have it delivered again, or move it out of the call log",
        ) from error


# ---------------------------------------------------------------- rows


class _Rows:
    """Rows of files as a Spark frame, every form brought to the same columns.

    ``file``, ``row``: where they lie · ``id``: bytes · ``id_text``: as a reject shows it ·
    ``account_id``, ``interface``, ``item``, ``status_code``: text · ``stamp``: the instant in
    ``unit`` · ``since``: nanoseconds since the month began, null outside it · ``flaw``: the
    column that refuses the file · ``wall``: the wall clock time that never was.
    """

    def __init__(self, spark: Any, version: Version, clock: Clock) -> None:
        from pyspark.sql import functions

        self._spark, self._f = spark, functions
        self._version, self._clock = version, clock
        self.bearings = version.bearings()

    def of(self, sources: Iterable[Source]) -> Any:
        """Return the rows of some files, each with its ``bucket`` and ``pair``."""
        forms: dict[Form, list[str]] = {}
        for source in sources:
            forms.setdefault(source.form, []).append(source.address)
        parts = [self._read(form, addresses) for form, addresses in forms.items()]
        every = parts[0]
        for part in parts[1:]:
            every = every.unionAll(part)
        return self._classified(every)

    def _read(self, form: Form, addresses: Sequence[str]) -> Any:
        f, types = self._f, dict(form.types)
        read = (
            self._spark.read.schema(form.schema)
            .option("recursiveFileLookup", "true")  # folder names are never columns
            .option("__globPaths__", "false")  # nor are file names patterns
            .option("parquet.page.verify-checksum.enabled", "true")
            .parquet(*addresses)
        )

        def cells(name: str) -> Any:
            return f.col(form.own(name)) if name in types else f.lit(None)

        ids, shown = cells("request_id"), cells("request_id")
        if types.get("request_id") == "binary":
            shown = f.lower(f.hex(ids))
        written = cells("timestamp").cast("bigint")
        stamp, never = self._instant(form, written)
        texts = [name for name, kind in form.types if kind == "string"]
        bad = [f.when(~f.is_valid_utf8(cells(name)), f.lit(name)) for name in texts]
        return read.select(
            f.col("_metadata.file_path").alias("file"),
            f.col("_metadata.row_index").alias("row"),
            ids.cast("binary").alias("id"),
            shown.cast("string").alias("id_text"),
            *(cells(name).cast("string").alias(name) for name in _TEXTS),
            stamp.alias("stamp"),
            f.lit(form.unit).alias("unit"),
            self._since(form, stamp).alias("since"),
            f.coalesce(*bad, f.when(never, f.lit("timestamp")), f.lit(None)).alias("flaw"),
            f.when(never, written).alias("wall"),
        )

    def _since(self, form: Form, stamp: Any) -> Any:
        """Return nanoseconds since the month began; null where a row lies outside it."""
        low, high = self._clock.period.bounds(form.unit)
        scale = _NS // UNITS_PER_SECOND[form.unit]
        inside = (stamp >= low) & (stamp < high)
        return self._f.when(inside, (stamp - low) * scale)

    def _instant(self, form: Form, written: Any) -> tuple[Any, Any]:
        """Return a timestamp as an instant, and whether it is a wall clock time that never was.

        Wall clock times more than a day from the month stay as they are: outside it.
        """
        f = self._f
        if not form.is_naive:
            return written, f.lit(False)
        scale, period = UNITS_PER_SECOND[form.unit], self._clock.period
        changes = self._clock.changes
        low, high = (period.start - _DAY) * scale, (period.end + _DAY) * scale
        near = (written >= low) & (written < high)
        ahead = f.lit(changes.offsets[0] * scale)
        for wall, offset in zip(changes.walls, changes.offsets[1:], strict=True):
            ahead = f.when(written >= wall * scale, f.lit(offset * scale)).otherwise(ahead)
        never = f.lit(False)
        for first, last in changes.skipped:
            never |= (written >= first * scale) & (written < last * scale)
        return f.when(near, written - ahead).otherwise(written), near & never

    def _classified(self, rows: Any) -> Any:
        """Add where each row lands: the first test that it fails decides (README, Rules)."""
        f, col = self._f, self._f.col
        number = {pair: at for at, pair in enumerate(self.bearings.pairs)}
        bearing = pa.table(
            {
                "known": [interface for interface, _ in self.bearings.named],
                "named": [code or "" for _, code in self.bearings.named],
                "pair": pa.array(
                    [number[own[0], item] for own, item in self.bearings.named.items()], pa.int32()
                ),
            }
        )
        rows = rows.join(
            f.broadcast(self._spark.createDataFrame(bearing)),
            (col("interface") == col("known"))
            & (f.coalesce(col("item"), f.lit("")) == col("named")),
            "left",
        )
        bucket = f.lit(CHARGED)
        for name, test in reversed(self._tests()):
            bucket = f.when(test, f.lit(NUMBER[name])).otherwise(bucket)
        return rows.withColumn("bucket", bucket)

    def _tests(self) -> list[tuple[str, Any]]:
        """Return what puts a row into a bucket, in the order of the tests."""
        f, col, version = self._f, self._f.col, self._version
        listed = sorted({name for item in version.items for name in item.interfaces})

        def empty(name: str) -> Any:
            return col(name).isNull() | (f.length(name) == 0)

        is_listed = f.coalesce(col("interface").isin(listed), f.lit(False))
        tests = {
            "rejected.missing_timestamp": col("stamp").isNull(),
            "outside_month": col("since").isNull(),
            "rejected.missing_request_id": empty("id"),
            "rejected.missing_account_id": empty("account_id"),
            "unbilled_interface": col("interface").isin(list(version.unbilled_interfaces)),
            "rejected.unknown_interface": ~is_listed,
            "rejected.wrong_item": col("pair").isNull(),
        }
        if not version.deduplicate:
            del tests["rejected.missing_request_id"]
        if version.billable_status is not None:
            billable = col("status_code").isin(list(version.billable_status))
            tests["rejected.missing_status"] = empty("status_code")
            tests["unbillable_status"] = ~billable
        return list(tests.items())


# ---------------------------------------------------------------- counting


class _Counting:
    """One count: what is known of the files before, and of their rows after."""

    def __init__(
        self, log: CallLog, sources: Sequence[Source], version: Version, clock: Clock
    ) -> None:
        self._log, self._sources = log, sources
        self._version, self._clock = version, clock
        self.files = {place(source.address): source.file for source in sources}
        self._counts = np.zeros(len(BUCKETS), np.int64)
        self._counts[NUMBER["outside_month"]] = log.rows - sum(s.file.rows for s in sources)
        self._duplicates = self._conflicts = 0
        self._touched: set[str] = set()
        self._calls = tables.USAGE.counted.empty_table()
        self._rejects = tables.REJECTS.counted.empty_table()

    def run(self, spark: Any, keep_rejects: int) -> None:
        """Count on the cluster."""
        rows = _Rows(spark, self._version, self._clock)
        every = rows.of(self._sources)
        rejected = self._count_buckets(every)
        self._count_usage(every, rows.bearings.pairs)
        self._rejects = self._read_rejects(rows, rejected, keep_rejects)

    def _count_buckets(self, every: Any) -> dict[str, int]:
        """Count rows per file and bucket; return the rejected ones per file.

        Raises:
            BadInput: a file has other rows than its footer says, or values that refuse it.
        """
        from pyspark.sql import functions as f

        found = (
            every.groupBy("file", "bucket", "flaw")
            .agg(f.count(f.lit(1)).alias("rows"), f.min("wall").alias("wall"))
            .toArrow()
            .to_pylist()
        )
        for cells in found:
            cells["file"] = self.files[unquote(place(cells["file"]))]
        self._check_flaws([cells for cells in found if cells["flaw"]])
        read = dict.fromkeys((source.file.name for source in self._sources), 0)
        rejected: dict[str, int] = {}
        for cells in found:
            name, bucket, rows = cells["file"].name, cells["bucket"], cells["rows"]
            read[name] += rows
            self._counts[bucket] += rows
            if bucket in _REJECTED:
                rejected[name] = rejected.get(name, 0) + rows
            if bucket not in _NOT_OF_THE_MONTH:
                self._touched.add(name)
        for source in self._sources:
            if read[source.file.name] != source.file.rows:
                raise BadInput(
                    f"has {read[source.file.name]} rows, where its footer says {source.file.rows}",
                    where=source.file.name,
                    cure="have it delivered again, or move it out of the call log",
                )
        return rejected

    def _check_flaws(self, flawed: list[dict[str, Any]]) -> None:
        if not flawed:
            return
        first = min(flawed, key=lambda cells: (cells["file"].name.encode(), cells["flaw"]))
        where = f"{first['file'].name}, {first['file'].column(first['flaw'])}"
        if first["flaw"] == "timestamp":
            unit = first["file"].types["timestamp"].unit
            never = np.datetime64(first["wall"], unit)
            raise BadInput(
                f"{never} never was in {self._clock.naive_zone}: clocks skipped it",
                where=where,
                cure="write timestamps with a zone",
            )
        raise BadInput(
            "is not UTF-8",
            where=where,
            cure="have it delivered again, or move it out of the call log",
        )

    def _count_usage(self, every: Any, pairs: Sequence[tuple[str, str]]) -> None:
        """Charge each id once, and add up what is charged."""
        from pyspark.sql import functions as f

        charged = every.where(f.col("bucket") == CHARGED)
        if self._version.deduplicate:
            charged = self._won(charged)
        else:
            charged = charged.select("account_id", "pair", *(f.lit(1).alias(n) for n in _TOLD))
        found = (
            charged.groupBy("account_id", "pair")
            .agg(f.count(f.lit(1)).alias("calls"), *(f.sum(name).alias(name) for name in _TOLD))
            .toArrow()
        )
        billed, equal, total = (pc.sum(found[name]).as_py() or 0 for name in ("calls", *_TOLD))
        if total != self._counts[CHARGED]:
            raise AssertionError(f"{total} rows were charged, and then others: files changed")
        self._duplicates, self._conflicts = equal - billed, total - equal
        numbers = found["pair"].combine_chunks()
        calls = pa.table(
            {
                "account_id": found["account_id"].cast(pa.large_string()),
                "item": pa.array([item for _, item in pairs], pa.large_string()).take(numbers),
                "interface": pa.array([name for name, _ in pairs], pa.large_string()).take(numbers),
                "calls": found["calls"],
            }
        ).sort_by([(name, "ascending") for name in tables.USAGE.key])
        self._calls = calls.cast(tables.USAGE.counted)

    def _won(self, charged: Any) -> Any:
        """Return a row per id: whom it charges, how many rows equal the winner, how many all.

        Rows are shuffled by id once; both groupings then find each id's rows together. The
        pair's number stands for interface and item, being in the order of their bytes.
        """
        from pyspark.sql import functions as f

        claim = ["since", "account_id", "pair"]
        return (
            charged.select("id", *claim)
            .repartition("id")
            .groupBy("id", *claim)
            .agg(f.count(f.lit(1)).alias("equal"))
            .groupBy("id")
            .agg(f.min(f.struct(*claim, "equal")).alias("won"), f.sum("equal").alias("total"))
            .select("won.account_id", "won.pair", "won.equal", "total")
        )

    def _read_rejects(self, rows: _Rows, rejected: dict[str, int], keep: int) -> pa.Table:
        """Return the rejected rows, read from the files that have any; or the first ten."""
        sources = [source for source in self._sources if source.file.name in rejected]
        if not sources:
            return tables.REJECTS.counted.empty_table()
        if sum(rejected.values()) <= keep:
            return self._shown([self._rejected(rows, sources).toArrow()])
        parts: list[pa.Table] = []
        for source in sources:
            if sum(len(part) for part in parts) < _FIRST_REJECTS:
                some = self._rejected(rows, [source])
                parts.append(some.orderBy("row").limit(_FIRST_REJECTS).toArrow())
        return self._shown(parts).slice(0, _FIRST_REJECTS)

    def _rejected(self, rows: _Rows, sources: Sequence[Source]) -> Any:
        from pyspark.sql import functions as f

        kept = rows.of(sources).where(f.col("bucket").isin(_REJECTED))
        return kept.select("file", "row", "bucket", "id_text", *_TEXTS, "stamp", "unit")

    def _shown(self, parts: Sequence[pa.Table]) -> pa.Table:
        """Return rejected rows as `tables.REJECTS` has them."""
        found = pa.concat_tables(parts).combine_chunks()
        places = found["file"].combine_chunks().dictionary_encode()
        names = [self.files[unquote(place(uri))].name for uri in places.dictionary.to_pylist()]
        reasons = pa.array([name.removeprefix("rejected.") for name in BUCKETS], pa.large_string())
        columns = {
            "file": pa.array(names, pa.large_string()).take(places.indices),
            "row": found["row"],
            "reason": reasons.take(found["bucket"].combine_chunks()),
            "request_id": found["id_text"].cast(pa.large_string()),
            "timestamp": _written(found["stamp"].combine_chunks(), found["unit"].combine_chunks()),
            **{name: found[name].cast(pa.large_string()) for name in _TEXTS},
        }
        ordered = pa.table(columns).sort_by([(name, "ascending") for name in tables.REJECTS.key])
        return ordered.select(tables.REJECTS.names).cast(tables.REJECTS.counted)

    def result(self) -> Counted:
        """Return what was counted; every row must be in one bucket."""
        return Counted.of(
            self._log,
            self._counts,
            self._calls,
            self._rejects,
            duplicates=self._duplicates,
            conflicts=self._conflicts,
            touched=self._touched,
        )


_TOLD = ("equal", "total")
"""Told of each id beside whom it charges: rows equal to the winner, and all its rows."""


def _written(stamps: pa.Array, units: pa.Array) -> pa.Array:
    """Return instants in several units as ISO 8601 in UTC, each with its unit's digits."""
    missing = stamps.is_null().to_numpy(zero_copy_only=False)
    values = stamps.fill_null(0).to_numpy(zero_copy_only=False)
    texts = np.full(len(values), None, object)
    named = units.to_numpy(zero_copy_only=False)
    for unit in pc.unique(units).to_pylist():
        rows = np.flatnonzero(named == unit)
        written = Stamps(values, unit, missing, ~missing).cells(rows)
        texts[rows] = written.to_numpy(zero_copy_only=False)
    return pa.array(texts.tolist(), pa.large_string())
