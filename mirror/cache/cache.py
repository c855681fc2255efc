"""The cache: one object that answers for every kind of content, from disk or by way of an upstream."""

from collections.abc import Collection

from mirror.cache.blobs import BlobCache
from mirror.cache.completeness import Completeness
from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache
from mirror.cache.prefetch import Prefetch
from mirror.cache.readers import BlobAnswer
from mirror.cache.results import (
    BlobInfo,
    CatalogAnswer,
    ManifestAnswer,
    ManifestInfo,
    ReferrersAnswer,
    TagsAnswer,
)
from mirror.cache.tags import TagCache
from mirror.config.schema import TagSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.transfer.context import TransferContext
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.time_limit import TimeLimit


class Cache:
    """All content of all upstreams.

    Methods that fetch raise UpstreamError or StoreError; `web.client_errors` turns these into responses.
    """

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, tags: TagSettings) -> None:
        self._upstreams = upstreams
        self._fallback_after = tags.fallback_after
        self._blobs = BlobCache(context, upstreams)
        self._manifests = ManifestCache(context, upstreams, tags.missing)
        self._tags = TagCache(context, upstreams, self._manifests, tags)
        self._listings = ListingCache(context, upstreams, self._tags)
        self._prefetch = Prefetch(context, upstreams, self._blobs, self._manifests.reader)
        self._completeness = Completeness(
            context.store, upstreams, self._manifests, enforced=not tags.serve_incomplete
        )

    async def get_manifest(self, repository: Repository, reference: Tag | Digest) -> ManifestAnswer:
        """Return the manifest, and prefetch the blobs that it names."""
        if isinstance(reference, Tag):
            answer = await self._tags.get(repository, reference)
        else:
            answer = await self._manifests.get(repository, reference)
        await self._completeness.ensure(repository, answer.digest)
        self._prefetch.enqueue(repository, answer)
        return answer

    async def head_manifest(self, repository: Repository, reference: Tag | Digest) -> ManifestInfo:
        if isinstance(reference, Tag):
            info = await self._tags.head(repository, reference)
        else:
            info = await self._manifests.head(repository, reference)
        await self._completeness.ensure(repository, info.digest)
        return info

    async def get_blob(
        self, repository: Repository, digest: Digest, limit: TimeLimit | None = None
    ) -> BlobAnswer:
        return await self._blobs.get(repository, digest, limit)

    async def head_blob(self, repository: Repository, digest: Digest) -> BlobInfo:
        return await self._blobs.head(repository, digest)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        return await self._listings.tags(repository, query)

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_types: Collection[str]
    ) -> ReferrersAnswer:
        return await self._listings.referrers(repository, digest, artifact_types)

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        return await self._listings.catalog(upstream, after, limit)

    def time_limit(self, repository: Repository, seconds: float) -> float:
        """Return the seconds to wait for an answer: `seconds`, or less if the upstream is unresponsive.

        The request to the upstream goes on after the limit, so a later client may find it answered.
        """
        unresponsive = self._upstreams[repository.upstream].own.unresponsive
        return min(seconds, self._fallback_after) if unresponsive else seconds

    def report_timeout(self, repository: Repository, seconds: float) -> bool:
        """Record that a client has waited for `seconds`; return whether it waited for the upstream."""
        return self._upstreams[repository.upstream].report_timeout(seconds)

    def pause_prefetch(self) -> None:
        """Prefetch nothing for a while: recently used blobs had to be evicted."""
        self._prefetch.pause()

    def stop_prefetch(self) -> None:
        """Prefetch nothing any more, and end the prefetches that no client has joined."""
        self._prefetch.stop()
