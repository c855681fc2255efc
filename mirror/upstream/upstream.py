"""Where an upstream's content can be had: its own endpoint, and other mirrors of it.

Blobs and manifests by digest come from whichever source is fast and healthy, because the digest proves
them; tags from the upstream's own endpoint and from sources that are trusted with tags; listings, and whether
a repository has a blob at all, from the own endpoint.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.errors import UpstreamError, WrongBytes
from mirror.upstream.health import BreakerState
from mirror.upstream.rate_limit import BudgetLevel
from mirror.upstream.registry_client import ManifestBody, RemoteManifest, TagsPage
from mirror.upstream.source import Source
from mirror.util.tasks import Tasks

T = TypeVar("T")


class Upstream:
    """One upstream with all its sources; the first is its own endpoint. Raises UpstreamError throughout."""

    def __init__(
        self, name: str, sources: Sequence[Source], tasks: Tasks, metrics: Metrics, *, offline: bool = False
    ) -> None:
        self.name = name
        self.offline = offline
        self._metrics = metrics
        self.sources = tuple(sources)
        self.own = self.sources[0]
        self._tasks = tasks

    @property
    def available(self) -> bool:
        """Whether it is worth waiting for: its own endpoint did answer, the last times it was asked.

        With wrong bytes even: whatever has a digest is proven, and for tags there is nobody else to ask.
        """
        return not self.offline and self.own.health.breaker(time.monotonic()) is BreakerState.CLOSED

    @property
    def allows_request(self) -> bool:
        """Whether a request may be sent, be it to see whether it answers again."""
        return not self.offline and self.own.health.allows_request(time.monotonic())

    def budget_level(self, path: str) -> BudgetLevel:
        """How sparing to be with requests for a repository, by what its own endpoint says of its limits."""
        return self.own.registry.accounts.budget_level(path)

    def report_timeout(self, seconds: float) -> bool:
        """A client has waited so long. Whether it was for one of the sources."""
        vain = [source.report_timeout(seconds) for source in self.sources]
        return any(vain)

    def raise_if_unresponsive(self, reference: Tag | Digest) -> None:
        """For those who would join a question about a manifest: what they were told if they asked it now."""
        errors = []
        for source in self._trusted() if isinstance(reference, Tag) else self._proven():
            try:
                source.raise_if_unresponsive()
            except UpstreamError as error:
                errors.append(error)
            else:
                return
        raise errors[-1]

    def usable_sources(self) -> list[Source]:
        """The sources to ask, best first; all of them when none is well."""
        now = time.monotonic()
        well = [source for source in self.sources if source.health.usable(now)]
        return sorted(well or self.sources, key=lambda source: source.health.latency / source.weight)

    def _proven(self) -> list[Source]:
        """The sources to ask for what is proven at once, best first; the last word has the own endpoint."""
        usable = self.usable_sources()
        return usable if self.own in usable else [*usable, self.own]

    async def head_manifest(self, path: str, reference: Tag | Digest) -> RemoteManifest:
        """The word of the upstream itself, or of a source that is trusted with tags."""
        return await self._first(lambda source: source.head_manifest(path, reference), self._trusted())

    async def get_manifest(self, path: str, reference: Tag | Digest) -> ManifestBody:
        """By tag from those `head_manifest` asks; by digest from whichever source is first."""
        if isinstance(reference, Tag):
            return await self._first(lambda source: source.get_manifest(path, reference), self._trusted())
        return await self._first(
            lambda source: self._honest(source, reference, source.get_manifest(path, reference)),
            self._proven(),
        )

    async def get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        """A small blob, from whichever source is first."""
        return await self._first(
            lambda source: self._honest(source, digest, source.get_blob(path, digest, limit)), self._proven()
        )

    async def _honest(self, source: Source, digest: Digest, answer: Awaitable[T]) -> T:
        """The answer; a source that sends other bytes than the digest names is left alone for a while.

        The upstream's own endpoint is not: without it there is nobody to ask.
        """
        try:
            return await answer
        except WrongBytes:
            if source is not self.own:
                source.report_corruption(str(digest))
                self._metrics.source_wrong_bytes.labels(self.name, source.name).inc()
            raise

    async def head_blob(self, path: str, digest: Digest) -> int | None:
        """Whether a repository has a blob: the upstream's word, or a mirror's of it while it is silent."""
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

    async def referrers(self, path: str, digest: Digest) -> list[dict[str, Any]]:
        return await self.own.ask(lambda registry: registry.referrers(path, digest))

    async def close(self) -> None:
        await asyncio.gather(*(source.registry.close() for source in self.sources))

    def _trusted(self) -> list[Source]:
        """The sources whose word on a tag counts, best first."""
        trusted = [source for source in self.sources if source.trusted_for_tags]
        return [source for source in self.usable_sources() if source in trusted] or trusted

    async def _first(self, question: Callable[[Source], Awaitable[T]], sources: Sequence[Source]) -> T:
        """The first good answer. The next source is asked when one fails, or is late by its own measure."""
        waiting = list(sources)
        if len(waiting) == 1:
            return await question(waiting[0])
        running: dict[asyncio.Task[T | UpstreamError], Source] = {}
        errors: dict[Source, UpstreamError] = {}
        try:
            while waiting or running:
                source = None
                if waiting:
                    source = waiting.pop(0)
                    asking = _asked(question, source)
                    running[self._tasks.spawn(asking, name=f"ask {source.name}")] = source
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


async def _asked(question: Callable[[Source], Awaitable[T]], source: Source) -> T | UpstreamError:
    """The answer, or the error as a value: a task whose error nobody fetches is logged as lost."""
    try:
        return await question(source)
    except UpstreamError as error:
        return error
