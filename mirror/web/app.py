"""The server: binds, answers, drains."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence

from aiohttp import web

from mirror.config import Config
from mirror.log import get_logger
from mirror.oci.errors import Code, RegistryError
from mirror.service import Service
from mirror.web import respond
from mirror.web.connection import Connection, Server
from mirror.web.exchange import Exchange
from mirror.web.probes import Probes
from mirror.web.registry import RegistryApi
from mirror.web.replay import Replay

log = get_logger(__name__)

# Podman's zstd:chunked asks for hundreds of ranges in one header line (CLIENTS: over 8 KiB).
HEADER_LINE_BYTES = 64 * 1024

# Longer than any client keeps a connection for reuse (BuildKit 120 s), so that none races a closing one.
KEEPALIVE_SECONDS = 300.0

# The part of the memory that is for request heads and the answers to them.
REPLAY_SHARE = 4

# What is left of a drain for connections that were told to close but have not.
CLOSING_SECONDS = 1.0


class App:
    """One request in, one response out; counts what is running, for the drain."""

    def __init__(self, service: Service, config: Config) -> None:
        self._metrics = service.metrics
        self._registry = RegistryApi(service.cache, config)
        memory = config.cache.memory // REPLAY_SHARE
        self.replay = Replay(memory, service.metrics, service.used, removed=service.removed)
        self.probes = Probes(service)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        head = request.protocol.head if isinstance(request.protocol, Connection) else None
        probed = await self.probes.answer(request)
        if probed is not None:
            return probed
        exchange = Exchange(request, self.replay.removed())
        self._running += 1
        self._idle.clear()
        try:
            response = await self._answer(exchange)
            if self.probes.draining:  # the next request is for somebody who stays
                response.force_close()
            elif head is not None:
                await self.replay.remember(head, exchange, response)
            return response
        finally:
            exchange.report(self._metrics)
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Wait for what is running, up to a limit."""
        self.probes.draining = True
        self.replay.close()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("closing connections that did not finish in time", requests=self._running)

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        try:
            return await self._registry.answer(exchange)
        except Exception:
            log.exception("unexpected error", id=exchange.id)
            if exchange.streaming:  # an error document would be taken for the rest of the blob
                return respond.cut_short(exchange)
            failure = RegistryError(
                Code.UNKNOWN, f"unexpected error in this mirror; its log says more under id {exchange.id}"
            )
            return respond.error(exchange, failure)


async def serve(
    service: Service, config: Config, ready: Callable[[Sequence[str]], None], stop: asyncio.Event
) -> None:
    """Bind, tell `ready` the addresses, answer until `stop` is set, finish what is running.

    Raises OSError naming the address that cannot be bound.
    """
    app = App(service, config)
    server = Server(
        app.replay,
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
        tls = config.server.tls()
        for address in config.server.listen:
            await _bind(runner, address, tls)
        ready([_printed(address) for address in runner.addresses])
        await stop.wait()
        for site in runner.sites:
            await site.stop()
        service.cache.stop_prefetch()
        await app.drain(config.server.shutdown_timeout)
    finally:
        await runner.cleanup()
        app.replay.close()


async def _bind(runner: web.ServerRunner, address: str, tls: ssl.SSLContext | None) -> None:
    host, _, port = address.rpartition(":")
    try:
        site = web.TCPSite(runner, host.strip("[]"), int(port), reuse_address=True, ssl_context=tls)
        await site.start()
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error


def _printed(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
