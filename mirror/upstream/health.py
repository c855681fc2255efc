"""Health of a source, learnt from the traffic alone; pure, with the clock passed to every method.

A circuit breaker keeps a source that fails out of use. It opens after a few failures in a row, for longer
each time, and then lets one request through that decides (half-open). Each pause is shortened by a random
share, so that mirrors and workers that noticed an outage together do not return together.
"""

import random
from collections import deque
from collections.abc import Callable
from enum import StrEnum

# Failures in a row that open the breaker.
FAILURES = 3
# The first and the longest pause of an open breaker, in seconds; each pause is twice the one before.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# The largest share by which a pause is shortened.
JITTER = 0.25
# How long a source that sent wrong bytes is not used, in seconds: nothing from it can be trusted.
CORRUPT_FOR = 600.0
# Weight of the newest measurement in the averages.
NEWEST = 0.3
# Latency of a source that has not been asked yet, in seconds.
UNKNOWN_LATENCY = 0.2
# Number of latencies that the percentile is computed from.
REMEMBERED = 32


class BreakerState(StrEnum):
    """State of a circuit breaker; /readyz shows the value."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SourceHealth:
    """Latency, speed and circuit breaker of one source."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        """`chance` returns a number of at least 0 and less than 1, for the jitter."""
        self._chance = chance
        self.speed = 0.0  # bytes a second of one connection; 0 until one was measured
        self.latency = UNKNOWN_LATENCY  # seconds to the first byte
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        self._probing_until = 0.0
        self._open = False
        self._corrupt_until = 0.0
        self._suspected_until = 0.0

    def state(self, now: float) -> BreakerState:
        """Return the breaker's state, OPEN also while the source is not trusted."""
        return self.breaker(now) if self.trusted(now) else BreakerState.OPEN

    def breaker(self, now: float) -> BreakerState:
        """Return the breaker's state, wrong bytes not counted: an answer with wrong bytes is an answer."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def usable(self, now: float) -> bool:
        """Return True if a request may be sent and the answer may be trusted."""
        return self.trusted(now) and self.allows_request(now)

    def trusted(self, now: float) -> bool:
        """Return True if the source neither sent wrong bytes lately nor is suspected of it."""
        return now >= max(self._corrupt_until, self._suspected_until)

    def allows_request(self, now: float) -> bool:
        """Return True if the breaker lets a request through: while half-open, one at a time."""
        state = self.breaker(now)
        return state is BreakerState.CLOSED or (
            state is BreakerState.HALF_OPEN and now >= self._probing_until
        )

    def record_request(self, now: float) -> None:
        """Record that a request is sent. While half-open it is the probe: others wait for a while."""
        if self._open:
            self._probing_until = now + LONGEST_PAUSE

    def forget_request(self) -> None:
        """Record that a request was not sent after all: while half-open, the next one is the probe."""
        self._probing_until = 0.0

    def record_success(self, seconds: float) -> None:
        """Record an answer whose first byte came after `seconds`, and close the breaker."""
        self.latency = _average(self.latency, seconds) if self._latencies else seconds
        self._latencies.append(seconds)
        self._failures, self._open, self._pause = 0, False, FIRST_PAUSE

    def record_late(self, seconds: float) -> None:
        """Record that another source has answered first, while this one was waited for."""
        self.latency = max(self.latency, seconds)

    def record_transfer(self, length: int, seconds: float) -> None:
        """Record that one connection brought `length` bytes in `seconds`."""
        if seconds > 0 and length:
            speed = length / seconds
            self.speed = _average(self.speed, speed) if self.speed else speed

    def record_failure(self, now: float, times: int = 1) -> None:
        """Record a request that failed for a temporary reason, counted as `times` failures in a row.

        Requests that fail while the breaker is open were sent before it opened, and do not prolong the pause.
        """
        if self._open and now < self._open_until:
            return
        self._failures += times
        if self._open or self._failures >= FAILURES:
            self._open, self._open_until = True, now + self._pause * (1 - JITTER * self._chance())
            self._probing_until = 0.0
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def report_corruption(self, now: float) -> None:
        """Stop using the source for CORRUPT_FOR seconds: it sent bytes that do not match their digest."""
        self._corrupt_until = now + CORRUPT_FOR

    def suspect(self, now: float) -> None:
        """Stop using the source for CORRUPT_FOR seconds: this source, or another one, sent wrong bytes."""
        self._suspected_until = now + CORRUPT_FOR

    def clear_suspicion(self) -> None:
        """Use the source again: another one sent the wrong bytes."""
        self._suspected_until = 0.0

    def hedge_delay(self) -> float:
        """Return the seconds after which an answer is late and another source is asked too.

        That is the 90th percentile of this source's latencies, and never very short.
        """
        if len(self._latencies) < REMEMBERED // 4:
            return max(5 * self.latency, 1.0)
        return max(sorted(self._latencies)[len(self._latencies) * 9 // 10], 0.05)


def _average(old: float, new: float) -> float:
    return old + NEWEST * (new - old)
