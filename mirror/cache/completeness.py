"""Completeness: whether all blobs of an image can be had while its upstream cannot be asked.

Podman and kaniko choose a mirror by its manifest and have no way back (docs/clients.md). A manifest whose
blobs can be had neither here nor upstream would be a pull that fails; without the manifest, these clients go
on to the next mirror. A client that was given an index has chosen already, so the index's own manifests are
not refused: containerd's transfer service reads those of all platforms, and the layers of one.
"""

from mirror.cache.manifests import ManifestCache
from mirror.cache.results import Staleness
from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest
from mirror.oci.reference import Repository
from mirror.store.links.content import StoredManifest
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.ttl_cache import TTLCache

# How long a count of missing blobs is used, in seconds: a popular image is not counted at every request.
REMEMBERED_SECONDS = 10.0
REMEMBERED = 1024

# How long after its index a manifest is served although its blobs are missing, in seconds.
OFFERED_SECONDS = 60.0


class Completeness:
    """The completeness check before a manifest is served; `enforced`: whether a manifest is ever refused."""

    def __init__(
        self, context: TransferContext, upstreams: UpstreamSet, manifests: ManifestCache, *, enforced: bool
    ) -> None:
        self._content = context.store.content
        self._words = context.shared_words
        self._upstreams = upstreams
        self._manifests = manifests
        self._enforced = enforced
        self._counts: TTLCache[tuple[Repository, Digest, bool], int] = TTLCache(
            REMEMBERED_SECONDS, REMEMBERED
        )
        self._offered: TTLCache[tuple[Repository, Digest], bool] = TTLCache(OFFERED_SECONDS, REMEMBERED)

    async def ensure(
        self, repository: Repository, digest: Digest, staleness: Staleness | None = None
    ) -> None:
        """Raise UpstreamError when blobs are missing that cannot be had.

        Nothing is counted as long as a source of the upstream answers, and it does not refuse this mirror.
        """
        upstream = self._upstreams[repository.upstream]
        refused = staleness is not None and staleness.refused
        if not self._enforced or (upstream.health.has_content and not refused):
            return
        if self._offered.get((repository, digest)):
            return
        missing = await self.missing(repository, digest, shared=self._words is not None)
        if missing:
            failure = Failure.OFFLINE if upstream.offline else Failure.UNREACHABLE
            what = "is offline" if upstream.offline else f"gets no answer from {upstream.name}"
            what = f"is refused: {staleness.reason}" if staleness is not None and refused else what
            blobs = "1 blob" if missing == 1 else f"{missing} blobs"
            lacks = f"{blobs} of {repository}@{digest} {'is' if missing == 1 else 'are'} missing here"
            raise UpstreamError(failure, f"{lacks}, and this mirror {what}")

    async def missing(self, repository: Repository, digest: Digest, *, shared: bool = False) -> int:
        """Return the number of blobs that are not here, as of a moment ago; nor, if `shared`, in the tier."""
        count = self._counts.get((repository, digest, shared))
        if count is None:
            count = await self._count(repository, digest, shared=shared)
            self._counts.put((repository, digest, shared), count)
        return count

    async def _count(self, repository: Repository, digest: Digest, *, shared: bool) -> int:
        """Return the number of missing blobs; for an index, of its most complete platform."""
        manifest = await self._parsed(await self._manifests.stored(repository, digest))
        if manifest is None:
            return 0
        if not manifest.is_index:
            return await self._missing_blobs(repository, manifest, shared=shared)
        counts = [
            await self._missing_of_platform(repository, each.digest, shared=shared)
            for each in manifest.manifests
        ]
        least = min((count for count in counts if count is not None), default=1)
        if least == 0:
            for each in manifest.manifests:
                self._offered.put((repository, each.digest), True)
        return least

    async def _missing_of_platform(
        self, repository: Repository, digest: Digest, *, shared: bool
    ) -> int | None:
        """Return the number of missing blobs of a platform; None when its manifest is missing too."""
        stored = await self._manifests.stored(repository, digest)
        if stored is None and shared:
            stored = await self._manifests.bring(repository, digest)
        manifest = await self._parsed(stored)
        if stored is None:
            return None
        return 0 if manifest is None else await self._missing_blobs(repository, manifest, shared=shared)

    async def _missing_blobs(self, repository: Repository, manifest: Manifest, *, shared: bool) -> int:
        named = [each.digest for each in manifest.children() if not each.urls]
        missing = await self._content.missing_blobs(named)
        if missing and shared and self._words is not None:
            missing = await self._words.missing_blobs(repository, missing)
        return len(missing)

    async def _parsed(self, stored: StoredManifest | None) -> Manifest | None:
        """Return the parsed manifest; None for one that is not here, or names nothing that can be checked."""
        if stored is None:
            return None
        return await self._manifests.reader.read(stored.digest, stored.data, stored.media_type)
