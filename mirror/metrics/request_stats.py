"""Statistics of requests in plain numbers: a hit from memory must not pay for a metrics library.

`metrics` turns the statistics into Prometheus families at each scrape.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

from msgspec import Struct, field

# Bounds in seconds, from a hit in memory to a layer over a slow line.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Latency(Struct):
    """A histogram. `counts[i]` durations are at or below `BUCKETS[i]` and above the previous bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    known: dict[int, tuple[str, float, float]] = field(default_factory=dict)

    def observe(self, seconds: float, request: str = "", moment: float = 0.0) -> None:
        """Count a duration. `request`: its id, if it has one, at `moment` in seconds since the epoch."""
        place = bisect_left(BUCKETS, seconds)
        self.counts[place] += 1
        self.seconds += seconds
        if request:
            self.known[place] = (request, seconds, moment)

    def exemplars(self) -> list[tuple[str, float, float] | None]:
        """Return the last request of each bucket that has an id: id, seconds, moment."""
        return [self.known.get(place) for place in range(len(self.counts))]

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds as Prometheus writes them, with the cumulative sums of `counts`."""
        total, rows = 0, []
        for bound, count in zip((*map(float, BUCKETS), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((str(bound), float(total)))
        return rows


class RequestStats(Struct):
    """Statistics of requests for one kind of content with one outcome. `bytes`: body bytes sent.

    `created`: when the first of them was counted, in seconds since the epoch.
    """

    requests: int = 0
    bytes: int = 0
    first_byte: Latency = field(default_factory=Latency)
    whole: Latency = field(default_factory=Latency)
    created: float = field(default_factory=time.time)

    def add(self, length: int, first_byte: float, whole: float, request: str = "") -> None:
        """Count one request: body bytes, and seconds to the head and to the end of the response."""
        moment = time.time() if request else 0.0
        self.requests += 1
        self.bytes += length
        self.first_byte.observe(first_byte, request, moment)
        self.whole.observe(whole, request, moment)

    def add_batch(self, length: int, durations: Sequence[float]) -> None:
        """Count several requests with bodies of one length, whose head and end were sent together."""
        self.requests += len(durations)
        self.bytes += length * len(durations)
        seconds = sum(durations)
        for latency in (self.first_byte, self.whole):
            latency.seconds += seconds
        if max(durations) <= BUCKETS[0]:  # what comes from memory
            self.first_byte.counts[0] += len(durations)
            self.whole.counts[0] += len(durations)
            return
        for each in durations:
            index = bisect_left(BUCKETS, each)
            self.first_byte.counts[index] += 1
            self.whole.counts[index] += 1


class RequestStatsTable:
    """Request statistics by (kind, outcome). Both labels come from enumerations, so there are few rows.

    `flush_pending` is called before a scrape; a component that counts in batches sets it to add its batch.
    """

    def __init__(self) -> None:
        self.flush_pending: Callable[[], object] = _flush_nothing
        self._stats: dict[tuple[str, str], RequestStats] = {}

    def of(self, kind: str, outcome: str) -> RequestStats:
        """Return the statistics of these labels, creating them at first use."""
        return self._stats.setdefault((kind, outcome), RequestStats())

    def rows(self) -> list[tuple[tuple[str, str], RequestStats]]:
        """Return a copy, sorted by kind and outcome: requests are counted while metrics are rendered."""
        return sorted(self._stats.items(), key=lambda row: row[0])


def _flush_nothing() -> None:
    """Do nothing: every request is counted immediately."""
