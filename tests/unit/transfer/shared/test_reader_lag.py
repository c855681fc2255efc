"""Readers of blobs from the object store, on a simulated line: how late they have what has come.

The planner is the real one, and so are its limits; lines, object store and readers are a model with a clock
of its own. All connections have equal shares of the store's line, and all readers of the client's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from mirror.oci.ranges import Span
from mirror.transfer import plan
from mirror.transfer.plan import PlanLimits, Segment
from mirror.transfer.shared.lead_window import LeadLimits
from mirror.transfer.shared.line_concurrency import LineConcurrency
from mirror.upstream.health import SourceHealth
from tests.bench.swarm.upstream import GrowingBlob

MIB = 1024 * 1024
RATE = 25e6
STEP, LOOK = 0.01, 0.05  # seconds
LAYERS = tuple(size * MIB for size in (64, 63, 62, 24, 24, 18))
AT_ONCE = 3


@dataclass
class Store:
    """The object store: its line, a limit of each connection, and the seconds to a first byte."""

    rate: float = RATE
    connection: float = 1e12
    round_trip: float = 0.002


@dataclass(eq=False)
class Fill:
    """One blob by the planner, and its reader."""

    size: int
    limits: PlanLimits
    read: float = 0.0
    segments: list[Segment[str]] = field(default_factory=list)
    health: SourceHealth = field(default_factory=SourceHealth)

    def __post_init__(self) -> None:
        self.blob = GrowingBlob(self.size)
        self._concurrency = self.limits.concurrency(8, 1)

    @property
    def readable(self) -> float:
        return self.blob.prefix - self.read

    def flowing(self, now: float, store: Store) -> list[Segment[str]]:
        return [each for each in self.segments if now - each.began >= store.round_trip]

    def receive(self, segment: Segment[str], now: float, length: int) -> None:
        length = min(length, segment.left)
        self.blob.add(Span(segment.offset, segment.offset + length))
        self.blob.received += length
        segment.record(now, length)
        if not segment.left:
            self.health.record_transfer(segment.stop - segment.start, now - segment.began)
            self.segments.remove(segment)

    def assign(self, now: float, flowing: int) -> None:
        """Plan as a download does."""
        self._concurrency.observe(now, self.blob.received, flowing)
        missing, level = self.blob.missing(), self._concurrency.level
        while len(self.segments) < level:
            left = sum(gap.length for gap in missing) - sum(each.left for each in self.segments)
            sharers = max(level, self._concurrency.likely(now))
            if self.segments or self.blob.received:
                length = self.limits.span_length(max(left, 1), sharers, self.health.speed, MIB)
            else:
                length = self.limits.span_length(left, 1, 0.0, MIB)
            span = plan.next_span(missing, self.segments, [self.blob.prefix], length, MIB)
            if span is None:
                return
            self.segments.append(Segment("store", span.start, span.stop, now))


def pull(
    store: Store, limits: Callable[[LineConcurrency], PlanLimits], layers: Sequence[int] = LAYERS
) -> float:
    """Return by what share of the store's rate a client has an image, over a line as fast as the store's."""
    line, now, waiting = LineConcurrency(32), 0.0, list(layers)
    fills: list[Fill] = []
    while waiting or fills:
        while waiting and len(fills) < AT_ONCE:
            fills.append(Fill(waiting.pop(0), limits(line)))
        flows = [(fill, each) for fill in fills for each in fill.flowing(now, store)]
        share = min(store.connection, store.rate / len(flows)) if flows else 0.0
        ended = {fill for fill, each in flows if each.left <= share * STEP}
        for fill, segment in flows:
            fill.receive(segment, now, round(share * STEP))
        looks = round(now / STEP) % round(LOOK / STEP) == 0
        for fill in fills:
            if looks or fill in ended:
                fill.assign(now, len(fill.flowing(now, store)))
        _send(fills, store.rate * STEP)
        fills = [each for each in fills if each.read < each.size]
        now += STEP
    return sum(layers) / store.rate / now


def _send(fills: Sequence[Fill], left: float) -> None:
    """Have the readers share what the client's line carries in a step."""
    ready = sorted((each for each in fills if each.readable > 0), key=lambda each: each.readable)
    for number, fill in enumerate(ready):
        sent = min(fill.readable, left / (len(ready) - number))
        fill.read += sent
        left -= sent


# A span of the object store that is near, and of one that is far.
NEAR, FAR = 0.25, 0.5


def of_the_store(seconds: float) -> Callable[[LineConcurrency], PlanLimits]:
    return lambda line: LeadLimits(store_span=lambda: seconds, line=line)


def test_reader_has_what_comes_over_a_line_as_fast_as_its_own() -> None:
    """Spans of eight connections for each blob, 8 MiB long at first, leave its line idle for seconds."""
    assert pull(Store(), lambda line: PlanLimits()) < 0.86
    assert pull(Store(), of_the_store(NEAR)) > 0.93


def test_reader_is_not_late_by_the_number_of_connections() -> None:
    """Many connections pay where the store limits each of them, and their spans are short all the same."""
    limited = Store(connection=RATE / 6)
    assert pull(limited, of_the_store(NEAR)) > 1.2 * pull(limited, lambda line: PlanLimits())


@pytest.mark.parametrize("connection", [RATE / 6, 1e12])
def test_reader_of_a_far_store_loses_nothing(connection: float) -> None:
    """A span is as many round trips as it takes for those to be a small part of it."""
    store = Store(connection=connection, round_trip=0.04)
    assert pull(store, of_the_store(FAR)) > pull(store, lambda line: PlanLimits())
