"""When to ask an upstream again, and after how long."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from mirror.upstream.errors import UpstreamError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient to be; all in seconds.

    The sum of waiting stays below `elapsed` because clients must see an answer's headers, or an error,
    within 20 s (containerd leaves after 30 s without headers).
    """

    attempts: int = 3
    first: float = 0.25
    longest: float = 5.0
    elapsed: float = 12.0

    def delay(self, attempt: int, error: UpstreamError, jitter: float) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None: give up.

        `jitter` in [0, 1) spreads the clients of a recovering upstream over half of the delay.
        """
        if attempt >= self.attempts or not error.temporary:
            return None
        if error.retry_after is not None:
            # Longer than we would wait anyhow: whoever asked us is told, instead of being kept waiting.
            return error.retry_after if error.retry_after <= self.longest else None
        delay: float = min(self.longest, self.first * 2 ** (attempt - 1))
        return delay * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class Retrier:
    """Applies a policy to an operation. Only an UpstreamError that is temporary leads to another attempt."""

    policy: RetryPolicy
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    jitter: Callable[[], float] = random.random

    async def __call__(self, operation: Callable[[], Awaitable[T]]) -> T:
        started = self.clock()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await operation()
            except UpstreamError as error:
                delay = self.policy.delay(attempt, error, self.jitter())
                if delay is None or self.clock() - started + delay > self.policy.elapsed:
                    raise
            await self.sleep(delay)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """A Retry-After header, seconds or a date (RFC 9110 10.2.3), in seconds from now; None if neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for numbers that no date has
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
