"""The server of the pages: its sockets, and what lives as long as it."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from mirror.access.policy import parse_address
from mirror.config.schema import Config
from mirror.service.service import Service
from mirror.system.sockets import ListeningSocket, format_address
from mirror.util.log import get_logger
from mirror.web.activity.exchange import WorkerExchange
from mirror.web.admin.desk import Desk
from mirror.web.admin.site import Site
from mirror.web.connections.side_listener import SideBounds, SideListener
from mirror.web.identity.gate import Gate

log = get_logger(__name__)

# Connections of visitors, at most: a browser has six, and a stream of events each page.
BOUNDS = SideBounds(connections=256)


class PagesServer:
    """The pages on `sockets`. `workers`: the private folder of all workers, and the number of this one."""

    def __init__(
        self,
        service: Service,
        config: Config,
        sockets: Sequence[ListeningSocket],
        workers: tuple[Path, int] | None,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._desk = Desk(service, config, 0 if workers is None else workers[1])
        if workers is not None:
            self._desk.fellows = WorkerExchange(*workers, self._desk.tell)
        self.activity = self._desk.activity
        self._listener: SideListener | None = None
        self._is_open = False

    async def start(self, gate: Gate, clients: Sequence[ListeningSocket] = ()) -> None:
        """Begin to answer. `clients`: sockets of the listener for clients. Raises OSError."""
        self._desk.addresses = [format_address(each) for each in clients]
        self._is_open = True
        await self._desk.start()
        site = Site(self._desk, gate, self._config.admin.hosts)
        self._listener = SideListener(site.answer, BOUNDS, shutdown=0.5)
        await self._listener.start(self._sockets, self._tls)
        addresses = ", ".join(map(format_address, self._sockets))
        log.info("the pages have a listener of their own", addresses=addresses)

    async def close(self) -> None:
        """Stop answering. May be called again."""
        if self._listener is not None:
            await self._listener.close()
        if self._is_open:
            self._is_open = False
            await self._desk.close()

    def _tls(self, listener: ListeningSocket) -> ssl.SSLContext | None:
        """Return the context of an address; None on loopback, for which no certificate is made out."""
        server, address = self._config.server, parse_address(str(listener.getsockname()[0]))
        if server.tls_certificate is None or server.tls_key is None:
            return None
        if address is not None and address.is_loopback:
            return None
        from mirror.util.tls import server_context

        return server_context(server.tls_certificate, server.tls_key)
