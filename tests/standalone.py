"""A real Spark cluster on this machine: a master and two workers, each a process of its own.

    python -m tests.standalone start | stop

The wheel of pyspark has no scripts that start a cluster, but it has `spark-class`. Process ids
are kept in ``build/spark/``; `stop` ends only processes that are still what was started.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "build" / "spark"
PORT = int(os.environ.get("SPARK_MASTER_PORT", "7077"))
URL = f"spark://127.0.0.1:{PORT}"
MEMORY = os.environ.get("SPARK_WORKER_MEMORY", "2g")
WORKERS = ("worker-1", "worker-2")
_MASTER, _WORKER = (
    f"org.apache.spark.deploy.{name}" for name in ("master.Master", "worker.Worker")
)


def start() -> Mapping[str, int]:
    """Start a master and two workers with a core each; return their process ids by name."""
    if running():
        raise SystemExit("a cluster is running already: make spark-stop")
    FOLDER.mkdir(parents=True, exist_ok=True)
    pids = {"master": _spawn("master", _MASTER, "--port", str(PORT), "--webui-port", "0")}
    _note(pids)
    _wait_for("master", "I have been elected leader")
    for name in WORKERS:
        pids[name] = start_worker(name)
        _note(pids)
    return pids


def start_worker(name: str) -> int:
    """Start a worker and wait until the master knows it."""
    room = ("--cores", "1", "--memory", MEMORY, "--work-dir", str(FOLDER / "work"))
    pid = _spawn(name, _WORKER, "--webui-port", "0", *room, URL)
    _wait_for(name, "Successfully registered with master")
    return pid


def _spawn(name: str, kind: str, *arguments: str) -> int:
    import pyspark

    home = Path(pyspark.__file__).parent
    settings = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    with (FOLDER / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [home / "bin" / "spark-class", kind, "--host", "127.0.0.1", *arguments],
            env=os.environ | settings | {"SPARK_DAEMON_MEMORY": "256m"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process.pid


def _note(pids: Mapping[str, int]) -> None:
    (FOLDER / "pids.json").write_text(json.dumps(pids))


def _wait_for(name: str, words: str, seconds: float = 90) -> None:
    log, until = FOLDER / f"{name}.log", time.monotonic() + seconds
    while words not in log.read_text():
        if time.monotonic() > until:
            raise SystemExit(f"{name} does not come up; see {log}")
        time.sleep(0.2)


def running() -> dict[str, int]:
    """Return the process ids of the cluster's processes that are alive, by name."""
    noted = FOLDER / "pids.json"
    pids: dict[str, int] = json.loads(noted.read_text()) if noted.exists() else {}
    return {name: pid for name, pid in pids.items() if "spark.deploy" in command(pid)}


def command(pid: int) -> str:
    """Return the command line of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def executors(worker: int) -> list[int]:
    """Return the executors that a worker has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        pid = int(entry.parent.name)
        if parent == worker and "CoarseGrainedExecutorBackend" in command(pid):
            found.append(pid)
    return found


def stop() -> None:
    """End the workers, then the master."""
    for pid in reversed(running().values()):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 20
    while running() and time.monotonic() < until:
        time.sleep(0.1)
    for pid in running().values():
        os.kill(pid, signal.SIGKILL)
    (FOLDER / "pids.json").unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["start"]:
        print("".join(f"{name:9} {pid}\n" for name, pid in start().items()) + URL)
    elif sys.argv[1:] == ["stop"]:
        stop()
    else:
        sys.exit(__doc__)
