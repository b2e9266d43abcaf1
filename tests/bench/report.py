"""The comparison as a table for people and as Markdown for the README."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.measure import Spread

PEERS = ("duckdb", "polars", "duckdb-exact")
_NAMES = {"duckdb": "DuckDB", "polars": "Polars", "duckdb-exact": "DuckDB by the rule"}
Record = Mapping[str, Any]


def heading(result: Record) -> str:
    """Return where, when and with what the figures were taken."""
    machine, versions = result["machine"], result["versions"]
    cores = f"{machine['used_cores']} of {machine['cores']} cores"
    memory = f"{machine['memory'] / 2**30:.0f} GiB"
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{result['when'][:10]}, {machine['cpu']}, {cores}, {memory}, {machine['system']}\n"
        f"{libraries}\n"
        f"{result['threads']} threads each; median of {result['runs']} interleaved runs; whole "
        f"processes, start-up included; files in the page cache"
    )


def shown(case: Record) -> str:
    """Return a case as lines of text; ``×`` is a contestant's figure by that of the first."""
    lines = ["", f"{case['title']}{_of_log(case)}"]
    heads = ("", "CPU s", "±", "wall s", "±", "peak GB", "CPU ×", "wall ×")
    rows = [heads, *(_row(name, case) for name in case["contestants"])]
    widths = [max(len(row[n]) for row in rows) for n in range(len(heads))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(["  " + row[0].ljust(widths[0]), *cells]))
    lines += [f"  {line}" for line in _remarks(case)]
    return "\n".join(lines)


def _of_log(case: Record) -> str:
    log = case["log"]
    if not log:
        return ""
    return (
        f": {log['rows']:,} rows, {log['bytes'] / 1e6:,.0f} MB {log['codec']} in {log['files']} "
        f"files, {log['ids']} ids, {log['accounts']:,} accounts"
    )


def _row(name: str, case: Record) -> tuple[str, ...]:
    first = next(iter(case["contestants"].values()))
    each = case["contestants"][name]
    cpu, wall = Spread.of(each["cpu"]), Spread.of(each["wall"])
    return (
        _NAMES.get(name, name),
        f"{cpu.median:.2f}",
        f"{cpu.half:.2f}",
        f"{wall.median:.2f}",
        f"{wall.half:.2f}",
        f"{max(each['peak']) / 1e9:.2f}",
        f"{cpu.median / Spread.of(first['cpu']).median:.2f}",
        f"{wall.median / Spread.of(first['wall']).median:.2f}",
    )


def _remarks(case: Record) -> list[str]:
    remarks = []
    found = case["found"]
    if case["equal"] > 1:
        remarks.append(
            f"same result from {case['equal']}: {found['lines']:,} lines of usage, "
            f"{found['calls']:,} calls"
        )
    remarks += _limits(case)
    against = best(case)
    if against:
        remarks.append(
            f"the better peer by settlement: {against[0]:.2f} CPU, {against[1]:.2f} wall"
        )
    return remarks


def _limits(case: Record) -> list[str]:
    limits = [each["told"].get("memory_limit") for each in case["contestants"].values()]
    return [f"DuckDB's memory limit: {limit}" for limit in limits if limit]


def best(case: Record) -> tuple[float, float] | None:
    """Return how many times the least figures of the peers are those of settlement: CPU, wall."""
    contestants = case["contestants"]
    peers = [contestants[name] for name in PEERS if name in contestants]
    if not peers or "settlement" not in contestants:
        return None
    ours = contestants["settlement"]
    cpu, wall = (
        min(Spread.of(peer[what]).median for peer in peers) / Spread.of(ours[what]).median
        for what in ("cpu", "wall")
    )
    return cpu, wall


def markdown(result: Record) -> str:
    """Return all cases as Markdown: one table of comparisons, one of the rest."""
    cases = result["cases"].values()
    compared = [case for case in cases if best(case)]
    lines = [heading(result).replace("\n", "  \n"), ""]
    if compared:
        lines += _table(
            ("work", "MB", "settlement", "DuckDB", "Polars", "floor", "CPU ×", "wall ×"),
            [_compared(case) for case in compared],
        )
        lines += ["", "CPU s / wall s / peak GB; × is the better peer's figure by settlement's."]
        lines += sorted({f"{limit}." for case in compared for limit in _limits(case)})
    others = [
        (case["title"] if case["title"] != name else name, _NAMES.get(name, name), *_figures(each))
        for case in cases
        if not best(case)
        for name, each in case["contestants"].items()
    ]
    if others:
        lines += ["", *_table(("work", "what", "CPU s", "wall s", "peak GB"), others)]
    return "\n".join(lines) + "\n"


def _compared(case: Record) -> tuple[str, ...]:
    contestants = case["contestants"]
    cells = []
    for names in (("settlement",), ("duckdb", "duckdb-exact"), ("polars",), ("floor",)):
        each = next((contestants[name] for name in names if name in contestants), None)
        cells.append(" / ".join(_figures(each)) if each else "")
    cpu, wall = best(case) or (0.0, 0.0)
    rows = case["log"]["rows"] / 1e6
    size = f"{case['log']['bytes'] / 1e6:,.0f}"
    return (f"{rows:g} M, {case['title']}", size, *cells, f"{cpu:.1f}", f"{wall:.1f}")


def _figures(each: Record) -> tuple[str, str, str]:
    cpu, wall = Spread.of(each["cpu"]).median, Spread.of(each["wall"]).median
    return f"{cpu:.2f}", f"{wall:.2f}", f"{max(each['peak']) / 1e9:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---"] + ["---:" for _ in heads[1:]]
    return ["| " + " | ".join(row) + " |" for row in (heads, ruler, *rows)]
