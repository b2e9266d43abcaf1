"""A month of many calls on a real cluster, while its processes are killed: make spark-trial.

Settles a sample month on this machine; then on the cluster that `make spark-cluster` started:
with the driver killed half-way (nothing may be published), once undisturbed, and once more
with a worker and the other worker's executor killed half-way. Every table must be
byte-identical to the first. Too heavy for the gate: minutes, and gigabytes.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import standalone
from tests.processes import PROGRAM, ROOT, environment, tables_of

MONTH = "2026-02"
PRICES = ROOT / "data" / "price_book.toml"
CONF = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.executor.memory": "1500m",
    "spark.ui.enabled": "false",
}


def begin(logs: Path, book: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start a settlement."""
    given = ["--logs", str(logs), "--book", str(book), "--prices", str(PRICES), *options, "--json"]
    told = (book.parent / f"{book.name}.json").open("wb")
    return subprocess.Popen([PROGRAM, "run", MONTH, *given], env=environment(), stdout=told)


def on_cluster(logs: Path, book: Path) -> "subprocess.Popen[bytes]":
    """Start a settlement on the cluster."""
    conf = [word for name, value in CONF.items() for word in ("--conf", f"{name}={value}")]
    return begin(logs, book, "--engine", "spark", "--master", standalone.URL, *conf)


def finish(run: "subprocess.Popen[bytes]", book: Path, began: float) -> float:
    """Wait for a settlement to be published; tell how it went; return its seconds."""
    if run.wait() != 0:
        raise SystemExit(f"{book.name} ended with {run.returncode}")
    took = time.monotonic() - began
    rows = json.loads((book.parent / f"{book.name}.json").read_bytes())["rows"]
    print(
        f"{book.name:9} {took:6.1f} s  { ({name: n for name, n in rows.items() if n}) }", flush=True
    )
    return took


def wait_for_executors() -> dict[str, list[int]]:
    """Wait until both workers have an executor; return their process ids by worker."""
    while True:
        found = {
            name: standalone.executors(standalone.running()[name]) for name in standalone.WORKERS
        }
        if all(found.values()):
            return found
        time.sleep(0.2)


def kill_driver(logs: Path, book: Path, after: float) -> None:
    """Kill the driver when the executors have worked for a while; nothing may be left."""
    run = on_cluster(logs, book)
    found = wait_for_executors()
    time.sleep(after)
    assert run.poll() is None, "it was through already: more calls are needed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    killed = time.monotonic()
    while any(standalone.command(pid) for pids in found.values() for pid in pids):
        assert time.monotonic() - killed < 60, "executors outlive the driver"
        time.sleep(0.2)
    print(f"driver killed: executors gone after {time.monotonic() - killed:.1f} s", flush=True)
    left = [str(path.relative_to(book)) for path in book.rglob("*") if path.is_file()]
    assert not tables_of(book)
    print(f"driver killed: left in the book: {left}", flush=True)


def kill_workers(after: float) -> None:
    """Kill a worker, and the executor of the other one."""
    found = wait_for_executors()
    time.sleep(after)
    os.kill(standalone.running()["worker-1"], signal.SIGKILL)
    os.kill(found["worker-2"][0], signal.SIGKILL)
    print("killed worker-1, and the executor of worker-2", flush=True)


def main(calls: str, folder: Path) -> None:
    """Try it with so many calls."""
    assert set(standalone.running()) >= set(standalone.WORKERS), "first: make spark-cluster"
    logs = folder / "logs"
    if not logs.exists():
        sample = ["--accounts", "100000", "--calls", calls, "--seed", "7", "--out", str(logs)]
        subprocess.run(
            [PROGRAM, "sample", "--month", MONTH, *sample], check=True, env=environment()
        )
    books = {name: folder / name for name in ("local", "clean", "killed")}
    began = time.monotonic()
    finish(begin(logs, books["local"]), books["local"], began)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"local     peak {peak / 2**20:.2f} GB", flush=True)
    expected = tables_of(books["local"])
    kill_driver(logs, books["clean"], after=15)
    began = time.monotonic()
    took = finish(on_cluster(logs, books["clean"]), books["clean"], began)
    assert tables_of(books["clean"]) == expected
    began = time.monotonic()
    run = on_cluster(logs, books["killed"])
    kill_workers(after=took / 3)
    finish(run, books["killed"], began)
    assert tables_of(books["killed"]) == expected
    print(f"every table of all three books is the same: {len(expected)} files", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
