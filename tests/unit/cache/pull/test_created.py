"""Creation dates: read leniently, believed only if they can be meant."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.cache.pull.created import CREATED, FIRST, date_of, parse_date


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T23:59:59Z", datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2026-01-31T23:59:59.123456789Z", datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)),
        ("2026-02-01T00:59:59+01:00", datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("1980-01-01T00:00:01Z", None),
        ("2026-01-31T23:59:59", None),
        ("2026-01-31", None),
        ("2026-13-31T23:59:59Z", None),
        ("", None),
        (None, None),
        (1769903999, None),
    ],
)
def test_date_is_read_as_it_stands_in_images(text: object, moment: datetime | None) -> None:
    assert parse_date(text) == (None if moment is None else moment.timestamp())


@given(
    st.one_of(st.text(max_size=50), st.datetimes().map(lambda each: each.isoformat() + "Z"), st.integers())
)
def test_text_from_outside_is_a_date_or_none(value: object) -> None:
    found = parse_date(value)
    assert found is None or found >= FIRST


def test_annotation_is_the_date_of_what_it_describes() -> None:
    moment = "2026-01-31T23:59:59Z"
    assert date_of({"annotations": {CREATED: moment}}) == parse_date(moment)
    unusable: list[object] = [None, [CREATED], {CREATED: {}}]
    for wrong in unusable:
        assert date_of({"annotations": wrong}) is None
    assert date_of({}) is None
