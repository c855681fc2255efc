"""What to fetch next, and over how many connections: decisions only, no I/O and no clock.

A *lane* is one connection that brings one span. The rules:

1. The reader nearest to running dry is served first.
2. No byte is given to two lanes.
3. A span is long where a connection is fast, so that a request's round trip is a small part of it, and
   short towards the end, so that all lanes end together.
4. Connections are added while they pay: while the sum of what arrives still grows (`Ramp`).
5. A lane that has become slow, or silent, gives its rest to others (`to_steal`, `stalled`); one that drips is
   asked for again, whether anything better is known or not (`dripping`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirror.oci.ranges import Span
from mirror.upstream.http.low_speed import SLOWEST

S = TypeVar("S")

# How long a span should take, in seconds: a round trip of 150 ms is then 7 % of it.
SPAN_SECONDS = 2.0
# The span of a connection whose speed is not known, and the longest one, in bytes.
FIRST_SPAN = 8 * 1024 * 1024
LONGEST_SPAN = 64 * 1024 * 1024

# How much of its share each added connection must bring: twice the connections, a quarter more bytes.
WORTH = 0.25
# From one connection to so many at once: one is what all begin with, however slow it is, and a client that
# goes to the registry itself has three or more.
FIRST_STEP = 4
# What arrives is compared over windows of this length, in seconds. Shorter ones measure the scheduler.
WINDOW = 0.15
# After connections turned out not to pay, this long passes before it is tried again, in seconds.
SETTLED = 3.0
# Where this much of the time is work of ours, and each connection brings that many bytes a second, the lines
# are not what is slow, and no connection is added. A slower one is slow whatever else we are busy with.
BUSY = 0.8
FAST = 48 * 1024 * 1024
# Nor where one connection brings this many: two such are about all that one process can write and verify.
ENOUGH = 128 * 1024 * 1024

# A lane is robbed when it would need this many times as long as a fresh connection.
HOPELESS = 2.0
# Below this nothing is concluded, in seconds: packets are lost and sent again on every line.
GRACE = 0.6
# A lane that has been silent is expected to be silent for this many times as long.
SILENCE = 2.0
# A lane that has been silent for this long is given up while another one is not, in seconds: that is longer
# than a lost packet mostly takes, and asking for the rest elsewhere costs a round trip or two.
STALLED = 0.75
# And so long while all of a source's are silent at once, if there are several: that is no lost packet.
TOGETHER = 0.4
# What was heard of within this time is not silent, in seconds.
HEARD = 0.5
# How long a lane has to bring as much as is worth waiting for (mirror.upstream.progress), in seconds, and how
# much that is. Asked for again it costs a round trip; if that was in vain, the next one has twice as long, so
# that a line on which nothing better is to be had is soon left alone.
DRIP = 10.0
LITTLE = int(SLOWEST * DRIP)
# How much more patient to be with a lane that is all there is: nothing shows that another would do better.
ALONE = 8.0
# And with all of them while this process is busy: what they have brought may wait here to be taken.
STRAINED = 4.0


@dataclass(eq=False, slots=True)
class Segment(Generic[S]):
    """One connection to `source` for the bytes from `start` to `stop`; times in seconds of one clock."""

    source: S
    start: int
    stop: int
    began: float
    offset: int = 0  # what has arrived ends here
    asked: bool = False  # its turn has come, and the request is on its way
    answered: bool = False
    writing: bool = False  # it is the disk that is waited for
    first: float | None = None  # when the first byte came
    last: float = 0.0  # when the last one did
    mark: int = 0  # what had arrived when enough had come to go on waiting
    marked: float = 0.0  # and when that was

    def __post_init__(self) -> None:
        self.offset = self.mark = self.start
        self.last = self.marked = self.began

    @property
    def left(self) -> int:
        return self.stop - self.offset

    def speed(self) -> float:
        """Bytes a second until the last byte; 0 before anything is known."""
        if self.first is None or self.last <= self.first:
            return 0.0
        return (self.offset - self.start) / (self.last - self.first)

    def is_new(self, now: float) -> bool:
        """Whether it began to bring bytes too short a time ago to say how fast."""
        return self.first is not None and now - self.first < GRACE

    def excuse(self, seconds: float) -> None:
        """For so long nobody looked: what it may have brought meanwhile was not taken."""
        self.began += seconds
        self.last += seconds
        self.marked += seconds
        if self.first is not None:
            self.first += seconds

    def moved(self, now: float, length: int) -> None:
        """`length` bytes more are here."""
        if self.first is None:
            self.first = now
        self.offset += length
        self.last = now
        if self.offset - self.mark >= LITTLE:
            self.mark, self.marked = self.offset, now


def next_span(
    missing: Sequence[Span],
    segments: Iterable[Segment[S]],
    wanted: Iterable[int],
    length: int,
    chunk_size: int,
) -> Span | None:
    """What a free connection should bring; None when all that is missing is on its way.

    `missing` are the gaps in order, `wanted` the offsets readers wait at, `length` how much to ask for.
    """
    free = list(_without(missing, sorted((segment.start, segment.stop) for segment in segments)))
    if not free:
        return None
    start, gap = min(
        (_nearest(free, offset, chunk_size) for offset in [*wanted] or [0]), key=lambda found: found[0]
    )[1]
    return bounded(start, gap.stop, length, chunk_size)


def bounded(start: int, stop: int, length: int, chunk_size: int) -> Span:
    """The first `length` bytes from `start` on, at least a chunk, or a little less: up to a chunk's end, so
    that the lane that goes on from there begins a chunk. Everything up to `stop` where that is not more.
    """
    end = start + length
    return Span(start, stop if end >= stop else end - end % chunk_size)


def uncovered(offset: int, missing: Sequence[Span], segments: Iterable[Segment[S]]) -> bool:
    """Whether a reader waits at `offset` for what no lane is about to bring."""
    if not any(gap.start <= offset < gap.stop for gap in missing):
        return False
    return not any(segment.start <= offset < segment.stop for segment in segments)


def span_length(left: int, level: int, speed: float, chunk_size: int) -> int:
    """How many bytes one request should be for, in whole chunks.

    `left` bytes are missing in all, `level` connections share them, `speed` is one connection's in bytes a
    second, 0 if unknown.
    """
    wished = speed * SPAN_SECONDS if speed else FIRST_SPAN
    fair = left if level == 1 else left / (2 * level)
    chunks = -(-int(min(wished, fair, LONGEST_SPAN)) // chunk_size)
    return max(1, chunks) * chunk_size


def to_reassign(
    segments: Iterable[Segment[S]], now: float, speed: float, latency: float, patience: float = 1.0
) -> Segment[S] | None:
    """The lane whose rest a fresh connection would bring much sooner; None if there is none.

    `speed` and `latency` are what a fresh connection can be expected to have; `patience` grows with what
    was stolen in vain. What a lane that is writing has brought besides would come twice, and what one that
    has just begun brings says nothing yet.
    """
    if speed <= 0:
        return None
    worst, longest = None, 0.0
    for segment in (each for each in segments if not each.writing and not each.is_new(now)):
        fresh = latency + segment.left / speed
        rest = _expected(segment, now, fresh)
        if rest > patience * (HOPELESS * fresh + GRACE + latency) and rest > longest:
            worst, longest = segment, rest
    return worst


def stalled(
    segments: Sequence[Segment[S]], now: float, latency: float, patience: float = 1.0
) -> list[Segment[S]]:
    """The lanes that have been silent for long, while others show that it is not the line.

    `latency` and `patience` as for `to_steal`.
    """
    if not any(segment.first is not None and now - segment.last < HEARD for segment in segments):
        return []
    begin = 2 * latency  # an answer needs a round trip, and a new connection some
    together = _silent_together(segments, now - patience * TOGETHER, latency)
    return [
        segment
        for segment in segments
        if not segment.writing
        and (
            segment in together
            or now - segment.last > patience * STALLED + (begin if segment.first is None else 0.0)
        )
    ]


def dripping(segments: Iterable[Segment[S]], now: float, patience: float = 1.0) -> list[Segment[S]]:
    """The lanes that have brought next to nothing for long, whatever others do.

    `patience` as for `to_steal`.
    """
    return [
        segment
        for segment in segments
        if segment.answered and not segment.writing and now - segment.marked > patience * DRIP
    ]


class ConcurrencyLimit:
    """How many connections to have: `level` grows while that pays, and is taken back when it does not."""

    def __init__(self, most: int, level: int = 1) -> None:
        self.most = max(1, most)
        self.level = max(1, min(level, self.most))
        self._seen: tuple[float, int, float] | None = None  # time, bytes and work, at the last look
        self._seconds = self._bytes = self._worked = 0.0  # while all of them brought bytes
        self._rate = 0.0  # at the level before
        self._base = 0  # the level that `_rate` was measured at; 0 for none
        self._quiet_until = 0.0

    def observe(self, now: float, received: int, flowing: int, worked: float = 0.0) -> None:
        """`received` bytes in all so far, over `flowing` connections that bring bytes at this moment.

        `worked`: seconds so far in which this process could not have done more.
        """
        if self.level >= self.most and not self._base:
            return
        before, self._seen = self._seen, (now, received, worked)
        if flowing < self.level or now < self._quiet_until:
            self._seen = None  # one has ended, and the next one has not begun: that is no time to measure
        elif before is not None:
            self._seconds += now - before[0]
            self._bytes += received - before[1]
            self._worked += worked - before[2]
            if self._seconds >= WINDOW:
                self._judge(now)

    @property
    def settled(self) -> int:
        """The level that has been seen to pay."""
        return self._base or self.level

    def likely(self, now: float) -> int:
        """How many connections there may soon be."""
        return self.level if now < self._quiet_until else self.most

    def _judge(self, now: float) -> None:
        rate = self._bytes / self._seconds
        busy = self._worked > BUSY * self._seconds
        enough = rate > self.level * (FAST if busy else ENOUGH)
        paid = not self._base or rate >= self._rate * (1 + WORTH * (self.level / self._base - 1))
        if paid and not enough:
            self._base, self._rate = self.level, rate
            self._go(self.level * (FIRST_STEP if self.level == 1 else 2))
        elif not paid and self.level // 2 > self._base:
            self._go(self.level // 2)  # so many were too many at once
        else:
            self._go(self.level if paid else self._base)
            self._base, self._quiet_until = 0, now + SETTLED

    def _go(self, level: int) -> None:
        self.level = min(level, self.most)
        if self.level == self._base:
            self._base = 0
        self._seen = None
        self._seconds = self._bytes = self._worked = 0.0


def _silent_together(segments: Sequence[Segment[S]], since: float, latency: float) -> set[Segment[S]]:
    """The lanes of sources that have brought something, and nothing on any of several lanes since then."""
    segments_of: dict[S, list[Segment[S]]] = defaultdict(list)
    for segment in segments:
        segments_of[segment.source].append(segment)

    def silent(segment: Segment[S]) -> bool:
        return not segment.writing and segment.last < since - (latency if segment.first is None else 0.0)

    return {
        segment
        for each in segments_of.values()
        if len(each) > 1 and any(segment.first is not None for segment in each) and all(map(silent, each))
        for segment in each
    }


def _expected(segment: Segment[S], now: float, fresh: float) -> float:
    """How long the rest of a lane will take, in seconds; `fresh`: on a connection that is as it should be."""
    silent, speed = now - segment.last, segment.speed()
    return segment.left / speed + SILENCE * silent if speed else fresh + silent


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
    """How far a reader at `offset` is from what nobody brings, and where that begins.

    In the middle of a gap at the chunk that has the offset, because a chunk fills from its start.
    """
    for gap in free:
        if offset < gap.stop:
            start = max(gap.start, offset - offset % chunk_size)
            return max(0, start - offset), (start, gap)
    return offset, (free[0].start, free[0])
