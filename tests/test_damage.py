"""Files damaged bit by bit: the same count, or a refusal that names the file.

One in so many of the cases that ``make faults-input`` runs through.
"""

import pytest

from tests.damage import ALLOWED, WRITERS, sweep


@pytest.mark.parametrize(
    ("writer", "area", "step"),
    [
        *[(writer, "footer", 71) for writer in WRITERS],
        *[(writer, "end", 97) for writer in WRITERS],
        ("arrow", "pages", 101),
        ("plain", "pages", 257),
    ],
)
def test_damage_is_harmless_or_refused(writer: str, area: str, step: int) -> None:
    kinds = set()
    for damage, outcome in sweep(writer, area, step):
        assert outcome.kind in ALLOWED[writer, area], (damage.label, outcome)
        kinds.add(outcome.kind)
    assert "refused" in kinds
