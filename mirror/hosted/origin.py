"""The hosted registries as an origin of content, beside the upstreams (`cache.origins`)."""

from collections.abc import Collection

from mirror.cache.readers import BlobAnswer, BlobRequest
from mirror.cache.referring.clients import Requester
from mirror.cache.results import BlobInfo, ManifestAnswer, ManifestInfo, ReferrersAnswer, TagsAnswer
from mirror.hosted.registry import HostedRegistry
from mirror.oci.accept import ANYTHING, Accepted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.util.time_limit import TimeLimit


class HostedOrigin:
    """Content that was pushed: never asked of another machine, and there without any upstream."""

    def __init__(self, registry: HostedRegistry) -> None:
        self._registry = registry

    async def get_manifest(
        self,
        repository: Repository,
        reference: Tag | Digest,
        accepted: Accepted = ANYTHING,
        client: Requester | None = None,
    ) -> ManifestAnswer:
        """Return the manifest as it was pushed, whatever the client accepts."""
        return await self._registry.get_manifest(repository, reference)

    async def head_manifest(
        self, repository: Repository, reference: Tag | Digest, accepted: Accepted = ANYTHING
    ) -> ManifestInfo:
        return await self._registry.head_manifest(repository, reference)

    async def get_blob(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        return await self._registry.get_blob(repository, digest, request)

    async def head_blob(self, repository: Repository, digest: Digest) -> BlobInfo:
        return await self._registry.head_blob(repository, digest)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        return await self._registry.tags(repository, query)

    async def referrers(
        self,
        repository: Repository,
        digest: Digest,
        artifact_types: Collection[str],
        client: Requester | None = None,
        after: str = "",
    ) -> ReferrersAnswer:
        return await self._registry.referrers(repository, digest, artifact_types, after)
