"""The planner: whatever is asked, following its advice ends with everything here, each byte once."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.cache.plan import Lane, next_span, span_length
from mirror.oci.ranges import Span

gaps = st.lists(st.integers(0, 100), min_size=2, max_size=10, unique=True).map(
    lambda cuts: [Span(a, b) for a, b in zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False)]
)


def without(missing: list[Span], taken: Span) -> list[Span]:
    """What is left of the gaps; `taken` must lie in one of them."""
    (gap,) = (each for each in missing if each.start <= taken.start and taken.stop <= each.stop)
    rest = [Span(gap.start, taken.start), Span(taken.stop, gap.stop)]
    return sorted([each for each in missing if each != gap] + [each for each in rest if each.length])


@given(gaps, st.lists(st.integers(0, 120), max_size=4), st.integers(1, 4), st.data())
def test_following_the_plan_fetches_every_byte_once(
    missing: list[Span], wanted: list[int], level: int, data: st.DataObject
) -> None:
    """Several lanes that end in any order: each has bytes that are missing and nobody else's."""
    lanes: list[Lane[str]] = []
    left = list(missing)
    while left:
        size = sum(gap.length for gap in left)
        while len(lanes) < level:
            span = next_span(left, lanes, wanted, span_length(size, level, 0, 7), 7)
            if span is None:
                break
            assert span.length > 0
            ends = {gap.stop for gap in left} | {lane.start for lane in lanes}
            assert span.stop % 7 == 0 or span.stop in ends, (
                "the next span would begin in the middle of a chunk"
            )
            assert not any(span.start < lane.stop and lane.start < span.stop for lane in lanes)
            lanes.append(Lane("source", span.start, span.stop, 0.0))
        assert lanes, "bytes are missing and nobody brings them"
        ended = lanes.pop(data.draw(st.integers(0, len(lanes) - 1)))
        left = without(left, Span(ended.start, ended.stop))
