"""aiohttp's request handler with a fast path for cached responses, and OCI errors for malformed requests."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import web

from mirror.metrics.metrics import Metrics
from mirror.oci.errors import Code, RegistryError
from mirror.util.fairness.request_turns import RequestTurns
from mirror.util.log import get_logger
from mirror.web import responses
from mirror.web.connections.aiohttp_internals import NO_BODY, AiohttpConnection
from mirror.web.departures import Departures
from mirror.web.fastpath.known_blobs import WholeBlob
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
    first_last,
    is_one_head,
    why_refused,
)
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache

log = get_logger(__name__)

# Time, in seconds, that a client has for its first head, and for the rest of any later one.
HEAD_SECONDS = 30.0

# Time, in seconds, between a response that is the last of its connection and the connection's end, for a
# client that is still sending a body.
LINGERING_SECONDS = 1.0

# Marks the scope of a connection with TLS.
TLS = "tls"


class RequestProtocol(AiohttpConnection):
    """A client's connection: the response cache answers known heads, aiohttp's parser takes the rest."""

    __slots__ = (
        "_body_of",
        "_busy",
        "_client",
        "_deferred",
        "_departures",
        "_dropped",
        "_ended",
        "_heads",
        "_held",
        "_large_answers",
        "_metrics",
        "_only_heads",
        "_only_heads_before",
        "_partial_head",
        "_response_cache",
        "_surplus",
        "_transfer",
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
        manager: Any,
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
        self.scope = 0  # stands for what decides about the client: its address, these names, TLS
        self._dropped = False  # what the connection holds is wanted
        self._ended = False  # the last request of this connection has come, or no further one can come
        self._surplus = SURPLUS_BYTES
        self._unread_body: UnreadBody | None = None
        self._body_of = manager.body_of
        self._large_answers = manager.large_answers
        self._partial_head = 0  # bytes since the last whole head
        self._heads = HeadSplitter()
        self._held = b""  # requests that the queue has no place for yet
        # Each request so far was one head and nothing more, and found the connection idle.
        self._only_heads = self._only_heads_before = True
        self._busy = False  # a request waits for its turn, or a known blob is sent
        self._deferred = b""  # a request that waits for its turn, or what came behind a known blob's
        self._transfer: asyncio.Task[None] | None = None  # sends a known blob
        self.head: bytes | None = None  # the running request's head, if the request is nothing but a head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        if certificate := transport.get_extra_info("peercert"):
            self._identify(certificate)
        scope = self._response_cache.scope_of(self._client, self.names)
        if transport.get_extra_info("ssl_object") is not None:  # a challenge has the scheme in it
            scope = (*scope, TLS)
        self.scope = self._response_cache.scope_key(scope)
        self._limit_head_time()

    def _identify(self, certificate: Mapping[str, Any]) -> None:
        """Note the names in the client's certificate, and end the connection when it expires."""
        from mirror.access.certificate import CertificateRefused, certificate_names, seconds_left

        try:
            self.names = certificate_names(certificate)
            self._validity = self.loop.call_later(seconds_left(certificate), self._expire)
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
        # The end of a response costs as much as its beginning. Idle connections end at once.
        end = partial(self._end, exc)
        works = self._runs_request() or self._transfer is not None
        if self._dropped or not works or self._turns.take(blob=True):
            end()
        else:
            self._turns.wait(self._client, end, blob=True)

    def _end(self, exc: BaseException | None) -> None:
        """End what works for a connection that is lost."""
        if self._transfer is not None:
            self._transfer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.was_asked = True
        idle = self._waits_for_request()
        transport: Any = self.transport
        known = self._response_cache
        if idle and self._only_heads and known.answer(self.scope, data, transport, self._client):
            self._keep_idle()
            return
        if self._ended:
            self._discard(data)
        elif self._busy:
            self._defer(data)
        elif idle and not self._turns.take(blob=asks_for_blob(data)):
            self._busy = True
            self._only_heads_before, self._only_heads = self._only_heads, False  # nothing overtakes it
            self._turns.wait(self._client, self._on_turn, blob=asks_for_blob(data))
            self._defer(data)
        else:
            self._begin(data, idle)

    def _defer(self, data: bytes) -> None:
        self._deferred += data
        if len(self._deferred) > HEAD_BYTES:
            self._pause_socket()

    def _take_deferred(self) -> bytes:
        data, self._deferred, self._busy = self._deferred, b"", False
        self._resume_socket()
        return data

    def _on_turn(self) -> None:
        data = self._take_deferred()
        if self.transport is not None:
            self._only_heads = self._only_heads_before
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
        known = self._response_cache.blobs.find(self.scope, data) if self._only_heads else None
        if known is None:
            self._parse(data)
            return
        self._busy, self._only_heads = True, False
        self._transfer = self.loop.create_task(self._send_known(known, data))

    async def _send_known(self, known: WholeBlob, head: bytes) -> None:
        """Send a known blob in aiohttp's place, for which the connection is idle meanwhile."""
        blobs = self._response_cache.blobs
        try:
            sent = await blobs.send(known, self, self._client)
        except Exception:
            log.exception("unexpected error")
            self.force_close()  # else the client would wait for an answer that nobody sends
            return
        self._transfer, data = None, self._take_deferred()
        if self.transport is None:
            return
        if not sent:
            self._only_heads, self.head = not data, None if data else head
            self._parse(head + data)
        elif self._is_ending() or blobs.closed:
            self.force_close()
        else:
            self._keep_idle()
            self._only_heads = not data
            if data:
                self.data_received(data)

    def is_kept(self) -> bool:
        return self._busy

    def _parse(self, data: bytes) -> None:
        """Have aiohttp parse `data` head by head: a wrong head takes nothing from the requests before it.

        The parser forgets what it has parsed of the same bytes when it raises.
        """
        held, self._held = self._held, b""
        for part in self._heads.split(held + data):
            if self._ended:
                self._discard(part)
            elif not self._queue_is_full:
                self._parse_part(part)
            else:  # aiohttp reads no more until its queue is shorter, and then comes here without data
                self._held += part

    def _parse_part(self, data: bytes) -> None:
        """Have aiohttp parse `data`, and end the connection behind a request that must be the last."""
        before = len(self._queue)
        super().data_received(data)
        if len(self._queue) == before:
            self._note_partial_head(len(data))
            return
        self._partial_head = 0
        last = first_last(list(self._queue)[before:])
        if last is not None:
            self._end_connection_after(before + last)

    def _end_connection_after(self, index: int) -> None:
        """Make the request at `index` of the queue the last of this connection, and forget later ones."""
        transport: Any = self.transport
        while len(self._queue) > index + 1:
            self._queue.pop()
        message, _ = self._queue.pop()
        self._unread_body = self._body_of(message, transport)
        body: Any = self._unread_body
        self._queue.append((message if body.keeps_connection else as_last(message), body))
        self._ended = True
        self._forget_rest()
        self._resume_socket()  # the body that nobody reads may have filled aiohttp's buffer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; go on behind a body that was read to its end, and with no other."""
        body: Any = request.content
        answer = resp.body if isinstance(resp, web.Response) and request.method != "HEAD" else None
        with self._large_answers.holding(len(answer) if isinstance(answer, bytes) else 0, self.drop):
            return await self._finish(request, resp, start_time, body)

    async def _finish(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None, body: Any
    ) -> tuple[web.StreamResponse, bool]:
        if not isinstance(body, UnreadBody) or not body.keeps_connection:
            return await super().finish_response(request, resp, start_time)
        if not body.is_complete:
            resp.force_close()
        sent = await super().finish_response(request, resp, start_time)
        if body.is_complete and resp.keep_alive and not self._is_ending():
            self._continue_behind(body)
        return sent

    def _continue_behind(self, body: UnreadBody) -> None:
        """Read requests again. aiohttp's parser still waits for the body, which it was not given."""
        self._renew_parser()
        self._heads, self._partial_head = HeadSplitter(), 0
        self._ended, self._unread_body = False, None
        self._resume_socket()
        if rest := body.rest():
            self._parse(rest)

    def _discard(self, data: bytes) -> None:
        """Throw away what comes behind the last request, as much as a client may send without a reset."""
        if self._unread_body is not None:
            data = self._unread_body.feed(data)
        self._surplus -= len(data)
        if self._surplus < 0:
            self._pause_socket()

    def _note_partial_head(self, size: int) -> None:
        """Bound the head that is under way: in bytes, and in time if nothing else is."""
        began = self._partial_head == 0 and size > 0
        self._partial_head += size
        if self._partial_head > HEAD_BYTES:
            self._answer_last(HEAD_TOO_LONG)
        elif began and self._waits_for_request():
            self._limit_head_time()

    def _answer_last(self, refusal: Refusal) -> None:
        """Answer with a refusal, and end the connection."""
        self._queue.append((refusal.as_message(), NO_BODY))
        self._end_connection_after(len(self._queue) - 1)
        self._wake()

    def _limit_head_time(self) -> None:
        """Close the connection in HEAD_SECONDS, unless a request has come, or the limit is a nearer one."""
        self._end_idle_at(self.loop.time() + HEAD_SECONDS)

    @property
    def was_begun(self) -> bool:
        """Return whether a first request has come, and waits for no turn."""
        return self.was_asked and (not self._busy or self._transfer is not None)

    def idle_since(self) -> float | None:
        """Return since when no request runs here, by the loop's clock, or sooner; None while one runs."""
        return None if self._busy or not self._waits_for_request() else self._idle_began

    def drop(self) -> None:
        """Close the connection at once: its descriptor is wanted, or its memory."""
        self._dropped = True
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
