"""Retries of requests to upstreams: which, how often, and after which delay."""

import random
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from msgspec import Struct

from mirror.upstream.errors import UpstreamError

T = TypeVar("T")


# The longest wait, in seconds, that an upstream is believed: a clock of a server that is wrong by years, or
# a limit that was lifted meanwhile, ends with one more request an hour.
LONGEST_WAIT = 3600.0

_UNITS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ns": 1e-9,
}
_PARTS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|\u00b5s|\u03bcs|ns|h|m|s)")
_DURATION = re.compile(rf"(?:{_PARTS.pattern}){{1,8}}")
_IN_WORDS = re.compile(
    r"retry[-_ ]?after[\"']?\s{0,3}[:=]?\s{0,3}[\"']?"
    r"((?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|us|\u00b5s|\u03bcs|ns|h|m|s)){1,8}|[0-9]{1,9})(?![\w.])",
    re.IGNORECASE,
)


class RetryPolicy(Struct, frozen=True):
    """Number of attempts, and delays in seconds: exponential backoff from `first` to `longest`.

    No retry begins later than `elapsed` after the first attempt, since clients must see an answer's headers,
    or an error, within 20 s (containerd gives up after 30 s without headers).
    """

    attempts: int = 3
    first: float = 0.25
    longest: float = 5.0
    elapsed: float = 12.0

    def delay(self, attempt: int, error: UpstreamError, jitter: float) -> float | None:
        """Return the delay after failed attempt number `attempt` (from 1); None to give up.

        `jitter` in [0, 1) spreads the requests to a recovering upstream over half of the delay.
        """
        if attempt >= self.attempts or not error.temporary:
            return None
        if error.retry_after is not None:
            # A client is not kept waiting for a long pause: it gets the error, with its Retry-After.
            return error.retry_after if error.retry_after <= self.longest else None
        delay: float = min(self.longest, self.first * 2 ** (attempt - 1))
        return delay * (0.5 + jitter / 2)


class Retrier(Struct, frozen=True):
    """Runs an operation again according to a policy, after an UpstreamError that is temporary."""

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
    """Return the seconds from now in a Retry-After header (RFC 9110 10.2.3); None if it has no known form.

    At most LONGEST_WAIT. A Go duration is a known form too: registries that are written in Go print such.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_WAIT)
    if _DURATION.fullmatch(text):
        return min(sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text)), LONGEST_WAIT)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: numbers that no date has
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, (when - (now or datetime.now(UTC))).total_seconds()), LONGEST_WAIT)


def retry_after_in(body: bytes) -> str | None:
    """Return the wait that an error's words name, as ghcr.io does: `retry-after: 1.16676ms`."""
    found = _IN_WORDS.search(body.decode("utf-8", "replace"))
    return found[1] if found else None
