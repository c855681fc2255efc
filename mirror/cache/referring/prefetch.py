"""Prefetch of referrers: what a client will ask for after an image is here then, also without the upstream.

For clients that ask for referrers (`referring.clients`), and for no others: the list of each manifest that
such a client receives, the manifests of the first MOST of the list, and their small blobs. A list costs the
upstream one request, which the client itself would cause in a moment; each manifest counts at Docker Hub. So
nothing is fetched where `Prefetch` would fetch nothing, and referrers of referrers are left to the client.
"""

from contextlib import suppress

from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache
from mirror.cache.prefetch import Prefetch
from mirror.cache.referring.clients import ReferrersClients, Requester
from mirror.cache.results import ManifestAnswer, Outcome
from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import UpstreamError
from mirror.util.ttl_cache import TTLCache

# The most referrers of one manifest, and lists that are worked on at a time; further ones are left out.
MOST = 16
AT_A_TIME = 4
# How long a manifest is not examined again, in seconds, and how many are remembered.
REMEMBERED_SECONDS = 600.0
REMEMBERED = 4096


class ReferrersPrefetch:
    """Fetches referrers in the background."""

    def __init__(
        self, context: TransferContext, listings: ListingCache, manifests: ManifestCache, prefetch: Prefetch
    ) -> None:
        self.clients = ReferrersClients()
        self._context = context
        self._listings = listings
        self._manifests = manifests
        self._prefetch = prefetch
        self._examined: TTLCache[tuple[Repository, Digest], bool] = TTLCache(REMEMBERED_SECONDS, REMEMBERED)
        self._running = 0

    def enqueue(self, repository: Repository, answer: ManifestAnswer, client: Requester) -> None:
        """Fetch the referrers of a manifest that a client receives, if it is one that will ask for them."""
        if answer.outcome is Outcome.STALE or not self.clients.will_ask(client):
            return
        key = (repository, answer.digest)
        if self._running >= AT_A_TIME or self._examined.get(key) or not self._prefetch.allows(repository):
            return
        self._examined.put(key, True)
        self._running += 1
        self._context.tasks.spawn(self._work(repository, answer.digest), name=f"referrers of {answer.digest}")

    async def _work(self, repository: Repository, digest: Digest) -> None:
        """Fetch, and leave the rest to the client where anything fails: no client waits."""
        try:
            with suppress(UpstreamError, StoreError):
                await self._fetch(repository, digest)
        finally:
            self._running -= 1

    async def _fetch(self, repository: Repository, digest: Digest) -> None:
        found = await self._listings.referrers(repository, digest, ())
        if found.outcome is Outcome.STALE or len(found.data) > MAX_MANIFEST_BYTES:
            return
        listed = await self._manifests.reader.read(Digest.of(found.data), found.data, OCI_INDEX)
        for each in () if listed is None else listed.manifests[:MOST]:
            if not self._prefetch.allows(repository):
                return
            answer = await self._manifests.get(repository, each.digest)
            await self._prefetch.add_small(repository, answer)
