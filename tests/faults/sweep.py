"""Sharing many short trials among processes, and counting what they came to."""

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.verdict import Judge

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_mine: dict[str, Any] = {}


def spread(
    work: Callable[[_Task, Path, Judge], _Result], tasks: Iterable[_Task], jobs: int
) -> Iterator[_Result]:
    """Yield what each task comes to, from processes with a folder and a judge of their own.

    ``work`` gets the task, the path of a sandbox that is not there yet, and the judge.
    """
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        multiprocessing.get_context("fork").Pool(jobs, _begin, (folder, work)) as pool,
    ):
        yield from pool.imap_unordered(_do, tasks, chunksize=4)


def _begin(folder: str, work: Callable[..., Any]) -> None:
    _mine["folder"] = Path(tempfile.mkdtemp(dir=folder))
    _mine["numbers"] = itertools.count()
    _mine["judge"], _mine["work"] = Judge(), work


def _do(task: Any) -> Any:
    sandbox = _mine["folder"] / str(next(_mine["numbers"]))
    return _mine["work"](task, sandbox, _mine["judge"])
