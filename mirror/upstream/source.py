"""One source of an upstream's content, and what the traffic has taught about it."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES, SourceHealth
from mirror.upstream.http.range_support import RangeSupport
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import ManifestBody, RegistryClient, RemoteManifest, TagsPage
from mirror.upstream.sources.answers import AnswerWatch
from mirror.upstream.sources.slots import SourceSlots
from mirror.util.log import get_logger
from mirror.util.slots import SlotPool

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
        self.slots = SourceSlots(total, registry.max_blob_connections)
        self.health = SourceHealth()
        self.ranges = RangeSupport()
        self.answers = AnswerWatch(registry.name, name, self.health)
        self.concurrency = 1  # connections that paid for the last blob
        self._throttled_until = 0.0

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    def path(self, repository: str) -> str:
        """Return the path of a repository at this source."""
        return f"{self.prefix}/{repository}" if self.prefix else repository

    def throttled(self, now: float) -> bool:
        """Return True while a 429 forbids a second connection for a blob."""
        return now < self._throttled_until

    @contextlib.asynccontextmanager
    async def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], location: DirectLocation
    ) -> AsyncIterator[BlobBody]:
        """Open a blob as `RegistryClient.open_blob` does; record the outcome."""
        start, stop = span
        with self.answers.request() as began:
            try:
                async with self.registry.open_blob(
                    self.path(repository), digest, start, stop, location=location
                ) as body:
                    self.answers.record(began)
                    yield body
            except UpstreamError as error:
                if self.answers.is_current(error, began):
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

    async def ask(self, request: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """Return the answer to a small request, and record how long it took and whether it failed."""
        with self.answers.request() as began:
            try:
                answer = await request(self.registry)
            except UpstreamError as error:
                if self.answers.is_current(error, began):
                    # The request was retried several times: the next client does not wait for the same again.
                    self.record_failure(error, FAILURES if error.unanswered else 1)
                raise
            self.answers.record(began)
            return answer

    def record_failure(self, error: UpstreamError, times: int = 1) -> None:
        """Record a failed request, counted as `times` failures in a row.

        One that this machine could not send does not count.
        """
        if error.failure is Failure.RATE_LIMITED and not error.own:
            self.concurrency = max(1, self.concurrency // 2)
            pause = min(error.retry_after or LONGEST_THROTTLE, LONGEST_THROTTLE)
            self._throttled_until = time.monotonic() + pause
        self.answers.record_failure(error, times)

    def suspect(self) -> None:
        """Stop using the source for a while or until `clear_suspicion`: this or another sent wrong bytes."""
        self.health.suspect(time.monotonic())

    def report_corruption(self, what: str) -> None:
        """Stop using the source for a while: it sent wrong bytes for the digest `what`."""
        self.health.report_corruption(time.monotonic())
        upstream, event = self.registry.name, "source sent wrong bytes, not used for a while"
        log.error(event, upstream=upstream, source=self.name, digest=what)
