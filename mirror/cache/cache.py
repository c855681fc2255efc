"""The cache: one object that answers for every kind of content, from disk or by way of an upstream."""

from mirror.cache.access import AccessChecker
from mirror.cache.blobs import BlobCache
from mirror.cache.completeness import Completeness
from mirror.cache.freshness import Freshness
from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache
from mirror.cache.origins.content_origin import ContentOrigin
from mirror.cache.origins.image_facts import ImageFacts
from mirror.cache.origins.mirrored import MirroredOrigin, MirroredParts
from mirror.cache.origins.origin_table import OriginTable
from mirror.cache.origins.patience import UpstreamPatience
from mirror.cache.prefetch import Prefetch
from mirror.cache.private.private_content import PrivateContent
from mirror.cache.pull.created import CreationDates
from mirror.cache.pull.image_pulls import ImagePulls
from mirror.cache.pull.puller import Puller
from mirror.cache.pull.walk import Caches
from mirror.cache.referring.absent import AbsentSignatures
from mirror.cache.referring.prefetch import ReferrersPrefetch
from mirror.cache.results import CatalogAnswer
from mirror.cache.single_platform import SinglePlatform
from mirror.cache.tag.gone import GoneKeeper
from mirror.cache.tags import TagCache
from mirror.config.schema import TagSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.transfer.context import TransferContext
from mirror.transfer.flight import Flight
from mirror.upstream.upstream_set import UpstreamSet


class Cache:
    """All content of all upstreams, and of all hosted registries: each repository has its origin.

    Origins that fetch raise UpstreamError or StoreError; `web.client_errors` turns these into responses. A
    hosted registry raises RegistryError.
    """

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, tags: TagSettings) -> None:
        self.clock = context.clock
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
        self._listings = ListingCache(context, upstreams, self._tags, gone)
        self.prefetch = Prefetch(context, upstreams, self._blobs, self._manifests.reader)
        caches = Caches(context.store, self._tags, self._manifests, self._listings, context.clock)
        puller = Puller(context, caches, self._blobs, access)
        self.pulls = ImagePulls(puller, self._listings, context.store.content, upstreams)
        completeness = Completeness(context, upstreams, self._manifests, enforced=not tags.serve_incomplete)
        mirrored = MirroredOrigin(
            MirroredParts(
                self._blobs,
                self._manifests,
                self._tags,
                self._listings,
                SinglePlatform(self._manifests, tags.single_platform),
                completeness,
                self.prefetch,
                ReferrersPrefetch(context, self._listings, self._manifests, self.prefetch),
                AbsentSignatures(
                    context.store.metadata, context.store.content, Freshness(tags), context.clock
                ),
            )
        )
        self.origins = OriginTable(mirrored)
        created = CreationDates(self._manifests, self._blobs)
        self.images = ImageFacts(context, self.origins, self._manifests, created, completeness)
        self.patience = UpstreamPatience(upstreams, self.origins, tags.fallback_after)

    def origin(self, repository: Repository) -> ContentOrigin:
        """Return the origin of a repository, which answers for its manifests, blobs, tags and referrers."""
        return self.origins.of(repository)

    def fills(self) -> list[Flight]:
        """Return the downloads that run now, or wait for their turn."""
        return self._blobs.flights()

    def note_layer(self, repository: Repository, digest: Digest) -> None:
        """Record that a client reads a blob from its beginning: the other layers of its image follow."""
        if not self.origins.is_hosted(repository):
            self.prefetch.note_layer(repository, digest)

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        return await self._listings.catalog(upstream, after, limit)
