"""The calls that every origin of content answers, whichever way it has the content."""

from collections.abc import Collection
from typing import Protocol

from mirror.cache.readers import BlobAnswer, BlobRequest
from mirror.cache.referring.clients import Requester
from mirror.cache.results import BlobInfo, ManifestAnswer, ManifestInfo, ReferrersAnswer, TagsAnswer
from mirror.oci.accept import ANYTHING, Accepted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.util.time_limit import TimeLimit


class ContentOrigin(Protocol):
    """An origin: `mirrored.MirroredOrigin` for upstreams, `mirror.hosted.origin.HostedOrigin` for pushes.

    Raises UpstreamError, StoreError or RegistryError.
    """

    async def get_manifest(
        self,
        repository: Repository,
        reference: Tag | Digest,
        accepted: Accepted = ANYTHING,
        client: Requester | None = None,
    ) -> ManifestAnswer:
        """Return a manifest. `accepted`: what the client takes; `client`: None where the mirror reads."""
        ...

    async def head_manifest(
        self, repository: Repository, reference: Tag | Digest, accepted: Accepted = ANYTHING
    ) -> ManifestInfo:
        """Return digest, type and size of what `get_manifest` returns."""
        ...

    async def get_blob(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        """Return a blob, open for reading."""
        ...

    async def head_blob(self, repository: Repository, digest: Digest) -> BlobInfo:
        """Return the size of a blob."""
        ...

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        """Return a page of tags."""
        ...

    async def referrers(
        self,
        repository: Repository,
        digest: Digest,
        artifact_types: Collection[str],
        client: Requester | None = None,
        after: str = "",
    ) -> ReferrersAnswer:
        """Return the referrers of a digest; `client` as in `get_manifest`.

        `after`: where the page before ended, if the origin gives pages.
        """
        ...
