"""Whether an image can be had whole while its upstream cannot be asked.

Podman and kaniko choose a mirror by its manifest and have no way back (CLIENTS.md 4.2): a manifest whose
blobs can be had neither here nor upstream would be a pull that fails, and no manifest is one that goes on to
the next place.
"""

from mirror.cache.manifests import ManifestCache
from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest, ManifestInvalid, parse_manifest
from mirror.oci.reference import Repository
from mirror.store.cache_dir import StoredManifest
from mirror.store.store import Store
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.ttl_cache import TTLCache

# A finding is used again for this long, in seconds: a popular image is not counted through at every request.
REMEMBERED_SECONDS = 10.0
REMEMBERED = 1024


class Completeness:
    """Asked before a manifest is given away. `enforced`: whether anything is ever refused."""

    def __init__(
        self, store: Store, upstreams: UpstreamSet, manifests: ManifestCache, *, enforced: bool
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._manifests = manifests
        self._enforced = enforced
        self._found: TTLCache[tuple[Repository, Digest], int] = TTLCache(REMEMBERED_SECONDS, REMEMBERED)

    async def ensure(self, repository: Repository, digest: Digest) -> None:
        """Raises UpstreamError when blobs are missing that cannot be had. Costs nothing in good times."""
        upstream = self._upstreams[repository.upstream]
        if not self._enforced or upstream.available:
            return
        missing = await self._missing(repository, digest)
        if missing:
            failure = Failure.OFFLINE if upstream.offline else Failure.UNREACHABLE
            what = "is offline" if upstream.offline else f"gets no answer from {upstream.name}"
            lacks = f"{missing} blobs of {repository}@{digest} are missing here"
            raise UpstreamError(failure, f"{lacks}, and this mirror {what}")

    async def _missing(self, repository: Repository, digest: Digest) -> int:
        found = self._found.get((repository, digest))
        if found is None:
            found = await self._count(repository, digest)
            self._found.put((repository, digest), found)
        return found

    async def _count(self, repository: Repository, digest: Digest) -> int:
        """How many blobs are missing; of an index, of its most complete platform."""
        manifest = _parsed(await self._manifests.held(repository, digest))
        if manifest is None:
            return 0
        if not manifest.is_index:
            return await self._lacking(manifest)
        counts = [await self._of_platform(repository, each.digest) for each in manifest.manifests]
        return min((count for count in counts if count is not None), default=1)

    async def _of_platform(self, repository: Repository, digest: Digest) -> int | None:
        """None when not even its manifest is here."""
        held = await self._manifests.held(repository, digest)
        manifest = _parsed(held)
        if held is None:
            return None
        return 0 if manifest is None else await self._lacking(manifest)

    async def _lacking(self, manifest: Manifest) -> int:
        return len(
            await self._store.missing_blobs([each.digest for each in manifest.children() if not each.urls])
        )


def _parsed(stored: StoredManifest | None) -> Manifest | None:
    """None for what is not here, and for what names nothing that we could look for."""
    if stored is None:
        return None
    try:
        return parse_manifest(stored.data, stored.media_type)
    except ManifestInvalid:
        return None
