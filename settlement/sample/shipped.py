"""The logs that this repository shows itself with: two small months, and a large one."""

from collections.abc import Callable
from pathlib import Path

from settlement.month import Month
from settlement.sample.calls import Quota
from settlement.sample.writing import SampleSummary, write_sample


def write_shipped(out: Path) -> list[SampleSummary]:
    """Write the two months this repository ships: the document's rules at work on small numbers.

    0100000042 is charged 10 001 face comparisons in January, one above the free band (28.80), and
    10 000 in February, the last free one. 0100000050 leaves after January and 0100000060 comes in
    February, both in the second tier. Twelve small accounts stay in the free band.
    """
    months = {
        "2026-01": [Quota(42, "face-comparison", 10_001), Quota(50, "face-search", 10_800)],
        "2026-02": [Quota(42, "face-comparison", 10_000), Quota(60, "face-verification", 11_200)],
    }
    return [
        write_sample(
            out, Month.parse(month), 12, 24_000, 5, quotas=quotas, days_per_file=11, compact=True
        )
        for month, quotas in months.items()
    ]


def write_demo(
    out: Path, *, calls: int = 20_000_000, progress: Callable[[int], None] | None = None
) -> SampleSummary:
    """Write a log of 2026-03 in which, at its full size, the third and fourth tier are reached.

    0100009001 makes 76 % of the calls, all face detections (15 200 000: the fourth tier), and
    0100009002 16 %, all face comparisons (3 200 000: the third); 1000 accounts share the rest.
    """
    quotas = [
        Quota(9001, "face-detection", calls * 76 // 100),
        Quota(9002, "face-comparison", calls * 16 // 100),
    ]
    month = Month.parse("2026-03")
    return write_sample(out, month, 1000, calls, 2026, quotas=quotas, progress=progress)
