"""Acceptor of connections that begin with a PROXY header or with TLS.

Plain connections without such a header are accepted by asyncio itself. Here a connection stays a socket until
its PROXY header has been read, byte for byte and not further, so that TLS, aiohttp and `sendfile` find it as
if the client had connected to them.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

from mirror.access.forwarded import is_among
from mirror.access.policy import parse_address
from mirror.access.proxy_protocol import ProxyHeaderError
from mirror.access.rules import Network
from mirror.system.admission import ClientSocket
from mirror.system.descriptors import EXHAUSTED
from mirror.system.sockets import ListeningSocket
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.util.throttle import Throttle
from mirror.web.accept.handshake import CONNECTION, AlertingObject, report
from mirror.web.accept.preface import peek, read_header, refuse
from mirror.web.framing import PROXY_HEADERS, UNEXPECTED_PROXY

log = get_logger(__name__)

# Time, in seconds, for a PROXY header, which a proxy sends at once; and for the first byte of a TLS client.
HEADER_SECONDS, FIRST_BYTE_SECONDS = 10.0, 30.0

# Pause, in seconds, after there was no descriptor for a connection; asyncio's own.
EXHAUSTED_SECONDS = 1.0

# The same trouble with a proxy is logged once in this many seconds: its health checks come all the time.
REPEAT_SECONDS = 60.0


class Acceptor:
    """Acceptor for some listening sockets; `connect` makes the protocol of a connection.

    `proxies`: networks of proxies that send a PROXY header. `burst`: connections accepted in one turn of the
    loop, at most. `refused`: called with the reason for which a connection is closed here.
    """

    def __init__(
        self,
        connect: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        proxies: Sequence[Network],
        burst: int,
        refused: Callable[[str], None],
    ) -> None:
        self._connect, self._tls, self._proxies, self._burst = connect, tls, proxies, burst
        self._refused = refused
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._listeners: list[ListeningSocket] = []
        self._retries: set[asyncio.TimerHandle] = set()
        self._throttle = Throttle(REPEAT_SECONDS)
        if tls is not None:
            tls.sslobject_class = AlertingObject

    def listen(self, listener: ListeningSocket) -> None:
        """Accept connections of this socket from now on."""
        listener.setblocking(False)
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)

    def stop(self) -> None:
        """Accept no more; connections that were accepted go on."""
        for each in self._retries:
            each.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """End the connections that are not handed over yet."""
        self.stop()
        await self._tasks.close()

    def preparing(self) -> int:
        """Return the number of connections that are not handed over yet."""
        return self._tasks.running

    def _accept(self, listener: ListeningSocket) -> None:
        for _ in range(self._burst):
            try:
                connection, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._loop.remove_reader(listener)
                self._retries.add(self._loop.call_later(EXHAUSTED_SECONDS, self._retry, listener))
                return
            connection.setblocking(False)
            self._tasks.spawn(self._prepare(cast(ClientSocket, connection)), name="connection")

    def _retry(self, listener: ListeningSocket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    async def _prepare(self, connection: ClientSocket) -> None:
        """Read what comes before HTTP, and hand the connection over; never raises for what a client did."""
        try:
            passed = await self._pass_preface(connection, str(connection.getpeername()[0]))
        except OSError:  # the client left, or said nothing for too long
            passed = False
        except BaseException:
            connection.close()
            raise
        if not passed:
            connection.close()
            return
        await self._hand_over(connection)

    async def _pass_preface(self, connection: ClientSocket, peer: str) -> bool:
        """Return whether the connection goes on, after its PROXY header if it comes from a proxy."""
        if not is_among(parse_address(peer), self._proxies):
            if self._tls is not None:
                async with asyncio.timeout(FIRST_BYTE_SECONDS):
                    beginning = await peek(connection)
                if beginning.startswith(PROXY_HEADERS):
                    return self._refuse(connection, peer, UNEXPECTED_PROXY.message)
            return True
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                client = await read_header(connection)
        except ProxyHeaderError as error:
            return self._refuse(connection, peer, str(error))
        except TimeoutError:
            return self._refuse(connection, peer, f"no PROXY header within {HEADER_SECONDS:g} s")
        if client is not None:
            connection.peer = (client.address, client.port)
        return True

    def _refuse(self, connection: socket.socket, peer: str, reason: str) -> bool:
        self._refused("proxy")
        if count := self._throttle.count():
            log.warning(
                "connection refused for its PROXY header",
                peer=peer,
                reason=reason,
                times=count,
                to_do="list exactly the proxies that send it in server.proxy_protocol",
            )
        refuse(connection, reason)
        return False

    async def _hand_over(self, connection: ClientSocket) -> None:
        if self._tls is None:
            await self._loop.connect_accepted_socket(self._connect, connection)
            return
        client = str(connection.getpeername()[0])
        CONNECTION.set(connection)
        try:
            await self._loop.connect_accepted_socket(self._connect, connection, ssl=self._tls)
        except (OSError, ValueError) as error:  # the transport has closed the connection
            if report(error, client):
                self._refused("certificate")
