"""What is counted for every request, in plain numbers: a hit from memory must not pay for a metrics library.

`metrics` turns it into Prometheus' terms when somebody scrapes.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# From a hit in memory to a layer over a slow line, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


@dataclass(slots=True)
class Latency:
    """A histogram: how many durations fell at or below each of BUCKETS and above the one before it."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds as Prometheus writes them, and the running sums of `counts`."""
        total, rows = 0, []
        for bound, count in zip((*map(float, BUCKETS), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((str(bound), float(total)))
        return rows


@dataclass(slots=True)
class RequestStats:
    """The requests for one kind of content that had one outcome. `bytes`: of bodies, sent to clients."""

    requests: int = 0
    bytes: int = 0
    first_byte: Latency = field(default_factory=Latency)
    whole: Latency = field(default_factory=Latency)

    def add(self, length: int, first_byte: float, whole: float) -> None:
        """One request: the bytes of its body, seconds to the head of the answer and to its end."""
        self.requests += 1
        self.bytes += length
        self.first_byte.observe(first_byte)
        self.whole.observe(whole)

    def add_batch(self, length: int, durations: Sequence[float]) -> None:
        """The same for several, each of one length, whose head and end went out together."""
        self.requests += len(durations)
        self.bytes += length * len(durations)
        indexes = [bisect_left(BUCKETS, seconds) for seconds in durations]
        seconds = sum(durations)
        for latency in (self.first_byte, self.whole):
            for index in indexes:
                latency.counts[index] += 1
            latency.seconds += seconds


class RequestStatsTable:
    """A Tally for each (kind, outcome) there has been; both come from enumerations, so there are few."""

    def __init__(self) -> None:
        self.flush_pending: Callable[[], object] = bool  # called to have added what somebody is still to add
        self._tallies: dict[tuple[str, str], RequestStats] = {}

    def of(self, kind: str, outcome: str) -> RequestStats:
        return self._tallies.setdefault((kind, outcome), RequestStats())

    def rows(self) -> list[tuple[tuple[str, str], RequestStats]]:
        """By kind and outcome, in that order. A copy: requests are counted while metrics are rendered."""
        return sorted(self._tallies.items(), key=lambda row: row[0])
