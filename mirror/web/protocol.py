"""aiohttp's request handler with a fast path for cached responses, and OCI errors for malformed requests."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD

from mirror.access.policy import EVERYBODY
from mirror.metrics.metrics import Metrics
from mirror.oci.errors import Code, RegistryError
from mirror.system.admission import Admission
from mirror.system.sockets import AcceptBalancer
from mirror.util.callbacks import zero
from mirror.util.fairness.request_turns import RequestTurns
from mirror.util.log import get_logger
from mirror.web import responses
from mirror.web.departures import Departures
from mirror.web.framing import (
    HEAD_BYTES,
    HEAD_TOO_LONG,
    PROXY_HEADERS,
    SPEAKS_TLS,
    SURPLUS_BYTES,
    UNEXPECTED_PROXY,
    HeadSplitter,
    Refusal,
    UnreadBody,
    as_last,
    asks_for_blob,
    body_of,
    first_last,
    is_one_head,
    why_refused,
)
from mirror.web.idle_order import IdleOrder
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache
from mirror.web.sendfile import loop_turns

log = get_logger(__name__)

# Time, in seconds, that a client has for its first head, and for the rest of any later one.
HEAD_SECONDS = 30.0

# Time, in seconds, between a response that is the last of its connection and the connection's end, for a
# client that is still sending a body.
LINGERING_SECONDS = 1.0

# Requests that begin in one turn of the event loop, at most, and how many of them may be for blobs at least:
# three milliseconds. Responses that are known do not count.
BEGINNINGS, BLOB_BEGINNINGS = 8, 2

# Interval, in seconds, at which the end of a server looks whether first requests have come.
POLL_SECONDS = 0.01

# Marks the scope of a connection with TLS.
TLS = "tls"


class RequestProtocol(web.RequestHandler):
    """A client's connection: the response cache answers known heads, aiohttp's parser takes the rest."""

    __slots__ = (
        "_client",
        "_deferred",
        "_departures",
        "_ended",
        "_heads",
        "_held",
        "_metrics",
        "_only_heads",
        "_only_heads_before",
        "_partial_head",
        "_response_cache",
        "_surplus",
        "_turns",
        "_unread_body",
        "_validity",
        "head",
        "names",
        "scope",
        "was_asked",
    )

    def __init__(
        self,
        response_cache: ResponseCache,
        metrics: Metrics,
        departures: Departures,
        turns: RequestTurns,
        manager: web.Server,
        **options: Any,
    ) -> None:
        super().__init__(
            manager, lingering_time=LINGERING_SECONDS, auto_decompress=False, **options
        )  # nobody reads a body
        self._response_cache = response_cache
        self._metrics = metrics
        self._departures = departures
        self._turns = turns
        self._client = ""
        self.was_asked = False  # bytes of a request have come
        self.names: tuple[str, ...] = ()  # what the client has proven to be by the connection itself
        self._validity: asyncio.TimerHandle | None = None  # ends the connection with the certificate
        self.scope = EVERYBODY  # of the client, by its address and these names
        self._ended = False  # the last request of this connection has come, or no further one can come
        self._surplus = SURPLUS_BYTES
        self._unread_body: UnreadBody | None = None
        self._partial_head = 0  # bytes since the last whole head
        self._heads = HeadSplitter()
        self._held = b""  # requests that the queue has no place for yet
        # Each request so far was one head and nothing more, and found the connection idle.
        self._only_heads = self._only_heads_before = True
        self._deferred = b""  # a request that waits for its turn, and what came behind it
        self.head: bytes | None = None  # the running request's head, if the request is nothing but a head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        if certificate := transport.get_extra_info("peercert"):
            self._identify(certificate)
        self.scope = self._response_cache.scope_of(self._client, self.names)
        if transport.get_extra_info("ssl_object") is not None:  # a challenge has the scheme in it
            self.scope = (*self.scope, TLS)
        self._limit_head_time()

    def _identify(self, certificate: Mapping[str, Any]) -> None:
        """Note the names in the client's certificate, and end the connection when it expires."""
        from mirror.access.certificate import CertificateRefused, certificate_names, seconds_left

        try:
            self.names = certificate_names(certificate)
            self._validity = self._loop.call_later(seconds_left(certificate), self._expire)
        except CertificateRefused as error:
            log.warning("client certificate refused", client=self._client, reason=str(error))
            self._metrics.count_refused_connection("certificate")
            self._ended, self._surplus = True, 0
            self.drop()

    def _expire(self) -> None:
        """End the connection, behind the response that is being sent."""
        if self.idle_since() is None:
            self.close()
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._unread_body is not None:
            self._unread_body.client_left()
        if self._validity is not None:
            self._validity.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.was_asked = True
        waiter = self._waiter
        idle = waiter is not None and not waiter.done()
        transport: Any = self.transport
        known = self._response_cache
        if idle and self._only_heads and known.answer(self.scope, data, transport, self._client):
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return
        if self._ended:
            self._discard(data)
        elif self._deferred or (idle and not self._turns.take(blob=asks_for_blob(data))):
            self._defer(data)
        else:
            self._begin(data, idle)

    def _defer(self, data: bytes) -> None:
        """Keep what has come, until its turn."""
        if not self._deferred:
            self._only_heads_before, self._only_heads = self._only_heads, False  # nothing overtakes it
            self._turns.wait(self._client, self._on_turn, blob=asks_for_blob(data))
        self._deferred += data
        if len(self._deferred) > HEAD_BYTES:
            self._pause_transport_reading()

    def _on_turn(self) -> None:
        data, self._deferred = self._deferred, b""
        if self.transport is not None:
            self._only_heads = self._only_heads_before
            self._resume_transport_reading()
            self._begin(data, idle=True)

    def _begin(self, data: bytes, idle: bool) -> None:
        """Have a request parsed, unless its client has left."""
        transport: Any = self.transport
        if idle and self._departures.is_unread(data, transport):
            transport.abort()
            return
        if idle and self._partial_head == 0 and data.startswith(PROXY_HEADERS):
            self._answer_last(UNEXPECTED_PROXY)
            return
        self._only_heads = self._only_heads and idle and is_one_head(data)
        self.head = data if self._only_heads else None
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Have aiohttp parse `data` head by head: a wrong head takes nothing from the requests before it.

        The parser forgets what it has parsed of the same bytes when it raises.
        """
        held, self._held = self._held, b""
        for part in self._heads.split(held + data):
            if self._ended:
                self._discard(part)
            elif len(self._messages) < self._max_msg_queue_size:
                self._parse_part(part)
            else:  # aiohttp reads no more until its queue is shorter, and then comes here without data
                self._held += part

    def _parse_part(self, data: bytes) -> None:
        """Have aiohttp parse `data`, and end the connection behind a request that must be the last."""
        before = len(self._messages)
        super().data_received(data)
        if len(self._messages) == before:
            self._note_partial_head(len(data))
            return
        self._partial_head = 0
        last = first_last(list(self._messages)[before:])
        if last is not None:
            self._end_connection_after(before + last)

    def _end_connection_after(self, index: int) -> None:
        """Make the request at `index` of the queue the last of this connection, and forget later ones."""
        transport: Any = self.transport
        while len(self._messages) > index + 1:
            self._messages.pop()
        message, _ = self._messages.pop()
        self._unread_body = body_of(message, transport)
        body: Any = self._unread_body
        self._messages.append((as_last(message), body))
        self._ended, self._message_tail = True, b""
        self._resume_transport_reading()  # the body that nobody reads may have filled aiohttp's buffer

    def _discard(self, data: bytes) -> None:
        """Throw away what comes behind the last request, as much as a client may send without a reset."""
        if self._unread_body is not None:
            data = self._unread_body.feed(data)
        self._surplus -= len(data)
        if self._surplus < 0:
            self._pause_transport_reading()

    def _note_partial_head(self, size: int) -> None:
        """Bound the head that is under way: in bytes, and in time if nothing else is."""
        began = self._partial_head == 0 and size > 0
        self._partial_head += size
        if self._partial_head > HEAD_BYTES:
            self._answer_last(HEAD_TOO_LONG)
        elif began and self._waiter is not None:
            self._limit_head_time()

    def _answer_last(self, refusal: Refusal) -> None:
        """Answer with a refusal, and end the connection."""
        self._messages.append((refusal.as_message(), EMPTY_PAYLOAD))
        self._end_connection_after(len(self._messages) - 1)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _limit_head_time(self) -> None:
        """Close the connection in HEAD_SECONDS, unless a request has come, or the limit is a nearer one."""
        limit = self._loop.time() + HEAD_SECONDS
        if self._keepalive_handle is not None:
            limit = min(limit, self._next_keepalive_close_time)
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = limit
        self._keepalive_handle = self._loop.call_at(limit, self._process_keepalive)

    @property
    def was_begun(self) -> bool:
        """Return whether a first request has come, and waits for no turn."""
        return self.was_asked and not self._deferred

    def idle_since(self) -> float | None:
        """Return since when no request runs here, by the loop's clock, or sooner; None while one runs."""
        if self._waiter is None or self._waiter.done() or self._deferred:
            return None
        return self._next_keepalive_close_time - self._keepalive_timeout

    def drop(self) -> None:
        """Close the connection at once: its descriptor is wanted."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP with an OCI error, without a traceback: the client erred."""
        if status >= 500 and not isinstance(exc, Refusal):
            response = super().handle_error(request, status, exc, message)
            response.headers.update(responses.SERVER)
            return response
        record = RequestRecord(request)
        failure = RegistryError(
            Code.UNSUPPORTED, why_refused(exc, message or "", self.head or b""), status=status
        )
        refusal = responses.error(record, failure)
        refusal.force_close()
        if exc is UNEXPECTED_PROXY:
            record.note = failure.message  # the sender's operator may have meant it
        if failure.message == SPEAKS_TLS:
            # Docker and Podman try TLS first where plain HTTP is allowed: no error, and no request either.
            log.debug("client tried TLS", client=request.remote)
        else:
            record.report(self._metrics)
        return refusal


class ProtocolFactory(web.Server):
    """Maker and counter of the connections; `options` are aiohttp's.

    `admission`: asks for the connection idle longest when there are too many.
    """

    def __init__(
        self,
        response_cache: ResponseCache,
        metrics: Metrics,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        admission: Admission | None = None,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self.departures = Departures()
        self.turns = RequestTurns(BEGINNINGS, BLOB_BEGINNINGS)
        self.sending = loop_turns()
        self._connections_open = 0
        self.preparing: Callable[[], int] = zero  # connections accepted, and still before their first request
        self._balancer: AcceptBalancer | None = None
        self._admission = admission
        self._idle_order = IdleOrder(self._loop.time)
        if admission is not None:
            admission.close_idle = self._idle_order.close_longest
        self.no_connections = asyncio.Event()  # set while there is no connection
        self.no_connections.set()
        self._connect = partial(
            RequestProtocol,
            response_cache,
            metrics,
            self.departures,
            self.turns,
            self,
            loop=self._loop,
            **self._kwargs,
        )

    def __call__(self) -> web.RequestHandler:
        self.sending.shorten()
        return self._connect()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.departures.note_connection()
        self._set_count(self._connections_open + 1)
        self.no_connections.clear()
        if self._admission is not None and isinstance(handler, RequestProtocol):
            self._admission.established(transport.get_extra_info("socket").fileno())
            self._idle_order.add(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._set_count(self._connections_open - 1)
        if not self._connections_open:
            self.no_connections.set()

    async def await_first_requests(self, seconds: float) -> None:
        """Wait for the first request of each connection that was accepted just now, at most `seconds`.

        Its client connected in time. A connection that ends without an answer would be a failed pull.
        """
        deadline = self._loop.time() + seconds
        await asyncio.sleep(POLL_SECONDS)  # what asyncio has accepted becomes a connection
        while self._loop.time() < deadline and (  # noqa: ASYNC110  # once in a process's life
            self.preparing()
            or any(isinstance(each, RequestProtocol) and not each.was_begun for each in self.connections)
        ):
            await asyncio.sleep(POLL_SECONDS)

    def report_to(self, balancer: AcceptBalancer | None) -> None:
        """Report the number of connections to `balancer` from now on; to nothing with None."""
        self._balancer = balancer
        self._set_count(self._connections_open)

    def _set_count(self, connections: int) -> None:
        self._connections_open = connections
        if self._balancer is not None:
            self._balancer.set_connections(connections)
