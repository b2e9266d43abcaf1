"""The call logs of the benchmark: which there are, where they lie, what they need of the disk."""

import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "data" / "bench"
PRICES = ROOT / "data" / "price_book.toml"
MONTH = "2026-02"
IDS = ("uuid", "hex32", "binary16", "variable")
_GENERATION = 1
"""Part of every name, so that a log of an older generator is not taken for a new one."""
_MOST_BYTES_PER_ROW = {"uuid": 44, "hex32": 38, "binary16": 30, "variable": 38}
_SNAPPY_IS_LARGER = 1.6
_KEPT_FREE = 2 * 10**9


@dataclass(frozen=True)
class Log:
    """A call log of one month.

    ``ids`` is the form of the request ids: UUIDs as text, 32 hexadecimal digits, 16 bytes of
    fixed width, or 16 to 32 digits. ``conflicts``: one re-delivery in 250 says something else
    than the call it repeats.
    """

    rows: int
    ids: str = "uuid"
    codec: str = "zstd"
    accounts: int = 100_000
    group_rows: int = 1 << 20
    files: int = 28
    conflicts: bool = False

    @property
    def name(self) -> str:
        """A name that tells it from all others; the folder's."""
        words = [f"{self.rows}", self.ids, self.codec, f"{self.accounts}-accounts"]
        words += [f"{self.files}-files", f"{self.group_rows}-a-group"]
        return "-".join(words + ["conflicts"] * self.conflicts + [f"v{_GENERATION}"])

    @property
    def most_bytes(self) -> int:
        """An upper bound of its size."""
        larger = 1.0 if self.codec == "zstd" else _SNAPPY_IS_LARGER
        return int(self.rows * _MOST_BYTES_PER_ROW[self.ids] * larger)

    def folder(self, cache: Path) -> Path:
        """Where it lies."""
        return cache / "logs" / self.name

    def with_rows(self, rows: int) -> "Log":
        """The same, of another size."""
        return replace(self, rows=rows)


@dataclass(frozen=True)
class Made:
    """A log on disk."""

    log: Log
    folder: Path
    size: int
    new: bool

    def describe(self) -> dict[str, object]:
        """What is recorded of it."""
        return {"name": self.log.name, "bytes": self.size} | asdict(self.log)


def ensure(log: Log, cache: Path) -> Made:
    """Make a log unless it is there, and read it once.

    Exits with one line where the disk has no room for it.
    """
    folder = log.folder(cache)
    new = not folder.exists()
    if new:
        _check_space(log, cache)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(log).items()]
        draft = folder.with_name(f".{folder.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        program = [sys.executable, "-m", "tests.bench.generate", str(draft), *options]
        try:
            subprocess.run(program, cwd=ROOT, check=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Made(log, folder, warm(folder), new)


def warm(folder: Path, pattern: str = "*.parquet") -> int:
    """Read files, which leaves them in the page cache, and return how many bytes there are."""
    size = 0
    buffer = bytearray(1 << 20)
    for path in sorted(folder.glob(pattern)):
        if not path.is_file():
            continue
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                size += got
    return size


def _check_space(log: Log, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < log.most_bytes + _KEPT_FREE:
        sys.exit(
            f"{cache}: {free / 1e9:.1f} GB free, and {log.rows:,} rows may take "
            f"{log.most_bytes / 1e9:.1f} GB; give fewer rows, or more disk with --cache"
        )
