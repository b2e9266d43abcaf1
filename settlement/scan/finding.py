"""Finding the files of a call log: a folder, a file, a glob or a URL.

Every regular file beneath it that ends in ``.parquet`` is part of it, wherever it lies, because
late calls arrive in any folder. Of each only the footer is read.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs

from settlement.errors import BadInput, MissingInput
from settlement.scan.boundary import reading
from settlement.scan.footers import MOST_ROWS
from settlement.scan.logfiles import AS_HERE, CallLog, LogFile
from settlement.scan.opening import Found, opened
from settlement.words import count_of

_FOOTER_READERS = {True: 2, False: 16}
"""So many read footers at once: of local files, and of others, for whom one waits."""
_WILD = re.compile(r"[*?\[]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def find(logs: str, names: Mapping[str, str] = AS_HERE) -> CallLog:
    """Find the files of a call log and read their footers.

    Args:
        logs: a folder, a file, a glob (``**`` spans folders), or a URL such as ``s3://…``.
            Where a path of that very name exists, it is not taken for a glob.
        names: the log's own name of each column (see `columns.mapping`).

    Raises:
        MissingInput: there is no such path, or no ``.parquet`` file in it.
        CannotRead: the operating system refused.
        BadInput: a file is damaged, or a folder ``X=…`` names a column that the file lacks.
    """
    with reading(logs):
        filesystem, path = _filesystem(logs)
    is_local = isinstance(filesystem, pafs.LocalFileSystem)
    if is_local:
        found, skipped, root = _find(path, _exists_locally, _walk_folder)
    else:
        with reading(logs):
            found, skipped, root = _find(
                path,
                lambda p: filesystem.get_file_info(p).type != pafs.FileType.NotFound,
                lambda p: _walk_store(filesystem, p),
                where=logs,
            )
    if not found:
        with reading(logs):
            is_file = filesystem.get_file_info(root).type == pafs.FileType.File
        raise MissingInput(
            "is no .parquet file" if is_file else f"no .parquet file in it{_but(skipped)}",
            where=logs,
            cure="give the folder that holds the call log",
        )
    found.sort(key=lambda file: file.name.encode())
    with ThreadPoolExecutor(_FOOTER_READERS[is_local]) as pool:
        files = tuple(pool.map(lambda file: opened(filesystem, file, names), found))
    for file in files:
        _check_folders(logs, file)
    rows = sum(file.rows for file in files)
    if rows > MOST_ROWS:
        raise BadInput(
            f"has {rows:,} rows, more than can be counted", where=logs, cure="settle parts of it"
        )
    return CallLog(root, files, skipped, filesystem)


def _filesystem(logs: str) -> tuple[pafs.FileSystem, str]:
    if not _URL.match(logs):
        return pafs.LocalFileSystem(), logs
    address, question, options = logs.partition("?")
    wild = _WILD.search(address)
    fixed = address[: address.rindex("/", 0, wild.start()) + 1] if wild else address
    try:
        filesystem, path = pafs.FileSystem.from_uri(fixed + question + options)
    except pa.ArrowInvalid as error:
        cure = "give a path, or an address such as s3://, gs://, abfss:// or hdfs://"
        what = f"no address of a call log ({' '.join(str(error).split())})"
        raise BadInput(what, where=logs, cure=cure) from error
    return filesystem, path.rstrip("/") + "/" + address[len(fixed) :] if wild else path


def _but(skipped: int) -> str:
    """Say how many names were skipped where nothing else was found."""
    names = count_of(skipped, "name")
    return f", but {names} beginning with _ or ., which are skipped" if skipped else ""


_Walk = Callable[[str], tuple[list[Found], int]]


def _find(
    path: str, exists: Callable[[str], bool], walk: _Walk, where: str = ""
) -> tuple[list[Found], int, str]:
    """Return the files under a path or glob, the number of names skipped, and the root."""
    if exists(path):
        found, skipped = walk(path)
        return found, skipped, path
    wild = _WILD.search(path)
    root = (path[: path.rfind("/", 0, wild.start())] or "/") if wild else path
    if wild and "/" not in path[: wild.start()]:
        root = "."
    if not wild or not exists(root):
        raise MissingInput(
            "no such path", where=where or path, cure="give the folder that holds the call log"
        )
    found, skipped = walk(root)
    pattern = path if root == "." else path[len(root) :].lstrip("/")
    try:
        matches = _matcher(pattern)
    except re.error as error:
        cure = "write the smaller character of a range first, such as [a-z]"
        raise BadInput(f"is no glob ({error.msg})", where=where or path, cure=cure) from error
    return [file for file in found if matches(file.name)], skipped, root


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test whether a name, or a folder that holds it, matches a glob.

    Raises `re.error` where it has a set of characters such as ``[z-a]``.
    """
    parts = []
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        text = "".join(
            {"*": "[^/]*", "?": "[^/]"}.get(piece, _character_set(piece))
            for piece in re.findall(r"\[[!^]?+\]?+[^\]]*\]|.", part, re.DOTALL)
        )
        parts.append(text + "/")
    whole = re.compile("".join(parts) + "(?:[^/]+/)*", re.DOTALL)
    return lambda name: whole.fullmatch(name + "/") is not None


def _character_set(piece: str) -> str:
    if len(piece) == 1:
        return re.escape(piece)
    inner = piece[1:-1]
    without = inner[0] in "!^"
    plain = "".join(each if each == "-" else re.escape(each) for each in inner[without:])
    return f"(?!/)[^{plain}]" if without else f"[{plain}]"


def _exists_locally(path: str) -> bool:
    with reading(path):
        try:
            Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def _walk_folder(root: str) -> tuple[list[Found], int]:
    """Return every ``.parquet`` file at or beneath a local path, each device and inode once."""
    with reading(root):
        status = Path(root).stat()
    if not stat.S_ISDIR(status.st_mode):
        name = Path(root).name
        found = Found(name, root, status.st_size, status.st_mtime_ns)
        regular = stat.S_ISREG(status.st_mode) and name.endswith(".parquet")
        return ([found] if regular else []), 0
    seen: dict[tuple[int, int], Found] = {}
    skipped, folders = 0, [("", root)]
    while folders:
        prefix, folder = folders.pop()
        with reading(folder):
            entries = list(os.scandir(folder))
        for entry in entries:
            name = prefix + entry.name
            if entry.name[0] in "._":
                skipped += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((name + "/", entry.path))
            elif entry.name.endswith(".parquet"):
                _add_file(seen, name, entry)
    return list(seen.values()), skipped


def _add_file(seen: dict[tuple[int, int], Found], name: str, entry: "os.DirEntry[str]") -> None:
    with reading(entry.path):
        status = entry.stat()
        name.encode()
    if not stat.S_ISREG(status.st_mode):
        return
    found = Found(name, entry.path, status.st_size, status.st_mtime_ns)
    same = (status.st_dev, status.st_ino)
    if same not in seen or name.encode() < seen[same].name.encode():
        seen[same] = found


def _walk_store(filesystem: pafs.FileSystem, root: str) -> tuple[list[Found], int]:
    """Return every ``.parquet`` file at or beneath a path of another file system."""
    with reading(root):
        info = filesystem.get_file_info(root)
        if info.type == pafs.FileType.File:
            listed = [info] if root.endswith(".parquet") else []
            return [_found(one, info.base_name) for one in listed], 0
        listed = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    found, skipped = [], set()
    for one in listed:
        name = one.path[len(root.rstrip("/")) :].lstrip("/")
        parts = name.split("/")
        hidden = next((i for i, part in enumerate(parts, 1) if part[:1] in ("_", ".")), None)
        if hidden:
            skipped.add("/".join(parts[:hidden]))
        elif one.type == pafs.FileType.File and name.endswith(".parquet"):
            found.append(_found(one, name))
    return found, len(skipped)


def _found(info: pafs.FileInfo, name: str) -> Found:
    return Found(name, info.path, info.size, info.mtime_ns or 0)


def _check_folders(logs: str, file: LogFile) -> None:
    """Refuse a folder ``X=…`` where X is a column of the log that the file lacks.

    Whoever lays files out so leaves the column to the folder's name, which is never read.
    """
    folders = [*PurePosixPath(logs).parts, *PurePosixPath(file.name).parts[:-1]]
    for folder in folders:
        column, equals, _ = folder.partition("=")
        lacked = [own for name, own in file.names.items() if name not in file.types]
        if equals and column in lacked:
            raise BadInput(
                f"the folder {folder!r} stands for column {column!r}, which the file lacks",
                where=file.name,
                cure=f"write {column!r} into the file: folder names are never read",
            )
