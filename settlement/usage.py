"""The seam between the call log and everything after it: `count`.

One narrow call: a log, a month and the rules in force go in; usage, the number of rows in
every bucket, the rejected rows and the files that had a part come out. Whoever counts by
other means, on a cluster say, replaces this function and nothing else.

How it works
------------
The log is looked at twice. Its footers say which row groups can have calls of the month at all
(`counting.plan`); only those are tasks, and each row in them gets a *position*.

The first look (`counting.reading`) reads each row group once, several at a time, and puts every
row into exactly one bucket (`calls`). What a row charges is a number, its *cell*, of account and
interface and item; one is added to that cell of the tally, as if every request were new. Of a
charged row two things are kept: a *key*, some bits of its request id's hash above its position,
and a *note* of its cell. Both are put aside, twelve bytes a row: the first 256 MiB of keys in
memory, all else in scratch files. So memory holds, besides these, a number per account and
interface and a few row groups, however long the log is.

Then the keys are taken one part after another, each part with all hashes that begin alike, and
rows whose hashes agree are *suspects* (`counting.keys`).

The second look (`counting.repetitions`) reads the suspects' ids again, whole, and their instants.
Rows whose ids agree in every byte are one request: one of them is charged, by a rule that knows
only the rows (`dedup`), and what the others charged is taken off again. Rows of equal hash are
found in memory: an id that comes millions of times takes some 60 bytes for each of them.

Why it is exact
---------------
- Every row has one bucket, and the buckets must add up to the rows that footers promise and
  readers found; usage must add up to the rows billed. Otherwise there is no result at all.
- Equal ids have equal hashes, so no repetition escapes the suspects. Different ids with equal
  hashes are suspects too, and their bytes acquit them: a bad hash costs time, never truth.
- Sums do not depend on the order of what is summed, and who wins among rows of one id depends
  on the set of them alone: so neither threads nor the order of rows or files change anything.

What was done before
--------------------
Files that were digested earlier (`counting.digesting`) are not read: an entry of the cache brings
the same counts, calls, keys and notes. Nor are their rows compared with each other again, if a
memo of the month tells what they charged too much. Only ids that come in other files too are
looked at: what their rows charge too much by themselves is in the memo, and is taken back; what
they charge too much together with the new ones is taken off. All suspects are read from the log,
unless the other halves of their hashes show that their ids differ. What turns out damaged is not
used, and the count begins again without it.
"""

import os
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from settlement.calls import BUCKETS, CHARGED, Rules
from settlement.counting import rejects
from settlement.counting.keys import is_crowded
from settlement.counting.plan import Plan, Question
from settlement.counting.reading import Progress, Reading
from settlement.counting.repetitions import Repetitions
from settlement.month import Period
from settlement.prices import Version
from settlement.scan.cache import Digests
from settlement.scan.hashing import Hash, hash_rows
from settlement.scan.logfiles import CallLog, InputFile, check, check_unchanged
from settlement.scan.memory import keep_freed
from settlement.scan.pieces import Damaged
from settlement.scan.stamps import Clock
from settlement.scan.texts import Ints
from settlement.tables import REJECTS, ROWS, USAGE

if TYPE_CHECKING:
    import pandas as pd

KEPT_REJECTS = rejects.KEPT


@dataclass(frozen=True)
class Counted:
    """What the call log says about one month.

    A count gives Arrow's tables; they become frames when they are first asked for as such, and
    only then is pandas imported, which takes longer than counting a million calls.

    Attributes:
        calls: calls per account, item and interface, as `tables.USAGE` has them; texts may be
            dictionaries.
        rows: how many rows were read, and in which bucket they are, in the order of `ROWS`.
        rejected_rows: the rejected rows, as `tables.REJECTS` has them; the first ten alone where
            they are more than were to be kept.
        inputs: the files with at least one row in the month, by name.
        skipped: names passed over for their first letter (``_`` or ``.``).
    """

    calls: pa.Table
    rows: dict[str, int]
    rejected_rows: pa.Table
    inputs: tuple[InputFile, ...]
    skipped: int

    @classmethod
    def of(
        cls,
        log: CallLog,
        counts: Ints,
        calls: pa.Table,
        rejected_rows: pa.Table,
        *,
        duplicates: int,
        conflicts: int,
        touched: AbstractSet[str],
    ) -> Self:
        """Return what was counted, once it adds up: each row in one bucket, each call in usage.

        ``counts`` are rows in each of `calls.BUCKETS` as if every request were new;
        ``duplicates`` and ``conflicts`` are those charged that repeat another; ``touched`` names
        the files with at least one row in the month.
        """
        buckets = dict(zip(BUCKETS, counts.tolist(), strict=True))
        buckets["billed"] = buckets.pop(BUCKETS[CHARGED]) - duplicates - conflicts
        buckets |= {"duplicate": duplicates, "conflict": conflicts}
        if sum(buckets.values()) != log.rows or min(buckets.values()) < 0:
            raise AssertionError(f"{log.rows} rows were read, but the buckets are {buckets}")
        if (pc.sum(calls["calls"]).as_py() or 0) != buckets["billed"]:
            raise AssertionError("usage does not add up to the calls billed")
        buckets["read"] = log.rows
        inputs = tuple(InputFile.of(file) for file in log.files if file.name in touched)
        rows = {name: buckets[name] for name in ROWS}
        return cls(calls, rows, rejected_rows, inputs, log.skipped)

    @cached_property
    def usage(self) -> "pd.DataFrame":
        """The calls as a frame (`tables.USAGE`); raises `WrongTable` where keys are not sorted."""
        from settlement.frames import of_arrow

        return of_arrow(USAGE, self.calls)

    @cached_property
    def rejects(self) -> "pd.DataFrame":
        """The rejected rows as a frame (`tables.REJECTS`)."""
        from settlement.frames import of_arrow

        return of_arrow(REJECTS, self.rejected_rows)

    @property
    def rejected(self) -> int:
        """How many rows were rejected, kept or not."""
        return sum(rows for name, rows in self.rows.items() if name.startswith("rejected."))


def count(
    log: CallLog,
    period: Period,
    version: Version,
    *,
    naive_zone: ZoneInfo | None = None,
    threads: int | None = None,
    keep_rejects: int = KEPT_REJECTS,
    progress: Progress | None = None,
    hashed: Hash = hash_rows,
    digests: Digests | None = None,
) -> Counted:
    """Count the calls of a month that are charged, each request once (README, Rules).

    Args:
        log: the call log, as `finding.find` found it.
        period: the month's instants, in the billing zone.
        version: the rules in force.
        naive_zone: what timestamps without a zone mean; without it they are refused.
        threads: how many work at once; one per core if left out. It never changes the result.
        keep_rejects: keep at most so many rejected rows; beyond, only the first ten.
        progress: called with the rows and bytes done so far.
        hashed: the hash of request ids; none changes the result. It is that of the digests.
        digests: what files came to before; none changes the result. What turns out damaged is
            not used.

    Raises:
        BadInput: a file is damaged, changed meanwhile, or its columns are not what they must be.
        MissingInput: a file is gone.
        CannotRead: the operating system refused to read.
        CannotWrite: there is no room for temporary files (`scratch`).
    """
    keep_freed()
    rules, clock = Rules(version), Clock(period, naive_zone)
    check(log.files, rules.columns, naive_zone)
    asked = Question(log, rules, clock, hashed, threads or os.cpu_count() or 1)
    usable = digests or Digests()
    while True:
        try:
            return _counted(asked, usable, keep_rejects, progress)
        except Damaged:  # however far it went: begin again without what is
            usable = usable.sound()


def _counted(
    asked: Question,
    digests: Digests,
    keep_rejects: int,
    progress: Progress | None,
) -> Counted:
    """Look at the log once, then at repetitions; raises `Damaged` if a digest is."""
    plan = Plan.of(asked.log, asked.clock, digests)
    reading = Reading(
        asked,
        plan,
        keep_rejects=keep_rejects,
        progress=progress,
        keeps_rests=bool(plan.known) or is_crowded(plan.positions),
    )
    with closing(reading):
        reading.run()
        repetitions = Repetitions(asked, plan, reading)
        if asked.rules.version.deduplicate:
            repetitions.take_off()
    check_unchanged(asked.log)
    return Counted.of(
        asked.log,
        reading.counts,
        reading.tally.table(reading.order, asked.threads),
        reading.rejects.table(),
        duplicates=repetitions.duplicates,
        conflicts=repetitions.conflicts,
        touched=reading.touched,
    )
