"""A client of another mirror: the blob that it downloads now, from an offset on, as its bytes come."""

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from mirror.access.peer_proof import ANSWER_HEADER, BEHIND_HEADER, REQUEST_HEADER, PeerProof, subject
from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.upstream.body import BlobBody, blob_body
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.request import OutgoingRequest
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import RegistryClient
from mirror.util.ttl_cache import TTLCache

# The name of all peers in metrics and messages.
PEERS = "peers"

# The path of a blob at a peer's listener, below /v2/ as at any registry.
PATH = "peers"

# A peer has several processes on one address: who does not download the blob answers so.
MISDIRECTED = 421

# Attempts to reach the process that downloads the blob.
ATTEMPTS = 16

# How long it is known how far this mirror is behind others, in seconds, and of how many blobs.
BEHIND_SECONDS = 60.0
MOST_BEHIND = 1000

_NUMBER = re.compile(r"[0-9]{1,18}")


class PeerClient(RegistryClient):
    """One other mirror, at its URL; it is asked for blobs alone."""

    def __init__(
        self,
        url: str,
        proof: PeerProof,
        metrics: Metrics,
        wall_clock: Callable[[], float] = time.time,
        *,
        connect_timeout: float,
        silence: float,
    ) -> None:
        """`silence`: seconds without a byte after which the peer is taken for dead."""
        settings = UpstreamSettings(
            name=PEERS, url=url, connect_timeout=connect_timeout, read_timeout=silence, attempts=1
        )
        super().__init__(settings, metrics)
        self._transport.bypass_proxies()
        self._proof = proof
        self._wall_clock = wall_clock
        self._behind: TTLCache[Digest, int] = TTLCache(BEHIND_SECONDS, MOST_BEHIND)

    def behind(self, digest: Digest) -> int | None:
        """Return by how many bytes this mirror was behind another one that follows, when it asked last.

        None if the peer has not said it.
        """
        return self._behind.get(digest)

    @asynccontextmanager
    async def open_blob(
        self,
        path: str,
        digest: Digest,
        start: int = 0,
        stop: int | None = None,
        *,
        location: DirectLocation | None = None,
    ) -> AsyncIterator[BlobBody]:
        """Yield the bytes of a blob from `start` to `stop`. Raises UpstreamError."""
        for attempt in range(ATTEMPTS):
            async with AsyncExitStack() as stack:
                try:
                    body = await stack.enter_async_context(self._open(digest, start, stop))
                except UpstreamError as error:
                    if error.status != MISDIRECTED or attempt + 1 == ATTEMPTS:
                        raise
                    continue
                yield body
                return

    @asynccontextmanager
    async def _open(self, digest: Digest, start: int, stop: int | None) -> AsyncIterator[BlobBody]:
        about = subject(str(digest), start)
        header, nonce = self._proof.request(about, self._wall_clock())
        last = "" if stop is None else str(stop - 1)
        headers = {"Range": f"bytes={start}-{last}", REQUEST_HEADER: header}
        request = OutgoingRequest("GET", f"{PATH}/blobs/{digest}", PATH, headers, proven=True)
        client = self._client
        async with client.open(request) as response:
            if not self._proof.verify_answer(response.headers.get(ANSWER_HEADER, ""), nonce, about):
                raise UpstreamError(Failure.INVALID, "another mirror has not the secret of the peers")
            if _NUMBER.fullmatch(behind := response.headers.get(BEHIND_HEADER, "")):
                self._behind.put(digest, int(behind))
            asked = Span(start, 2**63 - 1 if stop is None else stop)
            yield blob_body(self.name, response, asked, client.content(response))
