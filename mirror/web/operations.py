"""The operators' listener: /healthz, /readyz and /metrics on addresses of their own."""

from collections.abc import Sequence

from aiohttp import web

from mirror.system.admission import Admission
from mirror.system.sockets import ListeningSocket, format_address
from mirror.util.log import get_logger
from mirror.web.framing import listener_logger
from mirror.web.probes import Probes
from mirror.web.responses import SERVER

log = get_logger(__name__)

# Connections of monitoring systems, at most: they are few, and no flood of clients takes their place.
CONNECTIONS = 64

# Longer than the usual interval between two scrapes, in seconds.
KEEPALIVE_SECONDS = 75.0


class OperationsListener:
    """Server of the probes on `sockets`, plain HTTP; serves nothing without sockets."""

    def __init__(self, probes: Probes, sockets: Sequence[ListeningSocket]) -> None:
        self._probes = probes
        self._sockets = sockets
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Begin to answer."""
        if not self._sockets:
            return
        server = web.Server(
            self._answer,
            access_log=None,
            logger=listener_logger(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            auto_decompress=False,
            lingering_time=1.0,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        admission = Admission(CONNECTIONS)
        for each in self._sockets:
            each.admission = admission
            await web.SockSite(self._runner, each, backlog=1).start()
        addresses = ", ".join(map(format_address, self._sockets))
        log.info("probes and metrics have a listener of their own", addresses=addresses)

    async def close(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        found = await self._probes.answer(request, operators=True)
        text = "nothing is served here: this address has /healthz, /readyz and /metrics\n"
        return found or web.Response(status=404, text=text, headers=SERVER)
