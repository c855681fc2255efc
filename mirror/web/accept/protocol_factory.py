"""The maker of connections: counts them, and shares what they share."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from mirror.metrics.metrics import Metrics
from mirror.system.admission import Admission
from mirror.system.sockets import AcceptBalancer
from mirror.util.callbacks import zero
from mirror.util.fairness.request_turns import RequestTurns
from mirror.web.connections.aiohttp_internals import AiohttpServer
from mirror.web.connections.large_answers import LargeAnswers
from mirror.web.departures import Departures
from mirror.web.framing import UnreadBody, body_of
from mirror.web.idle_order import IdleOrder
from mirror.web.protocol import RequestProtocol
from mirror.web.response_cache import ResponseCache
from mirror.web.sendfile import loop_turns

# Requests that begin in one turn of the event loop, at most, and how many of them may be for blobs at least:
# three milliseconds. Responses that are known do not count.
BEGINNINGS, BLOB_BEGINNINGS = 8, 2

# Interval, in seconds, at which the end of a server looks whether first requests have come.
POLL_SECONDS = 0.01


class ProtocolFactory(AiohttpServer):
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
        self.turns.on_waiting = self.sending.shorten
        self.body_of: Callable[..., UnreadBody] = body_of  # what reads the body of a request
        self.large_answers = LargeAnswers()
        self._connections_open = 0
        self.preparing: Callable[[], int] = zero  # connections accepted, and still before their first request
        self._balancer: AcceptBalancer | None = None
        self._admission = admission
        self._idle_order = IdleOrder(self.loop.time)
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
            **self.connection_options,
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
        deadline = self.loop.time() + seconds
        await asyncio.sleep(POLL_SECONDS)  # what asyncio has accepted becomes a connection
        while self.loop.time() < deadline and (  # noqa: ASYNC110  # once in a process's life
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
