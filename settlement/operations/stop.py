"""Stopping a service: the run under way may finish, within a time; what waits leaves at once.

A signal that comes during a run asks: the run may finish, and nothing is begun after it. A
second signal, or the time being up, abandons the run by unwinding it, which leaves nothing
half-written. A signal that comes while nothing runs unwinds at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from settlement import shell

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """What a signal has asked for; true once it has.

    Args:
        within: how many seconds the run under way may still take; 0 abandons it at once.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._asked: signal.Signals | None = None
        self.running = False

    def __bool__(self) -> bool:
        return self._asked is not None

    def __str__(self) -> str:
        return self._asked.name if self._asked else "no signal"

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Heed the signals for as long as this lasts, but for those ignored from the start."""
        heeded = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._ask) for number in heeded}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._time_is_up)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                if signal.getsignal(number) is not signal.SIG_IGN:  # still unwinding: undisturbed
                    signal.signal(number, handler)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Let what is done here finish, if a signal comes."""
        self.running = True
        yield
        # Not where an exception leaves: whoever catches it must know what it has ended.
        self.running = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self or not self.running or not self._within:
            signal.setitimer(signal.ITIMER_REAL, 0)
            shell.interrupt(number, frame)
        self._asked = signal.Signals(number)
        signal.setitimer(signal.ITIMER_REAL, self._within)

    def _time_is_up(self, _number: int, frame: FrameType | None) -> None:
        if self._asked and self.running:
            shell.interrupt(self._asked, frame)
