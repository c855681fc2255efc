"""aiohttp's request handler with a fast path for cached responses, and OCI errors for malformed requests."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from mirror.metrics.metrics import Metrics
from mirror.oci.errors import Code, RegistryError
from mirror.system.sockets import AcceptBalancer
from mirror.web import responses
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache

# Headers of requests that have more than a head, or that change the connection.
BODY_HEADERS = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nupgrade:")


class RequestProtocol(web.RequestHandler):
    """A client's connection: the response cache answers known heads, aiohttp's parser takes the rest."""

    __slots__ = ("_client", "_metrics", "_only_heads", "_response_cache", "head")

    def __init__(
        self, response_cache: ResponseCache, metrics: Metrics, manager: web.Server, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._response_cache = response_cache
        self._metrics = metrics
        self._client = ""
        # Each request so far was one head and nothing more, and found the connection idle.
        self._only_heads = True
        self.head: bytes | None = None  # the running request's head, if the request is nothing but a head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        idle = waiter is not None and not waiter.done()
        transport: Any = self.transport
        if idle and self._only_heads and self._response_cache.answer(data, transport, self._client):
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return
        self._only_heads = self._only_heads and idle and _is_one_head(data)
        self.head = data if self._only_heads else None
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP with an OCI error, without a traceback: the client erred."""
        if status >= 500:
            response = super().handle_error(request, status, exc, message)
            response.headers.update(responses.SERVER)
            return response
        record = RequestRecord(request)
        failure = RegistryError(Code.UNSUPPORTED, _reason(exc, message or ""), status=status)
        refusal = responses.error(record, failure)
        refusal.force_close()
        record.report(self._metrics)
        return refusal


class ProtocolFactory(web.Server):
    """Maker and counter of the connections; `options` are aiohttp's."""

    def __init__(
        self,
        response_cache: ResponseCache,
        metrics: Metrics,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._connections_open = 0
        self._balancer: AcceptBalancer | None = None
        self.no_connections = asyncio.Event()  # set while there is no connection
        self.no_connections.set()
        self._connect = partial(
            RequestProtocol, response_cache, metrics, self, loop=self._loop, **self._kwargs
        )

    def __call__(self) -> web.RequestHandler:
        return self._connect()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._set_count(self._connections_open + 1)
        self.no_connections.clear()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._set_count(self._connections_open - 1)
        if not self._connections_open:
            self.no_connections.set()

    def report_to(self, balancer: AcceptBalancer | None) -> None:
        """Report the number of connections to `balancer` from now on; to nothing with None."""
        self._balancer = balancer
        self._set_count(self._connections_open)

    def _set_count(self, connections: int) -> None:
        self._connections_open = connections
        if self._balancer is not None:
            self._balancer.set_connections(connections)


def _reason(error: BaseException | None, message: str) -> str:
    """Explain why a request cannot be read. aiohttp's own message quotes lines, and secrets with them."""
    if isinstance(error, LineTooLong):
        return "a line of the request's head is too long"
    if "HTTPS" in message:
        return "this is TLS, and here plain HTTP is spoken: use http://"
    if "'Host'" in message:
        return "the request has no Host header"
    return "this is not an HTTP/1.1 request"


def _is_one_head(data: bytes) -> bool:
    """Return whether `data` is exactly one request without a body."""
    if not data.startswith((b"GET ", b"HEAD ")) or data.find(b"\n\r\n") != len(data) - 3 or b"\n\n" in data:
        return False
    lower = data.lower()
    return not any(name in lower for name in BODY_HEADERS)
