"""A client's connection: aiohttp's, but for requests that are known by heart, and for those that are none."""

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

# A head with one of these is not all there is to its request, or changes what becomes of the connection.
BODIES = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nupgrade:")


class RequestProtocol(web.RequestHandler):
    """What is known is answered here; everything else goes on to aiohttp's parser."""

    __slots__ = ("_client", "_metrics", "_response_cache", "_whole", "head")

    def __init__(
        self, response_cache: ResponseCache, metrics: Metrics, manager: web.Server, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._response_cache = response_cache
        self._metrics = metrics
        self._client = ""
        self._whole = True  # each request so far was one head and nothing more, and found the connection idle
        self.head: bytes | None = None  # of the request that runs, if it is all there is to it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        idle = waiter is not None and not waiter.done()
        transport: Any = self.transport
        if idle and self._whole and self._response_cache.answer(data, transport, self._client):
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return
        self._whole = self._whole and idle and _is_one_head(data)
        self.head = data if self._whole else None
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is a client's mistake, told like any other, and not worth a traceback."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        record = RequestRecord(request)
        failure = RegistryError(Code.UNSUPPORTED, _reason(exc, message or ""), status=status)
        response = responses.error(record, failure)
        response.force_close()
        record.report(self._metrics)
        return response


class ProtocolFactory(web.Server):
    """Makes the connections; `options` are aiohttp's."""

    def __init__(
        self,
        response_cache: ResponseCache,
        metrics: Metrics,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._here = 0
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
        self._count(self._here + 1)
        self.no_connections.clear()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._count(self._here - 1)
        if not self._here:
            self.no_connections.set()

    def report_to(self, balancer: AcceptBalancer | None) -> None:
        """Tell `balancer` how many connections there are, from now on; None: nobody."""
        self._balancer = balancer
        self._count(self._here)

    def _count(self, here: int) -> None:
        self._here = here
        if self._balancer is not None:
            self._balancer.set_connections(here)


def _reason(error: BaseException | None, message: str) -> str:
    """Why a request cannot be read, without a word of it: aiohttp quotes lines, and secrets with them."""
    if isinstance(error, LineTooLong):
        return "a line of the request's head is too long"
    if "HTTPS" in message:
        return "this is TLS, and here plain HTTP is spoken: use http://"
    if "'Host'" in message:
        return "the request has no Host header"
    return "this is not an HTTP/1.1 request"


def _is_one_head(data: bytes) -> bool:
    """Whether this is one request without a body, from its first byte to its last."""
    if not data.startswith((b"GET ", b"HEAD ")) or data.find(b"\n\r\n") != len(data) - 3 or b"\n\n" in data:
        return False
    lower = data.lower()
    return not any(name in lower for name in BODIES)
