"""Kinds of values: what each takes, and what is said to the others."""

import pytest
from pydantic import TypeAdapter, ValidationError

from mirror.config.types import Amount, Room, Span, reason


@pytest.mark.parametrize(
    ("given", "of_a_thousand"),
    [("0", 0), (500, 500), ("1KiB", 1024), ("80%", 800), ("12.5%", 125), (Amount(7), 7)],
)
def test_room_is_an_amount_or_a_share(given: object, of_a_thousand: int) -> None:
    """Bytes in any unit, or percent of the file system."""
    assert TypeAdapter(Room).validate_python(given).of(1000) == of_a_thousand


@pytest.mark.parametrize("given", ["0%", "101%", "-5%", "5 %%", "much", "%", True])
def test_other_amounts_are_refused(given: object) -> None:
    """With an example of what would be right."""
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Room).validate_python(given)
    said = reason(error.value.errors()[0])
    assert "for instance 50GiB" in said or "not true or false" in said


@pytest.mark.parametrize(("given", "seconds"), [("forever", float("inf")), (5, 5.0), ("1.5", 1.5)])
def test_spans_may_be_for_ever(given: object, seconds: float) -> None:
    """In a word, because TOML has no number for it that people would write."""
    adapter: TypeAdapter[float] = TypeAdapter(Span)
    assert adapter.validate_python(given) == seconds
    assert adapter.dump_python(seconds, mode="json") == ("forever" if given == "forever" else seconds)
