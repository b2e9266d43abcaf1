"""The files two statements of a month were made from: which came, went, changed or moved.

A file is known by its name, and its contents by size and footer: a footer tells where every
column lies and how large it is, so that other contents have another one. The time of change
says less, since a log that is copied or restored gets new ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Input = Mapping[str, Any]
"""A file as a manifest records it: file, size, modified_ns, rows, footer_sha256."""


@dataclass(frozen=True)
class Moves:
    """How a set of files differs from an earlier one; each list is sorted by name.

    Attributes:
        came: files that were not there.
        went: files that are not there any more.
        changed: files of the same name with other contents, before and after.
        moved: files of the same contents under another name, before and after.
    """

    came: tuple[Input, ...]
    went: tuple[Input, ...]
    changed: tuple[tuple[Input, Input], ...]
    moved: tuple[tuple[Input, Input], ...]

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return bool(self.came or self.went or self.changed or self.moved)


def compare(before: Iterable[Input], after: Iterable[Input]) -> Moves:
    """Compare two sets of files by name and contents."""
    old = {file["file"]: file for file in before}
    new = {file["file"]: file for file in after}
    changed = [
        (old[name], new[name])
        for name in sorted(old.keys() & new.keys())
        if _contents(old[name]) != _contents(new[name])
    ]
    went = {name: old[name] for name in sorted(old.keys() - new.keys())}
    came, moved = [], []
    by_contents = defaultdict(list)
    for name, file in reversed(went.items()):
        by_contents[_contents(file)].append(name)
    for name in sorted(new.keys() - old.keys()):
        earlier = by_contents[_contents(new[name])]
        if earlier:
            moved.append((went.pop(earlier.pop()), new[name]))
        else:
            came.append(new[name])
    return Moves(tuple(came), tuple(went.values()), tuple(changed), tuple(moved))


def _contents(file: Input) -> tuple[Any, ...]:
    return file["size"], file["rows"], file["footer_sha256"]
