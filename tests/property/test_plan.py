"""The planner: whatever is asked, following its advice ends with everything here, each byte once."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.cache.plan import next_range
from mirror.oci.ranges import Span

gaps = st.lists(st.integers(0, 100), min_size=2, max_size=10, unique=True).map(
    lambda cuts: [Span(a, b) for a, b in zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False)]
)


@given(gaps, st.lists(st.integers(0, 120), max_size=4))
def test_following_the_plan_fetches_every_byte_once(missing: list[Span], wanted: list[int]) -> None:
    """Each range is one that is missing, and in the end none is."""
    left = list(missing)
    fetched = 0
    while (span := next_range(left, wanted)) is not None:
        left.remove(span)
        fetched += span.length
    assert left == []
    assert fetched == sum(span.length for span in missing)
