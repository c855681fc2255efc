"""Small HTTP server on a free port with a log of its requests; the base of all fakes."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Never

from aiohttp import web
from multidict import CIMultiDictProxy


@dataclass(slots=True)
class Seen:
    """One request. `peer` is the same for all requests of one connection.

    `finished` is set when its handler ended; `aborted` if the connection ended before that. `sent` counts
    the bytes of the body.
    """

    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    peer: object = None
    status: int = 0
    aborted: bool = False
    sent: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)


# The request that is answered in this task.
ANSWERED: ContextVar[Seen] = ContextVar("answered")

Handler = Callable[[web.BaseRequest, Seen], Awaitable[web.StreamResponse]]


class Site:
    """HTTP server: `async with Site(handler) as site`; `handler` answers all requests to `site.url`."""

    def __init__(
        self, handler: Handler, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
    ) -> None:
        self._address = address
        self.log: list[Seen] = []
        self.tls = tls
        self.url = ""
        self._handler = handler
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> "Site":
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address, 0, ssl_context=self.tls).start()
        port = self._runner.addresses[0][1]
        host = f"[{self._address}]" if ":" in self._address else self._address
        self.url = f"{'https' if self.tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        url = request.rel_url
        seen = Seen(request.method, url.raw_path, url.raw_query_string, request.headers)
        seen.peer = request.get_extra_info("peername")
        self.log.append(seen)
        ANSWERED.set(seen)
        try:
            response = await self._handler(request, seen)
            seen.status = response.status
            return response
        except (asyncio.CancelledError, ConnectionError):
            seen.aborted = True
            raise
        finally:
            seen.finished.set()


async def hang_up(request: web.BaseRequest, *, reset: bool = False) -> Never:
    """Close the connection after the bytes written, with FIN or RST. Does not return: it is cancelled."""
    transport = request.transport
    if transport is not None and reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    elif transport is not None:
        transport.close()
    await asyncio.Event().wait()
    raise AssertionError("the end of the connection cancels this")
