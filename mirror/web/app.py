"""The server: binds, answers, drains."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from mirror.config.schema import Config
from mirror.oci.errors import Code, RegistryError
from mirror.service import Service
from mirror.system.sockets import AcceptBalancer, ListeningSocket, bind_all, format_address
from mirror.util.log import get_logger
from mirror.util.tasks import first_of
from mirror.web import responses
from mirror.web.probes import Probes
from mirror.web.protocol import ProtocolFactory, RequestProtocol
from mirror.web.registry_api import RegistryApi
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache

log = get_logger(__name__)

# Podman's zstd:chunked asks for hundreds of ranges in one header line (CLIENTS: over 8 KiB).
HEADER_LINE_BYTES = 64 * 1024

# Longer than any client keeps a connection for reuse (BuildKit 120 s), so that none races a closing one.
KEEPALIVE_SECONDS = 300.0

# The most connections that are accepted before those there are have their turn.
ACCEPTS = 128

# The part of the memory that is for request heads and the answers to them.
RESPONSE_CACHE_DIVISOR = 4

# What is left of a drain for connections that were told to close but have not.
CLOSING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where to serve: sockets that are bound, and what their connections are encrypted with.

    `balancer`: other processes accept there too. `retire_requested` is set when they do it alone from now on.
    """

    sockets: Sequence[ListeningSocket]
    tls: ssl.SSLContext | None
    balancer: AcceptBalancer | None = None
    retire_requested: asyncio.Event = field(default_factory=asyncio.Event)


class App:
    """One request in, one response out; counts what is running, for the drain."""

    def __init__(self, service: Service, config: Config) -> None:
        self._metrics = service.metrics
        self._registry = RegistryApi(service.cache, config)
        memory = config.cache.memory // RESPONSE_CACHE_DIVISOR
        self.response_cache = ResponseCache(
            memory, service.metrics, service.record_use, removed=service.removal_count
        )
        self.probes = Probes(service)
        self._last = False  # each connection ends with its next answer
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        head = request.protocol.head if isinstance(request.protocol, RequestProtocol) else None
        probed = await self.probes.answer(request)
        if probed is not None:
            if self._last and not self.probes.draining:
                probed.force_close()
            return probed
        record = RequestRecord(request, self.response_cache.removed())
        self._running += 1
        self._idle.clear()
        try:
            response = await self._answer(record)
            if self._last:  # the next request is for somebody who stays
                response.force_close()
            elif head is not None:
                await self.response_cache.remember(head, record, response)
            return response
        finally:
            record.report(self._metrics)
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def retire(self, server: ProtocolFactory, seconds: float, stop: asyncio.Event) -> None:
        """Until all have left: with their next answer, or because they ask nothing for so long.

        What is running is waited for without a limit, because nobody is kept waiting by that.
        """
        self._last = True
        self.response_cache.close()
        await first_of(server.no_connections.wait(), stop.wait(), seconds=seconds)
        await first_of(self._idle.wait(), stop.wait())

    async def drain(self, seconds: float) -> None:
        """Wait for what is running, up to a limit."""
        self._last = self.probes.draining = True
        self.response_cache.close()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("closing connections that did not finish in time", requests=self._running)

    async def _answer(self, record: RequestRecord) -> web.StreamResponse:
        try:
            return await self._registry.answer(record)
        except Exception:
            log.exception("unexpected error", id=record.id)
            if record.streaming:  # an error document would be taken for the rest of the blob
                return responses.cut_short(record)
            failure = RegistryError(
                Code.UNKNOWN, f"unexpected error in this mirror; its log says more under id {record.id}"
            )
            return responses.error(record, failure)


async def serve(
    service: Service,
    config: Config,
    ready: Callable[[Sequence[str]], None],
    stop: asyncio.Event,
    listeners: Listeners | None = None,
) -> None:
    """Tell `ready` the addresses; answer until `stop` or `retire_requested` is set; finish what is running.

    Without listeners, bind what is configured; raises OSError naming the address that cannot be bound.
    """
    if listeners is None:
        sockets = await asyncio.to_thread(bind_all, config.server.listen)
        listeners = Listeners(sockets, config.server.tls())
    app = App(service, config)
    server = ProtocolFactory(
        app.response_cache,
        service.metrics,
        app,
        access_log=None,
        logger=logging.getLogger("aiohttp.server"),
        # A client that leaves ends its handler, and nothing else: fills are tasks of their own (invariant 3).
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_SECONDS,
        max_line_size=HEADER_LINE_BYTES,
        max_field_size=HEADER_LINE_BYTES,
    )
    runner = web.ServerRunner(server, shutdown_timeout=CLOSING_SECONDS)
    await runner.setup()
    try:
        for each in listeners.sockets:
            # Listening says what the backlog is for.
            each.balancer = listeners.balancer
            backlog = ACCEPTS if listeners.balancer is None else 1
            await web.SockSite(runner, each, ssl_context=listeners.tls, backlog=backlog).start()
        server.report_to(listeners.balancer)
        ready([format_address(each) for each in listeners.sockets])
        await first_of(stop.wait(), listeners.retire_requested.wait())
        server.report_to(None)
        if listeners.balancer is not None:
            listeners.balancer.leave()
        await _accept_no_more(listeners.sockets)
        for site in runner.sites:
            await site.stop()
        service.cache.stop_prefetch()
        if not stop.is_set():
            await app.retire(server, config.server.shutdown_timeout, stop)
        await app.drain(config.server.shutdown_timeout)
    finally:
        await runner.cleanup()
        app.response_cache.close()


async def _accept_no_more(sockets: Sequence[ListeningSocket]) -> None:
    """Before the server is closed: asyncio drops what it has accepted in the same turn of the loop."""
    for each in sockets:
        asyncio.get_running_loop().remove_reader(each)
    await asyncio.sleep(0)
