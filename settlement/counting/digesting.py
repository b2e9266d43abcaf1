"""Counting what is there already, for the cache: an entry of one file, the memo of many.

`digest` reads a file as a count would, and writes down what came of it. `remember` counts the
month so far from entries, and writes down what their rows charged too much.
"""

import os
from collections.abc import Callable
from contextlib import closing
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from settlement.calls import Rules
from settlement.counting.plan import Plan, Question
from settlement.counting.reading import Reading
from settlement.counting.rejects import KEPT
from settlement.counting.repetitions import Repetitions
from settlement.month import Period
from settlement.prices import Version
from settlement.scan import cache
from settlement.scan.cache import Digests, Lost
from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.logfiles import CallLog, check, check_unchanged
from settlement.scan.pieces import Writer, as_ipc
from settlement.scan.stamps import Clock

_CELLS = (1 << 32) - 1
"""Entries have room for numbers up to this."""


def digest(
    log: CallLog,
    period: Period,
    version: Version,
    writer: Writer,
    *,
    naive_zone: ZoneInfo | None = None,
    threads: int | None = None,
    hashed: Hash = hash_rows,
) -> dict[str, Any] | str:
    """Count a log of one file as `usage.count` does, and write the pieces of its entry.

    Returns what `cache.Entry` needs to know of them, or what there is too much of for it to have
    room. Raises what `usage.count` raises.
    """
    rules, clock = Rules(version), Clock(period, naive_zone)
    check(log.files, rules.columns, naive_zone)
    asked = Question(log, rules, clock, hashed, threads or os.cpu_count() or 1)
    plan = Plan.of(log, clock, Digests(), in_place=True)
    with closing(Reading(asked, plan, keep_rejects=KEPT, keeps_rests=True)) as reading:
        reading.run()
        check_unchanged(log)
        return _write(asked, reading, writer)


def _write(asked: Question, reading: Reading, writer: Writer) -> dict[str, Any] | str:
    """Write what was read of the log's one file, or say why not."""
    rejects = reading.rejects.table()
    if not reading.rejects.are_all:
        return "too many rejected rows"
    if len(reading.names) * asked.rules.charges > _CELLS:
        return "too many accounts"
    if asked.log.rows > _CELLS:
        return "too many rows"
    about: dict[str, Any] = {
        "counts": reading.counts.tolist(),
        "rejects": writer.add(as_ipc(rejects)) if len(rejects) else None,
        "accounts": writer.add(cache.as_accounts(reading.names.texts())),
        "tally": writer.add(np.concatenate(reading.tally.charged()).astype(np.uint32)),
        "position_bits": 0,
        "keys": [],
        "partitions": [],
        "notes": [],
    }
    if reading.keys is not None and reading.notes is not None:
        about["position_bits"] = reading.keys.position_bits
        if reading.keys.count() < cache.LENT:
            about["keys"] = [writer.add(keys) for keys in reading.keys.blocks()]
        else:
            about["partitions"] = [
                [writer.add(keys), len(keys)] for keys in reading.keys.partitions()
            ]
        for first, notes in reading.notes.all():
            step = cache.NOTES
            pieces = [writer.add(notes[at : at + step]) for at in range(0, len(notes), step)]
            about["notes"].append([first, len(notes), step, pieces[0]])
    return about


def remember(
    log: CallLog,
    period: Period,
    version: Version,
    digests: Digests,
    write: Callable[[Lost], None],
    *,
    naive_zone: ZoneInfo | None = None,
    threads: int | None = None,
    hashed: Hash = hash_rows,
) -> None:
    """Count what entries tell, and write down in a memo what was charged too much.

    ``log`` is of files with entries alone; ``write`` is given what the memo is to have
    (`cache.write_memo`). Raises what `usage.count` raises, and `cache.Damaged`.
    """
    rules, clock = Rules(version), Clock(period, naive_zone)
    asked = Question(log, rules, clock, hashed, threads or os.cpu_count() or 1)
    plan = Plan.of(log, clock, digests)
    with closing(Reading(asked, plan, keep_rejects=0, keeps_rests=True)) as reading:
        reading.run()
        repetitions = Repetitions(asked, plan, reading, keeps_lost=True)
        repetitions.take_off()
        check_unchanged(log)
        write(repetitions.lost())
