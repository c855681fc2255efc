"""The flow: one object that answers for every kind of content, from disk or by way of an upstream."""

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


class Cache:
    """Every method raises UpstreamError or StoreError; `cache.policy` says what a client is told."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, tags: TagSettings) -> None:
        self._upstreams = upstreams
        self._fallback_after = tags.fallback_after
        self._blobs = BlobCache(context, upstreams)
        self._manifests = ManifestCache(context, upstreams, tags.missing)
        self._tags = TagCache(context, upstreams, self._manifests, tags)
        self._listings = ListingCache(context, upstreams, self._tags)
        self._prefetch = Prefetch(context, upstreams, self._blobs)
        self._complete = Completeness(
            context.store, upstreams, self._manifests, enforced=not tags.serve_incomplete
        )

    async def get_manifest(self, repository: Repository, reference: Tag | Digest) -> ManifestAnswer:
        """The manifest; what it names is fetched ahead of the client that will ask for it."""
        if isinstance(reference, Tag):
            answer = await self._tags.get(repository, reference)
        else:
            answer = await self._manifests.get(repository, reference)
        await self._complete.ensure(repository, answer.digest)
        self._prefetch.given(repository, answer)
        return answer

    async def head_manifest(self, repository: Repository, reference: Tag | Digest) -> ManifestInfo:
        if isinstance(reference, Tag):
            info = await self._tags.head(repository, reference)
        else:
            info = await self._manifests.head(repository, reference)
        await self._complete.ensure(repository, info.digest)
        return info

    async def get_blob(self, repository: Repository, digest: Digest) -> BlobAnswer:
        return await self._blobs.get(repository, digest)

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
        """How much of so many seconds to wait for an answer: little, if there was none the last time.

        What is asked then goes on being asked, and who comes back after that may find it answered.
        """
        silent = self._upstreams[repository.upstream].own.unresponsive
        return min(seconds, self._fallback_after) if silent else seconds

    def note_timeout(self, repository: Repository, seconds: float) -> bool:
        """A client was kept waiting for so long. Whether it was the upstream that it waited for."""
        return self._upstreams[repository.upstream].report_timeout(seconds)

    def pause_prefetch(self) -> None:
        """What was just used had to be evicted: fetch nothing ahead for a while."""
        self._prefetch.pause()

    def stop_prefetch(self) -> None:
        """Fetch nothing ahead any more, and end what nobody has asked for."""
        self._prefetch.stop()
