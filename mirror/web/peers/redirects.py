"""Redirects of clients to the object store, by network: so that the line of a mirror is no limit.

A client that asks again for what it was sent away for cannot reach the store, or does not follow: it is
answered here for a while. What a redirect hands out is a key to one blob for some minutes, and in no log.
"""

from collections.abc import Iterable
from ipaddress import ip_network

from aiohttp import web

from mirror.access.policy import parse_address
from mirror.cache.results import Outcome
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.transfer.shared.store_urls import StoreURLs
from mirror.util.ttl_cache import TTLCache
from mirror.web.request_log import RequestRecord
from mirror.web.responses import COMMON

# Time, in seconds, within which the same request again means that the store is of no use to the client, and
# how long the client is answered here then.
AGAIN_SECONDS = 60.0
REFUSED_SECONDS = 1800.0

# The most redirects, and clients, that are remembered.
MAX_SENT = 10_000

STATUS = 307


class StoreRedirects:
    """The redirects to the store; for clients of these networks."""

    def __init__(self, urls: StoreURLs, networks: Iterable[str], metrics: Metrics) -> None:
        self._urls = urls
        self._networks = [ip_network(each) for each in networks]
        self._metrics = metrics
        self._sent: TTLCache[tuple[str, str, Digest, str], bool] = TTLCache(AGAIN_SECONDS, MAX_SENT)
        self._refusing: TTLCache[tuple[str, str], bool] = TTLCache(REFUSED_SECONDS, MAX_SENT)

    async def answer(
        self, record: RequestRecord, repository: Repository, digest: Digest
    ) -> web.StreamResponse | None:
        """Return a redirect for a GET of a blob, which the client may have; None to answer it here."""
        headers = record.request.headers
        client = (record.client, headers.get("User-Agent", "")[:200])
        if self._refusing.get(client) or not self._is_near(record.client):
            return None
        asked = (*client, digest, headers.get("Range", "")[:100])
        if self._sent.get(asked):
            self._sent.drop(asked)
            self._refusing.put(client, True)
            self._metrics.shared_redirects.labels("refused").inc()
            return None
        url = await self._urls.find(repository, digest)
        if url is None:
            return None
        self._sent.put(asked, True)
        self._metrics.shared_redirects.labels("sent").inc()
        record.outcome, record.status, record.note = Outcome.HIT, STATUS, "sent to the object store"
        record.first_byte()
        kept = {"Location": url, "Docker-Content-Digest": str(digest), "Cache-Control": "no-store"}
        return web.Response(status=STATUS, headers={**COMMON, **kept, "Content-Length": "0"})

    def _is_near(self, client: str) -> bool:
        address = parse_address(client)
        return address is not None and any(address in network for network in self._networks)
