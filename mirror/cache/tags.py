"""Tags: fresh for a while, then confirmed with a HEAD, and stale when the upstream cannot be asked."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mirror.cache.freshness import Freshness
from mirror.cache.manifests import ManifestCache, answer
from mirror.cache.negative_cache import NegativeCache
from mirror.cache.results import ManifestAnswer, ManifestInfo, Outcome, Staleness
from mirror.config.schema import TagSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.errors import StoreError
from mirror.store.lock import name_key
from mirror.store.metadata.index import Link, TagEntry
from mirror.transfer.context import TransferContext
from mirror.transfer.exclusive import exclusive
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.rate_limit import PLENTY
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.single_flight import SingleFlight

T = TypeVar("T")

Ask = Callable[[], Awaitable[T]]
Stale = Callable[[Staleness], Awaitable[T | None]]

# With these the upstream has spoken: a tag that was deleted, or made private, is not served from memory.
FINAL = frozenset({Failure.NOT_FOUND, Failure.DENIED})


class LateAnswer(UpstreamError):
    """The upstream has not answered as soon as it should where there is something to fall back on."""


class TagCache:
    """Tag entries, and what they point to."""

    def __init__(
        self,
        context: TransferContext,
        upstreams: UpstreamSet,
        manifests: ManifestCache,
        settings: TagSettings,
    ) -> None:
        self._context = context
        self._store = context.store
        self._upstreams = upstreams
        self._manifests = manifests
        self._fallback_after = settings.fallback_after
        self._freshness = Freshness(settings)
        self._missing: NegativeCache[tuple[Repository, Tag]] = NegativeCache(settings.missing)
        self._confirming: SingleFlight[tuple[Repository, Tag], TagEntry] = SingleFlight(context.tasks)
        self._getting: SingleFlight[tuple[Repository, Tag], ManifestAnswer] = SingleFlight(context.tasks)
        self._renewing: SingleFlight[tuple[Repository, Tag], None] = SingleFlight(context.tasks)

    async def get(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        """The manifest a tag points to. Raises UpstreamError or StoreError."""
        asked = self._context.clock()
        entry = await self._store.tag(repository, tag)
        if entry is None:
            # What is here by its digest costs no GET when a HEAD tells the digest first, but one more trip.
            spare = self._upstreams[repository.upstream].budget_level(repository.path) is not PLENTY
            first = partial(self._first, repository, tag, asked)
            find = partial(self._renewed, repository, tag) if spare else first
            with self._missing.remembering((repository, tag)):
                self._upstreams[repository.upstream].raise_if_unresponsive(tag)
                return await self._getting.do((repository, tag), find)
        left = self._left(repository, tag, entry)
        if left > 0:
            found = await self._manifests.get(repository, Digest.parse(entry.digest))
            return replace(found, ttl=min(found.ttl, left))
        ask = partial(self._renewed, repository, tag)
        return await self._confirmed(repository, tag, entry, (ask, partial(self._stale, repository, entry)))

    async def head(self, repository: Repository, tag: Tag) -> ManifestInfo:
        """What a tag points to; asks the upstream with a HEAD at most."""
        entry = await self._store.tag(repository, tag)
        if entry is None:
            with self._missing.remembering((repository, tag)):
                self._upstreams[repository.upstream].raise_if_unresponsive(tag)
                return _info(await self._confirm(repository, tag), Outcome.MISS)
        left = self._left(repository, tag, entry)
        if left > 0:
            return _info(entry, Outcome.HIT, left)

        async def ask() -> ManifestInfo:
            return _info(await self._confirm(repository, tag), Outcome.HIT)

        async def stale(staleness: Staleness) -> ManifestInfo | None:
            held = await self._store.look_up(repository, Digest.parse(entry.digest))
            return replace(_info(entry, Outcome.STALE), staleness=staleness) if held.present else None

        return await self._confirmed(repository, tag, entry, (ask, stale))

    def is_fresh(self, repository: Repository, confirmed: float) -> bool:
        """Whether what was said of the repository then (seconds since the epoch) is used without asking."""
        return self._freshness.of(repository).left(self._context.clock() - confirmed) > 0

    def spares(self, repository: Repository, age: float) -> bool:
        """Whether what was said of the repository so long ago is used because asking is dear now."""
        upstream = self._upstreams[repository.upstream]
        pressure = upstream.budget_level(repository.path)
        return upstream.available and self._freshness.of(repository).spared(age, pressure)

    async def _confirmed(
        self, repository: Repository, tag: Tag, entry: TagEntry, ways: tuple[Ask[T], Stale[T]]
    ) -> T:
        """The answer for an entry that is no longer fresh: asked for, or stale where the terms allow it.

        1. where the terms allow to ask meanwhile, or the upstream has not answered lately, nobody waits;
           nor while its rate limit is spared, and then it is asked only to see whether it answers again
        2. else the upstream is asked, and has `fallback_after` seconds if there is something to fall back on
        """
        ask, stale = ways
        age = self._context.clock() - entry.confirmed
        terms, upstream = self._freshness.of(repository, tag), self._upstreams[repository.upstream]
        spared = terms.spared(age, upstream.budget_level(repository.path))
        if spared or terms.at_once(age) or (terms.at_worst(age) and not upstream.available):
            found = await stale(Staleness(age, _why(upstream, spared=spared)))
            if found is not None:
                wanted = not (spared and upstream.available) and upstream.allows_request
                if wanted and not self._renewing.running((repository, tag)):
                    renewing = self._renew_quietly(repository, tag, entry)
                    self._context.tasks.spawn(renewing, name=f"renew {repository}:{tag}")
                return found
        try:
            return await (self.in_time(repository, ask()) if terms.at_worst(age) else ask())
        except UpstreamError as error:
            fallback = error.failure not in FINAL and terms.at_worst(age)
            found = await stale(Staleness(age, str(error))) if fallback else None
            if found is not None:
                return found
            # Only our patience has ended, and what that was for has been evicted: it is still being asked.
            if isinstance(error, LateAnswer) and upstream.available:
                return await ask()
            raise

    async def _stale(
        self, repository: Repository, entry: TagEntry, staleness: Staleness
    ) -> ManifestAnswer | None:
        held = await self._manifests.held(repository, Digest.parse(entry.digest))
        return None if held is None else replace(answer(held, Outcome.STALE), staleness=staleness)

    async def _renew_quietly(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Revalidate a stale entry in the background for the next request; errors are ignored."""
        with contextlib.suppress(UpstreamError, StoreError):
            await self._renewing.do((repository, tag), partial(self._renew_once, repository, tag, entry))

    async def _renew_once(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Revalidate, unless a renewal that has just ended did so: `entry` is then an old one."""
        if await self._store.tag(repository, tag) == entry:
            await self._renewed(repository, tag)

    def _left(self, repository: Repository, tag: Tag, entry: TagEntry) -> float:
        """How much longer an entry is used without asking, in seconds."""
        return self._freshness.of(repository, tag).left(self._context.clock() - entry.confirmed)

    async def in_time(self, repository: Repository, asking: Awaitable[T]) -> T:
        """With an answer to fall back on, nobody waits long for an upstream; it goes on being asked."""
        seconds = self._fallback_after if self._upstreams[repository.upstream].available else 0.0
        try:
            async with asyncio.timeout(seconds):
                return await asking
        except TimeoutError:
            message = f"{repository.upstream} did not answer within {self._fallback_after:g} s"
            raise LateAnswer(Failure.TIMEOUT, message) from None

    async def _renewed(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        entry = await self._confirm(repository, tag)
        manifest = await self._manifests.get(repository, Digest.parse(entry.digest))
        await self._store.put_tag(repository, tag, entry)
        return manifest

    async def _confirm(self, repository: Repository, tag: Tag) -> TagEntry:
        return await self._confirming.do((repository, tag), partial(self._ask, repository, tag))

    async def _ask(self, repository: Repository, tag: Tag) -> TagEntry:
        """HEAD: free of the rate limit at Docker Hub. Only an upstream that tells too little costs a GET."""
        asked = self._context.clock()
        try:
            info = await self._upstreams[repository.upstream].head_manifest(repository.path, tag)
        except UpstreamError as error:
            if error.failure is Failure.NOT_FOUND:
                await self._store.drop_tag(repository, tag)
            raise
        if info.digest is None or info.size is None:
            found = await self._first(repository, tag, asked)
            return TagEntry(str(found.digest), found.media_type, len(found.data), self._context.clock())
        entry = TagEntry(str(info.digest), info.media_type, info.size, self._context.clock())
        await self._store.add_link(repository, info.digest, Link(info.media_type, info.size))
        # A tag that moved keeps its old entry until the new manifest is here: if that cannot be had (a HEAD
        # is free at Docker Hub, a GET is limited), the image that can be served is the old one.
        known = await self._store.tag(repository, tag)
        moved = known is not None and known.digest != entry.digest
        if not moved or (await self._store.look_up(repository, info.digest)).present:
            await self._store.put_tag(repository, tag, entry)
        return entry

    async def _first(self, repository: Repository, tag: Tag, asked: float) -> ManifestAnswer:
        """GET by tag: one round trip for digest and manifest; by one process at a time, because it counts.

        What another one was told since `asked` will do.
        """
        async with exclusive(self._store, name_key(f"{repository}:{tag}")):
            entry = await self._store.tag(repository, tag)
            if entry is None or entry.confirmed < asked:
                return await self._fetch(repository, tag)
        return await self._manifests.get(repository, Digest.parse(entry.digest))

    async def _fetch(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        body = await self._upstreams[repository.upstream].get_manifest(repository.path, tag)
        manifest = await self._manifests.keep(repository, body)
        entry = TagEntry(str(body.digest), body.media_type, len(body.data), self._context.clock())
        await self._store.put_tag(repository, tag, entry)
        return answer(manifest, Outcome.MISS)


def _why(upstream: Upstream, *, spared: bool) -> str:
    """What is told about a stale answer that nobody waited for."""
    if not upstream.available:
        return f"{upstream.name} has not answered lately"
    return spared_words(upstream.name) if spared else "being asked about"


def spared_words(upstream: str) -> str:
    """Why an upstream that answers was not asked."""
    return f"the rate limit of {upstream} is spared"


def _info(entry: TagEntry, outcome: Outcome, ttl: float = 0.0) -> ManifestInfo:
    return ManifestInfo(Digest.parse(entry.digest), entry.media_type, entry.size, outcome, ttl)
