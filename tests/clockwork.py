"""The service as a real process, under a clock and at a pace that a test sets.

    python -m tests.clockwork FOLDER [options of settle serve]

``FOLDER/now`` holds the instant that the program finds wherever it looks at a clock: in
`shell.now`, as every program here does, and in APScheduler. ``FOLDER/pace`` says what happens
before each run: ``go``, ``wait`` until that changes, or ``exit``, which raises SystemExit. All
else is the program as it is, with its own signals, exit code and lines.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from tests.processes import ROOT, environment

PATIENCE = 60.0


class Clock:
    """The clock and the pace of the services that a test starts: two files in a folder."""

    def __init__(self, folder: Path, now: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.set(now)
        self.pace("go")

    @property
    def now(self) -> datetime:
        return datetime.fromisoformat((self.folder / "now").read_text())

    def set(self, now: str | datetime) -> None:
        text = now if isinstance(now, str) else now.isoformat()
        assert datetime.fromisoformat(text).tzinfo
        self._write("now", text)

    def pace(self, word: str) -> None:
        self._write("pace", word)

    def _write(self, name: str, text: str) -> None:
        aside = self.folder / f".{name}"
        aside.write_text(text)
        aside.replace(self.folder / name)


class Service:
    """A service under a clock: its process, and its lines as they come."""

    def __init__(self, clock: Clock, *arguments: object, **settings: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.clockwork", clock.folder, *map(str, arguments)],
            cwd=ROOT,
            env=environment(**settings),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._lines.put(line)

    def until(self, *texts: str, patience: float = PATIENCE) -> list[str]:
        """Wait for a line that holds one of these texts; return what came, it included."""
        came: list[str] = []
        deadline = time.monotonic() + patience
        while not came or not any(text in came[-1] for text in texts):
            try:
                came.append(self._lines.get(timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                raise AssertionError(f"none of {texts} in {came}, after {self.said}") from None
            self.said.append(came[-1])
        return came

    def tick(self, clock: Clock, now: str | datetime) -> list[str]:
        """Set the clock to where a tick is due; return what was said until it was over."""
        clock.set(now)
        self.until("tick: ")
        return self.until("next tick at")

    def rest(self) -> list[str]:
        """Wait for the end; return every line that came since the last one asked for."""
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        came = [self._lines.get() for _ in range(self._lines.qsize())]
        self.said += came
        return came

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(how)
        self.rest()
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.rest()
        assert self.process.stderr
        self.process.stderr.close()


@contextmanager
def service(clock: Clock, *arguments: object, **settings: str) -> Iterator[Service]:
    """A service that is killed if a test leaves it."""
    started = Service(clock, *arguments, **settings)
    try:
        yield started
    finally:
        started.close()


def main() -> None:
    """Become the service, with clock and pace from the folder."""
    from apscheduler.schedulers import base

    from settlement import settle, shell
    from settlement.commands.serving import serve
    from settlement.operations import service as serving

    folder = Path(sys.argv.pop(1))

    def now() -> datetime:
        return datetime.fromisoformat((folder / "now").read_text()).astimezone(UTC)

    class Present(datetime):
        """What APScheduler takes for the clock."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Present":
            instant = now().astimezone(tz)
            return cls.combine(instant.date(), instant.timetz())

    settling = settle.run

    def paced(*arguments: Any, **more: Any) -> settle.Done:
        (folder / "begun").write_text(str(os.getpid()))
        while (pace := (folder / "pace").read_text()) == "wait":
            time.sleep(0.005)
        if pace == "exit":
            raise SystemExit(7)
        return settling(*arguments, **more)

    shell.now, base.datetime, settle.run = now, Present, paced
    serving.LOOK_EVERY = 0.01
    shell.main(serve, "jobs.scheduler")


if __name__ == "__main__":
    main()
