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
from mirror.upstream.combined.accounts import UpstreamAccounts
from mirror.upstream.combined.health import UpstreamHealth
from mirror.upstream.combined.ranking import speakers_of, usable_first
from mirror.upstream.errors import UpstreamError, WrongBytes
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
        private: str = "everybody",
    ) -> None:
        """`recheck_access`: seconds for which what was read with an account is served unasked.

        `private`: who gets what only an account can read, as the option of that name.
        """
        self.name = name
        self.offline = offline
        self.recheck_access = recheck_access
        self._metrics = metrics
        self.sources = tuple(sources)
        self.own = self.sources[0]
        self.health = UpstreamHealth(self.sources, offline=offline)
        self.accounts = UpstreamAccounts(self.sources, private)
        self._tasks = tasks

    def uses_account(self, path: str) -> bool:
        """Return whether a repository is asked for with an account, here or at a source.

        What comes so is private: others may not be able to read it.
        """
        return self.accounts.configured

    @property
    def max_blob_connections(self) -> int:
        """The most connections for blobs to all sources together."""
        return sum(source.registry.max_blob_connections for source in self.sources)

    @property
    def max_connections(self) -> int:
        """The most connections to all sources together."""
        return sum(source.registry.max_connections for source in self.sources)

    def usable_sources(self) -> list[Source]:
        """Return the usable sources, best first; all sources if none is usable."""
        return usable_first(self.sources)

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
        return speakers_of(self.sources)

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


async def _outcome(request: Callable[[Source], Awaitable[T]], source: Source) -> T | UpstreamError:
    """Return the answer, or the error as a value: asyncio logs an exception that is never retrieved."""
    try:
        return await request(source)
    except UpstreamError as error:
        return without_frames(error)
