"""What strace saw: the file-system calls of a process, in order, as records."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

FILE_CALLS = frozenset(
    {
        *("open", "openat", "creat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "truncate"),
        *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
        *("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "statfs"),
        *("readlink", "readlinkat", "chmod", "fchmodat", "utimensat"),
    }
)
"""Calls that name a file."""
HANDLE_CALLS = frozenset(
    {
        *("read", "readv", "pread64", "preadv", "preadv2", "lseek", "getdents64"),
        *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
        *("fsync", "fdatasync", "sync_file_range", "ftruncate", "fallocate", "flock", "close"),
        *("fstat", "fstatfs", "fchmod"),
    }
)
"""Calls on a file that is open."""
IGNORED = frozenset({"fcntl", "ioctl", "mmap", "getcwd", "chdir", "execve", "dup", "dup2", "poll"})
"""Calls that touch no disk."""


@dataclass(frozen=True)
class Call:
    """One system call: its name, which one of that name it is, its files, what it came to."""

    name: str
    number: int
    files: tuple[str, ...]
    arguments: str
    result: int

    @property
    def handle(self) -> int:
        """The open file that it is about."""
        return int(re.match(r"\d+", self.arguments)[0])  # type: ignore[index]

    @property
    def data(self) -> bytes:
        """The bytes that it wrote."""
        asked = b"".join(bytes.fromhex(h.replace("\\x", "")) for h in _TEXT.findall(self._rest))
        return asked[: self.result]

    @property
    def offset(self) -> int:
        """Where it wrote, of those that say so."""
        return int(re.findall(r", (\d+)", self._rest)[-1])

    @property
    def _rest(self) -> str:
        return self.arguments.partition(">")[2]


_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*?) *<unfinished \.\.\.>(?:\) += \?)?$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPENED = r"(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2}|[^>\\])*)>(?:\(deleted\))?"
_AT = re.compile(rf'{_OPENED}, "((?:\\x[0-9a-f]{{2}})*)"')
_HANDLE = re.compile(r"\d+<((?:\\x[0-9a-f]{2}|[^>\\])*)>(\(deleted\))?")


def read(log: str) -> Iterator[Call]:
    """Read what ``strace -f -y -xx`` wrote; raises `ValueError` at what it does not know.

    A call under way when the process was killed is the last one, without a result (-1).
    """
    begun: dict[str, str] = {}
    seen: dict[tuple[str, str], int] = {}
    for whole in log.splitlines():
        line = whole
        if "+++" in line or "---" in line:
            continue
        if resumed := _RESUMED.match(line):
            process, name, rest = resumed.groups()
            line = f"{process} {name}({begun.pop(process)}{rest}"
        elif (open_ended := _BEGUN.match(line)) and " = " not in line.partition(">")[2]:
            begun[open_ended[1]] = open_ended[3]
            continue
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"strace wrote what is not understood: {line!r}")
        process, name, arguments, result = found.groups()
        seen[process, name] = seen.get((process, name), 0) + 1
        came = int(result) if result.lstrip("-").isdigit() else -1
        yield Call(name, seen[process, name], _files(name, arguments), arguments, came)


def _files(name: str, arguments: str) -> tuple[str, ...]:
    """Return the files of a call; a deleted one is ``(deleted)``."""
    if name in HANDLE_CALLS:
        found = _HANDLE.match(arguments)
        if not found:
            return ()
        return ("(deleted)",) if found[2] else (_plain(found[1]),)
    if name not in FILE_CALLS and name not in IGNORED:
        found = _HANDLE.match(arguments)
        return (_plain(found[1]),) if found else tuple(map(_plain, _TEXT.findall(arguments)))
    pairs = _AT.findall(arguments)
    if pairs:
        return tuple(
            str(PurePosixPath(_plain(folder), _plain(child)) if child else _plain(folder))
            for folder, child in pairs
        )
    return tuple(map(_plain, _TEXT.findall(arguments)))


def _plain(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda hexed: chr(int(hexed[1], 16)), text)
