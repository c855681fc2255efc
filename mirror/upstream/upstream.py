"""One upstream with its sources: its own endpoint, and other mirrors of it.

Blobs, and manifests by digest, come from the source that is fast and healthy: the digest proves them. Tags
come from the upstream's own endpoint and from sources that are trusted with tags. Listings, and the answer
whether a repository has a blob at all, come from the own endpoint.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.errors import UpstreamError, WrongBytes
from mirror.upstream.health import BreakerState
from mirror.upstream.rate_limit import BudgetLevel
from mirror.upstream.registry_client import ManifestBody, RemoteManifest, TagsPage
from mirror.upstream.source import Source
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import without_frames

T = TypeVar("T")


class Upstream:
    """One upstream with all its sources; the first is its own endpoint. All methods raise UpstreamError."""

    def __init__(
        self,
        name: str,
        sources: Sequence[Source],
        tasks: Tasks,
        metrics: Metrics,
        *,
        offline: bool = False,
        recheck_access: float = math.inf,
    ) -> None:
        """`recheck_access`: seconds for which what was read with an account is served unasked."""
        self.name = name
        self.offline = offline
        self.recheck_access = recheck_access
        self._metrics = metrics
        self.sources = tuple(sources)
        self.own = self.sources[0]
        self._tasks = tasks

    @property
    def available(self) -> bool:
        """True if it is worth waiting for: the breaker of its own endpoint is closed.

        Wrong bytes do not count: a digest proves content, and for tags there is no other source to ask.
        """
        return not self.offline and self.own.health.breaker(time.monotonic()) is BreakerState.CLOSED

    @property
    def allows_request(self) -> bool:
        """True if a request may be sent, also one that probes whether the upstream answers again."""
        return not self.offline and self.own.health.allows_request(time.monotonic())

    @property
    def counts_pulls(self) -> bool:
        """True while the own endpoint reports a rate limit: the GET of a manifest costs, a HEAD does not."""
        return self.own.registry.accounts.count_pulls

    def uses_account(self, path: str) -> bool:
        """Return whether a repository is asked for with an account, here or at a source.

        What comes so is private: others may not be able to read it.
        """
        return any(source.registry.accounts.configured for source in self.sources)

    @property
    def max_blob_connections(self) -> int:
        """The most connections for blobs to all sources together."""
        return sum(source.registry.max_blob_connections for source in self.sources)

    @property
    def max_connections(self) -> int:
        """The most connections to all sources together."""
        return sum(source.registry.max_connections for source in self.sources)

    def budget_level(self, path: str) -> BudgetLevel:
        """Return what the rate limit of its own endpoint leaves for requests about a repository."""
        return self.own.registry.accounts.budget_level(path)

    def report_timeout(self, seconds: float) -> bool:
        """Open the breakers of the sources that a client waited `seconds` for; return True for any."""
        waited_for = [source.report_timeout(seconds) for source in self.sources]
        return any(waited_for)

    def raise_if_unresponsive(self, reference: Tag | Digest) -> None:
        """Raise the error that a new request for a manifest would get, before joining one in flight."""
        errors = []
        for source in self._trusted_for_tags() if isinstance(reference, Tag) else self._usable_and_own():
            try:
                source.raise_if_unresponsive()
            except UpstreamError as error:
                errors.append(error)
            else:
                return
        raise errors[-1]

    def usable_sources(self) -> list[Source]:
        """Return the usable sources, best first; all sources if none is usable."""
        now = time.monotonic()
        usable = [source for source in self.sources if source.health.usable(now)]
        return sorted(usable or self.sources, key=lambda source: source.health.latency / source.weight)

    def _usable_and_own(self) -> list[Source]:
        """Return the sources for content with a digest, best first, the own endpoint always among them."""
        usable = self.usable_sources()
        return usable if self.own in usable else [*usable, self.own]

    async def head_manifest(
        self, path: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> RemoteManifest:
        """Ask the own endpoint, or a source that is trusted with tags."""
        return await self._first(
            lambda source: source.head_manifest(path, reference, also), self._trusted_for_tags()
        )

    async def get_manifest(
        self, path: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> ManifestBody:
        """Get a manifest: by tag from the sources of `head_manifest`, by digest from any source."""
        if isinstance(reference, Tag):
            return await self._first(
                lambda source: source.get_manifest(path, reference, also), self._trusted_for_tags()
            )
        return await self._first(
            lambda source: self._checked(source, reference, source.get_manifest(path, reference, also)),
            self._usable_and_own(),
        )

    async def get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        """Get a small blob from any source."""
        return await self._first(
            lambda source: self._checked(source, digest, source.get_blob(path, digest, limit)),
            self._usable_and_own(),
        )

    async def _checked(self, source: Source, digest: Digest, answer: Awaitable[T]) -> T:
        """Return the answer; stop using a source that sends bytes that do not match the digest.

        The upstream's own endpoint stays in use: there is no other for tags.
        """
        try:
            return await answer
        except WrongBytes:
            if source is not self.own:
                source.report_corruption(str(digest))
                self._metrics.source_wrong_bytes.labels(self.name, source.name).inc()
            raise

    async def head_blob(self, path: str, digest: Digest) -> int | None:
        """Return the size of a blob that the repository has; ask other sources only if the upstream fails."""
        try:
            return await self.own.head_blob(path, digest)
        except UpstreamError as error:
            if not error.temporary or len(self.sources) == 1:
                raise
            for source in self.usable_sources():
                if source is not self.own:
                    with contextlib.suppress(UpstreamError):
                        return await source.head_blob(path, digest)
            raise

    async def tags(self, path: str, query: str) -> TagsPage:
        return await self.own.ask(lambda registry: registry.tags(path, query))

    async def referrers(self, path: str, digest: Digest) -> str:
        return await self.own.ask(lambda registry: registry.referrers(path, digest))

    async def close(self) -> None:
        await asyncio.gather(*(source.registry.close() for source in self.sources))

    def _trusted_for_tags(self) -> list[Source]:
        """Return the sources whose answer about a tag counts, best first."""
        trusted = [source for source in self.sources if source.trusted_for_tags]
        return [source for source in self.usable_sources() if source in trusted] or trusted

    async def _first(self, request: Callable[[Source], Awaitable[T]], sources: Sequence[Source]) -> T:
        """Return the first good answer. Ask the next source when one fails or is late by its own measure."""
        waiting = list(sources)
        if len(waiting) == 1:
            return await request(waiting[0])
        running: dict[asyncio.Task[T | UpstreamError], Source] = {}
        errors: dict[Source, UpstreamError] = {}
        try:
            while waiting or running:
                source = None
                if waiting:
                    source = waiting.pop(0)
                    task = self._tasks.spawn(_outcome(request, source), name=f"ask {source.name}")
                    running[task] = source
                done, _ = await asyncio.wait(
                    running,
                    timeout=source.health.hedge_delay() if source and waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    asked = running.pop(task)
                    answer = task.result()
                    if not isinstance(answer, UpstreamError):
                        return answer
                    errors[asked] = answer
        finally:
            for task in running:
                task.cancel()
        raise errors.get(self.own) or next(iter(errors.values()))


async def _outcome(request: Callable[[Source], Awaitable[T]], source: Source) -> T | UpstreamError:
    """Return the answer, or the error as a value: asyncio logs an exception that is never retrieved."""
    try:
        return await request(source)
    except UpstreamError as error:
        return without_frames(error)
