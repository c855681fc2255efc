"""The manifest of one platform in the place of a list, for clients that read no lists."""

from msgspec.structs import replace

from mirror.cache.manifests import ManifestCache
from mirror.cache.results import ManifestAnswer, ManifestInfo, Outcome
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import on_platform
from mirror.oci.manifest import ManifestInvalid, parse_manifest
from mirror.oci.reference import Repository
from mirror.upstream.errors import Failure, UpstreamError


class SinglePlatform:
    """Resolver of lists to the manifest of `platform`, as `os/architecture[/variant]`."""

    def __init__(self, manifests: ManifestCache, platform: str) -> None:
        self._manifests = manifests
        self._platform = platform

    async def get(self, repository: Repository, found: ManifestAnswer) -> ManifestAnswer:
        """Return the manifest of the platform in the list `found`. Raises UpstreamError or StoreError."""
        child = await self._manifests.get(repository, self._choose(repository, found))
        ttl, outcome = min(found.ttl, child.ttl), _joint(found.outcome, child.outcome)
        return replace(child, ttl=ttl, outcome=outcome, staleness=found.staleness or child.staleness)

    async def head(self, repository: Repository, found: ManifestInfo) -> ManifestInfo:
        """Return type and size of the manifest that `get` returns; fetch the list if it is not here."""
        index = await self._manifests.get(repository, found.digest)
        child = await self._manifests.head(repository, self._choose(repository, index))
        ttl, outcome = min(found.ttl, child.ttl), _joint(found.outcome, child.outcome)
        return replace(child, ttl=ttl, outcome=outcome, staleness=found.staleness or child.staleness)

    def _choose(self, repository: Repository, index: ManifestAnswer) -> Digest:
        """Return the digest of the first manifest of the platform."""
        try:
            manifests = parse_manifest(index.data, index.media_type).manifests
        except ManifestInvalid:
            manifests = ()
        platforms = [each.platform or "unknown" for each in manifests]
        for each, platform in zip(manifests, platforms, strict=True):
            if on_platform(platform, (self._platform,)):
                return each.digest
        message = (
            f"{repository}@{index.digest} has no image for {self._platform}, and this client takes no list "
            f"of platforms; there are {', '.join(dict.fromkeys(platforms))[:500] or 'none'}. Choose one with "
            "tags.single_platform in the configuration of this mirror"
        )
        raise UpstreamError(Failure.NOT_FOUND, message)


def _joint(found: Outcome, child: Outcome) -> Outcome:
    """Return the outcome of an answer that took two: stale if one was, else the costlier one."""
    costlier = child is Outcome.STALE or (found is Outcome.JOIN and child is Outcome.MISS)
    return child if found is Outcome.HIT or costlier else found
