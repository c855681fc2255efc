"""Rate limit of one account at an upstream, learnt from its answers; pure, with the clock passed in.

Docker Hub reports it in every answer about a manifest (docs/upstreams.md); `100;w=21600` is 100 in 6 hours:

    ratelimit-limit: 100;w=21600    ratelimit-remaining: 20;w=21600    docker-ratelimit-source: 203.0.113.7
"""

import math
import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from mirror.upstream.retry import parse_retry_after


class BudgetLevel(Struct, frozen=True):
    """Level of what is left of a rate limit, and what the mirror does to spare it.

    share       the level applies when at most this share of the limit is left
    ttl_factor  a tag is revalidated after this many times its `fresh`; inf: not while it can be served stale
    prefetch    whether blobs are prefetched
    """

    name: str
    share: float
    ttl_factor: float
    prefetch: bool


# Chosen, not measured. The last tenth is for content that is not cached: only a GET, which counts, brings it.
PLENTY = BudgetLevel("plenty", math.inf, 1, prefetch=True)
SPARE = BudgetLevel("spare", 0.50, 4, prefetch=True)
LOW = BudgetLevel("low", 0.25, 16, prefetch=False)
OUT = BudgetLevel("out", 0.10, math.inf, prefetch=False)
BUDGET_LEVELS = (OUT, LOW, SPARE, PLENTY)

# A reading counts for its window, and for this long at most, in seconds: no request is sent while a budget is
# out, so no answer would show that it was refilled, or that the account was upgraded.
LONGEST = 900.0
# How long a reading without a window counts, and a 429 without Retry-After, in seconds.
SHORT = 60.0

_NUMBER = re.compile(r"\s*([0-9]{1,15})\s*([;,].*)?", re.DOTALL)
_WINDOW = re.compile(r";\s*w=([0-9]{1,9})\b")
_MAX_SOURCE = 100


class RateLimitReading(Struct, frozen=True):
    """The last report of an upstream. `window` in seconds; `source` names whom the upstream counts."""

    remaining: int
    limit: int | None = None
    window: int | None = None
    source: str | None = None

    @property
    def share(self) -> float:
        """Share of the limit that is left."""
        if not self.limit:
            return math.inf if self.remaining else 0.0
        return self.remaining / self.limit


class RateLimit:
    """State of one account's rate limit. No header that an upstream sends makes a method raise."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reading: RateLimitReading | None = None
        self._reading_until = self._read_at = -math.inf
        self._refused_until = -math.inf
        self._paused_until = -math.inf

    def observe(self, headers: Mapping[str, str], status: int) -> None:
        """Learn from an answer. `headers` must find names in lower case."""
        now = self._clock()
        remaining, window = _parse(headers.get("ratelimit-remaining"))
        if remaining is not None:
            limit, window_of_limit = _parse(headers.get("ratelimit-limit"))
            window = window or window_of_limit
            self._reading = RateLimitReading(
                remaining, limit, window, _source(headers.get("docker-ratelimit-source"))
            )
            self._read_at = now
            self._reading_until = now + min(window or SHORT, LONGEST)
        pause = parse_retry_after(headers.get("retry-after"))
        if status == 429:
            self._refused_until = now + min(SHORT if pause is None else pause, LONGEST)
        if status in (429, 503) and pause is not None:
            self._paused_until = now + min(pause, LONGEST)

    @property
    def reading(self) -> RateLimitReading | None:
        """The last reading; None if there is none or it is too old."""
        return self._reading if self._clock() < self._reading_until else None

    @property
    def renews_in(self) -> float | None:
        """Seconds until all requests of the limit are allowed again at the latest, None if that is not known.

        No header tells when a window began: it was not later than the last reading that has less than all.
        """
        reading = self.reading
        if reading is None or not reading.window or reading.limit is None or reading.share >= 1:
            return None
        return self._read_at + reading.window - self._clock()

    @property
    def refused(self) -> bool:
        """True for a while after a 429."""
        return self._clock() < self._refused_until

    @property
    def budget_level(self) -> BudgetLevel:
        """The budget left now: OUT while a Retry-After runs, PLENTY if the upstream reports no limit."""
        if self._clock() < self._paused_until:
            return OUT
        reading = self.reading
        if reading is None:
            return PLENTY
        return next(each for each in BUDGET_LEVELS if reading.share <= each.share)


def _parse(value: str | None) -> tuple[int | None, int | None]:
    """Return number and window of a header; of a list, as in IETF drafts, those of the first item."""
    found = _NUMBER.fullmatch(value or "")
    if found is None:
        return None, None
    window = _WINDOW.search(found[2] or "")
    return int(found[1]), int(window[1]) if window else None


def _source(value: str | None) -> str | None:
    """Return an address or the id of an account, printable and short."""
    return "".join(char for char in value[:_MAX_SOURCE] if char.isprintable()) if value else None
