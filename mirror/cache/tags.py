"""Tags: fresh for a while, then confirmed with a HEAD, and stale when the upstream cannot be asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mirror.cache.answers import ManifestAnswer, ManifestInfo, Outcome
from mirror.cache.fill import Tools
from mirror.cache.manifests import Manifests, answer
from mirror.cache.missing import Missing
from mirror.cache.single import Single
from mirror.config import Tags as TagSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.index import Link, TagEntry
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.sources import Upstreams

T = TypeVar("T")

# With these the upstream has spoken: a tag that was deleted, or made private, is not served from memory.
FINAL = frozenset({Failure.NOT_FOUND, Failure.DENIED})


class Tags:
    """Tag entries, and what they point to."""

    def __init__(
        self, tools: Tools, upstreams: Upstreams, manifests: Manifests, settings: TagSettings
    ) -> None:
        self._store = tools.store
        self._upstreams = upstreams
        self._manifests = manifests
        self._settings = settings
        self._missing: Missing[tuple[Repository, Tag]] = Missing(settings.missing)
        self._confirming: Single[tuple[Repository, Tag], TagEntry] = Single(tools.tasks)
        self._getting: Single[tuple[Repository, Tag], ManifestAnswer] = Single(tools.tasks)

    async def get(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        """The manifest a tag points to. Raises UpstreamError or StoreError."""
        entry = await self._store.tag(repository, tag)
        if entry is None:
            with self._missing.remembering((repository, tag)):
                return await self._getting.once((repository, tag), partial(self._first, repository, tag))
        if self.is_fresh(entry.confirmed):
            found = await self._manifests.get(repository, Digest.parse(entry.digest))
            return replace(found, lasts=min(found.lasts, self._left(entry)))
        try:
            return await self._in_time(partial(self._renewed, repository, tag))
        except UpstreamError as error:
            stale = await self._manifests.held(repository, Digest.parse(entry.digest))
            if stale is None or error.failure in FINAL:
                raise
            return answer(stale, Outcome.STALE)

    async def head(self, repository: Repository, tag: Tag) -> ManifestInfo:
        """What a tag points to; asks the upstream with a HEAD at most."""
        entry = await self._store.tag(repository, tag)
        if entry is not None and self.is_fresh(entry.confirmed):
            return replace(_info(entry, Outcome.HIT), lasts=self._left(entry))
        try:
            if entry is None:
                with self._missing.remembering((repository, tag)):
                    return _info(await self._confirm(repository, tag), Outcome.MISS)
            return _info(await self._in_time(partial(self._confirm, repository, tag)), Outcome.HIT)
        except UpstreamError as error:
            if entry is None or error.failure in FINAL:
                raise
            return _info(entry, Outcome.STALE)

    def is_fresh(self, confirmed: float) -> bool:
        """Whether what was confirmed then (seconds since the epoch) is used without asking."""
        # A clock that was set back must not make an entry fresh for years.
        return 0 <= time.time() - confirmed < self._settings.fresh

    def _left(self, entry: TagEntry) -> float:
        """How much longer a fresh entry is used without asking, in seconds."""
        return entry.confirmed + self._settings.fresh - time.time()

    async def _in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        """With an answer to fall back on, nobody waits long for an upstream; it goes on being asked."""
        try:
            async with asyncio.timeout(self._settings.fallback_after):
                return await ask()
        except TimeoutError:
            raise UpstreamError(
                Failure.TIMEOUT, f"no answer within {self._settings.fallback_after:g} s"
            ) from None

    async def _renewed(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        entry = await self._confirm(repository, tag)
        manifest = await self._manifests.get(repository, Digest.parse(entry.digest))
        await self._store.put_tag(repository, tag, entry)
        return manifest

    async def _confirm(self, repository: Repository, tag: Tag) -> TagEntry:
        return await self._confirming.once((repository, tag), partial(self._ask, repository, tag))

    async def _ask(self, repository: Repository, tag: Tag) -> TagEntry:
        """HEAD: free of the rate limit at Docker Hub. Only an upstream that tells too little costs a GET."""
        try:
            info = await self._upstreams[repository.upstream].head_manifest(repository.path, tag)
        except UpstreamError as error:
            if error.failure is Failure.NOT_FOUND:
                await self._store.drop_tag(repository, tag)
            raise
        if info.digest is None or info.size is None:
            found = await self._first(repository, tag)
            return TagEntry(str(found.digest), found.media_type, len(found.data), time.time())
        entry = TagEntry(str(info.digest), info.media_type, info.size, time.time())
        await self._store.add_link(repository, info.digest, Link(info.media_type, info.size))
        # A tag that moved keeps its old entry until the new manifest is here: if that cannot be had (a HEAD
        # is free at Docker Hub, a GET is limited), the image that can be served is the old one.
        known = await self._store.tag(repository, tag)
        moved = known is not None and known.digest != entry.digest
        if not moved or (await self._store.held(repository, info.digest)).present:
            await self._store.put_tag(repository, tag, entry)
        return entry

    async def _first(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        """GET by tag: one round trip for digest and manifest."""
        body = await self._upstreams[repository.upstream].get_manifest(repository.path, tag)
        manifest = await self._manifests.keep(repository, body)
        entry = TagEntry(str(body.digest), body.media_type, len(body.data), time.time())
        await self._store.put_tag(repository, tag, entry)
        return answer(manifest, Outcome.MISS)


def _info(entry: TagEntry, outcome: Outcome) -> ManifestInfo:
    return ManifestInfo(Digest.parse(entry.digest), entry.media_type, entry.size, outcome)
