"""Watching: what one command, or one round of a service, does to settle, seen from outside.

It settles any number of months. Each is an attempt: reported beside the book, measured, and
told to whoever asked. The pings are of the command or round as a whole. What goes wrong in
telling is a warning; what goes wrong in settling is raised as it came.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from settlement.journal import Journal
from settlement.operations import metrics
from settlement.operations.attempts import Attempt, Report
from settlement.operations.hooks import Hooks
from settlement.progress import Progress, Warn, silent, unheard

if TYPE_CHECKING:
    from settlement.order import Order
    from settlement.settle import Done


@dataclass(frozen=True)
class Telling:
    """Whom to tell: the hooks, and where to put the metrics.

    ``told`` is what the hooks were told today: a service that tries again every few minutes tells
    the same refusal once a day, also where a round comes to several.
    """

    hooks: Hooks = field(default_factory=Hooks)
    metrics: Path | None = None
    told: list[tuple[str | None, ...]] = field(default_factory=list)

    def tell(self, report: Report, warn: Warn) -> None:
        """Tell the hooks what an attempt came to, unless they know."""
        news = (report.started[:10], report.month, report.outcome, report.refusal)
        if report.succeeded or news not in self.told:
            self.hooks.tell(report, warn)
        today = [each for each in self.told if each[0] == news[0] and each != news]
        self.told[:] = [*today, news]


class Watch:
    """A watch over a command or a round; within it `settle` stands in for `settle.run`.

    Args:
        book: the book's folder.
        now: returns the instant taken for the present.
        options: every option in force, for the reports.
        telling: whom to tell.
        warn: takes a warning.
        month: which month is asked for, for the report of what is refused before it comes to
            settle any.
    """

    def __init__(
        self,
        book: Path,
        now: Callable[[], datetime],
        options: Mapping[str, Any],
        telling: Telling,
        warn: Warn = unheard,
        month: object = None,
    ) -> None:
        self._book, self._now, self._options = book, now, options
        self._telling, self._warn = telling, warn
        self._whole = Attempt(book, month, options, warn)
        self._told: BaseException | None = None
        self._attempts = 0

    def __enter__(self) -> Self:
        self._telling.hooks.send("start", self._warn)
        return self

    def settle(self, order: "Order", progress: Progress = silent, warn: Warn = unheard) -> "Done":
        """Settle a month as `settle.run` does, and tell what it came to."""
        from settlement import settle

        journal = Journal()
        attempt = Attempt(self._book, order.month, self._options, self._warn)
        try:
            attempt.begin()  # a signal may come in here
            done = settle.run(order, progress, warn, journal)
        except BaseException as error:
            self._told = error
            self._tell(attempt.failed(error, journal))
            raise
        self._tell(attempt.done(done, journal))
        return done

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        if isinstance(error, GeneratorExit):  # nobody listens any more, and nothing ended
            return
        if error is not None and error is not self._told:
            self._tell(self._whole.failed(error))
        elif not self._attempts:
            self._measure(None)
        self._telling.hooks.send("fail" if error else "success", self._warn)

    def _tell(self, report: Report) -> None:
        self._attempts += 1
        self._measure(report)
        self._telling.tell(report, self._warn)

    def _measure(self, report: Report | None) -> None:
        if not self._telling.metrics:
            return
        try:
            metrics.write(self._telling.metrics, self._book, report, self._now())
        except Exception as error:  # noqa: BLE001  # whatever it is, the run is more
            said = getattr(error, "strerror", None) or error
            self._warn(f"{self._telling.metrics}: cannot write the metrics ({said})")
