"""Where an upstream's content can be had: its own endpoint, and other mirrors of it.

Blobs and manifests by digest come from whichever source is fast and healthy, because the digest proves
them; tags from the upstream's own endpoint and from sources that are trusted with tags; listings, and whether
a repository has a blob at all, from the own endpoint.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mirror.config import Config, UpstreamSettings
from mirror.log import get_logger
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.tasks import Tasks
from mirror.upstream.body import BlobBody
from mirror.upstream.budget import Pressure
from mirror.upstream.client import Shortcut
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.health import FAILURES, Health, State
from mirror.upstream.registry import ManifestBody, ManifestInfo, Registry, TagsPage

T = TypeVar("T")

log = get_logger(__name__)

# The most that a 429 keeps the number of connections down, in seconds.
LONGEST_REST = 60.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How a source is used: see `SourceSettings`. Those of an upstream's own endpoint are the defaults."""

    prefix: str = ""
    weight: float = 1.0
    tags: bool = True


class Source:
    """One place to ask, and what is known about it."""

    def __init__(self, name: str, registry: Registry, terms: Terms, total: asyncio.Semaphore) -> None:
        """`total`: the connections for blobs that all sources of all upstreams have together."""
        self.name = name
        self.prefix = terms.prefix
        self.weight = terms.weight
        self.tags = terms.tags
        self.registry = registry
        self._total = total
        self._turns = asyncio.Semaphore(registry.most_bodies)
        self.health = Health()
        self.ranges = True  # until an answer shows otherwise
        self.level = 1  # how many connections have paid for one blob
        self.lanes = 0  # how many bring blobs now
        self._rest_until = 0.0
        self._answered = 0.0  # when it last did
        self._silence: str | None = None  # why there was no answer, when there was none the last time

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    def path(self, repository: str) -> str:
        return f"{self.prefix}/{repository}" if self.prefix else repository

    @property
    def full(self) -> bool:
        """Whether one more lane would have to wait for another to end, or would be before one that waits."""
        return self._turns.locked() or self._total.locked()

    def resting(self, now: float) -> bool:
        """Whether it asked for less: no second connection for a blob."""
        return now < self._rest_until

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more connection may bring a blob."""
        async with self._turns, self._total:
            self.lanes += 1
            try:
                yield
            finally:
                self.lanes -= 1

    @contextlib.asynccontextmanager
    async def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], shortcut: Shortcut
    ) -> AsyncIterator[BlobBody]:
        """As `Registry.open_blob`, in a `turn`; what it costs and whether it works is remembered."""
        start, stop = span
        began = time.monotonic()
        self._refuse_while_silent(began)
        try:
            self.health.asked(began)
            async with self.registry.open_blob(
                self.path(repository), digest, start, stop, shortcut=shortcut
            ) as body:
                self._answers(began)
                yield body
        except UpstreamError as error:
            if self._is_news(error, began):
                self.failed(error)
            raise

    async def head_manifest(self, repository: str, reference: Tag | Digest) -> ManifestInfo:
        return await self.ask(lambda registry: registry.head_manifest(self.path(repository), reference))

    async def get_manifest(self, repository: str, reference: Tag | Digest) -> ManifestBody:
        return await self.ask(lambda registry: registry.get_manifest(self.path(repository), reference))

    async def get_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        return await self.ask(lambda registry: registry.get_blob(self.path(repository), digest, limit))

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        return await self.ask(lambda registry: registry.head_blob(self.path(repository), digest))

    async def ask(self, question: Callable[[Registry], Awaitable[T]]) -> T:
        """A small request; how long it took and whether it worked is remembered."""
        began = time.monotonic()
        self._refuse_while_silent(began)
        self.health.asked(began)
        try:
            answer = await question(self.registry)
        except UpstreamError as error:
            if self._is_news(error, began):
                # Tried several times already: the next one who asks is not kept waiting for the same.
                self.failed(error, FAILURES if error.silent else 1)
            raise
        self._answers(began)
        return answer

    def _answers(self, began: float) -> None:
        self._answered = time.monotonic()
        self.health.answered(self._answered - began)

    def _is_news(self, error: UpstreamError, began: float) -> bool:
        """Silence from before it last answered says nothing about now."""
        return not error.silent or began > self._answered

    def _refuse_while_silent(self, now: float) -> None:
        """A source that gave no answer at all is not waited for by one client after the other."""
        if self._silence is not None and self.health.breaker(now) is State.OPEN:
            raise UpstreamError(Failure.UNREACHABLE, f"{self._silence}, and will be tried again soon")

    def failed(self, error: UpstreamError, times: int = 1) -> None:
        """`times`: how many failures it counts for."""
        now = time.monotonic()
        self._silence = error.message if error.silent else None
        if error.failure is Failure.RATE_LIMITED:
            self.level = max(1, self.level // 2)
            self._rest_until = now + min(error.retry_after or LONGEST_REST, LONGEST_REST)
        if error.failure is Failure.OFFLINE:
            return
        if error.temporary:
            self.health.failed(now, times)
        else:
            self._answered = now
            self.health.answered(self.health.latency)  # it refuses, so it is well

    def state(self, now: float) -> dict[str, Any]:
        """For people: whether it is used, and what is left with each account, where that is known."""
        accounts = [account.state() for account in self.registry.accounts.all]
        return {"source": self.name, "breaker": str(self.health.state(now)), "accounts": accounts}

    def suspected(self) -> None:
        """It sent wrong bytes, or another one did: out for a while, or until it is `cleared`."""
        self.health.lied(time.monotonic())

    def lied(self, what: str) -> None:
        """It sent wrong bytes: out for a while."""
        self.health.lied(time.monotonic())
        log.error("source sent wrong bytes, not used for a while", source=self.name, digest=what)


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
    def answers(self) -> bool:
        """Whether it is worth waiting for: its own endpoint did answer, the last times it was asked.

        With wrong bytes even: whatever has a digest is proven, and for tags there is nobody else to ask.
        """
        return not self.offline and self.own.health.breaker(time.monotonic()) is State.CLOSED

    @property
    def may_be_asked(self) -> bool:
        """Whether a request may be sent, be it to see whether it answers again."""
        return not self.offline and self.own.health.may_be_asked(time.monotonic())

    def pressure(self, path: str) -> Pressure:
        """How sparing to be with requests for a repository, by what its own endpoint says of its limits."""
        return self.own.registry.accounts.pressure(path)

    def usable(self) -> list[Source]:
        """The sources to ask, best first; all of them when none is well."""
        now = time.monotonic()
        well = [source for source in self.sources if source.health.usable(now)]
        return sorted(well or self.sources, key=lambda source: source.health.latency / source.weight)

    async def head_manifest(self, path: str, reference: Tag | Digest) -> ManifestInfo:
        """The word of the upstream itself, or of a source that is trusted with tags."""
        return await self._first(lambda source: source.head_manifest(path, reference), self._trusted())

    async def get_manifest(self, path: str, reference: Tag | Digest) -> ManifestBody:
        """By tag from those `head_manifest` asks; by digest from whichever source is first."""
        if isinstance(reference, Tag):
            return await self._first(lambda source: source.get_manifest(path, reference), self._trusted())
        return await self._first(
            lambda source: self._honest(source, reference, source.get_manifest(path, reference)),
            self.usable(),
        )

    async def get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        """A small blob, from whichever source is first."""
        return await self._first(
            lambda source: self._honest(source, digest, source.get_blob(path, digest, limit)), self.usable()
        )

    async def _honest(self, source: Source, digest: Digest, answer: Awaitable[T]) -> T:
        """The answer; a source that sends other bytes than the digest names is left alone for a while.

        The upstream's own endpoint is not: without it there is nobody to ask.
        """
        try:
            return await answer
        except WrongBytes:
            if source is not self.own:
                source.lied(str(digest))
                self._metrics.source_lies.labels(self.name, source.name).inc()
            raise

    async def head_blob(self, path: str, digest: Digest) -> int | None:
        """Whether a repository has a blob: the upstream's word, or a mirror's of it while it is silent."""
        try:
            return await self.own.head_blob(path, digest)
        except UpstreamError as error:
            if not error.temporary or len(self.sources) == 1:
                raise
            for source in self.usable():
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
        trusted = [source for source in self.sources if source.tags]
        return [source for source in self.usable() if source in trusted] or trusted

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
                    timeout=source.health.patience() if source and waiting else None,
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


class Upstreams(Mapping[str, Upstream]):
    """All configured upstreams by canonical name, in the order of the configuration.

    None is made later because a client named it (invariant 7).
    """

    def __init__(self, config: Config, metrics: Metrics, tasks: Tasks) -> None:
        offline, total = config.server.offline, asyncio.Semaphore(config.fill.connections)
        self._upstreams = {
            each.name: Upstream(
                each.name, _sources(each, metrics, total, offline), tasks, metrics, offline=offline
            )
            for each in config.upstreams
        }

    def __getitem__(self, name: str) -> Upstream:
        return self._upstreams[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._upstreams)

    def __len__(self) -> int:
        return len(self._upstreams)

    def state(self) -> dict[str, Any]:
        """How each is doing, for people."""
        now = time.monotonic()
        return {
            upstream.name: {
                "offline": upstream.offline,
                "sources": [source.state(now) for source in upstream.sources],
            }
            for upstream in self._upstreams.values()
        }

    def report(self, metrics: Metrics) -> None:
        """Bring the gauges about the sources up to date."""
        now = time.monotonic()
        # What is not known any more has no value: an old one would be taken for what is left now.
        metrics.ratelimit_limit.clear()
        metrics.ratelimit_remaining.clear()
        for upstream in self._upstreams.values():
            for account in upstream.own.registry.accounts.all:
                account.report(metrics, upstream.name)
            for source in upstream.sources:
                labels = (upstream.name, source.name)
                metrics.source_up.labels(*labels).set(source.health.state(now) is State.CLOSED)
                metrics.source_latency.labels(*labels).set(source.health.latency)
                metrics.source_speed.labels(*labels).set(source.health.speed)
                metrics.source_connections.labels(*labels).set(source.lanes)

    async def warm_up(self) -> None:
        """Be ready for the first question. Nothing is dialled; what is wrong is told to who asks."""
        for upstream in self._upstreams.values():
            for source in upstream.sources:
                with contextlib.suppress(UpstreamError):
                    await source.registry.warm_up()

    async def close(self) -> None:
        """Close the connections of all of them."""
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))


def _sources(
    settings: UpstreamSettings, metrics: Metrics, total: asyncio.Semaphore, offline: bool
) -> list[Source]:
    """The upstream's own endpoint, then its mirrors."""
    sources = [Source(_label(settings.url), Registry(settings, metrics, offline=offline), Terms(), total)]
    for each in settings.sources:
        # A mirror is asked with its own credentials only: nothing of the upstream's goes there.
        endpoint = UpstreamSettings(name=settings.name, **each.endpoint())
        registry = Registry(endpoint, metrics, offline=offline)
        terms = Terms(each.prefix, each.weight, each.tags)
        sources.append(Source(_label(each.url), registry, terms, total))
    return sources


def _label(url: str) -> str:
    """A source by its host and path, for logs and metrics."""
    return url.partition("://")[2]
