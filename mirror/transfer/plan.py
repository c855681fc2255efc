"""Range scheduling: what to fetch next, and over how many connections; decisions only, no I/O and no clock.

A *segment* is one connection's work on one span of a blob. The rules:

1. The reader nearest to running dry is served first.
2. No byte is assigned to two segments.
3. A span is long where a connection is fast, so that a request's round trip is a small part of its time, and
   short towards the end, so that all segments end together.
4. Connections are added while they pay: while the total throughput still grows (`ConcurrencyLimit`).
5. A segment that has become slow or silent gives its rest to others (`PlanLimits.to_reassign`, `stalled`).
   A segment below the low-speed limit is requested again, even where nothing better is known (`low_speed`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from mirror.oci.ranges import Span
from mirror.upstream.http.low_speed import MIN_SPEED

S = TypeVar("S")


class PlanLimits(Struct, frozen=True):
    """Thresholds of the planner, and the decisions that depend on them; times in seconds, sizes in bytes."""

    # Target duration of a span: a round trip of 150 ms is then 7 % of it.
    span_seconds: float = 2.0
    # Length of the first span of a connection whose speed is not known, and of the longest span.
    first_span: int = 8 * 1024 * 1024
    longest_span: int = 64 * 1024 * 1024

    # Share of its fair part that each added connection must bring: twice the connections, a quarter more.
    min_gain: float = 0.25
    # Factor of the first step up from one connection. Every blob begins with one connection, however slow
    # that is, and a client that goes to the registry itself has three or more.
    first_step: int = 4
    # Length of the windows over which throughput is compared. Shorter ones measure the scheduler.
    window: float = 0.15
    # Pause before more connections are tried again after they did not pay.
    retry_seconds: float = 3.0
    # No connection is added where this process is busy for this share of the time and each connection brings
    # this many bytes a second: the network is not the bottleneck then. A slower connection is slow whatever
    # else this process is busy with.
    busy_share: float = 0.8
    fast: int = 48 * 1024 * 1024
    # Nor where one connection brings this many bytes a second: two such connections are about all that one
    # process can write and verify.
    enough: int = 128 * 1024 * 1024

    # A segment is reassigned when it would need this many times as long as a fresh connection.
    slowdown: float = 2.0
    # Time before anything is concluded from a delay: every network loses packets and resends them.
    grace: float = 0.6
    # A segment that has been silent is expected to stay silent for this many times as long.
    silence_factor: float = 2.0
    # Silence after which a segment is given up while another one still receives: longer than a lost packet
    # mostly takes, and requesting the rest elsewhere costs a round trip or two.
    stall_seconds: float = 0.75
    # The same where all of several segments of a source are silent at once, which no lost packet explains.
    common_stall_seconds: float = 0.4
    # A segment that received bytes within this time is not silent.
    recent_seconds: float = 0.5
    # Low-speed limit (mirror.upstream.http.low_speed): the time in which a segment must receive this many
    # bytes. A new request costs a round trip; if it was no better, the next one has twice as long, so that a
    # network on which nothing better can be had is soon accepted as it is.
    low_speed_seconds: float = 10.0
    low_speed_bytes: int = 10 * MIN_SPEED
    # Factor on patience with the only segment of the only source: nothing shows that another would be better.
    alone_patience: float = 8.0
    # Factor on patience with all segments while this process is busy: received bytes may wait to be read.
    busy_patience: float = 4.0

    def span_length(self, left: int, level: int, speed: float, chunk_size: int) -> int:
        """Return the number of bytes that one request should be for, in whole chunks.

        `left`: missing bytes in all; `level`: connections that share them; `speed`: of one connection, in
        bytes a second, 0 if unknown.
        """
        wished = self.wished_length(speed)
        fair = left if level == 1 else left / (2 * level)
        chunks = -(-int(min(wished, fair, self.longest_span)) // chunk_size)
        return max(1, chunks) * chunk_size

    def wished_length(self, speed: float) -> float:
        """Return the bytes of a span while much is missing; `speed` as for `span_length`."""
        return speed * self.span_seconds if speed else self.first_span

    def concurrency(self, most: int, level: int) -> "Concurrency":
        """Return the number of connections of a download that begins with `level` of them."""
        return ConcurrencyLimit(most, level, self)

    def to_reassign(
        self,
        segments: Iterable["Segment[S]"],
        now: float,
        speed: float,
        latency: float,
        patience: float = 1.0,
    ) -> "Segment[S] | None":
        """Return the segment whose rest a fresh connection would bring much sooner; None if there is none.

        `speed` and `latency` are expected of a fresh connection; `patience` grows with each segment that was
        reassigned without a gain. Segments that are writing are skipped: bytes that they have received
        meanwhile would be transferred twice. New segments are skipped: their speed is not known yet.
        """
        if speed <= 0:
            return None
        worst, longest = None, 0.0
        for segment in (each for each in segments if not each.writing and not self._is_new(each, now)):
            fresh = latency + segment.left / speed
            rest = self._expected(segment, now, fresh)
            if rest > patience * (self.slowdown * fresh + self.grace + latency) and rest > longest:
                worst, longest = segment, rest
        return worst

    def stalled(
        self, segments: Sequence["Segment[S]"], now: float, latency: float, patience: float = 1.0
    ) -> list["Segment[S]"]:
        """Return the segments that have been silent for long while others show that the network works.

        `latency` and `patience` as for `to_reassign`.
        """
        if not any(
            segment.first_byte is not None and now - segment.last_byte < self.recent_seconds
            for segment in segments
        ):
            return []
        start_up = 2 * latency  # a response needs a round trip, and a new connection some more
        common = _silent_sources(segments, now - patience * self.common_stall_seconds, latency)
        limit = patience * self.stall_seconds
        return [
            segment
            for segment in segments
            if not segment.writing
            and (
                segment in common
                or now - segment.last_byte > limit + (start_up if segment.first_byte is None else 0.0)
            )
        ]

    def low_speed(
        self, segments: Iterable["Segment[S]"], now: float, patience: float = 1.0
    ) -> list["Segment[S]"]:
        """Return the segments that have been below the low-speed limit for long, whatever others do.

        `patience` as for `to_reassign`.
        """
        limit = patience * self.low_speed_seconds
        return [
            segment
            for segment in segments
            if segment.answered and not segment.writing and now - segment.progress_time > limit
        ]

    def _is_new(self, segment: "Segment[S]", now: float) -> bool:
        """Return whether the first byte came too short a time ago to tell the speed."""
        return segment.first_byte is not None and now - segment.first_byte < self.grace

    def _expected(self, segment: "Segment[S]", now: float, fresh: float) -> float:
        """Return the expected seconds for a segment's rest; `fresh`: the same on a healthy connection."""
        silence, speed = now - segment.last_byte, segment.speed()
        return segment.left / speed + self.silence_factor * silence if speed else fresh + silence


DEFAULT_LIMITS = PlanLimits()


class Segment(Struct, Generic[S], eq=False):
    """One connection to `source` for the bytes from `start` to `stop`; times in seconds of one clock."""

    source: S
    start: int
    stop: int
    began: float
    offset: int = 0  # end of the bytes that have been received
    ranged: bool = False  # a range was asked for, not the whole blob
    rest: bool = False  # no client has asked for these bytes
    requested: bool = False  # the source has a free slot, and the request is on its way
    answered: bool = False
    writing: bool = False  # waiting for the disk, not for the network
    first_byte: float | None = None  # when the first byte was received
    last_byte: float = 0.0  # when the last byte was received
    progress_offset: int = 0  # `offset` when the low-speed limit was last met
    progress_time: float = 0.0  # and the time of that

    def __post_init__(self) -> None:
        self.offset = self.progress_offset = self.start
        self.last_byte = self.progress_time = self.began

    @property
    def left(self) -> int:
        return self.stop - self.offset

    def speed(self) -> float:
        """Return the bytes a second until the last byte; 0 before anything is known."""
        if self.first_byte is None or self.last_byte <= self.first_byte:
            return 0.0
        return (self.offset - self.start) / (self.last_byte - self.first_byte)

    def shift_clock(self, seconds: float) -> None:
        """Move all times by a stall of the event loop, so that the stall is not taken for silence."""
        self.began += seconds
        self.last_byte += seconds
        self.progress_time += seconds
        if self.first_byte is not None:
            self.first_byte += seconds

    def record(self, now: float, length: int, progress: int = DEFAULT_LIMITS.low_speed_bytes) -> None:
        """Count `length` more bytes as received; `progress`: bytes that meet the low-speed limit."""
        if self.first_byte is None:
            self.first_byte = now
        self.offset += length
        self.last_byte = now
        if self.offset - self.progress_offset >= progress:
            self.progress_offset, self.progress_time = self.offset, now


def next_span(
    missing: Sequence[Span],
    segments: Iterable[Segment[S]],
    wanted: Iterable[int],
    length: int,
    chunk_size: int,
) -> Span | None:
    """Return the span for a free connection; None when all missing bytes are assigned.

    `missing`: the gaps, in order; `wanted`: the offsets at which readers wait; `length`: bytes to request.
    """
    free = list(_without(missing, sorted((segment.start, segment.stop) for segment in segments)))
    if not free:
        return None
    start, gap = min(
        (_nearest(free, offset, chunk_size) for offset in [*wanted] or [0]), key=lambda found: found[0]
    )[1]
    return bounded(start, gap.stop, length, chunk_size)


def bounded(start: int, stop: int, length: int, chunk_size: int) -> Span:
    """Return the first `length` bytes from `start`, cut back to the end of a chunk, but at least one chunk.

    The segment that continues there then begins a chunk. Where `length` reaches `stop`, the span ends there.
    """
    end = start + length
    return Span(start, stop if end >= stop else end - end % chunk_size)


def uncovered(offset: int, missing: Sequence[Span], segments: Iterable[Segment[S]]) -> bool:
    """Return whether a reader waits at `offset` for a byte that is missing and not assigned."""
    if not any(gap.start <= offset < gap.stop for gap in missing):
        return False
    return not any(segment.start <= offset < segment.stop for segment in segments)


def overlaps(gaps: Iterable[Span], span: Span) -> list[Span]:
    """Return the parts of `span` that lie in the gaps, in order."""
    found = [Span(max(gap.start, span.start), min(gap.stop, span.stop)) for gap in gaps]
    return [each for each in found if each.length > 0]


def append_span(spans: list[Span], span: Span) -> None:
    """Append a span to a list in order, merged with the last one if it continues that."""
    if spans and spans[-1].stop == span.start:
        span = Span(spans.pop().start, span.stop)
    spans.append(span)


class Concurrency(Protocol):
    """The number of connections of one download, see `ConcurrencyLimit`."""

    @property
    def level(self) -> int: ...

    @property
    def proven_level(self) -> int: ...

    def observe(self, now: float, received: int, flowing: int, worked: float = 0.0) -> None: ...

    def likely(self, now: float) -> int: ...


class ConcurrencyLimit:
    """Number of connections to have: `level` grows while growth pays, and is taken back when it does not."""

    def __init__(self, most: int, level: int = 1, limits: PlanLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self.most = max(1, most)
        self.level = max(1, min(level, self.most))
        self._previous: tuple[float, int, float] | None = None  # time, bytes and work at the last observation
        self._seconds = self._bytes = self._worked = 0.0  # while all connections received
        self._base_rate = 0.0  # bytes a second at `_base`
        self._base = 0  # the level that `_base_rate` was measured at; 0 for none
        self._hold_until = 0.0

    def observe(self, now: float, received: int, flowing: int, worked: float = 0.0) -> None:
        """Take note of `received` bytes in all, over `flowing` connections that receive at this moment.

        `worked`: seconds so far in which this process could not have done more.
        """
        if self.level >= self.most and not self._base:
            return
        before, self._previous = self._previous, (now, received, worked)
        if flowing < self.level or now < self._hold_until:
            self._previous = None  # a segment has ended and the next one has not begun: not representative
        elif before is not None:
            self._seconds += now - before[0]
            self._bytes += received - before[1]
            self._worked += worked - before[2]
            if self._seconds >= self._limits.window:
                self._adjust(now)

    @property
    def proven_level(self) -> int:
        """The level that has been seen to pay."""
        return self._base or self.level

    def likely(self, now: float) -> int:
        """Return the number of connections that there may soon be."""
        return self.level if now < self._hold_until else self.most

    def _adjust(self, now: float) -> None:
        rate = self._bytes / self._seconds
        busy = self._worked > self._limits.busy_share * self._seconds
        enough = rate > self.level * (self._limits.fast if busy else self._limits.enough)
        paid = not self._base or rate >= self._base_rate * (
            1 + self._limits.min_gain * (self.level / self._base - 1)
        )
        if paid and not enough:
            self._base, self._base_rate = self.level, rate
            self._set_level(self.level * (self._limits.first_step if self.level == 1 else 2))
        elif not paid and self.level // 2 > self._base:
            self._set_level(self.level // 2)  # the step was too large: try half of it
        else:
            self._set_level(self.level if paid else self._base)
            self._base, self._hold_until = 0, now + self._limits.retry_seconds

    def _set_level(self, level: int) -> None:
        self.level = min(level, self.most)
        if self.level == self._base:
            self._base = 0
        self._previous = None
        self._seconds = self._bytes = self._worked = 0.0


def _silent_sources(segments: Sequence[Segment[S]], since: float, latency: float) -> set[Segment[S]]:
    """Return all segments of sources with several, of which some have received bytes, and none since then."""
    by_source: dict[S, list[Segment[S]]] = defaultdict(list)
    for segment in segments:
        by_source[segment.source].append(segment)

    def silent(segment: Segment[S]) -> bool:
        if segment.writing:
            return False
        return segment.last_byte < since - (latency if segment.first_byte is None else 0.0)

    return {
        segment
        for each in by_source.values()
        if len(each) > 1
        and any(segment.first_byte is not None for segment in each)
        and all(map(silent, each))
        for segment in each
    }


def _without(missing: Sequence[Span], taken: Sequence[tuple[int, int]]) -> Iterable[Span]:
    for gap in missing:
        start = gap.start
        for first, stop in taken:
            if stop <= start or first >= gap.stop:
                continue
            if first > start:
                yield Span(start, first)
            start = max(start, stop)
        if start < gap.stop:
            yield Span(start, gap.stop)


def _nearest(free: Sequence[Span], offset: int, chunk_size: int) -> tuple[int, tuple[int, Span]]:
    """Return the distance from a reader at `offset` to the nearest unassigned bytes, and their start and gap.

    In the middle of a gap the start is that of the chunk that has the offset: a chunk fills from its start.
    """
    for gap in free:
        if offset < gap.stop:
            start = max(gap.start, offset - offset % chunk_size)
            return max(0, start - offset), (start, gap)
    return offset, (free[0].start, free[0])
