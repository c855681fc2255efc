"""Pull budget: a long pull waits before the rate limit of an upstream is used up, and goes on afterwards.

An upstream that counts pulls says with each answer about a manifest how many are left, but not when there
will be more. So a pull that has to wait asks again from time to time, by a HEAD, which does not count.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.rate_limit import LONGEST, SHORT, RateLimitReading
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger

T = TypeVar("T")

log = get_logger(__name__)

# The longest wait for an upstream that lets nothing through, in seconds: one window of Docker Hub, and some.
PATIENCE = 7 * 3600.0


class Pause(Struct, frozen=True):
    """A wait for an upstream: for `seconds`, and for the reason that people are told."""

    upstream: str
    reason: str
    seconds: float


def log_pause(pause: Pause) -> None:
    """Log a wait, where nobody looks at the progress."""
    event = "fetch of images waits for the rate limit of an upstream"
    log.info(event, upstream=pause.upstream, reason=pause.reason, seconds=round(pause.seconds))


class LeaveTooLarge(UpstreamError):
    """The upstream never allows more pulls than are to be left: waiting would not end."""

    def __init__(self, upstream: str, limit: int, leave: int) -> None:
        super().__init__(
            Failure.INVALID, f"{upstream} allows {limit} pulls, and {leave} are to be left: leave fewer"
        )


class PullBudget:
    """The pulls that may be used of each upstream: all but the last `leave`."""

    def __init__(
        self,
        upstreams: UpstreamSet,
        leave: int,
        on_pause: Callable[[Pause], object] = ignore,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`on_pause` is called at the beginning of each wait; `sleep` waits for a number of seconds."""
        self._upstreams = upstreams
        self._leave = leave
        self._on_pause = on_pause
        self._sleep = sleep
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._asked: dict[str, float] = {}
        self._waited: defaultdict[str, float] = defaultdict(float)  # seconds since the last answer

    async def ask(
        self, repository: Repository, reference: Tag | Digest, request: Callable[[], Awaitable[T]]
    ) -> T:
        """Return the answer to a request that counts, once there is a pull for it. Raises UpstreamError.

        One request of each upstream at a time: its answer tells how many pulls are left. An upstream that has
        let nothing through for PATIENCE is not waited for again, however many images there are.
        """
        upstream = self._upstreams[repository.upstream]
        async with self._locks[upstream.name]:
            await self._learn(upstream, repository, reference)
            while True:
                if (pause := self._pause(upstream)) is None:
                    try:
                        answer = await request()
                    except UpstreamError as error:
                        if error.failure is not Failure.RATE_LIMITED or self._is_spent(upstream):
                            raise
                        pause = Pause(upstream.name, str(error), min(error.retry_after or SHORT, LONGEST))
                    else:
                        self._waited[upstream.name] = 0.0
                        return answer
                if self._is_spent(upstream):
                    raise UpstreamError(Failure.RATE_LIMITED, pause.reason)
                self._on_pause(pause)
                await self._sleep(pause.seconds)
                self._waited[upstream.name] += pause.seconds
                self._asked.pop(upstream.name, None)
                await self._learn(upstream, repository, reference, again=True)

    def _is_spent(self, upstream: Upstream) -> bool:
        return self._waited[upstream.name] >= PATIENCE

    async def _learn(
        self, upstream: Upstream, repository: Repository, reference: Tag | Digest, *, again: bool = False
    ) -> None:
        """Ask how many pulls are left, if that is not known, and was not asked lately."""
        now = time.monotonic()
        asked_lately = now - self._asked.get(upstream.name, -LONGEST) < LONGEST
        if not again and (asked_lately or upstream.accounts.rate_limit_reading() is not None):
            return
        self._asked[upstream.name] = now
        with suppress(UpstreamError):  # the request itself will tell
            await upstream.head_manifest(repository.path, reference)

    def _pause(self, upstream: Upstream) -> Pause | None:
        """Return how long to wait before the next pull; None if it may begin. Raises LeaveTooLarge."""
        reading = upstream.accounts.rate_limit_reading()
        if reading is None or reading.remaining > self._leave:
            return None
        if reading.limit is not None and reading.limit <= self._leave:
            raise LeaveTooLarge(upstream.name, reading.limit, self._leave)
        return Pause(upstream.name, _reason(reading), min(reading.window or SHORT, LONGEST))


def _reason(reading: RateLimitReading) -> str:
    if reading.limit is None:
        return f"{reading.remaining} pulls are left"
    return f"{reading.remaining} of {reading.limit} pulls are left"
