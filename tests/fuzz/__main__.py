"""Fuzz a target for a while: what ``make fuzz`` does, with one after the other.

    python -m tests.fuzz prices --seconds 60

What was reached is kept in ``build/fuzz``, so that the next time goes on from there. Bytes that
came to a finding lie there too, as ``crash-…``, ``timeout-…`` or ``oom-…``; the process then
leaves with another code than 0. Such bytes, made short, belong into ``corpus``.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["settlement", "tomllib"]):
    from tests.fuzz.targets import CORPUS, TARGETS

KEPT = Path("build/fuzz")
LONGEST = 4096
"""Bytes of an input."""
PATIENCE = 10
"""Seconds that an input may take."""
MEMORY = 2048
"""Megabytes that the process may come to hold."""


def main() -> None:
    """Fuzz as asked on the command line; the fuzzer ends the process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    target, kept = TARGETS[asked.target], KEPT / asked.target
    scratch, reached = kept / "scratch", kept / "reached"
    for folder in (scratch, reached):
        folder.mkdir(parents=True, exist_ok=True)
    words = kept / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options = {
        "max_total_time": asked.seconds,
        "max_len": LONGEST,
        "len_control": 0,
        "timeout": PATIENCE,
        "rss_limit_mb": MEMORY,
        "dict": words,
        "artifact_prefix": f"{kept}/",
        "print_final_stats": 1,
    }
    given = [f"-{name}={value}" for name, value in options.items()]
    folders = [str(reached), str(CORPUS / asked.target)]

    def run(raw: bytes) -> None:  # whether it was read is all the same here
        target.run(raw, scratch)

    atheris.Setup([sys.argv[0], *given, *folders], run)
    atheris.Fuzz()


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    main()
