"""URLs by which a client gets a large blob from the object store itself, past this mirror's line."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.shared.health import limited
from mirror.shared.tier import SharedTier
from mirror.store.errors import StoreError
from mirror.transfer.context import TransferContext
from mirror.transfer.shared.shared_words import SharedWords
from mirror.upstream.guests.current import asker
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.ttl_cache import TTLCache

# The smallest blob, in bytes, that a client is sent to the store for: a smaller one costs a round trip more
# than it saves.
LEAST_BYTES = 16 * 1024 * 1024

# How long a URL can be used, in seconds: a client asks at once, and again for each range.
URL_SECONDS = 600.0

# How long the size of a blob in the store is known, in seconds, and of how many blobs.
KNOWN_SECONDS = 60.0
MAX_KNOWN = 10_000


class StoreURLs:
    """URLs for blobs that the store has, and that the repository's own link opens (invariant 5)."""

    def __init__(
        self,
        tier: SharedTier,
        words: SharedWords,
        context: TransferContext,
        upstreams: UpstreamSet,
    ) -> None:
        self._tier = tier
        self._words = words
        self._context = context
        self._upstreams = upstreams
        self._sizes: TTLCache[Digest, int] = TTLCache(KNOWN_SECONDS, MAX_KNOWN)

    async def find(self, repository: Repository, digest: Digest) -> str | None:
        """Return a URL that is good for some minutes; None where the mirror has to answer itself."""
        if not self._tier.usable or asker() or repository.upstream not in self._upstreams:
            return None
        with limited(self._tier.waits()):
            try:
                opens = await self._opens(repository, digest)
            except StoreError:
                return None
            if not opens or await self._size(digest) < LEAST_BYTES:
                return None
            return await self._tier.presigned(digest, URL_SECONDS)

    async def _opens(self, repository: Repository, digest: Digest) -> bool:
        """Return whether a link is confirmed, and believed unasked."""
        link = (await self._context.store.content.look_up(repository, digest)).link
        if link is None or link.confirmed is None or link.gone is not None:
            return await self._words.find_link(repository, digest) is not None
        return self._context.link_ttl(self._upstreams[repository.upstream], link) > 0

    async def _size(self, digest: Digest) -> int:
        size = self._sizes.get(digest)
        if size is None:
            found = await self._tier.find(digest)
            size = 0 if found is None else found.size
            self._sizes.put(digest, size)
        return size
