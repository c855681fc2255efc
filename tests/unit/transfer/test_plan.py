"""The planner: which bytes next, over how many connections, and when a connection is given up."""

import pytest

from mirror.oci.ranges import Span
from mirror.transfer import plan
from mirror.transfer.plan import (
    DEFAULT_LIMITS,
    ConcurrencyLimit,
    Segment,
    next_span,
    uncovered,
)

MIB = 1024 * 1024
CHUNK = 10
LIMITS = DEFAULT_LIMITS


def segment(
    start: int, stop: int, arrived: int = 0, first_byte: float = 0.0, last_byte: float = 0.0
) -> Segment[str]:
    """A segment that began at 0 and had received `arrived` bytes at `last_byte`."""
    made = Segment("source", start, stop, 0.0)
    if arrived:
        made.first_byte, made.last_byte, made.offset = first_byte, last_byte, start + arrived
    return made


@pytest.mark.parametrize(
    ("missing", "taken", "wanted", "expected"),
    [
        ([], [], [], None),
        ([Span(0, 100)], [], [], Span(0, 20)),
        ([Span(0, 15)], [], [], Span(0, 15)),
        ([Span(0, 100)], [(0, 100)], [0], None),
        ([Span(0, 100)], [(0, 20)], [5], Span(20, 40)),
        ([Span(0, 100)], [(20, 40)], [], Span(0, 20)),
        ([Span(0, 30)], [(10, 20)], [12], Span(20, 30)),
        ([Span(7, 30), Span(50, 60)], [], [], Span(7, 20)),
        ([Span(7, 30), Span(50, 60)], [], [55], Span(50, 60)),
        ([Span(0, 100)], [], [67], Span(60, 80)),
        ([Span(0, 100)], [(0, 20)], [5, 67], Span(60, 80)),
        ([Span(0, 100)], [(0, 20), (60, 80)], [5, 67], Span(80, 100)),
        ([Span(0, 40)], [(20, 40)], [39], Span(0, 20)),
    ],
)
def test_next_span(
    missing: list[Span], taken: list[tuple[int, int]], wanted: list[int], expected: Span | None
) -> None:
    """The reader nearest to running dry first, from its current chunk; never bytes of another segment."""
    assert next_span(missing, [segment(*each) for each in taken], wanted, 20, CHUNK) == expected


def test_uncovered_offsets() -> None:
    """A reader is left waiting only by bytes that are missing and not assigned."""
    missing = [Span(10, 100)]
    assert uncovered(50, missing, [segment(10, 50)])
    assert not uncovered(49, missing, [segment(10, 50)])
    assert not uncovered(5, missing, [])


@pytest.mark.parametrize(
    ("left", "level", "speed", "expected"),
    [
        (1000 * MIB, 1, 0, LIMITS.first_span),
        (1000 * MIB, 1, 4 * MIB, LIMITS.span_seconds * 4 * MIB),
        (1000 * MIB, 1, 500 * MIB, LIMITS.longest_span),
        (64 * MIB, 8, 500 * MIB, 4 * MIB),
        (3 * MIB, 8, 500 * MIB, MIB),
        (1, 1, 1, MIB),
    ],
)
def test_span_length(left: int, level: int, speed: float, expected: int) -> None:
    """Long on a fast connection, a fair share towards the end, whole chunks, at least one."""
    assert LIMITS.span_length(left, level, speed, MIB) == expected


def test_reassign_a_silent_segment() -> None:
    """A segment is reassigned when a fresh connection needs a fraction of a second for its rest."""
    silent = segment(0, 100, arrived=50, first_byte=0.1, last_byte=0.5)
    moving = segment(100, 200, arrived=50, first_byte=0.1, last_byte=1.9)
    assert LIMITS.to_reassign([silent, moving], 2.0, 100.0, 0.1) is silent
    assert LIMITS.to_reassign([moving], 2.0, 30.0, 0.1) is None


def test_reassign_a_slow_segment() -> None:
    """A trickle is worse than a new round trip; without a known speed nothing is reassigned."""
    slow = segment(0, 1000, arrived=10, first_byte=0.0, last_byte=1.0)
    assert LIMITS.to_reassign([slow], 1.0, 1000.0, 0.1) is slow
    assert LIMITS.to_reassign([slow], 1.0, 0.0, 0.1) is None
    assert LIMITS.to_reassign([slow], 1.0, 1000.0, 0.1, patience=1000.0) is None


def test_reassign_waits_for_the_first_byte() -> None:
    """A segment has a round trip, and some more, before its first byte."""
    waiting = segment(0, 100)
    assert LIMITS.to_reassign([waiting], 0.2, 1000.0, 0.1) is None
    assert LIMITS.to_reassign([waiting], 5.0, 1000.0, 0.1) is waiting


def test_stalled_segment_while_another_receives() -> None:
    """Given up whatever it had left; when all segments are silent, the network is, and all are kept."""
    silent = segment(0, 100, arrived=50, first_byte=0.1, last_byte=0.5)
    waiting = segment(200, 300)
    moving = segment(100, 200, arrived=50, first_byte=0.1, last_byte=1.9)
    assert LIMITS.stalled([silent, waiting, moving], 2.0, 0.1) == [silent, waiting]
    assert LIMITS.stalled([silent, waiting, moving], 2.0, 0.7) == [silent]
    assert LIMITS.stalled([silent, moving], 1.2, 0.1) == []
    assert LIMITS.stalled([silent, moving], 2.0, 0.1, patience=3.0) == []
    assert LIMITS.stalled([silent, waiting], 2.0, 0.1) == []


def test_stalled_source_with_several_segments() -> None:
    """Given up sooner than one segment would be; not while one receives, or waits for the disk."""
    silent = [segment(start, start + 100, arrived=50, first_byte=0.1, last_byte=1.4) for start in (0, 100)]
    for each in silent:
        each.source = "bad"
    moving = segment(200, 300, arrived=50, first_byte=0.1, last_byte=1.9)
    assert LIMITS.stalled([*silent, moving], 1.5 + LIMITS.common_stall_seconds, 0.1) == silent
    assert LIMITS.stalled([*silent, moving], 1.3 + LIMITS.common_stall_seconds, 0.1) == []
    assert LIMITS.stalled([silent[0], moving], 1.5 + LIMITS.common_stall_seconds, 0.1) == []
    assert LIMITS.stalled([*silent, moving], 1.5 + LIMITS.common_stall_seconds, 0.1, patience=2.0) == []
    waiting = segment(300, 400)
    waiting.source, waiting.began, waiting.last_byte = "bad", 1.3, 1.3
    assert LIMITS.stalled([*silent, moving, waiting], 1.5 + LIMITS.common_stall_seconds, 0.1) == [
        *silent,
        waiting,
    ]
    assert LIMITS.stalled([*silent, moving, waiting], 1.5 + LIMITS.common_stall_seconds, 0.3) == []
    silent[1].writing = True
    assert LIMITS.stalled([*silent, moving], 1.5 + LIMITS.common_stall_seconds, 0.1) == []


def drip(segment: Segment[str], size: int, every: float, until: float) -> None:
    """Receive pieces of `size` bytes on the segment, one every `every` seconds."""
    segment.answered = True
    now = segment.last_byte
    while (now := now + every) <= until and segment.left >= size:
        segment.record(now, size)


def test_low_speed_segment_is_given_up() -> None:
    """Even if nothing faster is known; but only after the limit's time, which grows with patience."""
    slow = segment(0, 8 * MIB)
    drip(slow, 1, 0.1, LIMITS.low_speed_seconds)
    assert LIMITS.low_speed([slow], LIMITS.low_speed_seconds) == []
    drip(slow, 1, 0.1, LIMITS.low_speed_seconds + 0.2)
    assert LIMITS.low_speed([slow], LIMITS.low_speed_seconds + 0.2) == [slow]
    assert LIMITS.low_speed([slow], LIMITS.low_speed_seconds + 0.2, patience=2.0) == []
    assert LIMITS.low_speed([slow], 2 * LIMITS.low_speed_seconds + 0.2, patience=2.0) == [slow]


def test_low_speed_segment_that_was_fast_is_given_up() -> None:
    """However much the segment has received before."""
    slow = segment(0, 8 * MIB)
    drip(slow, MIB, 0.1, 0.5)
    drip(slow, 1, 0.1, 0.5 + LIMITS.low_speed_seconds)
    assert LIMITS.low_speed([slow], 0.4 + LIMITS.low_speed_seconds) == []
    assert LIMITS.low_speed([slow], 0.6 + LIMITS.low_speed_seconds) == [slow]


@pytest.mark.parametrize("segments", [1, 8])
def test_low_speed_limit_allows_a_slow_network(segments: int) -> None:
    """20 kB/s, shared by several segments; waiting for an answer or for the disk is allowed too."""
    slow = segment(0, 8 * MIB)
    for second in range(1, 100):
        drip(slow, 1400, 1400 / (20_000 / segments), second)
        assert LIMITS.low_speed([slow], second) == []
    requested, writing = segment(0, MIB), segment(0, MIB)
    writing.answered = writing.writing = True
    assert LIMITS.low_speed([requested, writing], 100.0) == []
    assert LIMITS.low_speed_bytes < MIB


def test_segment_waiting_for_the_disk_is_kept() -> None:
    """However long: the network may be fast, and bytes received meanwhile would be requested again."""
    silent = segment(0, 100, arrived=50, first_byte=0.1, last_byte=0.5)
    moving = segment(100, 200, arrived=50, first_byte=0.1, last_byte=1.9)
    silent.writing = True
    assert LIMITS.to_reassign([silent], 2.0, 100.0, 0.1) is None
    assert LIMITS.stalled([silent, moving], 2.0, 0.1) == []


def test_event_loop_stall_is_not_silence() -> None:
    """While this process was busy, a segment was not silent, and its speed stays what it was."""
    late = segment(0, 100, arrived=50, first_byte=0.1, last_byte=0.6)
    moving = segment(100, 200, arrived=50, first_byte=0.1, last_byte=3.0)
    speed = late.speed()
    assert LIMITS.stalled([late, moving], 3.1, 0.1) == [late]
    late.shift_clock(2.4)
    assert LIMITS.stalled([late, moving], 3.1, 0.1) == []
    assert late.speed() == pytest.approx(speed)


def climb(limit: ConcurrencyLimit, rate_of: dict[int, float], seconds: float) -> int:
    """Return the level after `seconds`; `level` connections receive `rate_of[level]` bytes a second."""
    received, now = 0.0, 0.0
    for _ in range(int(seconds / 0.05)):
        now += 0.05
        received += 0.05 * rate_of[limit.level]
        limit.observe(now, int(received), limit.level)
    return limit.level


def test_concurrency_limit_grows_while_connections_pay() -> None:
    """Each connection limited by itself: up to the most."""
    assert climb(ConcurrencyLimit(8), {level: level * 1e6 for level in (1, 2, 4, 8)}, 5) == 8


def test_concurrency_limit_drops_connections_that_do_not_pay() -> None:
    """A network that one connection fills gets one; a network that four fill gets four."""
    assert climb(ConcurrencyLimit(8), dict.fromkeys((1, 2, 4, 8), 1e6), LIMITS.window * 6) == 1
    assert climb(ConcurrencyLimit(8), {1: 1e6, 2: 2e6, 4: 4e6, 8: 4e6}, LIMITS.window * 16) == 4


def test_concurrency_limit_halves_too_large_a_step() -> None:
    """A network that two connections fill gets two, though four were tried before two."""
    assert climb(ConcurrencyLimit(8), {1: 1e6, 2: 1.5e6, 4: 1.5e6, 8: 1.5e6}, LIMITS.window * 16) == 2


def test_concurrency_limit_keeps_measurements_between_spans() -> None:
    """Nothing is measured until the next span has begun; earlier measurements count."""
    limit = ConcurrencyLimit(8)
    for step in range(12):
        limit.observe(step * 0.05, step * 50_000, 0 if step % 3 == 2 else 1)
    assert limit.level == 4


def test_concurrency_limit_likely_level() -> None:
    """All that are allowed, until it is known how many pay."""
    limit = ConcurrencyLimit(8)
    assert limit.likely(0.0) == 8
    assert climb(limit, dict.fromkeys((1, 2, 4, 8), 1e6), LIMITS.window * 6) == 1
    assert (limit.likely(LIMITS.window * 6), limit.likely(LIMITS.retry_seconds + LIMITS.window * 8)) == (1, 8)


def test_concurrency_limit_tries_again_later() -> None:
    """A network that was busy may be free a moment later."""
    limit = ConcurrencyLimit(2)
    assert climb(limit, {1: 1e6, 2: 1e6}, 1.0) == 1
    received, now = 10_000_000.0, 1.0 + LIMITS.retry_seconds
    for _ in range(40):
        now += 0.05
        received += 0.05 * limit.level * 1e6
        limit.observe(now, int(received), limit.level)
    assert (limit.level, limit.proven_level) == (2, 2)


def test_concurrency_limit_of_a_busy_process() -> None:
    """More connections cannot pay where this process has no time left; connections that paid stay."""

    def level(begin: int, speed: float, free: float) -> int:
        limit, received = ConcurrencyLimit(8, begin), 0.0
        for step in range(100):
            received += limit.level * speed * 0.05
            limit.observe(step * 0.05, int(received), limit.level, worked=0.9 * max(0.0, step * 0.05 - free))
        return limit.level

    assert level(1, 2 * LIMITS.fast, 0.0) == 1
    assert level(2, 2 * LIMITS.fast, 0.2) == 4
    assert level(1, LIMITS.fast / 2, 0.0) == 8  # busy with something else
    assert level(1, 2 * LIMITS.enough, 5.0) == 1  # not measured as busy


def test_concurrency_limit_waits_for_the_first_byte() -> None:
    """A new connection needs a round trip before it can receive anything."""
    limit = ConcurrencyLimit(8)
    for step in range(100):
        limit.observe(step * 0.05, 1000 * step, 0)
    assert limit.level == 1


def test_plan_overlaps_of_a_span_with_gaps() -> None:
    gaps = [Span(0, 5), Span(10, 20)]
    assert plan.overlaps(gaps, Span(3, 12)) == [Span(3, 5), Span(10, 12)]
    assert plan.overlaps(gaps, Span(5, 10)) == []


def test_plan_appends_a_span_to_the_one_that_it_continues() -> None:
    spans: list[Span] = []
    for span in (Span(0, 5), Span(5, 7), Span(9, 10)):
        plan.append_span(spans, span)
    assert spans == [Span(0, 7), Span(9, 10)]
