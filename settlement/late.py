"""Late calls: what the log has of a settled month that its settlement has not read.

A settlement records every file that had a part in it. Files that are not among them, or
whose contents are others now, are new; where their footers say that they touch the month, it
may need a revision. Files that were read and are unchanged are not looked at again. Files
that only moved or were copied have the same contents and are no news.

Nor are files from which the month was counted again with the same outcome, such as one that was
delivered twice. They are noted beside the reports of runs, where everything may be removed at
any time: without the note they are news once more, and counted once more.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from settlement import inputs
from settlement.book import RUNS, Book, Settlement
from settlement.inputs import Input, Moves
from settlement.month import UNITS_PER_SECOND, Month, Period, zone_named
from settlement.scan.decoding import touching
from settlement.scan.logfiles import CallLog, InputFile, LogFile
from settlement.words import count_of

_NAMED = 3
"""How many files that are gone a sentence names."""


@dataclass(frozen=True)
class Late:
    """What the log has of a settled month beyond what was read for it.

    Attributes:
        month: the settled month.
        revision: its newest settlement, which is compared.
        new: files that touch the month and were not read, by name.
        changed: files that were read and have other contents now.
        gone: files that were read and are not there any more.
        rows: about how many rows new and changed files have in the month.
    """

    month: Month
    revision: int
    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    rows: int

    def __str__(self) -> str:
        news = [
            count_of(len(files), f"{kind} file")
            for kind, files in (("new", self.new), ("changed", self.changed))
            if files
        ]
        if news:
            news += [f"about {count_of(self.rows, 'row')}", "may need a revision"]
        if self.gone:
            news.append(f"gone since it was read: {named(self.gone)}")
        return f"{self.month}: {', '.join(news)}"

    def described(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"month": str(self.month), "text": str(self)}


def look(book: Book, log: CallLog) -> Iterator[Late]:
    """Compare the log with what each settled month has read; yield the months with news.

    Costs a look at footers per month; timestamps are decoded only of new files whose footers
    leave it open whether they touch a month.

    Raises:
        BadInput: a new file has no timestamps that can be read.
        MissingInput, CannotRead: a file is gone meanwhile, or cannot be read.
    """
    for settlement in book.months.values():
        late = of_month(settlement, log)
        if late.new or late.changed or late.gone:
            yield late


def of_month(settlement: Settlement, log: CallLog) -> Late:
    """Compare the log with what one settlement has read."""
    moves = _moves(settlement, log)
    new = {file["file"] for file in moves.came}
    changed = tuple(str(file["file"]) for _, file in moves.changed)
    files = tuple(file for file in log.files if file.name in new or file.name in changed)
    naive = settlement.manifest["options"].get("naive_timestamps")
    period = settlement.month.period(settlement.price_book.zone)
    part = CallLog(log.root, files, 0, log.filesystem)
    zone = zone_named(naive) if naive else None
    touched = {file.file for file in touching(part, period, zone)}
    return Late(
        settlement.month,
        settlement.revision,
        tuple(sorted(new & touched)),
        changed,
        tuple(str(file["file"]) for file in moves.went),
        sum(_rows(file, period) for file in files if file.name in touched),
    )


def gone(settlement: Settlement, log: CallLog) -> tuple[str, ...]:
    """Return the files that a settlement was made from and that are not in the log any more."""
    return tuple(str(file["file"]) for file in _moves(settlement, log).went)


def named(files: tuple[str, ...]) -> str:
    """Name files for a person, the first ones where they are many."""
    some = ", ".join(files[:_NAMED])
    return some if len(files) <= _NAMED else f"{some} and {len(files) - _NAMED:,} more"


def _moves(settlement: Settlement, log: CallLog) -> Moves:
    """Compare the log with the files that a settlement comes from: of two sets, the nearer one."""
    now = [asdict(InputFile.of(file)) for file in log.files]
    read = (settlement.manifest["inputs"], _noted(settlement))
    found = [inputs.compare(files, now) for files in read if files is not None]
    return min(found, key=lambda each: len(each.came) + len(each.went) + len(each.changed))


def remember(settlement: Settlement, files: Iterable[InputFile]) -> None:
    """Note the files from which a settlement came out the same again; a courtesy, no duty."""
    note = _note(settlement)
    said = {"digest": settlement.manifest["digest"], "inputs": [asdict(file) for file in files]}
    with suppress(OSError):
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps(said), "utf-8")


def _noted(settlement: Settlement) -> Sequence[Input] | None:
    """Return the files noted for a settlement; None without a note, or with one cut short."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(_note(settlement).read_bytes())
        if said["digest"] == settlement.manifest["digest"]:
            return [asdict(InputFile(**file)) for file in said["inputs"]]
    return None


def _note(settlement: Settlement) -> Path:
    return settlement.folder.parent.parent / RUNS / f".same-{settlement.month}"


def _rows(file: LogFile, period: Period) -> int:
    """Guess how many rows of a file lie in a period, as if they were spread evenly."""
    unit = getattr(file.types["timestamp"], "unit", "us")
    low, high = (second * UNITS_PER_SECOND[unit] for second in (period.start, period.end))
    rows = 0
    for group in file.groups:
        first, last = group.span.first, group.span.last
        if first is None or last is None or first >= last:
            inside = first is None or low <= first < high
            rows += group.rows if inside else 0
        else:
            shared = max(min(last + 1, high) - max(first, low), 0)
            rows += -(-group.rows * shared // (last + 1 - first))
    return rows
