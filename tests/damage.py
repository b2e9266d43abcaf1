"""Damaged files of the call log, counted in processes that they may kill.

A *case* is a file's bytes with something done to them. Cases run one after the other in a worker,
a process of its own: reading a broken file can end a process without any exception, can hang, or
can ask for all memory, and each of these is an outcome that is to be seen. What came of a case
is compared with what the sound file counts to:

    same      the same count
    refused   exit 65, 66 or 74 with one line that names the file
    silent    another count, and no word of it
    bug       a traceback, or a line that does not name the file
    killed    the process ended, or had to be ended
    greedy    more than 2 GB of memory
"""

import argparse
import collections
import json
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from tests.logs import PERIOD, call, table

ROOT = Path(__file__).parent.parent
NAME = "bad.parquet"
PATIENCE = 30.0
"""Seconds that a case may take."""
MEMORY = 2 << 30
"""Bytes that a worker may come to hold."""


@dataclass(frozen=True)
class Damage:
    """What is done to a file: bytes that take the place of others, then the end cut off."""

    label: str
    at: int = 0
    new: bytes = b""
    keep: int | None = None

    def done_to(self, raw: bytes) -> bytes:
        """Return the damaged bytes."""
        whole = raw[: self.at] + self.new + raw[self.at + len(self.new) :]
        return whole[: self.keep]


def flips(raw: bytes, begin: int, end: int, step: int = 1) -> Iterator[Damage]:
    """Yield every bit of a span flipped, or one in so many."""
    for bit in range(begin * 8, end * 8, step):
        at, shift = divmod(bit, 8)
        yield Damage(f"bit {shift} of byte {at}", at, bytes([raw[at] ^ 1 << shift]))


def truncations(raw: bytes, step: int = 1) -> Iterator[Damage]:
    """Yield the file cut off at every byte, or one in so many."""
    for size in range(0, len(raw), step):
        yield Damage(f"cut to {size} bytes", keep=size)


def footer_start(raw: bytes) -> int:
    """Return where the footer begins."""
    return len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")


# ---------------------------------------------------------------- sound files

WRITERS: dict[str, dict[str, Any]] = {
    "arrow": {"write_page_checksum": True, "compression": "zstd"},
    "plain": {"store_schema": False, "compression": "none", "use_dictionary": False},
    "indexed": {"write_page_index": True, "data_page_version": "2.0", "compression": "snappy"},
    "duckdb": {},
}
"""How the small log is written: the first way has checksums of its pages, the others have none."""


def sound(writer: str) -> bytes:
    """Return a small log: a row group in the month, one after it, one across its beginning."""
    names = ["DetectFace", "CreateFace", "VerifyFace", "SearchFaces", "HealthCheck"]
    second = 10**6
    after = (PERIOD.end - PERIOD.start) * second
    instants = [n * 1000 * second for n in range(24)]
    instants += [after + n * second for n in range(16)]
    instants += [(n - 10) * 1000 * second for n in range(20)]
    rows = [
        call(
            n,
            account_id=("007", "acct-12", "0042")[n % 3],
            interface=names[n % 5],
            timestamp=None if n == 50 else at,
            status_code=0 if n % 7 else 1,
            item="search" if n % 10 == 1 else None,
        )
        for n, at in enumerate(instants)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        if writer == "duckdb":
            with duckdb.connect() as database:
                database.register("calls", table(rows))
                database.execute("SET TimeZone = 'UTC'")
                database.execute(f"COPY calls TO '{path}' (FORMAT parquet)")
        else:
            with pq.ParquetWriter(path, table(rows).schema, **WRITERS[writer]) as file:
                for group in (rows[:24], rows[24:40], rows[40:]):
                    file.write_table(table(group))
        return path.read_bytes()


# ---------------------------------------------------------------- outcomes


@dataclass(frozen=True)
class Outcome:
    """What came of a case: its kind (see above), and what was said."""

    kind: str
    said: str = ""


def outcomes(
    raw: bytes, damages: Iterable[Damage], *, quick: bool = False
) -> Iterator[tuple[Damage, Outcome]]:
    """Yield what comes of each case; ``quick`` reads the smallest row groups by pages too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log" / NAME
        path.parent.mkdir()
        worker = _Worker(path.parent, quick)
        try:
            path.write_bytes(raw)
            whole = worker.run()
            assert "usage" in whole, whole
            for damage in damages:
                path.unlink()  # a new file: what is known of a name and its time is forgotten
                path.write_bytes(damage.done_to(raw))
                found = worker.run()
                yield damage, _judged(found, whole)
                if "killed" in found:
                    worker = _Worker(path.parent, quick)
        finally:
            worker.end()


def _judged(found: dict[str, Any], whole: dict[str, Any]) -> Outcome:
    if found.get("memory", 0) > MEMORY:
        return Outcome("greedy", f"{found['memory']} bytes")
    if "killed" in found:
        return Outcome("killed", found["killed"])
    if "bug" in found:
        return Outcome("bug", found["bug"])
    if "refused" in found:
        said = found["refused"]
        is_good = NAME in said and "\n" not in said and found["code"] in {65, 66, 74}
        return Outcome("refused" if is_good else "bug", said)
    told = {
        name: (whole[name], found[name])
        for name in whole
        if name != "memory" and whole[name] != found[name]
    }
    return Outcome("silent", json.dumps(told)) if told else Outcome("same")


class _Worker:
    """A process that counts the log in a folder whenever it is told to."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.damage", "--serve", str(folder), *["--quick"] * quick],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def run(self) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            self.end()
            return {"killed": f"took longer than {PATIENCE:.0f} s"}
        line = process.stdout.readline()
        if not line:
            self.end()
            return {"killed": f"ended with {process.returncode}"}
        told = json.loads(line)
        assert isinstance(told, dict)
        return told

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def serve(folder: str, *, quick: bool) -> None:
    """Count the log in a folder at each line on stdin, and tell of it on stdout."""
    from settlement.scan import rows

    if quick:
        rows.QUICK_ROWS = range(1, 1 << 22)
    for _ in sys.stdin:
        told = _counted(folder)
        told["memory"] = _peak()
        print(json.dumps(told), flush=True)


def _peak() -> int:
    """Return the most bytes that this process held; where Linux tells, not what its parent did."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _counted(folder: str) -> dict[str, Any]:
    from settlement.errors import SettlementError
    from settlement.scan.finding import find
    from settlement.usage import count
    from tests.logs import PERIOD, VERSION

    try:
        found = count(find(folder), PERIOD, VERSION, threads=1)
    except SettlementError as error:
        return {"refused": str(error), "code": error.exit_code}
    except Exception:
        return {"bug": traceback.format_exc()}
    return {
        "usage": found.usage.to_dict("list"),
        "rows": found.rows,
        "rejects": found.rejects.astype(str).to_dict("list"),
        "inputs": [(file.file, file.rows) for file in found.inputs],
    }


def counted_apart(folder: Path) -> dict[str, Any]:
    """Count a log in a process of its own; return what it tells, and the memory it took."""
    worker = _Worker(folder, quick=False)
    try:
        return worker.run()
    finally:
        worker.end()


# ---------------------------------------------------------------- the sweeps


def sweep(writer: str, area: str, step: int) -> Iterator[tuple[Damage, Outcome]]:
    """Damage a part of the small log in every way, or in one of so many, and yield what comes.

    ``area`` is ``footer`` (every bit), ``pages`` (every bit) or ``end`` (every truncation).
    """
    raw = sound(writer)
    begin = footer_start(raw)
    damages = {
        "footer": lambda: flips(raw, begin, len(raw), step),
        "pages": lambda: flips(raw, 0, begin, step),
        "end": lambda: truncations(raw, step),
    }[area]()
    return outcomes(raw, damages, quick=True)


def main() -> int:
    """Run the sweeps, print how often each outcome came; 1 where one came that must not."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--step", type=int, default=1, help="try one in so many")
    parser.add_argument("--show", type=int, default=10, help="so many of each wrong outcome")
    options = parser.parse_args()
    failed = False
    for writer in WRITERS:
        for area, step in (("footer", 1), ("end", 1), ("pages", 13)):
            seen: collections.Counter[str] = collections.Counter()
            for damage, outcome in sweep(writer, area, step * options.step):
                seen[outcome.kind] += 1
                is_wrong = outcome.kind not in ALLOWED[writer, area]
                failed |= is_wrong
                if is_wrong and seen[outcome.kind] <= options.show:
                    print(f"  {damage.label}: {outcome.kind} {outcome.said}", flush=True)
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.items()))
            print(f"{writer:8} {area:7} {seen.total():6} tried: {told}", flush=True)
    return int(failed)


ALLOWED = {
    (writer, area): {"same", "refused"}
    | ({"silent"} if area == "pages" and writer != "arrow" else set())
    for writer in WRITERS
    for area in ("footer", "end", "pages")
}
"""What may come: a flipped bit in a page without a checksum cannot be seen."""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], quick="--quick" in sys.argv)
    else:
        sys.exit(main())
