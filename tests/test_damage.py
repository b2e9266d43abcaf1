"""Files damaged bit by bit: the same count, or a refusal that names the file.

One in so many of the cases that ``make faults-input`` runs through.
"""

import pytest

from tests.damage import ALLOWED, WRITERS, flips, footer_start, outcomes, sound, sweep


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


@pytest.mark.parametrize("at", [243, 351])
def test_a_code_beyond_its_dictionary_is_no_bug(at: int) -> None:
    """Arrow passes such codes on where pages have no checksums."""
    raw = sound("indexed")
    kinds = {outcome.kind for _, outcome in outcomes(raw, flips(raw, at, at + 1), quick=True)}
    assert kinds <= ALLOWED["indexed", "pages"]
    assert "refused" in kinds


@pytest.mark.parametrize("writer", ["plain", "duckdb"])
def test_a_type_that_became_a_scale_is_noticed(writer: str) -> None:
    """One bit of the field's number makes of text bytes, whose rejects would be shown as hex."""
    raw = sound(writer)
    at = raw.index(b"request_id", footer_start(raw)) + len("request_id")
    damages = list(flips(raw, at, at + 1))[1:7]  # the others make a field of the future
    assert {outcome.kind for _, outcome in outcomes(raw, damages, quick=True)} == {"refused"}
