"""What an upstream's rate limit leaves of one account, learnt from its answers; pure, with the clock given.

Docker Hub tells it on every answer about a manifest (CLIENTS.md 6.2), `100;w=21600` being 100 in 6 hours:

    ratelimit-limit: 100;w=21600    ratelimit-remaining: 20;w=21600    docker-ratelimit-source: 203.0.113.7
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mirror.upstream.retry import parse_retry_after


@dataclass(frozen=True, slots=True)
class BudgetLevel:
    """How sparing to be.

    share    it begins when this share of the limit is left
    stretch  a tag is asked about after so many times its `fresh`; inf: not while it can be served stale
    ahead    whether blobs are fetched that nobody has asked for
    """

    name: str
    share: float
    ttl_factor: float
    prefetch: bool


# Chosen, not measured. The last tenth is for what is not here at all: only a GET, which counts, can bring it.
PLENTY = BudgetLevel("plenty", math.inf, 1, prefetch=True)
SPARE = BudgetLevel("spare", 0.50, 4, prefetch=True)
LOW = BudgetLevel("low", 0.25, 16, prefetch=False)
OUT = BudgetLevel("out", 0.10, math.inf, prefetch=False)
BUDGET_LEVELS = (OUT, LOW, SPARE, PLENTY)

# What was told counts for its window, and for no longer than this, in seconds: nobody is asked while a budget
# is out, so nothing else would show that it has been filled up, or that the account was upgraded.
LONGEST = 900.0
# The same where no window was told, in seconds; and how long a 429 counts that does not say for how long.
SHORT = 60.0

_NUMBER = re.compile(r"\s*([0-9]{1,15})\s*([;,].*)?", re.DOTALL)
_WINDOW = re.compile(r";\s*w=([0-9]{1,9})\b")
_MAX_SOURCE = 100


@dataclass(frozen=True, slots=True)
class RateLimitReading:
    """What answers said last. `window` in seconds; `source` is whom the upstream counts, by its own name."""

    remaining: int
    limit: int | None = None
    window: int | None = None
    source: str | None = None

    @property
    def share(self) -> float:
        """Of the limit that is left."""
        if not self.limit:
            return math.inf if self.remaining else 0.0
        return self.remaining / self.limit


class RateLimit:
    """Nothing that an upstream sends makes this raise."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reading: RateLimitReading | None = None
        self._reading_until = -math.inf
        self._refused_until = -math.inf
        self._rest_until = -math.inf

    def observe(self, headers: Mapping[str, str], status: int) -> None:
        """An answer came. The names of `headers` are found in lower case."""
        now = self._clock()
        remaining, window = _parse(headers.get("ratelimit-remaining"))
        if remaining is not None:
            limit, of_limit = _parse(headers.get("ratelimit-limit"))
            window = window or of_limit
            self._reading = RateLimitReading(
                remaining, limit, window, _source(headers.get("docker-ratelimit-source"))
            )
            self._reading_until = now + min(window or SHORT, LONGEST)
        pause = parse_retry_after(headers.get("retry-after"))
        if status == 429:
            self._refused_until = now + min(SHORT if pause is None else pause, LONGEST)
        if status in (429, 503) and pause is not None:
            self._rest_until = now + min(pause, LONGEST)

    @property
    def reading(self) -> RateLimitReading | None:
        """What is known; None when nothing is, or not any more."""
        return self._reading if self._clock() < self._reading_until else None

    @property
    def refused(self) -> bool:
        """Whether it was answered 429 a moment ago."""
        return self._clock() < self._refused_until

    @property
    def budget_level(self) -> BudgetLevel:
        if self._clock() < self._rest_until:
            return OUT
        reading = self.reading
        if reading is None:
            return PLENTY
        return next(each for each in BUDGET_LEVELS if reading.share <= each.share)


def _parse(value: str | None) -> tuple[int | None, int | None]:
    """The number of a header and its window. Of a list, as drafts of the IETF have it, the first is meant."""
    found = _NUMBER.fullmatch(value or "")
    if found is None:
        return None, None
    window = _WINDOW.search(found[2] or "")
    return int(found[1]), int(window[1]) if window else None


def _source(value: str | None) -> str | None:
    """An address or the id of an account: printable, and short."""
    return "".join(char for char in value[:_MAX_SOURCE] if char.isprintable()) if value else None
