"""How numbers stand in a sentence."""


def count_of(number: int, one: str, more: str = "") -> str:
    """Write a number and what it counts: 1 row, 2,000 rows; ``more`` where no s is enough."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
