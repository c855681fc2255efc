"""The planner: a download that follows its plan gets every byte exactly once."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.ranges import Span
from mirror.transfer.plan import DEFAULT_LIMITS, Segment, next_span, uncovered

# Small numbers: a unit may be a byte or a megabyte.
CHUNK = 7
STEP = 0.25

gaps = st.lists(st.integers(0, 100), min_size=2, max_size=10, unique=True).map(
    lambda cuts: [Span(a, b) for a, b in zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False)]
)
offsets = st.lists(st.integers(0, 120), max_size=4)
# Units that a connection receives in one step; 0 is a hanging connection.
speeds = st.sampled_from([0, 0, 1, 2, 5, 20])


def without(missing: list[Span], taken: Span) -> list[Span]:
    """Return the gaps without `taken`, which must lie in one of them."""
    (gap,) = (each for each in missing if each.start <= taken.start and taken.stop <= each.stop)
    rest = [Span(gap.start, taken.start), Span(taken.stop, gap.stop)]
    return sorted([each for each in missing if each != gap] + [each for each in rest if each.length])


def needed(offset: int, missing: list[Span], segments: list[Segment[str]]) -> int | None:
    """Return the first byte from `offset` on that is missing and that no segment covers."""
    for unit in range(offset, 121):
        inside = any(gap.start <= unit < gap.stop for gap in missing)
        if inside and not any(segment.start <= unit < segment.stop for segment in segments):
            return unit
    return None


@dataclass
class Download:
    """A download that follows the plan, in steps of its own clock."""

    missing: list[Span]
    wanted: list[int]
    level: int
    now: float = 0.0
    arrived: list[int] = field(default_factory=list)
    segments: list[Segment[str]] = field(default_factory=list)
    given: dict[Segment[str], int] = field(default_factory=dict)

    def assign(self) -> None:
        while len(self.segments) < self.level:
            left = sum(gap.length for gap in self.missing) - sum(segment.left for segment in self.segments)
            length = DEFAULT_LIMITS.span_length(max(left, 1), self.level, 0, CHUNK)
            span = next_span(self.missing, self.segments, self.wanted, length, CHUNK)
            if span is None:
                break
            self.check(span, left)
            self.segments.append(Segment("source", span.start, span.stop, self.now))

    def check(self, span: Span, left: int) -> None:
        assert span.length > 0
        assert any(gap.start <= span.start and span.stop <= gap.stop for gap in self.missing)
        assert not any(span.start < segment.stop and segment.start < span.stop for segment in self.segments)
        # A chunk fills from its start, or continues at its gap.
        assert span.start % CHUNK == 0 or any(gap.start == span.start for gap in self.missing)
        assert span.stop % CHUNK == 0 or any(gap.stop == span.stop for gap in self.missing)
        # A span has at most a fair share of the missing bytes, so that the segments share the end too.
        assert self.level == 1 or span.length <= left / (2 * self.level) + 2 * CHUNK
        ends = {gap.stop for gap in self.missing} | {segment.start for segment in self.segments}
        assert span.stop % CHUNK == 0 or span.stop in ends, "the next span would begin within a chunk"
        needs = [(needed(each, self.missing, self.segments), each) for each in self.wanted]
        found = [(unit - offset, unit) for unit, offset in needs if unit is not None]
        nearest = min(found, default=None)
        assert nearest is None or any(
            span.start <= unit < span.stop for distance, unit in found if distance == nearest[0]
        ), f"{span} is not needed by the nearest of {self.wanted}"

    def move(self, segment: Segment[str], units: int) -> None:
        units = min(units, segment.left)
        if not units:
            return
        self.arrived.extend(range(segment.offset, segment.offset + units))
        self.missing = without(self.missing, Span(segment.offset, segment.offset + units))
        segment.record(self.now, units)

    def steal(self) -> None:
        hopeless = DEFAULT_LIMITS.to_reassign(self.segments, self.now, 20 / STEP, 0.1)
        if hopeless is not None:
            self.segments.remove(hopeless)


@given(gaps, offsets, st.integers(1, 4), st.data())
def test_plan_downloads_every_byte_once(
    missing: list[Span], wanted: list[int], level: int, data: st.DataObject
) -> None:
    """Segments have any speed, hanging ones are given up, and the reader nearest to running dry is first."""
    download = Download(missing, wanted, level)
    expected = sorted(unit for gap in missing for unit in range(gap.start, gap.stop))
    steps = 0
    while download.missing:
        download.assign()
        assert download.segments, "bytes are missing and no segment covers them"
        download.now += STEP
        for segment in list(download.segments):
            # After a while all connections work again.
            speed = download.given.setdefault(segment, data.draw(speeds) if steps < 200 else 20)
            download.move(segment, speed)
            if not segment.left:
                download.segments.remove(segment)
        download.steal()
        steps += 1
        assert steps < 1000, "the download does not end"
    assert sorted(download.arrived) == expected


@given(gaps, offsets, st.integers(1, 4))
def test_plan_serves_every_reader_while_lanes_are_free(
    missing: list[Span], wanted: list[int], more: int
) -> None:
    """Every reader waits only for bytes on their way if there is a segment for each reader."""
    download = Download(missing, wanted, len(wanted) + more)
    download.assign()
    assert not any(uncovered(each, missing, download.segments) for each in wanted)


@given(st.integers(1, 10_000), st.integers(1, 16), st.floats(0, 1e4), st.integers(1, 64))
def test_span_length_is_whole_chunks_and_a_share(left: int, level: int, speed: float, chunk: int) -> None:
    """A span has one chunk at least, and not so much that the other segments would wait at the end."""
    length = DEFAULT_LIMITS.span_length(left, level, speed, chunk)
    assert length >= chunk
    assert length % chunk == 0
    assert length < left / (2 * level if level > 1 else 1) + 2 * chunk
