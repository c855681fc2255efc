"""Whole blobs of the store, sent without parsing the request.

Many machines that pull a new image ask for the same layers at once, all with the same head. Off the fast path
each costs a third of a millisecond before its first byte. Once the full path has begun to send a whole blob
from the store, a further request with the same head gets the same blob with the same head. The blob is opened
through the cache each time: what the cache does for a request (links, proofs, last use) it does here too.

What holds for the response cache (`mirror.web.response_cache`) holds here: one access scope, a lifetime, the
store's epochs. Where there are limits, the full path keeps them while a body is sent, and nothing is known.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import cast

from aiohttp import HttpVersion11, web
from msgspec import Struct

from mirror.cache.cache import Cache
from mirror.cache.readers import BlobRequest, StoredReader
from mirror.cache.results import Outcome
from mirror.metrics.metrics import Metrics
from mirror.oci.errors import RegistryError
from mirror.oci.ranges import Span
from mirror.store.errors import StoreError, reason_of
from mirror.upstream.errors import UpstreamError
from mirror.util.callbacks import ignore
from mirror.util.fairness.client import set_client
from mirror.util.log import get_logger
from mirror.web.connections.aiohttp_internals import body_writer
from mirror.web.fastpath.hit_log import (
    HitLog,
    KnownResponse,
    client_behind_proxy,
    lifetime,
    split_at_date,
)
from mirror.web.fastpath.logins import ScopeKey
from mirror.web.request_log import RequestRecord
from mirror.web.sendfile import BodySender

log = get_logger(__name__)

# Blobs that are known, at most.
MOST_BLOBS = 256

Key = tuple[ScopeKey, bytes]


class WholeBlob(KnownResponse, eq=False, kw_only=True):
    """A blob that requests with one head get: `record` of such a request, `size` in bytes, and the response's
    head, around the value of Date.
    """

    record: RequestRecord
    size: int
    before_date: bytes
    after_date: bytes


class UnparsedRequest(Struct):
    """A request that was not parsed, as far as its record needs it. `remote`: address of the connection."""

    method: str
    remote: str
    transport: asyncio.Transport | None = None


# Opens the blob of a request; None if it is not here as it was.
Open = Callable[[WholeBlob, RequestRecord], Awaitable[StoredReader | None]]


class KnownBlobs:
    """Whole blobs by the head of requests."""

    def __init__(
        self,
        metrics: Metrics,
        hits: HitLog,
        clock: Callable[[], float],
        is_outdated: Callable[[KnownResponse], bool],
        date: Callable[[], bytes],
    ) -> None:
        """`is_outdated` as for RangeCache; `date` returns the value of the header."""
        self._metrics = metrics
        self._hits = hits
        self._clock = clock
        self._is_outdated = is_outdated
        self._date = date
        self._blobs: OrderedDict[Key, WholeBlob] = OrderedDict()
        self.closed = False
        self.open: Open = _open_nothing
        # Called when a response begins, and when it has ended.
        self.begin: Callable[[], object] = ignore
        self.end: Callable[[], object] = ignore
        self.sent = 0  # responses

    def __len__(self) -> int:
        """Return the number of known blobs."""
        return len(self._blobs)

    def find(self, scope: ScopeKey, head: bytes) -> WholeBlob | None:
        """Return the blob that a request with this head gets; None if that is not known."""
        key = (scope, head)
        known = self._blobs.get(key)
        if known is None:
            return None
        if self._clock() >= known.expires or self._is_outdated(known):
            del self._blobs[key]
            return None
        self._blobs.move_to_end(key)
        return known

    def remember(
        self, request: Key, record: RequestRecord, reader: object, response: web.StreamResponse
    ) -> None:
        """Remember a blob whose response has begun. `request`: its scope and head.

        Never raises: the response goes on.
        """
        try:
            self._remember(request, record, reader, response)
        except Exception as error:  # no traceback: what a client sent must not fill the log
            log.warning("blob not remembered", id=record.id, reason=type(error).__name__)

    def _remember(
        self, request: Key, record: RequestRecord, reader: object, response: web.StreamResponse
    ) -> None:
        if self.closed or self._hits.limit is not None or not isinstance(reader, StoredReader):
            return
        if not (reader.proven and _is_whole_hit(record, response)):
            return
        before, after = split_at_date(response)
        while len(self._blobs) >= MOST_BLOBS:
            self._blobs.popitem(last=False)
        self._blobs[request] = WholeBlob(
            expires=self._clock() + lifetime(record, record.content_ttl),
            removal_epoch=record.removal_epoch,
            access_epoch=record.access_epoch,
            stats=self._metrics.requests.of(record.kind, record.outcome.value),
            client=client_behind_proxy(record),
            record=record.again(_unparsed("", None), record.client),
            size=reader.size,
            before_date=before,
            after_date=after,
        )

    async def send(self, known: WholeBlob, handler: web.RequestHandler, client: str) -> bool:
        """Send a blob to a connection from the address `client`, and report the request.

        Return False, with nothing sent, if only the full path can answer.
        """
        record = known.record.again(_unparsed(client, handler.transport), known.client or client)
        set_client(record.client, record.identity.names)
        self.begin()
        try:
            reader = await self._open(known, record)
            if reader is None:
                return False
            try:
                with closing(reader):
                    await self._send(known, record, reader, handler)
            finally:
                self._report(record)
            return True
        finally:
            self.end()

    async def _open(self, known: WholeBlob, record: RequestRecord) -> StoredReader | None:
        try:
            reader = await self.open(known, record)
        except (RegistryError, UpstreamError, StoreError, TimeoutError):
            return None
        if reader is not None and not (reader.proven and reader.size == known.size):
            reader.close()
            return None
        return reader

    async def _send(
        self, known: WholeBlob, record: RequestRecord, reader: StoredReader, handler: web.RequestHandler
    ) -> None:
        """Send head and body; cut it short, as the full path does, when the rest cannot come."""
        transport = handler.transport
        if transport is None:
            return
        record.streaming, record.length = True, known.size
        if self._hits.watch is not None:
            self._hits.watch.begin(record)
        try:
            transport.write(b"".join((known.before_date, self._date(), known.after_date)))
            record.first_byte()
            self.sent += 1
            with BodySender(record, body_writer(handler), reader) as sender:
                await sender.send(Span(0, known.size))
            return
        except (UpstreamError, StoreError) as failure:
            record.outcome, record.note = Outcome.ERROR, f"cut short: {failure}"
        except (ConnectionError, RuntimeError) as left:  # RuntimeError: asyncio's for a closing transport
            record.note = f"client left: {reason_of(left)}"
        except Exception:
            log.exception("unexpected error", id=record.id)
        transport.close()

    def _report(self, record: RequestRecord) -> None:
        """Count the request and write its access line, as the full path does."""
        fields = record.report(self._metrics)
        if self._hits.audit is not None:
            self._hits.audit.note(record, fields)
        if self._hits.watch is not None:
            self._hits.watch.end(record, fields)

    def close(self) -> None:
        """Know nothing any more."""
        self.closed = True
        self._blobs.clear()


def _is_whole_hit(record: RequestRecord, response: web.StreamResponse) -> bool:
    """Return whether a whole blob of the store is sent, as it may be to the same request."""
    if record.outcome is not Outcome.HIT or record.note is not None or record.guest is not None:
        return False
    keeps = response.keep_alive and record.request.version == HttpVersion11
    whole = response.status == 200 and record.request.method == "GET"
    return bool(whole and keeps and lifetime(record, record.content_ttl) > 0)


def _unparsed(remote: str, transport: asyncio.Transport | None) -> web.BaseRequest:
    return cast(web.BaseRequest, UnparsedRequest("GET", remote, transport))


async def open_stored(
    cache: Cache, seconds: float, known: WholeBlob, record: RequestRecord
) -> StoredReader | None:
    """Open a blob through the cache; None if it is not in the store as it was. `seconds`: for an answer.

    Raises what the cache raises, and TimeoutError.
    """
    target, digest = record.target, record.digest
    if target is None or target.repository is None or digest is None:
        return None
    cache.note_layer(target.repository, digest)
    async with asyncio.timeout(seconds):
        request = BlobRequest(record.client, whole=True)
        origin = cache.origin(target.repository)
        answer = await origin.get_blob(target.repository, digest, None, request)
    content = answer.content
    if isinstance(content, StoredReader) and answer.outcome is Outcome.HIT and answer.staleness is None:
        return content
    content.close()
    return None


async def _open_nothing(_known: WholeBlob, _record: RequestRecord) -> None:
    return None
