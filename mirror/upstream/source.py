"""One source of an upstream's content, and what the traffic has taught about it."""

import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES, BreakerState, SourceHealth
from mirror.upstream.http.range_support import REFUSED_FOR, RangeSupport
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.outage import Outage
from mirror.upstream.rate_limit import BudgetLevel
from mirror.upstream.registry_client import ManifestBody, RegistryClient, RemoteManifest, TagsPage
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.slots import SlotGroup, SlotPool, always

T = TypeVar("T")

log = get_logger(__name__)

# Longest time for which a 429 reduces the number of connections, in seconds.
LONGEST_THROTTLE = 60.0


class SourceOptions(Struct, frozen=True):
    """Use of a source, see `SourceSettings`. The defaults are those of an upstream's own endpoint."""

    prefix: str = ""
    weight: float = 1.0
    tags: bool = True


class Source:
    """One endpoint, its connections, its circuit breaker, and its measurements."""

    def __init__(self, name: str, registry: RegistryClient, options: SourceOptions, total: SlotPool) -> None:
        """`total` limits the connections for blobs of all sources of all upstreams together."""
        self.name = name
        self.prefix = options.prefix
        self.weight = options.weight
        self.trusted_for_tags = options.tags
        self.registry = registry
        self._slots = SlotGroup(total, registry.max_blob_connections)
        self.health = SourceHealth()
        self._outage = Outage()
        self._ranges = RangeSupport()
        self.concurrency = 1  # connections that paid for the last blob
        self.active_connections = 0  # connections that bring blobs now
        self._throttled_until = 0.0
        self._last_answer = 0.0  # time of the last answer
        self._pending: dict[object, float] = {}  # start of each request that is not answered yet
        self._silence: UpstreamError | None = None  # the last failure, if there was no answer at all

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    def path(self, repository: str) -> str:
        """Return the path of a repository at this source."""
        return f"{self.prefix}/{repository}" if self.prefix else repository

    @property
    def supports_ranges(self) -> bool:
        """True until an answer shows otherwise, and again some time after that."""
        return self._ranges.available(time.monotonic())

    def confirm_ranges(self) -> None:
        """Record a range that was answered as asked."""
        self._ranges.confirm()

    def refuse_ranges(self, seconds: float = REFUSED_FOR) -> None:
        """Ask for whole blobs for `seconds`: a range was mis-answered."""
        self._ranges.refuse(time.monotonic(), seconds)

    @property
    def saturated(self) -> bool:
        """True if one more connection for a blob would have to wait, or would overtake one that waits."""
        return self._slots.saturated

    @property
    def is_waited_for(self) -> bool:
        """True if a transfer waits for a connection, which one of this source would give to it."""
        return self._slots.pool.waiting > 0 and self._slots.saturated

    def reassign_slots(self) -> None:
        """Give connections to transfers that have become urgent."""
        self._slots.pool.reassign()

    def throttled(self, now: float) -> bool:
        """Return True while a 429 forbids a second connection for a blob."""
        return now < self._throttled_until

    @contextlib.asynccontextmanager
    async def connection_slot(
        self,
        urgent: Callable[[], bool] = always,
        give_way: Callable[[], object] | None = None,
        on_wait: Callable[[bool], object] = ignore,
    ) -> AsyncIterator[None]:
        """Hold one of the limited connections for blobs; wait until one is free.

        `urgent`: whether a client waits for the bytes; `give_way` ends a transfer that is not urgent, to free
        its connection for one that is. `on_wait`: as for `SlotGroup.slot`.
        """
        async with self._slots.slot(urgent, give_way, on_wait):
            self.active_connections += 1
            try:
                yield
            finally:
                self.active_connections -= 1

    @contextlib.asynccontextmanager
    async def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], location: DirectLocation
    ) -> AsyncIterator[BlobBody]:
        """Open a blob as `RegistryClient.open_blob` does, in a `connection_slot`; record the outcome."""
        start, stop = span
        with self._pending_request() as began:
            try:
                async with self.registry.open_blob(
                    self.path(repository), digest, start, stop, location=location
                ) as body:
                    self._record_answer(began)
                    yield body
            except UpstreamError as error:
                if self._is_current(error, began):
                    self.record_failure(error)
                raise

    async def head_manifest(
        self, repository: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> RemoteManifest:
        path = self.path(repository)
        return await self.ask(lambda registry: registry.head_manifest(path, reference, also))

    async def get_manifest(
        self, repository: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> ManifestBody:
        path = self.path(repository)
        return await self.ask(lambda registry: registry.get_manifest(path, reference, also))

    async def get_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        return await self.ask(lambda registry: registry.get_blob(self.path(repository), digest, limit))

    async def head_blob(self, repository: str, digest: Digest, expected: int | None = None) -> int | None:
        return await self.ask(lambda registry: registry.head_blob(self.path(repository), digest, expected))

    async def tags(self, repository: str, query: str) -> TagsPage:
        return await self.ask(lambda registry: registry.tags(self.path(repository), query))

    async def referrers(self, repository: str, digest: Digest) -> str:
        return await self.ask(lambda registry: registry.referrers(self.path(repository), digest))

    def budget_level(self, repository: str) -> BudgetLevel:
        """Return what the rate limit leaves for requests about a repository."""
        return self.registry.accounts.budget_level(self.path(repository))

    async def ask(self, request: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """Return the answer to a small request, and record how long it took and whether it failed."""
        with self._pending_request() as began:
            try:
                answer = await request(self.registry)
            except UpstreamError as error:
                if self._is_current(error, began):
                    # The request was retried several times: the next client does not wait for the same again.
                    self.record_failure(error, FAILURES if error.unanswered else 1)
                raise
            self._record_answer(began)
            return answer

    @contextlib.contextmanager
    def _pending_request(self) -> Iterator[float]:
        """Yield the start time of a pending request; raise UpstreamError while the source is unresponsive."""
        self.raise_if_unresponsive()
        request, began = object(), time.monotonic()
        self.health.record_request(began)
        self._pending[request] = began
        try:
            yield began
        finally:
            del self._pending[request]

    def report_timeout(self, seconds: float) -> bool:
        """Open the breaker if a client that waited `seconds` waited for this source; return True if it did.

        Pending requests go on: one that is answered after all closes the breaker.
        """
        began = min((each for each in self._pending.values() if each > self._last_answer), default=math.inf)
        if time.monotonic() - began <= seconds / 2:
            return False
        error = UpstreamError(Failure.TIMEOUT, f"{self.registry.name}: no answer within {seconds:g} s")
        error.unanswered = True
        self.record_failure(error, FAILURES)
        return True

    def _record_answer(self, began: float) -> None:
        self._last_answer = time.monotonic()
        self.health.record_success(self._last_answer - began)
        self._log_recovery(self._last_answer)

    def _is_current(self, error: UpstreamError, began: float) -> bool:
        """Return False for silence that began before the last answer: that tells nothing about now."""
        return not error.unanswered or began > self._last_answer

    @property
    def unresponsive(self) -> bool:
        """True from a request that got no answer at all to the next answer."""
        return self._silence is not None and self.health.breaker(time.monotonic()) is not BreakerState.CLOSED

    def raise_if_unresponsive(self) -> None:
        """Raise the last failure while the breaker is open: clients do not wait for silence one by one."""
        silence = self._silence
        if silence is not None and self.health.breaker(time.monotonic()) is BreakerState.OPEN:
            # Not TIMEOUT: nothing was waited for, and so a request that follows at once finds nothing either.
            raise UpstreamError(Failure.UNREACHABLE, f"{silence} (will be tried again soon)")

    def record_failure(self, error: UpstreamError, times: int = 1) -> None:
        """Record a failed request, counted as `times` failures in a row.

        One that this machine could not send does not count.
        """
        if error.own:
            self.health.forget_request()
            return
        now = time.monotonic()
        self._silence = error.copy() if error.unanswered else None
        if error.failure is Failure.RATE_LIMITED:
            self.concurrency = max(1, self.concurrency // 2)
            self._throttled_until = now + min(error.retry_after or LONGEST_THROTTLE, LONGEST_THROTTLE)
        if error.failure is Failure.OFFLINE:
            return
        if error.temporary:
            self.health.record_failure(now, times)
            self._log_outage(now, str(error))
        else:
            self._last_answer = now
            self.health.record_success(self.health.latency)  # a refusal is an answer
            self._log_recovery(now)

    def _log_outage(self, now: float, reason: str) -> None:
        """Warn once when the breaker has opened; neither for each request nor each time that it flaps."""
        if self.health.breaker(now) is BreakerState.CLOSED:
            return
        count = self._outage.failed(now)
        if count is not None:
            flaps = {"outages": count} if count > 1 else {}
            event = "source fails, not used until it answers again"
            log.warning(event, upstream=self.registry.name, source=self.name, reason=reason, **flaps)

    def _log_recovery(self, now: float) -> None:
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
        """Return the state for /readyz: the breaker, and each account's refusal and budget."""
        accounts = [account.state() for account in self.registry.accounts.all]
        return {"source": self.name, "breaker": str(self.health.state(now)), "accounts": accounts}

    def details(self, now: float) -> dict[str, Any]:
        """Return the state for people: that of /readyz, and what is measured."""
        measured = {"latency": self.health.latency, "speed": self.health.speed}
        accounts = [account.details() for account in self.registry.accounts.all]
        return {
            **self.state(now),
            **measured,
            "connections": self.active_connections,
            "accounts": accounts,
        }

    def suspect(self) -> None:
        """Stop using the source for a while or until `clear_suspicion`: this or another sent wrong bytes."""
        self.health.suspect(time.monotonic())

    def report_corruption(self, what: str) -> None:
        """Stop using the source for a while: it sent wrong bytes for the digest `what`."""
        self.health.report_corruption(time.monotonic())
        upstream, event = self.registry.name, "source sent wrong bytes, not used for a while"
        log.error(event, upstream=upstream, source=self.name, digest=what)
