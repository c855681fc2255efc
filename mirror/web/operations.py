"""The operators' listener: /healthz, /readyz and /metrics on addresses of their own."""

from collections.abc import Sequence

from aiohttp import web

from mirror.system.sockets import ListeningSocket, format_address
from mirror.util.log import get_logger
from mirror.web.connections.side_listener import SideBounds, SideListener
from mirror.web.probes import Probes
from mirror.web.responses import SERVER

log = get_logger(__name__)

# Connections of monitoring systems, at most: they are few, and no flood of clients takes their place.
CONNECTIONS = 64


class OperationsListener:
    """Server of the probes on `sockets`, plain HTTP; serves nothing without sockets."""

    def __init__(self, probes: Probes, sockets: Sequence[ListeningSocket]) -> None:
        self._probes = probes
        self._sockets = sockets
        self._listener = SideListener(self._answer, SideBounds(CONNECTIONS))

    async def start(self) -> None:
        """Begin to answer."""
        if not self._sockets:
            return
        await self._listener.start(self._sockets)
        addresses = ", ".join(map(format_address, self._sockets))
        log.info("probes and metrics have a listener of their own", addresses=addresses)

    async def close(self) -> None:
        """Stop answering."""
        await self._listener.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        found = await self._probes.answer(request, operators=True)
        text = "nothing is served here: this address has /healthz, /readyz and /metrics\n"
        return found or web.Response(status=404, text=text, headers=SERVER)
