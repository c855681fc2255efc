"""Listings: tags and referrers of a repository, repositories of the cache."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from mirror.cache.results import CatalogAnswer, Outcome, ReferrersAnswer, Staleness, TagsAnswer
from mirror.cache.tags import FINAL, TagCache, spared_words
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    ManifestInvalid,
    filter_referrers,
    referrers_index,
    referrers_of,
    referrers_tag,
)
from mirror.oci.reference import Repository
from mirror.store.metadata.index import ReferrersEntry
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.single_flight import SingleFlight

# The most tags on a page of those that are known here.
MOST_TAGS = 10_000


@dataclass(frozen=True, slots=True)
class _Referrers:
    manifests: list[dict[str, Any]]
    outcome: Outcome
    staleness: Staleness | None = None


class ListingCache:
    """Small answers that change: asked of the upstream, coalesced, and referrers kept for a while."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, tags: TagCache) -> None:
        self._context = context
        self._store = context.store
        self._upstreams = upstreams
        self._tags = tags
        self._listing: SingleFlight[tuple[Repository, str], TagsAnswer] = SingleFlight(context.tasks)
        self._referring: SingleFlight[tuple[Repository, Digest], list[dict[str, Any]]] = SingleFlight(
            context.tasks
        )

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        """One page of the upstream's own listing; when it cannot be asked, of the tags that are known here.

        Nor is it asked when its rate limit allows next to nothing. Raises UpstreamError or StoreError.
        """
        known = await self._store.known_tags(repository, "", 1)
        if known and self._tags.spares(repository, 0.0):
            return await self._known_tags(repository, query, spared_words(repository.upstream))
        listing = self._listing.do((repository, query), partial(self._list_tags, repository, query))
        if not known:
            return await listing
        try:
            return await self._tags.in_time(repository, listing)
        except UpstreamError as error:
            if error.failure in FINAL:
                raise
            return await self._known_tags(repository, query, str(error))

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_types: Collection[str]
    ) -> ReferrersAnswer:
        """What refers to a digest, as an OCI index: all of it, or what is of one of `artifact_types`.

        Raises UpstreamError; NOT_FOUND when unknown.
        """
        found = await self._referrers(repository, digest)
        chosen = filter_referrers(found.manifests, artifact_types) if artifact_types else found.manifests
        return ReferrersAnswer(referrers_index(chosen), bool(artifact_types), found.outcome, found.staleness)

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        """Repositories of which something is cached: of one upstream, or all, with its name in front."""
        prefix = f"{upstream}/" if upstream is not None else ""
        names = await self._store.repositories(prefix, f"{prefix}{after}", limit + 1)
        return CatalogAnswer([name.removeprefix(prefix) for name in names[:limit]], len(names) > limit)

    async def _list_tags(self, repository: Repository, query: str) -> TagsAnswer:
        page = await self._upstreams[repository.upstream].tags(repository.path, query)
        return TagsAnswer(page.data, page.next_query)

    async def _known_tags(self, repository: Repository, query: str, why: str) -> TagsAnswer:
        """A page of the tags that were asked for before: those are what can be had now."""
        asked = dict(parse_qsl(query))
        limit = int(asked["n"]) if asked.get("n", "").isdigit() else MOST_TAGS
        limit = min(limit, MOST_TAGS)
        names = await self._store.known_tags(repository, asked.get("last", ""), limit + 1)
        page, more = names[:limit], len(names) > limit > 0
        data = json.dumps({"name": repository.path, "tags": page}, separators=(",", ":")).encode()
        following = urlencode({"n": limit, "last": page[-1]}) if more else None
        return TagsAnswer(data, following, Outcome.STALE, Staleness(None, why))

    async def _referrers(self, repository: Repository, digest: Digest) -> _Referrers:
        entry = await self._store.referrers(repository, digest)
        if entry is not None and self._tags.is_fresh(repository, entry.confirmed):
            return _Referrers(entry.manifests, Outcome.HIT)
        if entry is not None and self._tags.spares(
            repository, age := self._context.clock() - entry.confirmed
        ):
            return _Referrers(
                entry.manifests, Outcome.STALE, Staleness(age, spared_words(repository.upstream))
            )
        asking = self._referring.do((repository, digest), partial(self._ask, repository, digest))
        if entry is None:
            return _Referrers(await asking, Outcome.MISS)
        try:
            return _Referrers(await self._tags.in_time(repository, asking), Outcome.MISS)
        except UpstreamError as error:
            if error.failure in FINAL:
                raise
            age = self._context.clock() - entry.confirmed
            return _Referrers(entry.manifests, Outcome.STALE, Staleness(age, str(error)))

    async def _ask(self, repository: Repository, digest: Digest) -> list[dict[str, Any]]:
        try:
            manifests = await self._upstreams[repository.upstream].referrers(repository.path, digest)
        except UpstreamError as error:
            if error.failure is not Failure.NOT_FOUND:
                raise
            manifests = await self._by_tag(repository, digest)
        await self._store.put_referrers(repository, digest, ReferrersEntry(manifests, self._context.clock()))
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
