"""How a source has been doing, learnt from the traffic alone; pure: every method is told the time.

A *breaker* keeps a source that fails out of use: it opens after a few failures in a row, for longer each
time, and then lets one request through that decides (half-open). The pauses are not quite the same each time,
so that the many who noticed together do not come back together.
"""

import random
from collections import deque
from collections.abc import Callable
from enum import StrEnum

# Failures in a row that open the breaker.
FAILURES = 3
# How long it stays open the first time, and at most, in seconds; doubled each time, and shortened by up to
# so much of it.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
JITTER = 0.25
# A source that sent wrong bytes is out for this long, in seconds: nothing about it can be trusted.
CORRUPT_FOR = 600.0
# The weight of the newest measurement in the averages.
NEWEST = 0.3
# What a source is taken for that has not been asked yet: bytes a second, and seconds.
UNKNOWN_LATENCY = 0.2
# How many latencies the percentile is over.
REMEMBERED = 32


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SourceHealth:
    """Averages, and a breaker."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        """`chance`: at least 0 and less than 1."""
        self._chance = chance
        self.speed = 0.0  # bytes a second of one connection; 0 as long as it is not known
        self.latency = UNKNOWN_LATENCY  # seconds to the first byte
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        self._probing_until = 0.0
        self._open = False
        self._out_until = 0.0
        self._suspected_until = 0.0

    def state(self, now: float) -> BreakerState:
        return self.breaker(now) if self.trusted(now) else BreakerState.OPEN

    def breaker(self, now: float) -> BreakerState:
        """Whether it answers at all, be it with wrong bytes."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def usable(self, now: float) -> bool:
        """Whether a request may be sent, and what comes may be believed."""
        return self.trusted(now) and self.allows_request(now)

    def trusted(self, now: float) -> bool:
        """Whether it has not sent wrong bytes lately, as far as is known."""
        return now >= max(self._out_until, self._suspected_until)

    def allows_request(self, now: float) -> bool:
        """Whether a request may be sent: while half-open, one at a time."""
        state = self.breaker(now)
        return state is BreakerState.CLOSED or (
            state is BreakerState.HALF_OPEN and now >= self._probing_until
        )

    def record_request(self, now: float) -> None:
        """A request is sent. While half-open it is the probe, and nobody else's for a while."""
        if self._open:
            self._probing_until = now + LONGEST_PAUSE

    def record_success(self, seconds: float) -> None:
        """The first byte of an answer came after `seconds`."""
        self.latency = _average(self.latency, seconds) if self._latencies else seconds
        self._latencies.append(seconds)
        self._failures, self._open, self._pause = 0, False, FIRST_PAUSE

    def record_transfer(self, length: int, seconds: float) -> None:
        """`length` bytes came in `seconds` over one connection."""
        if seconds > 0 and length:
            speed = length / seconds
            self.speed = _average(self.speed, speed) if self.speed else speed

    def record_failure(self, now: float, times: int = 1) -> None:
        """A request failed for a reason that may pass, `times` in a row.

        Those that fail while it is left alone were asked before that, and for them all it is so once.
        """
        if self._open and now < self._open_until:
            return
        self._failures += times
        if self._open or self._failures >= FAILURES:
            self._open, self._open_until = True, now + self._pause * (1 - JITTER * self._chance())
            self._probing_until = 0.0
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def report_corruption(self, now: float) -> None:
        """It sent bytes that are not what their digest says: nothing makes up for that."""
        self._out_until = now + CORRUPT_FOR

    def suspect(self, now: float) -> None:
        """It, or another one, sent wrong bytes."""
        self._suspected_until = now + CORRUPT_FOR

    def clear_suspicion(self) -> None:
        """It was not the one."""
        self._suspected_until = 0.0

    def hedge_delay(self) -> float:
        """Seconds after which an answer is late: its own 90th percentile, and never very short."""
        if len(self._latencies) < REMEMBERED // 4:
            return max(5 * self.latency, 1.0)
        return max(sorted(self._latencies)[len(self._latencies) * 9 // 10], 0.05)


def _average(old: float, new: float) -> float:
    return old + NEWEST * (new - old)
