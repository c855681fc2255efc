"""Listeners beside the one for clients: for operators, visitors of the pages, other mirrors.

A connection is worth keeping while somebody asks and reads: a head must come in time, what is sent must be
taken in time, and at the bounds an idle connection makes room for a new one.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web
from msgspec import Struct

from mirror.system.admission import Admission, address_of
from mirror.system.sockets import ListeningSocket
from mirror.web.connections.aiohttp_internals import AiohttpConnection, AiohttpServer, listener_logger

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# Time, in seconds, that a client has for its first head.
HEAD_SECONDS = 10.0

# Time, in seconds, for which a connection without a request is kept; longer than usual between two scrapes.
KEEPALIVE_SECONDS = 75.0

# Time, in seconds, in which a client takes what waits for it: one piece of a body, some 64 KiB.
UNREAD_SECONDS = 60.0

# Time, in seconds, in which a client takes one event of a stream.
EVENT_SECONDS = 30.0

# Bytes of events that the kernel keeps for a client: with more, one that reads nothing would stay for long.
EVENTS_KEPT = 16 * 1024

# The part of all connections that one address may have; less than FEWEST are no crowd.
SHARE, FEWEST = 4, 8


class SideBounds(Struct, frozen=True):
    """Bounds of a listener. `connections`: at a time; the others are in seconds."""

    connections: int
    head: float = HEAD_SECONDS
    unread: float = UNREAD_SECONDS
    events: float = EVENT_SECONDS

    @property
    def share(self) -> int:
        """The connections that one address may have."""
        return min(self.connections, max(FEWEST, self.connections // SHARE))


class SideProtocol(AiohttpConnection):
    """A connection with limits for the head, and for what is not read."""

    __slots__ = ("_bounds", "_first_limit", "_reading_ends", "_unread_seconds", "address")

    def __init__(self, bounds: SideBounds, manager: Any, **options: Any) -> None:
        super().__init__(manager, **options)
        self._bounds = bounds
        self._unread_seconds = bounds.unread
        self._first_limit = 0.0  # when the first head must have come, by the loop's clock
        self._reading_ends: asyncio.TimerHandle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.address = address_of(transport.get_extra_info("peername"))
        super().connection_made(transport)
        self._end_idle_at(self.loop.time() + self._bounds.head)
        self._first_limit = self._idle_limit

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_ends = self.loop.call_later(self._unread_seconds, self.drop)

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()

    def _stop_timer(self) -> None:
        if self._reading_ends is not None:
            self._reading_ends.cancel()
            self._reading_ends = None

    def send_events(self) -> None:
        """Expect the client to take each event in time, from now on."""
        if self.transport is None:
            return
        self._unread_seconds = self._bounds.events
        self.transport.set_write_buffer_limits(high=0)
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, EVENTS_KEPT
            )

    def idle_since(self) -> float | None:
        """Return since when no request runs here, by the loop's clock; None while one runs.

        One that has never asked counts as idle for longer than those that have.
        """
        if not self._waits_for_request() or self.transport is None or self.transport.is_closing():
            return None
        has_asked = self._idle_limit != self._first_limit
        return self._idle_began if has_asked else self._idle_began - self._bounds.head

    def drop(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()


class _SideServer(AiohttpServer):
    """Maker of the connections, which finds the idle ones."""

    def __init__(self, handler: Handler, bounds: SideBounds) -> None:
        super().__init__(
            handler,
            access_log=None,
            logger=listener_logger(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            handler_cancellation=True,
            auto_decompress=False,
            lingering_time=1.0,
        )
        self._bounds = bounds
        self.admission = Admission(bounds.connections, share=bounds.share)
        self.admission.close_idle = self._close_idle
        self.admission.close_idle_of = self._close_idle

    def __call__(self) -> web.RequestHandler:
        return SideProtocol(self._bounds, self, **self.connection_options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.admission.established(transport.get_extra_info("socket").fileno())

    def _close_idle(self, address: str | None = None) -> bool:
        """Drop the connection idle longest, of an address if one is given; return whether there was one."""
        since, longest = float("inf"), None
        for each in self.connections:
            if isinstance(each, SideProtocol) and address in (None, each.address):
                idle = each.idle_since()
                if idle is not None and idle < since:
                    since, longest = idle, each
        if longest is None:
            return False
        longest.drop()
        return True


class SideListener:
    """Server of a handler on sockets of its own. `shutdown`: seconds for what runs at the end."""

    def __init__(self, handler: Handler, bounds: SideBounds, shutdown: float = 1.0) -> None:
        self._handler = handler
        self._bounds = bounds
        self._shutdown = shutdown
        self._runner: web.ServerRunner | None = None

    async def start(
        self,
        sockets: Sequence[ListeningSocket],
        tls: Callable[[ListeningSocket], ssl.SSLContext | None] = lambda _: None,
    ) -> None:
        """Begin to answer. `tls`: the context of a socket, None for plain HTTP."""
        server = _SideServer(self._handler, self._bounds)
        self._runner = web.ServerRunner(server, shutdown_timeout=self._shutdown)
        await self._runner.setup()
        for each in sockets:
            each.admission = server.admission
            await web.SockSite(self._runner, each, backlog=1, ssl_context=tls(each)).start()

    async def close(self) -> None:
        """Stop answering. May be called again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


def send_events(request: web.BaseRequest) -> None:
    """Expect the client of a stream to take each event in time."""
    if isinstance(request.protocol, SideProtocol):
        request.protocol.send_events()
