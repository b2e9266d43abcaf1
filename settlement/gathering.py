"""Gathering what a settlement needs of the call log: found, looked over, counted.

What is out of the ordinary is refused here, before anything is decided: an empty month, too many
rejected rows, a day without calls where none may be missing.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from settlement import days, gates, ingest, late, usage
from settlement.book import Settlement
from settlement.buckets import in_month, rejected
from settlement.errors import BadInput, MissingInput
from settlement.journal import Journal
from settlement.operations import messages
from settlement.order import Order
from settlement.progress import Progress, Warn
from settlement.scan import finding, logfiles
from settlement.scan.logfiles import CallLog
from settlement.usage import KEPT_REJECTS, Counted
from settlement.words import count_of

SHOWN_REJECTS = 10
"""How many rejected rows a refusal shows."""


def find(order: Order, journal: Journal) -> CallLog:
    """Find the files of the log; raises what `finding.find` raises."""
    with journal.stage("find"):
        log = finding.find(order.logs, order.names)
    journal.files, journal.file_rows, journal.file_bytes = len(log.files), log.rows, log.size
    said = f"{order.month}: {count_of(log.rows, 'row')} in {count_of(len(log.files), 'file')}"
    messages.detail(
        f"{said}, {log.size:,} bytes", files=len(log.files), rows=log.rows, bytes=log.size
    )
    return log


def _counter(order: Order, log: CallLog) -> Callable[..., Counted]:
    """Return what counts: this machine, with what it has digested before, or a cluster."""
    if order.engine == "local":
        digests = ingest.digests(order.book, log, order.month, order.prices, order.naive_zone)
        known = len(digests.entries)
        said = f"{order.month}: {known:,} of {count_of(len(log.files), 'file')} digested already"
        messages.detail(said, digested=known)
        return partial(usage.count, threads=order.threads, digests=digests)
    from settlement.spark import engine as spark
    from settlement.spark.cluster import Cluster

    return partial(spark.count, cluster=Cluster.of(order.master, order.conf))


def count(order: Order, log: CallLog, journal: Journal, progress: Progress, warn: Warn) -> Counted:
    """Count the month's calls, and refuse an empty month and too many rejects.

    Raises:
        MissingInput: there is no call in the month, or a file is gone.
        BadInput: the log or the contracts are refused, a day is missing that must not be, or
            too many rows are rejected.
        CannotRead, CannotWrite: as `usage.count` does.
    """
    version = order.prices.version_for(order.month)
    if order.contracts:
        with journal.stage("contracts"):
            order.contracts.in_force(order.month)  # refused here, before the log is read
    with journal.stage("days"):
        _check_days(order, log, warn)
    with journal.stage("count"), progress(log.rows, log.size) as advance:
        counted = _counter(order, log)(
            log,
            order.month.period(order.prices.zone),
            version,
            naive_zone=order.naive_zone,
            keep_rejects=max(int(order.max_rejects * log.rows), KEPT_REJECTS),
            progress=advance,
        )
    journal.rows = rows = counted.rows
    if not in_month(rows) and not order.allow_empty:
        raise MissingInput(
            f"no call in {order.month} among {count_of(rows['read'], 'row')}",
            where=order.logs,
            cure="check the path; if nobody called, pass --allow-empty",
        )
    if rejected(rows) > order.max_rejects * in_month(rows):
        raise _too_many_rejects(order, counted)
    if counted.rejected > len(counted.rejects):
        raise BadInput(
            f"{counted.rejected:,} rows are rejected, more than can be kept",
            where=order.logs,
            cure="mend the log, or move those files out of it",
        )
    return counted


def _check_days(order: Order, log: CallLog, warn: Warn) -> None:
    """Warn of days without a row between days that have some; refuse them where required."""
    version, zone = order.prices.version_for(order.month), order.prices.zone
    logfiles.check(log.files, logfiles.needed(version), order.naive_zone)
    threads = order.threads or os.cpu_count() or 1
    empty = days.missing(log, order.month, zone, order.naive_zone, threads)
    if not empty:
        return
    what = f"no row on {days.said(empty)}, between days that have some"
    if order.require_days:
        raise BadInput(
            what,
            where=f"{order.logs}, {order.month}",
            cure="bring those calls, or settle without --require-days if there were none",
        )
    warn(f"{order.month}: {what} ({order.prices.timezone})")


def warn_of_gone(standing: Settlement | None, log: CallLog, warn: Warn) -> None:
    """Name the files that the standing settlement was made from and that are gone."""
    gone = late.gone(standing, log) if standing else ()
    if standing and gone:
        warn(f"{standing.name} was made from files that are gone: {late.named(gone)}")


def _too_many_rejects(order: Order, counted: Counted) -> BadInput:
    rows = counted.rows
    reasons = {name: count for name, count in rows.items() if name.startswith("rejected.")}
    timeless = reasons.pop("rejected.missing_timestamp")
    said = ", ".join(f"{count:,} {name}" for name, count in reasons.items())
    if timeless:
        said += f"; besides, {timeless:,} rejected.missing_timestamp, of no known month"
    first = counted.rejected_rows.slice(0, SHOWN_REJECTS).to_pylist()
    return BadInput(
        gates.rejected_of(rows, f"rows of {order.month}"),
        where=order.logs,
        cure=f"mend the log, or allow more than {float(order.max_rejects)} by --max-rejects",
        details=[said, *map(_reject_shown, first)],
    )


def _reject_shown(row: Mapping[str, Any]) -> str:
    """Say where a rejected row lies, why it is one, and what it has."""
    names = ("request_id", "account_id", "interface", "timestamp")
    cells = [f"{name} {'null' if row[name] is None else repr(row[name])}" for name in names]
    return f"{row['file']} row {row['row']}: {row['reason']} ({', '.join(cells)})"
