"""A disk that forgets what was not flushed, no better than it must be.

What POSIX promises, and no more: the contents of a file are there once the file was flushed,
a name is there (or gone) once the folder that has it was flushed. Until then

    a file's contents may be what was flushed last, or cut off, or zeros, or all there
    each name of a folder may be as it was after any of the changes made to it since

and all of this independently: a rename may have come through at its new place, at its old one,
at both or at neither. Journalling file systems are kinder. The names `Disk.now` sees are those
that a living machine sees, whether it keeps them or not.
"""

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.faults.calls import Call

Tree = dict[str, bytes | None]
"""What lies on a disk by path: a file's contents, None for a folder."""


@dataclass(eq=False)
class File:
    """Contents: as they are, and as they were flushed."""

    data: bytes = b""
    flushed: bytes = b""

    def versions(self) -> list[bytes]:
        """Return what may be there after a loss of power, the likeliest last."""
        if self.data == self.flushed:
            return [self.data]
        half = self.data[: len(self.data) // 2]
        return list(dict.fromkeys([self.flushed, bytes(len(self.data)), half, self.data]))


@dataclass(eq=False)
class Folder:
    """Names: as they are, and what each was since the folder was flushed, oldest first."""

    names: "dict[str, Node]" = field(default_factory=dict)
    since: "dict[str, list[Node | None]]" = field(default_factory=dict)

    def set(self, name: str, node: "Node | None") -> None:
        """Make, replace or (None) remove a name."""
        self.since.setdefault(name, [self.names.get(name)]).append(node)
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node

    def flush(self) -> None:
        """Keep all names as they are."""
        self.since.clear()


Node = File | Folder


class Disk:
    """The files under one folder, with everything in them flushed to begin with."""

    def __init__(self, tree: Tree) -> None:
        self.root = Folder()
        self._open: dict[int, tuple[File, int]] = {}
        for path, data in sorted(tree.items()):
            folder, name = self._parent(path)
            folder.names[name] = Folder() if data is None else File(data, data)

    def _node(self, path: str) -> Node:
        node: Node = self.root
        for part in PurePosixPath(path).parts:
            assert isinstance(node, Folder), path
            node = node.names[part]
        return node

    def _parent(self, path: str) -> tuple[Folder, str]:
        folder = self._node(str(PurePosixPath(path).parent))
        assert isinstance(folder, Folder), path
        return folder, PurePosixPath(path).name

    # ------------------------------------------------------------ what a command does to it

    def apply(self, call: Call, paths: list[str]) -> bool:
        """Do what a call did, on these paths; tell whether it changed or flushed anything."""
        if call.result < 0:
            return False
        do = getattr(self, f"_{call.name}", None)
        return bool(do(call, *paths)) if do else False

    def _openat(self, call: Call, path: str) -> bool:
        folder, name = self._parent(path)
        node = folder.names.get(name) if path != "." else folder
        creates = node is None and "O_CREAT" in call.arguments
        if creates:
            node = File()
            folder.set(name, node)
        if isinstance(node, File):
            if "O_TRUNC" in call.arguments:
                node.data = b""
            self._open[call.result] = (node, 0)
        return creates

    def _lseek(self, call: Call, _path: str) -> bool:
        if call.handle in self._open:
            self._open[call.handle] = (self._open[call.handle][0], call.result)
        return False

    def _read(self, call: Call, _path: str) -> bool:
        if call.handle in self._open:
            file, at = self._open[call.handle]
            self._open[call.handle] = (file, at + call.result)
        return False

    def _write(self, call: Call, path: str) -> bool:
        file, at = self._open[call.handle]
        self._open[call.handle] = (file, at + call.result)
        return self._put(path, at, call.data)

    def _pwrite64(self, call: Call, path: str) -> bool:
        return self._put(path, call.offset, call.data)

    def _put(self, path: str, at: int, data: bytes) -> bool:
        file = self._node(path)
        assert isinstance(file, File), path
        file.data = file.data[:at].ljust(at, b"\0") + data + file.data[at + len(data) :]
        return bool(data)

    def _ftruncate(self, call: Call, path: str) -> bool:
        file, size = self._node(path), call.offset
        assert isinstance(file, File), path
        file.data = file.data[:size].ljust(size, b"\0")
        return True

    def _fsync(self, _call: Call, path: str) -> bool:
        node = self._node(path)
        if isinstance(node, Folder):
            node.flush()
        else:
            node.flushed = node.data
        return True

    _fdatasync = _fsync

    def _mkdir(self, _call: Call, path: str) -> bool:
        folder, name = self._parent(path)
        folder.set(name, Folder())
        return True

    def _rename(self, _call: Call, source: str, target: str) -> bool:
        (old, name), (new, new_name) = self._parent(source), self._parent(target)
        new.set(new_name, old.names[name])
        old.set(name, None)
        return True

    _renameat = _renameat2 = _rename

    def _unlink(self, _call: Call, path: str) -> bool:
        folder, name = self._parent(path)
        folder.set(name, None)
        return True

    _rmdir = _unlinkat = _unlink

    # ------------------------------------------------------------ what may be left of it

    def now(self) -> Tree:
        """Return what is there as long as the machine lives."""
        return dict(_walk(self.root, "", lambda folder: folder.names, lambda file: file.data))

    def losses(self, budget: int, chance: random.Random) -> Iterator[Tree]:
        """Yield what may be left when power is lost now: all of it within a budget, else a draw.

        Beyond the budget: nothing kept, everything kept, each thing lost alone, each kept alone,
        and the rest of the budget at random.
        """
        choices = _choices(self.root)
        every = math.prod(len(options) for _, options in choices)
        if every <= budget:
            picks: Iterable[tuple[int, ...]] = itertools.product(
                *(range(len(options)) for _, options in choices)
            )
        else:
            picks = _drawn([len(options) for _, options in choices], budget, chance)
        seen = set()
        for pick in picks:
            tree = self._left(choices, pick)
            if (key := frozenset(tree.items())) not in seen:
                seen.add(key)
                yield tree
            if len(seen) == budget:
                return

    def _left(self, choices: "list[_Choice]", pick: tuple[int, ...]) -> Tree:
        kept = {key: options[n] for (key, options), n in zip(choices, pick, strict=True)}

        def names(folder: Folder) -> dict[str, Node]:
            found = dict(folder.names)
            for name in folder.since:
                node = kept[folder, name]
                found.pop(name, None)
                if node is not None:
                    found[name] = node
            return found

        return dict(_walk(self.root, "", names, lambda file: kept.get((file, ""), file.data)))


_Choice = tuple[tuple[Node, str], list]


def _choices(root: Folder) -> list[_Choice]:
    """Return everything that may be in more than one way, of every node there was or is."""
    found: list[_Choice] = []
    left: list[Node] = [root]
    seen: set[int] = set()
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, File):
            if len(versions := node.versions()) > 1:
                found.append(((node, ""), versions))
            continue
        for name, nodes in node.since.items():
            found.append(((node, name), nodes))
            left += [each for each in nodes if each is not None]
        left += node.names.values()
    return found


def _drawn(sizes: list[int], budget: int, chance: random.Random) -> Iterator[tuple[int, ...]]:
    none, all_ = tuple(0 for _ in sizes), tuple(size - 1 for size in sizes)
    yield from (none, all_)
    for position, size in enumerate(sizes):
        for option in range(size):
            yield (*all_[:position], option, *all_[position + 1 :])
            yield (*none[:position], option, *none[position + 1 :])
    for _ in range(budget):
        yield tuple(chance.randrange(size) for size in sizes)


def _walk(
    folder: Folder, above: str, names: object, data: object
) -> Iterator[tuple[str, bytes | None]]:
    for name, node in names(folder).items():  # type: ignore[operator]
        path = f"{above}{name}"
        if isinstance(node, Folder):
            yield path, None
            yield from _walk(node, f"{path}/", names, data)
        else:
            yield path, data(node)  # type: ignore[operator]


def tree_of(root: Path) -> Tree:
    """Read what lies under a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def write(tree: Tree, root: Path) -> None:
    """Write a tree under a folder that is there."""
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(data)
