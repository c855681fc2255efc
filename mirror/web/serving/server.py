"""The HTTP server: bind, accept, retire, drain."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from msgspec import Struct, field

from mirror.config.schema import Config
from mirror.metrics.metrics import Metrics
from mirror.service.service import Service
from mirror.system.admission import Admission
from mirror.system.descriptors import EXHAUSTED, client_limit
from mirror.system.sockets import AcceptBalancer, ListeningSocket, bind_all, format_address
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import first_of
from mirror.util.tracing.spans import ACTIVE, close_tracing
from mirror.web.accept.protocol_factory import ProtocolFactory
from mirror.web.app import CLOSING_SECONDS, App
from mirror.web.departures import Departures
from mirror.web.operations import OperationsListener

if TYPE_CHECKING:
    from mirror.system.shared_table import TableRow
    from mirror.web.accept.acceptor import Acceptor
    from mirror.web.admin.pages_server import PagesServer
    from mirror.web.audit.audit_log import OpenAudit
    from mirror.web.limits.limiter import Limiter
    from mirror.web.peers.listener import PeerListener

log = get_logger(__name__)

# Podman's zstd:chunked asks for hundreds of ranges in one header line (docs/clients.md: over 8 KiB).
HEADER_LINE_BYTES = 64 * 1024

# Longer than any client keeps a connection for reuse (BuildKit 120 s), so that no client races a closing one.
KEEPALIVE_SECONDS = 300.0

# Connections accepted in one turn of the event loop, at most, before the existing ones have their turn.
# Where processes share them, each look at the others' connections may end the burst sooner.
ACCEPTS, SHARED_ACCEPTS = 128, 32


class Listeners(Struct):
    """Bound sockets, and the TLS context of their connections (None for plain HTTP).

    `balancer`: shares new connections with other processes on the same sockets. `retire_requested`: set when
    the other processes take over. `operations`: sockets for operators, without TLS. `row`: this process in
    what all processes share about their clients. `load`: reads the configuration again, for the rules of
    connections that stay open then; raises ConfigError. `on_retire`: called at once by `retire`. `admin`:
    sockets of the pages. `workers`: the private folder of all workers, and this one's number.
    """

    sockets: Sequence[ListeningSocket]
    tls: ssl.SSLContext | None
    balancer: AcceptBalancer | None = None
    retire_requested: asyncio.Event = field(default_factory=asyncio.Event)
    operations: Sequence[ListeningSocket] = ()
    row: "TableRow | None" = None
    load: Callable[[], Config] | None = None
    on_retire: Callable[[], object] = ignore
    admin: Sequence[ListeningSocket] = ()
    workers: tuple[Path, int] | None = None

    def retire(self) -> None:
        """Let the other processes take over."""
        self.on_retire()
        self.retire_requested.set()


async def serve(
    service: Service,
    config: Config,
    ready: Callable[[Sequence[str]], None],
    stop: asyncio.Event,
    listeners: Listeners | None = None,
) -> None:
    """Call `ready` with the addresses, answer until `stop` or `retire_requested` is set, finish what runs.

    Without `listeners`, bind the configured addresses. Raises OSError naming an address that cannot be bound.
    """
    if listeners is None:
        listeners = await asyncio.to_thread(_bind, config)
    limiter, audit = _limiter(service, config, listeners.row), await _open_audit(service, config)
    await _open_tracing(config)
    pages = _pages(service, config, listeners)
    app = _app(service, config, listeners, (limiter, audit, pages))
    if listeners.load is not None:
        listeners.on_retire = partial(app.adopt_rules, listeners.load)
    admission = Admission(client_limit(config.server.connections))
    server = _protocol_factory(app, service, admission)
    runner = web.ServerRunner(server, shutdown_timeout=CLOSING_SECONDS)
    await runner.setup()
    acceptor = _acceptor(server, config, listeners, service.metrics)
    operations_listener = OperationsListener(app.probes, listeners.operations)
    peer_listener = _peer_listener(service)
    asyncio.get_running_loop().set_exception_handler(_on_loop_error)
    try:
        await app.gate.start()
        await _start(operations_listener, peer_listener, service, config)
        if pages is not None:
            await pages.start(app.gate, listeners.sockets)
        await _listen(runner, listeners, admission, server.departures, acceptor)
        server.report_to(listeners.balancer)
        ready([format_address(each) for each in listeners.sockets])
        service.warm_up()
        await first_of(stop.wait(), listeners.retire_requested.wait())
        server.report_to(None)
        await _stop_accepting(runner, listeners, acceptor, pages)
        service.cache.prefetch.stop()
        if not stop.is_set():
            await app.retire(server, config.server.shutdown_timeout, stop)
        await app.drain(server, config.server.shutdown_timeout)
    finally:
        await _stop(operations_listener, peer_listener, acceptor)
        await runner.cleanup()
        await _close(app, limiter, audit, pages)


def _app(
    service: Service,
    config: Config,
    listeners: Listeners,
    parts: "tuple[Limiter | None, OpenAudit | None, PagesServer | None]",
) -> App:
    limiter, audit, pages = parts
    return App(
        service,
        config,
        own_listener=bool(listeners.operations),
        limiter=limiter,
        audit=None if audit is None else audit.log,
        activity=None if pages is None else pages.activity,
    )


def _bind(config: Config) -> Listeners:
    """Bind the configured addresses. Raises OSError naming an address that cannot be bound."""
    sockets, operations = bind_all(config.server.listen), bind_all(config.server.operations_listen)
    return Listeners(sockets, config.server.tls(), operations=operations, admin=bind_all(config.admin.listen))


def _pages(service: Service, config: Config, listeners: Listeners) -> "PagesServer | None":
    """Return the server of the pages, None where they have no address."""
    if not listeners.admin:
        return None
    from mirror.web.admin.pages_server import PagesServer

    return PagesServer(service, config, listeners.admin, listeners.workers)


async def _close(
    app: App, limiter: "Limiter | None", audit: "OpenAudit | None", pages: "PagesServer | None"
) -> None:
    """End what the app and its parts do in the background, and write what is pending."""
    if pages is not None:
        await pages.close()
    await app.close()
    if limiter is not None:
        await limiter.close()
    if audit is not None:
        await asyncio.to_thread(audit.close)
    if ACTIVE.tracing is not None:
        await asyncio.to_thread(close_tracing)


async def _open_tracing(config: Config) -> None:
    """Begin to trace where that is configured."""
    otel = config.otel
    if otel.endpoint is not None:
        from mirror.util.tracing.otel import OtelTracing

        ACTIVE.tracing = await asyncio.to_thread(
            OtelTracing, otel.endpoint, otel.service, otel.sample, otel.propagate
        )


def _limiter(service: Service, config: Config, row: "TableRow | None") -> "Limiter | None":
    """Return the limiter, None where the configuration limits nothing."""
    if not config.limits:
        return None
    from mirror.web.limits.limiter import Limiter

    return Limiter(config.limit_table(), service.metrics, service.add_usage, row, service.cache.clock)


def _peer_listener(service: Service) -> "PeerListener | None":
    """Return the listener for other mirrors; None where none follows this one."""
    if service.shared is None or service.shared.proof is None:
        return None
    from mirror.web.peers.listener import PeerListener

    return PeerListener(service.shared.context.store, service.shared.leading, service.shared.proof)


async def _start(
    operations: OperationsListener, peers: "PeerListener | None", service: Service, config: Config
) -> None:
    """Answer operators and other mirrors, and tell these where. Raises OSError for an unusable address."""
    await operations.start()
    address = config.shared.peers_listen
    if peers is not None and service.shared is not None and address is not None:
        url = await peers.start(address)
        service.shared.tier.address = config.shared.peers_url or url


async def _stop(
    operations: OperationsListener, peers: "PeerListener | None", acceptor: "Acceptor | None"
) -> None:
    await operations.close()
    if peers is not None:
        await peers.close()
    if acceptor is not None:
        await acceptor.close()


async def _open_audit(service: Service, config: Config) -> "OpenAudit | None":
    """Open the audit log; None without one. Raises OSError that names its file."""
    if config.audit.file is None:
        return None
    from mirror.web.audit.audit_log import OpenAudit

    return await asyncio.to_thread(OpenAudit, config.audit, service.metrics)


def _protocol_factory(app: App, service: Service, admission: Admission) -> ProtocolFactory:
    server = ProtocolFactory(
        app.response_cache,
        service.metrics,
        app,
        admission,
        access_log=None,
        logger=logging.getLogger("aiohttp.server"),
        # A client that leaves ends its handler and nothing else: fills are tasks of their own (invariant 3).
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_SECONDS,
        max_line_size=HEADER_LINE_BYTES,
        max_field_size=HEADER_LINE_BYTES,
    )
    if service.hosted is not None:
        from mirror.web.hosted.body import body_of

        server.body_of = body_of
    return server


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that asyncio caught; not a want of descriptors in accept, which Admission has logged."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in EXHAUSTED and "accept" in context["message"]:
        return
    loop.default_exception_handler(context)


def _acceptor(
    server: ProtocolFactory, config: Config, listeners: Listeners, metrics: Metrics
) -> "Acceptor | None":
    """Return an acceptor if connections begin with TLS or with a PROXY header; asyncio accepts all others."""
    proxies = config.server.header_proxies()
    if listeners.tls is None and not proxies:
        return None
    from mirror.web.accept.acceptor import Acceptor

    burst = ACCEPTS if listeners.balancer is None else SHARED_ACCEPTS
    acceptor = Acceptor(server, listeners.tls, proxies, burst, metrics.count_refused_connection)
    server.preparing = acceptor.preparing
    return acceptor


async def _listen(
    runner: web.ServerRunner,
    listeners: Listeners,
    admission: Admission,
    departures: Departures,
    acceptor: "Acceptor | None",
) -> None:
    # asyncio accepts up to `backlog` connections per wake-up; ListeningSocket.listen explains the number.
    backlog = ACCEPTS if listeners.balancer is None else SHARED_ACCEPTS
    for listener in listeners.sockets:
        listener.balancer, listener.admission = listeners.balancer, admission
        listener.is_departed = departures.is_departed
        if acceptor is None:
            await web.SockSite(runner, listener, backlog=backlog).start()
        else:
            acceptor.listen(listener)


async def _stop_accepting(
    runner: web.ServerRunner,
    listeners: Listeners,
    acceptor: "Acceptor | None",
    pages: "PagesServer | None",
) -> None:
    """Stop accepting one turn before the server closes.

    asyncio drops connections that were accepted in the turn of the loop in which the server is closed.
    """
    if listeners.balancer is not None:
        listeners.balancer.leave()
    for each in [*listeners.sockets, *listeners.operations, *listeners.admin]:
        asyncio.get_running_loop().remove_reader(each)
    await asyncio.sleep(0)
    for site in runner.sites:
        await site.stop()
    if acceptor is not None:
        acceptor.stop()
    if pages is not None:
        await pages.close()
