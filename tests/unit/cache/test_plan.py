"""What to fetch next."""

import pytest

from mirror.cache.plan import next_range
from mirror.oci.ranges import Span

GAPS = [Span(10, 20), Span(40, 60), Span(90, 100)]


@pytest.mark.parametrize(
    ("missing", "wanted", "expected"),
    [
        ([], [5], None),
        (GAPS, [], Span(10, 20)),
        (GAPS, [0], Span(10, 20)),
        (GAPS, [45], Span(40, 60)),
        (GAPS, [95, 45], Span(40, 60)),
        (GAPS, [20], Span(40, 60)),
        (GAPS, [100], Span(10, 20)),
    ],
)
def test_the_reader_that_runs_dry_first_is_served_first(
    missing: list[Span], wanted: list[int], expected: Span | None
) -> None:
    """The gap that holds the first wanted byte that is not here; without readers the first gap."""
    assert next_range(missing, wanted) == expected
