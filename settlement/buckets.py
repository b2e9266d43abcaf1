"""Where the rows of a log went: sums over the buckets that they were counted into."""

from collections.abc import Mapping


def in_month(rows: Mapping[str, int]) -> int:
    """Return how many rows lie in the month for certain."""
    return rows["read"] - rows["outside_month"] - rows["rejected.missing_timestamp"]


def rejected(rows: Mapping[str, int]) -> int:
    """Return how many rows of the month were rejected."""
    kept = sum(count for bucket, count in rows.items() if bucket.startswith("rejected."))
    return kept - rows["rejected.missing_timestamp"]
