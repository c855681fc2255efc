"""One upstream with its sources: its own endpoint, and other mirrors of it.

Blobs, and manifests by digest, come from the source that is fast and healthy: the digest proves them. Tags,
listings, and the answer whether a repository has a blob at all, come from the sources that speak for the
upstream: its own endpoint, and those that are trusted with tags.
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
from mirror.upstream.guests.current import Guest
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.health import BreakerState
from mirror.upstream.rate_limit import BudgetLevel, RateLimitReading
from mirror.upstream.registry_client import ManifestBody, RemoteManifest, TagsPage
from mirror.upstream.rights.grant import Grant
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
        private: str = "everybody",
    ) -> None:
        """`recheck_access`: seconds for which what was read with an account is served unasked.

        `private`: who gets what only an account can read, as the option of that name.
        """
        self.name = name
        self.offline = offline
        self.recheck_access = recheck_access
        self.admits_guests = private == "as-upstream"
        self._guarded = private != "everybody"
        self._metrics = metrics
        self.sources = tuple(sources)
        self.own = self.sources[0]
        self._tasks = tasks

    @property
    def available(self) -> bool:
        """True if it is worth waiting for: the breaker of a source that speaks for it about tags is closed.

        Wrong bytes do not count: a digest proves content.
        """
        return not self.offline and _any_closed(self.speakers)

    @property
    def has_content(self) -> bool:
        """True if the breaker of any source is closed, so that blobs that a manifest names can be had."""
        return not self.offline and _any_closed(self.sources)

    @property
    def unresponsive(self) -> bool:
        """True if none of the sources that speak for it about tags has answered lately."""
        return all(source.answers.unresponsive for source in self.speakers)

    @property
    def allows_request(self) -> bool:
        """True if a request may be sent, also one that probes whether the upstream answers again."""
        now = time.monotonic()
        return not self.offline and any(source.health.allows_request(now) for source in self.speakers)

    @property
    def counts_pulls(self) -> bool:
        """True while a rate limit is reported: the GET of a manifest costs, a HEAD does not."""
        return any(source.registry.accounts.count_pulls for source in self.speakers)

    def uses_account(self, path: str) -> bool:
        """Return whether a repository is asked for with an account, here or at a source.

        What comes so is private: others may not be able to read it.
        """
        return any(source.registry.accounts.configured for source in self.sources)

    def guest(self, path: str, credentials: GuestLogin) -> Guest:
        """Return a client that comes with credentials of its own for a repository."""
        return self.own.registry.guests.guest(self.own.path(path), credentials)

    @property
    def guards(self) -> bool:
        """Return whether content may be here that not all clients may have."""
        return self._guarded and self.uses_account("")

    async def grant(self, path: str, reference: str | None, credentials: GuestLogin | None) -> Grant:
        """Ask the own endpoint whether these credentials, None for nobody's, may read a repository."""
        self.own.answers.raise_if_unresponsive()
        return await self.own.registry.grant(self.own.path(path), reference, credentials)

    @property
    def max_blob_connections(self) -> int:
        """The most connections for blobs to all sources together."""
        return sum(source.registry.max_blob_connections for source in self.sources)

    @property
    def max_connections(self) -> int:
        """The most connections to all sources together."""
        return sum(source.registry.max_connections for source in self.sources)

    def budget_level(self, path: str) -> BudgetLevel:
        """Return what rate limits leave for requests about the tags of a repository: that of the best source.

        Sources that do not answer do not count, as long as another one does.
        """
        now = time.monotonic()
        asked = [each for each in self.speakers if each.health.allows_request(now)] or self.speakers
        return min(
            (each.registry.accounts.budget_level(each.path(path)) for each in asked),
            key=lambda level: level.ttl_factor,
        )

    def rate_limit_reading(self) -> RateLimitReading | None:
        """Return how many pulls the upstream has left for all accounts; None where that is not known.

        Of several sources that speak for it, the one with the fewest.
        """
        readings = [each.registry.accounts.reading() for each in self.speakers]
        return min(filter(None, readings), key=lambda each: each.remaining, default=None)

    def report_timeout(self, seconds: float) -> bool:
        """Open the breakers of the sources that a client waited `seconds` for; return True for any."""
        waited_for = [source.answers.report_timeout(seconds) for source in self.sources]
        return any(waited_for)

    def raise_if_unresponsive(self, reference: Tag | Digest) -> None:
        """Raise the error that a new request for a manifest would get, before joining one in flight."""
        errors = []
        for source in self.best_speakers() if isinstance(reference, Tag) else self._usable_and_own():
            try:
                source.answers.raise_if_unresponsive()
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
            lambda source: source.head_manifest(path, reference, also), self.best_speakers()
        )

    async def get_manifest(
        self, path: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> ManifestBody:
        """Get a manifest: by tag from the sources of `head_manifest`, by digest from any source."""
        if isinstance(reference, Tag):
            return await self._first(
                lambda source: source.get_manifest(path, reference, also), self.best_speakers()
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

    async def head_blob(self, path: str, digest: Digest, expected: int | None = None) -> int | None:
        """Return the size of a blob that the repository has; ask other sources only if the upstream fails.

        `expected`: as of `RegistryClient.head_blob`.
        """
        try:
            return await self._first(
                lambda source: source.head_blob(path, digest, expected), self.best_speakers()
            )
        except UpstreamError as error:
            if not error.temporary:
                raise
            for source in self.usable_sources():
                if not source.trusted_for_tags:
                    with contextlib.suppress(UpstreamError):
                        return await source.head_blob(path, digest, expected)
            raise

    def doubt_heads(self) -> None:
        """Ask all sources by GET for a while how large blobs are: a HEAD has told a wrong length."""
        for source in self.sources:
            source.registry.doubt_heads()

    async def tags(self, path: str, query: str) -> TagsPage:
        return await self._first(lambda source: source.tags(path, query), self.best_speakers())

    async def referrers(self, path: str, digest: Digest) -> str:
        return await self._first(lambda source: source.referrers(path, digest), self.best_speakers())

    async def close(self) -> None:
        await asyncio.gather(*(source.registry.close() for source in self.sources))

    @property
    def speakers(self) -> list[Source]:
        """The sources that speak for the upstream: about tags, lists, and what a repository has."""
        return [source for source in self.sources if source.trusted_for_tags]

    def best_speakers(self) -> list[Source]:
        """Return the sources that speak for the upstream, best first: the usable ones, or all."""
        return [source for source in self.usable_sources() if source.trusted_for_tags] or self.speakers

    async def _first(self, request: Callable[[Source], Awaitable[T]], sources: Sequence[Source]) -> T:
        """Return the first good answer. Ask the next source when one fails or is late by its own measure."""
        waiting = list(sources)
        if len(waiting) == 1:
            return await request(waiting[0])
        began = time.monotonic()
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
                        for late in running.values():
                            late.health.record_late(time.monotonic() - began)
                        return answer
                    errors[asked] = answer
        finally:
            for task in running:
                task.cancel()
        raise errors.get(self.own) or next(iter(errors.values()))


def _any_closed(sources: Sequence[Source]) -> bool:
    now = time.monotonic()
    return any(source.health.breaker(now) is BreakerState.CLOSED for source in sources)


async def _outcome(request: Callable[[Source], Awaitable[T]], source: Source) -> T | UpstreamError:
    """Return the answer, or the error as a value: asyncio logs an exception that is never retrieved."""
    try:
        return await request(source)
    except UpstreamError as error:
        return without_frames(error)
