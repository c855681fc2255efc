"""Facts about images that rules and limits ask for: their age, what they consist of, what is here."""

from mirror.cache.completeness import Completeness
from mirror.cache.manifests import ManifestCache
from mirror.cache.origins.origin_table import OriginTable
from mirror.cache.pull.created import CreationDates
from mirror.cache.results import Birth, ManifestAnswer
from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest
from mirror.oci.reference import Repository
from mirror.transfer.context import TransferContext


class ImageFacts:
    """Facts that the mirror finds here, or in the config of an image."""

    def __init__(
        self,
        context: TransferContext,
        origins: OriginTable,
        manifests: ManifestCache,
        created: CreationDates,
        completeness: Completeness,
    ) -> None:
        self.clock = context.clock
        self._links = context.store.metadata.links
        self._origins = origins
        self._reader = manifests.reader
        self._created = created
        self._completeness = completeness

    async def birth(self, repository: Repository, digest: Digest, *, by_author: bool = False) -> Birth:
        """Return since when an image exists: when a manifest was first known here.

        `by_author`: or when its author says that it was created, if that was before.
        """
        now = self.clock()
        seen = await self._links.first_seen(repository, digest, now)
        by_author = by_author and not self._origins.is_hosted(repository)
        created = await self._created.of(repository, digest) if by_author else None
        if created is not None and created < seen:
            return Birth(created, now, by_author=True)
        return Birth(seen, now)

    async def read_manifest(self, answer: ManifestAnswer) -> Manifest | None:
        """Return what a manifest names; None for one that cannot be read."""
        return await self._reader.read(answer.digest, answer.data, answer.media_type)

    async def missing_blobs(self, repository: Repository, digest: Digest) -> int:
        """Return how many blobs of an image are not here, as of a moment ago."""
        if self._origins.is_hosted(repository):
            return 0
        return await self._completeness.missing(repository, digest)
