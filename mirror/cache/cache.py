"""The cache: one object that answers for every kind of content, from disk or by way of an upstream."""

from collections.abc import Callable, Collection, Iterable

from mirror.cache.access import AccessChecker
from mirror.cache.blobs import BlobCache
from mirror.cache.completeness import Completeness
from mirror.cache.freshness import Freshness
from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache
from mirror.cache.origins.content_origin import ContentOrigin
from mirror.cache.origins.mirrored import MirroredOrigin, MirroredParts
from mirror.cache.prefetch import Prefetch
from mirror.cache.private.private_content import PrivateContent
from mirror.cache.pull.budget import Pause, PullBudget
from mirror.cache.pull.created import CreationDates
from mirror.cache.pull.puller import ImagePull, Puller
from mirror.cache.pull.source import PullSource
from mirror.cache.pull.walk import Caches, Wanted
from mirror.cache.readers import BlobAnswer, BlobRequest
from mirror.cache.referring.absent import AbsentSignatures
from mirror.cache.referring.clients import Requester
from mirror.cache.referring.prefetch import ReferrersPrefetch
from mirror.cache.results import (
    Birth,
    BlobInfo,
    CatalogAnswer,
    ManifestAnswer,
    ManifestInfo,
    ReferrersAnswer,
    TagsAnswer,
)
from mirror.cache.single_platform import SinglePlatform
from mirror.cache.tag.gone import GoneKeeper
from mirror.cache.tags import TagCache
from mirror.config.schema import TagSettings
from mirror.oci.accept import ANYTHING, Accepted
from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest
from mirror.oci.reference import Repository, Tag
from mirror.transfer.context import TransferContext
from mirror.transfer.flight import Flight
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.callbacks import ignore
from mirror.util.time_limit import TimeLimit

# All platforms of an image, without its referrers.
EVERYTHING = Wanted()


class Cache:
    """All content of all upstreams, and of all hosted registries: each repository has its origin.

    Methods that fetch raise UpstreamError or StoreError; `web.client_errors` turns these into responses.
    Those of a hosted registry raise RegistryError.
    """

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, tags: TagSettings) -> None:
        self._store = context.store
        self.clock = context.clock
        self._upstreams = upstreams
        self._fallback_after = tags.fallback_after
        gone = GoneKeeper(context, tags)
        access = AccessChecker(
            context, upstreams, gone, fallback_after=tags.fallback_after, missing=tags.missing
        )
        self.private = PrivateContent(
            context, upstreams, fallback_after=tags.fallback_after, missing=tags.missing
        )
        self._blobs = BlobCache(context, upstreams, access)
        self._manifests = ManifestCache(context, upstreams, access, tags.missing)
        self._tags = TagCache(context, upstreams, self._manifests, tags, gone)
        self._created = CreationDates(self._manifests, self._blobs)
        self._listings = ListingCache(context, upstreams, self._tags, gone)
        self._prefetch = Prefetch(context, upstreams, self._blobs, self._manifests.reader)
        caches = Caches(context.store, self._tags, self._manifests, self._listings, context.clock)
        self._puller = Puller(context, caches, self._blobs, access)
        self._completeness = Completeness(
            context, upstreams, self._manifests, enforced=not tags.serve_incomplete
        )
        self._hosted: dict[str, ContentOrigin] = {}
        self._mirrored = MirroredOrigin(
            MirroredParts(
                self._blobs,
                self._manifests,
                self._tags,
                self._listings,
                SinglePlatform(self._manifests, tags.single_platform),
                self._completeness,
                self._prefetch,
                ReferrersPrefetch(context, self._listings, self._manifests, self._prefetch),
                AbsentSignatures(
                    context.store.metadata, context.store.content, Freshness(tags), context.clock
                ),
            )
        )

    async def get_manifest(
        self,
        repository: Repository,
        reference: Tag | Digest,
        accepted: Accepted = ANYTHING,
        client: Requester | None = None,
    ) -> ManifestAnswer:
        return await self._origin(repository).get_manifest(repository, reference, accepted, client)

    async def head_manifest(
        self, repository: Repository, reference: Tag | Digest, accepted: Accepted = ANYTHING
    ) -> ManifestInfo:
        return await self._origin(repository).head_manifest(repository, reference, accepted)

    def host(self, names: Iterable[str], origin: ContentOrigin) -> None:
        """Answer for the repositories of these registries from `origin`: they have no upstream."""
        self._hosted.update(dict.fromkeys(names, origin))

    def is_hosted(self, repository: Repository) -> bool:
        """Return whether a repository has no upstream."""
        return repository.upstream in self._hosted

    def _origin(self, repository: Repository) -> ContentOrigin:
        return self._hosted.get(repository.upstream, self._mirrored)

    async def birth(self, repository: Repository, digest: Digest, *, by_author: bool = False) -> Birth:
        """Return since when an image exists: when a manifest was first known here.

        `by_author`: or when its author says that it was created, if that was before.
        """
        now = self.clock()
        seen = await self._store.metadata.links.first_seen(repository, digest, now)
        by_author = by_author and not self.is_hosted(repository)
        created = await self._created.of(repository, digest) if by_author else None
        if created is not None and created < seen:
            return Birth(created, now, by_author=True)
        return Birth(seen, now)

    async def read_manifest(self, answer: ManifestAnswer) -> Manifest | None:
        """Return what a manifest names; None for one that cannot be read."""
        return await self._manifests.reader.read(answer.digest, answer.data, answer.media_type)

    async def count_missing(self, repository: Repository, digest: Digest) -> int:
        """Return how many blobs of an image are not here, as of a moment ago."""
        if self.is_hosted(repository):
            return 0
        return await self._completeness.missing(repository, digest)

    async def get_blob(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        return await self._origin(repository).get_blob(repository, digest, limit, request)

    def fills(self) -> list[Flight]:
        """Return the downloads that run now, or wait for their turn."""
        return self._blobs.flights()

    def note_layer(self, repository: Repository, digest: Digest) -> None:
        """Record that a client reads a blob from its beginning: the other layers of its image follow."""
        if self.is_hosted(repository):
            return
        self._prefetch.note_layer(repository, digest)

    async def head_blob(self, repository: Repository, digest: Digest) -> BlobInfo:
        return await self._origin(repository).head_blob(repository, digest)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        return await self._origin(repository).tags(repository, query)

    async def referrers(
        self,
        repository: Repository,
        digest: Digest,
        artifact_types: Collection[str],
        client: Requester | None = None,
        after: str = "",
    ) -> ReferrersAnswer:
        return await self._origin(repository).referrers(repository, digest, artifact_types, client, after)

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        return await self._listings.catalog(upstream, after, limit)

    def pull(self, repository: Repository, reference: Tag | Digest, wanted: Wanted = EVERYTHING) -> ImagePull:
        """Return a pull of a whole image, with priority below clients; it begins when it is iterated over."""
        return self._puller.pull(repository, reference, wanted)

    def pull_source(self, wanted: Wanted) -> PullSource:
        """Return a source of several such pulls."""
        return PullSource(self._puller, self._listings, self._store.content, wanted)

    def pull_budget(self, leave: int, on_pause: Callable[[Pause], object] = ignore) -> PullBudget:
        """Return a budget for pulls, which leaves `leave` pulls of each upstream that counts them."""
        return PullBudget(self._upstreams, leave, on_pause)

    def time_limit(self, repository: Repository, seconds: float) -> float:
        """Return the seconds to wait for an answer: `seconds`, or less if the upstream is unresponsive.

        The request to the upstream goes on after the limit, so a later client may find it answered.
        """
        if self.is_hosted(repository):
            return seconds
        unresponsive = self._upstreams[repository.upstream].health.unresponsive
        return min(seconds, self._fallback_after) if unresponsive else seconds

    def report_timeout(self, repository: Repository, seconds: float) -> bool:
        """Record that a client has waited for `seconds`; return whether it waited for the upstream."""
        return not self.is_hosted(repository) and self._upstreams[repository.upstream].health.report_timeout(
            seconds
        )

    def pause_prefetch(self) -> None:
        """Prefetch nothing for a while: recently used blobs had to be evicted."""
        self._prefetch.pause()

    def stop_prefetch(self) -> None:
        """Prefetch nothing any more, and end the prefetches that no client has joined."""
        self._prefetch.stop()
