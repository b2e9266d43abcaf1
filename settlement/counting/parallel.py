"""Tasks done by several threads, few of them waiting at any time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_parallel(
    work: Callable[[_T, threading.Event], _R], tasks: Iterable[_T], threads: int
) -> Iterator[_R]:
    """Yield the results of tasks as they are done.

    When a task fails, or whoever takes the results stops (an exception, Ctrl-C), running
    tasks are told to stop, by the event that each is given, and no other begins.
    """
    stop = threading.Event()
    running: set[Future[_R]] = set()
    pool = ThreadPoolExecutor(threads)
    try:
        for task in tasks:
            if len(running) >= 2 * threads:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            running.add(pool.submit(work, task, stop))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
