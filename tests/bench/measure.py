"""Start processes one at a time and say what each cost: CPU, wall, peak memory.

CPU is user plus system time and memory the largest resident set, both as the operating system
accounts for the whole process, start-up included. A contestant also tells what its work alone
took, with its libraries imported and its result not yet written.
"""

import compileall
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.logs import ROOT

THREADS = 2
_LIBRARIES = ("settlement", "numpy", "pandas", "pyarrow", "duckdb", "polars")


@dataclass(frozen=True)
class Cost:
    """What a process cost: seconds of CPU and wall, bytes at the peak, and what it told."""

    cpu: float
    wall: float
    peak: int
    told: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_work(cls, told: Mapping[str, Any], peak: int) -> "Cost":
        """What the work alone cost."""
        return cls(told["cpu"], told["wall"], peak)


class Failed(Exception):
    """A process did not end well; its messages are the text."""


def prepare() -> None:
    """Leave this process and those it starts as many cores as contestants have threads.

    The program is compiled, as who installs it leaves it: the peers come compiled, and where the
    environment forbids to write what was compiled, each start would compile it anew.
    """
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, cores)
    for package in ("settlement", "tests/bench"):
        compileall.compile_dir(ROOT / package, quiet=2)


def cost(arguments: Sequence[str | Path]) -> Cost:
    """Run a program to its end; its stdout may be a JSON object, which is what it tells.

    Raises `Failed` where it exits with anything but 0.
    """
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SETTLE_")}
    environment |= {"POLARS_MAX_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            said = err.read().decode(errors="replace").strip()
            raise Failed(f"{' '.join(map(str, arguments))}: exit {process.returncode}\n{said}")
        out.seek(0)
        said = out.read().decode().strip()
    told = json.loads(said) if said.startswith("{") else {}
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024, told)


@dataclass(frozen=True)
class Spread:
    """The median of several runs, and how far they lie apart: half of largest − smallest."""

    median: float
    half: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> "Spread":
        """Sum up figures."""
        ordered = sorted(figures)
        return cls(median(ordered), (ordered[-1] - ordered[0]) / 2)


def described(costs: Sequence[Cost]) -> dict[str, Any]:
    """What is recorded of the runs of one contestant."""
    return {
        "cpu": [round(cost.cpu, 3) for cost in costs],
        "wall": [round(cost.wall, 3) for cost in costs],
        "peak": [cost.peak for cost in costs],
        "told": costs[-1].told if costs else {},
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "used_cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """The versions of all that takes part."""
    from importlib import metadata  # contestants must not wait for it

    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def free_memory() -> int:
    """How many bytes could be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return int(facts["MemAvailable"].split()[0]) * 1024


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def python(module: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of a module."""
    return [sys.executable, "-m", module, *arguments]
