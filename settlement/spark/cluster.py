"""A Spark cluster for as long as one count needs it: how to reach it, and how it must behave.

Spark has settings under which it loses rows or changes values without a word: skipping files
that it cannot read, taking `Item` for `item`, wrapping sums. Those are fixed here, so that
neither a cluster's defaults nor ``--conf`` can loosen them. Spark itself is imported only
when a session is opened, and no other module opens one.
"""

import logging
import re
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from settlement.errors import BadConfig, CannotRead, WrongUsage

FIXED = {
    "spark.sql.ansi.enabled": "true",  # what overflows is an error
    "spark.sql.caseSensitive": "true",  # columns are named exactly
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.parquet.enableVectorizedReader": "true",  # reads every unit of time as a number
    "spark.sql.session.timeZone": "UTC",
}
"""Settings on which the result depends; they hold in a session of our own."""
_DEFAULTS = {
    "spark.driver.maxResultSize": "0",  # usage has a row per account, item and interface
    "spark.log.level": "ERROR",
    "spark.sql.adaptive.enabled": "true",
    "spark.ui.showConsoleProgress": "false",
}
_PARTITIONS = "spark.sql.shuffle.partitions"
_PARTITION_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Cluster:
    """Which cluster, and with which settings.

    ``master`` is a Spark master URL; None leaves it to whoever started us (`spark-submit`, a
    notebook). ``conf`` are Spark's own settings, by name.
    """

    master: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, master: str | None, settings: Sequence[str]) -> "Cluster":
        """Read settings of the form ``name=value``.

        Raises:
            WrongUsage: one is not of that form, or is one on which the result depends.
        """
        conf = {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or not name:
                raise WrongUsage(
                    "is not name=value",
                    where=f"--conf {setting!r}",
                    cure="write it like --conf spark.executor.memory=8g",
                )
            if name in FIXED and value.lower() != FIXED[name].lower():
                raise WrongUsage(
                    f"must stay {FIXED[name]}: the result depends on it",
                    where=f"--conf {name}",
                    cure="leave it out",
                )
            conf[name] = value
        return cls(master, conf)

    @property
    def name(self) -> str:
        """The cluster in a message."""
        return self.master or self.conf.get("spark.master", "the Spark cluster")


@contextmanager
def session(cluster: Cluster, shuffled: int) -> Iterator[Any]:
    """Open a session of our own, and end what was begun for it.

    Where Spark runs already in this process, as in a notebook, it is used and left running.

    Args:
        cluster: which, and how.
        shuffled: how many bytes are going to be shuffled; sets the number of partitions
            unless ``conf`` does.

    Raises:
        BadConfig: there is no pyspark, or no Java.
        CannotRead: the cluster cannot be reached.
    """
    sql = _pyspark()
    running = sql.SparkSession.getActiveSession()
    spark = running or _start(sql, cluster)
    try:
        ours = spark.newSession()
        for name, value in FIXED.items():
            ours.conf.set(name, value)
        if _PARTITIONS not in cluster.conf:
            cores = ours.sparkContext.defaultParallelism
            ours.conf.set(_PARTITIONS, max(cores, -(-shuffled // _PARTITION_BYTES)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield ours
    finally:
        if running is None:
            with suppress(Exception):  # its process may be gone
                spark.stop()


def _pyspark() -> Any:
    """Import Spark; whatever it says of pandas does not matter, for only Arrow is used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import pyspark
            from pyspark import sql
    except ImportError as error:
        raise BadConfig(
            f"Spark cannot be imported ({error})",
            where="--engine spark",
            cure="pip install 'settlement[spark]', or use the Python that comes with the cluster",
        ) from error
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs what it then raises
    if int(pyspark.__version__.partition(".")[0]) < 4:
        raise BadConfig(
            f"Spark is {pyspark.__version__}",
            where="--engine spark",
            cure="use Spark 4.0 or newer",
        )
    return sql


def _start(sql: Any, cluster: Cluster) -> Any:
    builder = sql.SparkSession.builder.appName("settle")
    if cluster.master:
        builder = builder.master(cluster.master)
    for name, value in (_DEFAULTS | FIXED | dict(cluster.conf)).items():
        builder = builder.config(name, value)
    in_main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return builder.getOrCreate()
    except Exception as error:
        if "JAVA_GATEWAY_EXITED" in str(error) or isinstance(error, FileNotFoundError):
            raise BadConfig(
                "Java did not start",
                where="--engine spark",
                cure="install Java 17 or 21, or say where it is in JAVA_HOME",
            ) from error
        raise gave_up(cluster, error) from error
    finally:
        if in_main:  # Spark puts its own in place, which would end us without unwinding
            signal.signal(signal.SIGINT, interrupt)


def gave_up(cluster: Cluster, error: Exception) -> CannotRead:
    """Return the refusal where the cluster, not a file, is at fault."""
    return CannotRead(
        f"Spark gave up ({said(error)})",
        where=cluster.name,
        cure="nothing was published; see to the cluster, then run again",
    )


def said(error: Exception) -> str:
    """Return the root of what Spark said, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    thrown = [line.removeprefix(":") for line in lines[1:2] if line.startswith(":")]
    line = [type(error).__name__, *lines[:1], *thrown, *causes][-1].removeprefix("Caused by:")
    line = re.sub(r"^\s*(?:[a-zA-Z_$][\w$]*\.)+([A-Z][\w$]*): ", r"\1: ", line).strip()
    return line if len(line) <= 200 else line[:199] + "…"
