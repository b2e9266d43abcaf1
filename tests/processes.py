"""Running `settle` as real processes, and looking at what they left.

`settle` starts the installed program. `Forks` keeps one process that has imported everything
and forks it for each command, which saves the half second of imports: what runs, runs in a
process of its own all the same, with its own signals, exit code and output.
"""

import atexit
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = str(Path(sys.executable).with_name("settle"))
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; every number in it is a whole one or a duration."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def environment(**settings: str) -> dict[str, str]:
    """The environment of this process without any SETTLE_ variable, and then some."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SETTLE_")}
    return kept | settings


def settle(*arguments: object, cwd: Path | None = None, **settings: str) -> Finished:
    """Run the installed program."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def start(*arguments: object, **settings: str) -> "subprocess.Popen[str]":
    """Start the installed program and return at once."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


class Forks:
    """Runs commands in forks of one process that has imported what they need."""

    def __init__(self, server: "subprocess.Popen[str]", scratch: Path) -> None:
        self._server, self._scratch = server, scratch

    def __call__(self, *arguments: object, cwd: Path | None = None, **settings: str) -> Finished:
        """Run a command like `settle`."""
        out, err = self._scratch / "out", self._scratch / "err"
        request = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment(**settings),
            "folder": str(cwd or Path.cwd()),
            "out": str(out),
            "err": str(err),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        return Finished(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


@contextmanager
def forks(scratch: Path) -> Iterator[Forks]:
    """Keep a process to fork for as long as the context lasts."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.processes"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with server:
        yield Forks(server, scratch)
        assert server.stdin is not None
        server.stdin.close()


def serve() -> None:
    """Fork for each request on stdin, and answer with the exit code."""
    warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def warm_up() -> None:
    """Import whatever commands import, so that no fork has to."""
    for name in (
        *("check", "cli", "exports", "ingest", "sample", "settle"),
        *("show.accounts", "show.diffs", "show.explain", "show.plans", "show.whatifs"),
    ):
        importlib.import_module(f"settlement.{name}")


def become(request: Mapping[str, Any]) -> NoReturn:
    """Become a run of the program, as a shell would have started it."""
    import traceback

    from settlement.cli import main

    atexit._clear()  # what the parent is to clear up at its end, its folders above all
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(request["out"], flags, 0o600), 1)
    os.dup2(os.open(request["err"], flags, 0o600), 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [PROGRAM, *request["arguments"]]
    code = 1
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


Snapshot = dict[str, tuple[int, int, int, bytes]]


def snapshot(folder: Path, *, folders_too: bool = False) -> Snapshot:
    """Everything under a path: inode, size, time of change, contents; of folders the name alone.

    The reports of runs are left out: every run leaves one.
    """
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))] if folder.exists() else []:
        if ".runs" in path.parts:
            continue
        status = path.stat()
        facts = (status.st_ino, status.st_size, status.st_mtime_ns)
        exact = path.is_file() or folders_too
        contents = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (*(facts if exact else (0, 0, 0)), contents)
    return found


def holds_nothing(book: Path) -> bool:
    """Tell whether nothing is in a book but the reports of runs, or there is no book."""
    return not book.exists() or [path.name for path in book.iterdir()] in ([], [".runs"])


def tables_of(book: Path) -> dict[str, bytes]:
    """The bytes of every published table of a book."""
    return {
        str(path.relative_to(book)): path.read_bytes()
        for path in sorted(book.glob("*/r*/*.parquet"))
    }


if __name__ == "__main__":
    serve()
