"""One place where an upstream's content can be had, and what is known about it, learnt from the traffic."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES, BreakerState, SourceHealth
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.outage import Outage
from mirror.upstream.registry_client import ManifestBody, RegistryClient, RemoteManifest
from mirror.util.log import get_logger

T = TypeVar("T")

log = get_logger(__name__)

# The most that a 429 keeps the number of connections down, in seconds.
LONGEST_REST = 60.0


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is used: see `SourceSettings`. Those of an upstream's own endpoint are the defaults."""

    prefix: str = ""
    weight: float = 1.0
    tags: bool = True


class Source:
    """One place to ask, and what is known about it."""

    def __init__(
        self, name: str, registry: RegistryClient, terms: SourceOptions, total: asyncio.Semaphore
    ) -> None:
        """`total`: the connections for blobs that all sources of all upstreams have together."""
        self.name = name
        self.prefix = terms.prefix
        self.weight = terms.weight
        self.trusted_for_tags = terms.tags
        self.registry = registry
        self._total = total
        self._slots = asyncio.Semaphore(registry.max_blob_connections)
        self.health = SourceHealth()
        self._outage = Outage()
        self.supports_ranges = True  # until an answer shows otherwise
        self.concurrency = 1  # how many connections have paid for one blob
        self.active_connections = 0  # how many bring blobs now
        self._throttled_until = 0.0
        self._answered = 0.0  # when it last did
        self._asking: dict[object, float] = {}  # since when each question is asked that is not over
        self._silence: UpstreamError | None = None  # when there was no answer the last time: what there was

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    def path(self, repository: str) -> str:
        return f"{self.prefix}/{repository}" if self.prefix else repository

    @property
    def saturated(self) -> bool:
        """Whether one more lane would have to wait for another to end, or would be before one that waits."""
        return self._slots.locked() or self._total.locked()

    def throttled(self, now: float) -> bool:
        """Whether it asked for less: no second connection for a blob."""
        return now < self._throttled_until

    @contextlib.asynccontextmanager
    async def connection_slot(self) -> AsyncIterator[None]:
        """Wait until one more connection may bring a blob."""
        async with self._slots, self._total:
            self.active_connections += 1
            try:
                yield
            finally:
                self.active_connections -= 1

    @contextlib.asynccontextmanager
    async def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], shortcut: DirectLocation
    ) -> AsyncIterator[BlobBody]:
        """Open a blob as `RegistryClient.open_blob` does, in a `connection_slot`, and note how that went."""
        start, stop = span
        with self._asked() as began:
            try:
                async with self.registry.open_blob(
                    self.path(repository), digest, start, stop, shortcut=shortcut
                ) as body:
                    self._answers(began)
                    yield body
            except UpstreamError as error:
                if self._is_news(error, began):
                    self.record_failure(error)
                raise

    async def head_manifest(self, repository: str, reference: Tag | Digest) -> RemoteManifest:
        return await self.ask(lambda registry: registry.head_manifest(self.path(repository), reference))

    async def get_manifest(self, repository: str, reference: Tag | Digest) -> ManifestBody:
        return await self.ask(lambda registry: registry.get_manifest(self.path(repository), reference))

    async def get_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        return await self.ask(lambda registry: registry.get_blob(self.path(repository), digest, limit))

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        return await self.ask(lambda registry: registry.head_blob(self.path(repository), digest))

    async def ask(self, question: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """A small request; how long it took and whether it worked is remembered."""
        with self._asked() as began:
            try:
                answer = await question(self.registry)
            except UpstreamError as error:
                if self._is_news(error, began):
                    # Tried several times already: the next one who asks is not kept waiting for the same.
                    self.record_failure(error, FAILURES if error.unanswered else 1)
                raise
            self._answers(began)
            return answer

    @contextlib.contextmanager
    def _asked(self) -> Iterator[float]:
        """A question is on its way, since when. Raises while the source is silent."""
        self.raise_if_unresponsive()
        question, began = object(), time.monotonic()
        self.health.record_request(began)
        self._asking[question] = began
        try:
            yield began
        finally:
            del self._asking[question]

    def report_timeout(self, seconds: float) -> bool:
        """A client was kept waiting for so long. Whether it was for this source: the next one shall not be.

        What is being asked goes on being so: it may still be answered, and then all is well.
        """
        began = min((each for each in self._asking.values() if each > self._answered), default=math.inf)
        if time.monotonic() - began <= seconds / 2:
            return False
        error = UpstreamError(Failure.TIMEOUT, f"{self.registry.name}: no answer within {seconds:g} s")
        error.unanswered = True
        self.record_failure(error, FAILURES)
        return True

    def _answers(self, began: float) -> None:
        self._answered = time.monotonic()
        self.health.record_success(self._answered - began)
        self._log_end(self._answered)

    def _is_news(self, error: UpstreamError, began: float) -> bool:
        """Silence from before it last answered says nothing about now."""
        return not error.unanswered or began > self._answered

    @property
    def unresponsive(self) -> bool:
        """Whether it gave no answer at all the last time, and has given none since."""
        return self._silence is not None and self.health.breaker(time.monotonic()) is not BreakerState.CLOSED

    def raise_if_unresponsive(self) -> None:
        """A source that gave no answer at all is not waited for by one client after the other."""
        silence = self._silence
        if silence is not None and self.health.breaker(time.monotonic()) is BreakerState.OPEN:
            raise UpstreamError(silence.failure, f"{silence}, and will be tried again soon")

    def record_failure(self, error: UpstreamError, times: int = 1) -> None:
        """`times`: how many failures it counts for."""
        now = time.monotonic()
        self._silence = error if error.unanswered else None
        if error.failure is Failure.RATE_LIMITED:
            self.concurrency = max(1, self.concurrency // 2)
            self._throttled_until = now + min(error.retry_after or LONGEST_REST, LONGEST_REST)
        if error.failure is Failure.OFFLINE:
            return
        if error.temporary:
            self.health.record_failure(now, times)
            self._log_outage(now, str(error))
        else:
            self._answered = now
            self.health.record_success(self.health.latency)  # it refuses, so it is well
            self._log_end(now)

    def _log_outage(self, now: float, reason: str) -> None:
        """Warn once when the breaker has opened; not for each request, nor for each time that it flaps."""
        if self.health.breaker(now) is BreakerState.CLOSED:
            return
        count = self._outage.failed(now)
        if count is not None:
            flaps = {"outages": count} if count > 1 else {}
            event = "source fails, not used until it answers again"
            log.warning(event, upstream=self.registry.name, source=self.name, reason=reason, **flaps)

    def _log_end(self, now: float) -> None:
        """Log once that the source answers after an outage that was logged."""
        seconds = self._outage.ended(now)
        if seconds is not None:
            log.info(
                "source answers again",
                upstream=self.registry.name,
                source=self.name,
                seconds=round(seconds, 1),
            )

    def state(self, now: float) -> dict[str, Any]:
        """For people: whether it is used, and what is left with each account, where that is known."""
        accounts = [account.state() for account in self.registry.accounts.all]
        return {"source": self.name, "breaker": str(self.health.state(now)), "accounts": accounts}

    def suspect(self) -> None:
        """It sent wrong bytes, or another one did: out for a while, or until it is `clear_suspicion`."""
        self.health.suspect(time.monotonic())

    def report_corruption(self, what: str) -> None:
        """It sent wrong bytes: out for a while."""
        self.health.report_corruption(time.monotonic())
        log.error("source sent wrong bytes, not used for a while", source=self.name, digest=what)
