"""Listings: tags and referrers of a repository, repositories of the cache."""

import time
from collections.abc import Collection
from functools import partial
from typing import Any

from mirror.cache.answers import CatalogAnswer, Outcome, ReferrersAnswer, TagsAnswer
from mirror.cache.fill import Tools
from mirror.cache.single import Single
from mirror.cache.tags import FINAL, Tags
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    ManifestInvalid,
    filter_referrers,
    referrers_index,
    referrers_of,
    referrers_tag,
)
from mirror.oci.reference import Repository
from mirror.store.index import ReferrersEntry
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.sources import Upstreams


class Listings:
    """Small answers that change: asked of the upstream, coalesced, and referrers kept for a while."""

    def __init__(self, tools: Tools, upstreams: Upstreams, tags: Tags) -> None:
        self._store = tools.store
        self._upstreams = upstreams
        self._tags = tags
        self._listing: Single[tuple[Repository, str], TagsAnswer] = Single(tools.tasks)
        self._referring: Single[tuple[Repository, Digest], list[dict[str, Any]]] = Single(tools.tasks)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        """One page of the upstream's own listing. Raises UpstreamError."""
        return await self._listing.once((repository, query), partial(self._list_tags, repository, query))

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_types: Collection[str]
    ) -> ReferrersAnswer:
        """What refers to a digest, as an OCI index: all of it, or what is of one of `artifact_types`.

        Raises UpstreamError; NOT_FOUND when unknown.
        """
        manifests, outcome = await self._referrers(repository, digest)
        if not artifact_types:
            return ReferrersAnswer(referrers_index(manifests), False, outcome)
        chosen = filter_referrers(manifests, artifact_types)
        return ReferrersAnswer(referrers_index(chosen), True, outcome)

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        """Repositories of which something is cached: of one upstream, or all, with its name in front."""
        prefix = f"{upstream}/" if upstream is not None else ""
        names = await self._store.repositories(prefix, f"{prefix}{after}", limit + 1)
        return CatalogAnswer([name.removeprefix(prefix) for name in names[:limit]], len(names) > limit)

    async def _list_tags(self, repository: Repository, query: str) -> TagsAnswer:
        page = await self._upstreams[repository.upstream].tags(repository.path, query)
        return TagsAnswer(page.data, page.next_query)

    async def _referrers(
        self, repository: Repository, digest: Digest
    ) -> tuple[list[dict[str, Any]], Outcome]:
        entry = await self._store.referrers(repository, digest)
        if entry is not None and self._tags.is_fresh(entry.confirmed):
            return entry.manifests, Outcome.HIT
        try:
            asked = self._referring.once((repository, digest), partial(self._ask, repository, digest))
            return await asked, Outcome.MISS
        except UpstreamError as error:
            if entry is None or error.failure in FINAL:
                raise
            return entry.manifests, Outcome.STALE

    async def _ask(self, repository: Repository, digest: Digest) -> list[dict[str, Any]]:
        try:
            manifests = await self._upstreams[repository.upstream].referrers(repository.path, digest)
        except UpstreamError as error:
            if error.failure is not Failure.NOT_FOUND:
                raise
            manifests = await self._by_tag(repository, digest)
        await self._store.put_referrers(repository, digest, ReferrersEntry(manifests, time.time()))
        return manifests

    async def _by_tag(self, repository: Repository, digest: Digest) -> list[dict[str, Any]]:
        """The referrers tag schema, for upstreams without the API; no such tag is NOT_FOUND.

        Not an empty list: that would tell the client that the API is there and nothing refers.
        """
        found = await self._tags.get(repository, referrers_tag(digest))
        try:
            return referrers_of(found.data)
        except ManifestInvalid as error:
            raise UpstreamError(
                Failure.NOT_FOUND, f"{repository}:{referrers_tag(digest)} is no index of referrers: {error}"
            ) from error
