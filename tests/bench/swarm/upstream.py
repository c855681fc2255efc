"""One fill from the upstream by the real planner: spans, connections, and the prefix that has come."""

import asyncio
from collections.abc import Callable
from typing import cast

from mirror.config.schema import FillSettings
from mirror.oci.ranges import Span
from mirror.store.partial.growing import GrowingFile
from mirror.transfer import plan
from mirror.transfer.download import TICK
from mirror.transfer.plan import ConcurrencyLimit, Segment
from mirror.transfer.shared.lead_window import LeadLimits, LeadWindow
from mirror.transfer.shared.shared_fill import MOST_CHUNK

# Seconds from a request to its first byte, and bytes a second of one connection.
ROUND_TRIP = 0.05
CONNECTION = 12.5e6

SETTINGS = FillSettings()
CHUNK = MOST_CHUNK
LIMITS = LeadLimits(leads=lambda: True)


class GrowingBlob:
    """The bytes of a blob that a fill has: what is readable, and what came beyond a gap."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0  # bytes that this mirror has fetched from the upstream
        self.changed = asyncio.Event()
        self._done: list[Span] = []
        self.chunk_size = CHUNK
        self.withheld = False

    @property
    def chunks(self) -> "GrowingBlob":
        return self

    def contiguous(self) -> int:
        return self.prefix

    def awaited_offsets(self) -> list[int]:
        """Return where the client waits."""
        return [self.prefix]

    @property
    def prefix(self) -> int:
        """Return the bytes that others can read."""
        return self._done[0].stop if self._done and self._done[0].start == 0 else 0

    def add(self, span: Span) -> None:
        """Take bytes in."""
        spans = sorted([*self._done, span], key=lambda each: each.start)
        merged: list[Span] = []
        for each in spans:
            plan.append_span(merged, each)
        self._done = merged
        self.wake()

    def wake(self) -> None:
        """Wake all that wait for `changed`."""
        self.changed.set()
        self.changed = asyncio.Event()

    def missing(self) -> list[Span]:
        """Return the gaps, in order."""
        ends = [0, *(end for span in self._done for end in (span.start, span.stop)), self.size]
        gaps = [Span(*pair) for pair in zip(ends[::2], ends[1::2], strict=True)]
        return [gap for gap in gaps if gap.length > 0]


class UpstreamFill:
    """A download of what is missing, over as many connections as pay."""

    def __init__(
        self, blob: GrowingBlob, clock: Callable[[], float], line: float, window: LeadWindow
    ) -> None:
        """`line`: bytes a second for all connections together."""
        self._window = window
        self._blob = blob
        self._clock = clock
        self._line = line
        self._segments: list[Segment[str]] = []
        self._concurrency = ConcurrencyLimit(SETTINGS.parallel)

    async def run(self) -> None:
        """Download until nothing is missing."""
        while self._blob.missing():
            self._assign()
            await asyncio.sleep(TICK)
            self._receive()

    def _assign(self) -> None:
        blob, large = self._blob, self._blob.size > SETTINGS.parallel_above
        missing = self._window.cut(cast(GrowingFile, blob), blob.missing())
        level = self._concurrency.level if large else 1
        speed = max((each.speed() for each in self._segments), default=0.0)
        while len(self._segments) < level:
            left = sum(gap.length for gap in missing) - sum(each.left for each in self._segments)
            sharers = max(level, self._concurrency.likely(self._clock()))
            length = LIMITS.span_length(max(left, 1), sharers, speed, CHUNK)
            span = plan.next_span(missing, self._segments, [blob.prefix], length, CHUNK)
            if span is None:
                return
            self._segments.append(Segment("upstream", span.start, span.stop, self._clock()))

    def _receive(self) -> None:
        """Move all connections on by the bytes of one tick."""
        now = self._clock()
        flowing = [each for each in self._segments if now - each.began > ROUND_TRIP]
        rate = min(CONNECTION, self._line / max(1, len(flowing)))
        for segment in flowing:
            length = min(segment.left, round(rate * TICK))
            self._blob.add(Span(segment.offset, segment.offset + length))
            self._blob.received += length
            segment.record(now, length)
        self._segments = [each for each in self._segments if each.left]
        self._concurrency.observe(now, self._blob.received, len(flowing))
