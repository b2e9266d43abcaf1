"""What a count has to do: which row groups to read, which entries to take over instead.

Every row that may be charged is given a position, a number of its own among all rows, by which
it is found again. Row groups that surely lie outside the month get none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from settlement.calls import Rules
from settlement.scan import rows
from settlement.scan.cache import Digests, Entry, Memo
from settlement.scan.hashing import Hash
from settlement.scan.logfiles import CallLog, LogFile, RowGroup
from settlement.scan.stamps import Clock
from settlement.scan.texts import Ints

_MOST_ROWS, _MOST_GROUPS = 1 << 17, 1 << 10
"""So many rows, and row groups, at most are read as one."""


@dataclass(frozen=True)
class Question:
    """What is asked: which calls of a log are charged, by which rules, in which month.

    ``hashed`` is the hash of request ids; ``threads`` work at once. Neither changes the answer.
    """

    log: CallLog
    rules: Rules
    clock: Clock
    hashed: Hash
    threads: int


@dataclass(frozen=True)
class Task:
    """A row group, and the position of its first row; its file's entry if it has one.

    Rows of all that are ``compared`` were compared with each other when digested.
    """

    file: LogFile
    group: RowGroup
    position: int
    entry: Entry | None = None
    compared: bool = False

    def rows(self, positions: Ints) -> Ints:
        """Return which rows of the file lie at positions."""
        return positions - self.position + self.group.first_row


@dataclass(frozen=True)
class Known:
    """A file with an entry, and the position of its first row; ``compared`` as of a `Task`."""

    file: LogFile
    entry: Entry
    position: int
    compared: bool


@dataclass(frozen=True)
class Plan:
    """The work of a count.

    Attributes:
        tasks: row groups with rows that may be charged, by position, of known files too.
        known: the files whose entries are taken over.
        outside: row groups that lie outside the month, of files without an entry.
        positions: every position is below this.
        memo: what the rows that are compared charged too much among each other.
    """

    tasks: tuple[Task, ...]
    known: tuple[Known, ...]
    outside: tuple[RowGroup, ...]
    positions: int
    memo: Memo | None = None

    @classmethod
    def of(cls, log: CallLog, clock: Clock, digests: Digests, *, in_place: bool = False) -> "Plan":
        """Plan a count; positions are rows of the file where there is an entry or ``in_place``."""
        own = digests.of(log.files)
        tasks, known, outside, position = [], [], [], 0
        for file in log.files:
            entry, first = own.entries.get(file.name), position
            compared = entry is not None and own.is_compared(entry)
            for group in file.groups:
                if clock.excludes(file.types["timestamp"], group.span):
                    if not entry:
                        outside.append(group)
                elif group.rows:
                    at = first + group.first_row if entry or in_place else position
                    tasks.append(Task(file, group, at, entry, compared))
                    position += group.rows
            if entry or in_place:
                position = first + file.rows
            if entry:
                known.append(Known(file, entry, first, compared))
        return cls(tuple(_joined(tasks)), tuple(known), tuple(outside), position, own.memo)


def _joined(tasks: Iterable[Task]) -> Iterator[Task]:
    """Yield tasks, of small row groups in a row one: each would cost more to begin than to read."""
    waiting: Task | None = None
    for task in tasks:
        if waiting and _may_join(waiting, task):
            waiting = replace(waiting, group=waiting.group.joined(task.group))
            continue
        if waiting:
            yield waiting
        waiting = task
    if waiting:
        yield waiting


def _may_join(task: Task, after: Task) -> bool:
    group, other, small = task.group, after.group, rows.QUICK_ROWS.start
    return (
        task.file is after.file
        and group.number + group.count == other.number
        and max(group.rows // group.count, other.rows) < small
        and group.rows + other.rows <= _MOST_ROWS
        and group.count < _MOST_GROUPS
    )
