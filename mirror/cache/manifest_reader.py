"""Reader of what manifests name: reads each manifest once for all callers, and a long one in a thread."""

from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest, ManifestInvalid, ManifestTooLong, parse_manifest
from mirror.util.log import get_logger
from mirror.util.lru import LRUCache
from mirror.util.tasks import off_loop
from mirror.util.throttle import Throttle

log = get_logger(__name__)

# Memory for manifests that were read, in bytes, and what a manifest takes, as a multiple of its length.
REMEMBERED_BYTES = 16 * 1024 * 1024
SIZE_FACTOR = 8

# Interval, in seconds, between log lines about manifests that are too long.
LOG_SECONDS = 60.0


class ManifestReader:
    """Reads verified manifests. None for one that does not parse, or that names too much to be followed.

    Such a manifest is served as received. Nothing that it names is linked, prefetched, counted as missing or
    pinned with it: each blob is confirmed by the upstream when a client asks for it.
    """

    def __init__(self) -> None:
        self._manifests: LRUCache[tuple[Digest, str], Manifest] = LRUCache(REMEMBERED_BYTES)
        self._too_long = Throttle(LOG_SECONDS)

    async def read(self, digest: Digest, data: bytes, media_type: str) -> Manifest | None:
        """Return what the manifest names."""
        known = self._manifests.get((digest, media_type))
        if known is not None:
            return known
        try:
            manifest = await off_loop(len(data), parse_manifest, data, media_type)
        except ManifestTooLong as error:
            if count := self._too_long.count():
                event = "manifest too long to be followed, served as it is"
                log.info(event, digest=str(digest), bytes=len(data), reason=str(error), manifests=count)
            return None
        except ManifestInvalid:
            return None
        self._manifests.put((digest, media_type), manifest, SIZE_FACTOR * len(data))
        return manifest
