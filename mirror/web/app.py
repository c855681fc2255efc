"""The HTTP server: bind, answer, retire, drain."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from msgspec import Struct, field

from mirror.access.policy import EVERYBODY
from mirror.cache.results import Outcome
from mirror.config.schema import Config
from mirror.metrics.metrics import Metrics
from mirror.oci.errors import Code, RegistryError
from mirror.service import Service
from mirror.system.admission import Admission
from mirror.system.descriptors import EXHAUSTED, client_limit
from mirror.system.sockets import AcceptBalancer, ListeningSocket, bind_all, format_address
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import first_of
from mirror.web import responses
from mirror.web.access_control import AccessDenied
from mirror.web.departures import Departures
from mirror.web.identity.challenge import LoginRequired
from mirror.web.identity.credentials import NotVerified, WrongCredentials
from mirror.web.identity.gate import Gate
from mirror.web.landing_page import LandingPage
from mirror.web.limits.refusal import LimitExceeded
from mirror.web.onboarding import marker_image
from mirror.web.onboarding.client_setup import ClientSetup
from mirror.web.operations import OperationsListener
from mirror.web.probes import Probes
from mirror.web.protocol import ProtocolFactory, RequestProtocol
from mirror.web.registry_api import RegistryApi
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache

if TYPE_CHECKING:
    from mirror.system.shared_table import TableRow
    from mirror.web.accept.acceptor import Acceptor
    from mirror.web.audit.audit_log import AuditLog, OpenAudit
    from mirror.web.limits.limiter import Limiter

log = get_logger(__name__)

# Podman's zstd:chunked asks for hundreds of ranges in one header line (docs/clients.md: over 8 KiB).
HEADER_LINE_BYTES = 64 * 1024

# Longer than any client keeps a connection for reuse (BuildKit 120 s), so that no client races a closing one.
KEEPALIVE_SECONDS = 300.0

# Connections accepted in one turn of the event loop, at most, before the existing ones have their turn.
ACCEPTS = 128

# The response cache gets one part in this many of `cache.memory`.
RESPONSE_CACHE_DIVISOR = 4

# Time, in seconds, before the drain for the first requests of new connections, and after it for connections
# that were asked to close but have not.
CLOSING_SECONDS = 1.0

# What becomes of requests with these errors; all others fail.
OUTCOMES = {LoginRequired: Outcome.CHALLENGED, WrongCredentials: Outcome.DENIED, NotVerified: Outcome.DENIED}


class Listeners(Struct):
    """Bound sockets, and the TLS context of their connections (None for plain HTTP).

    `balancer`: shares new connections with other processes on the same sockets. `retire_requested`: set when
    the other processes take over. `operations`: sockets for operators, without TLS. `row`: this process in
    what all processes share about their clients. `load`: reads the configuration again, for the rules of
    connections that stay open then; raises ConfigError. `on_retire`: called at once by `retire`.
    """

    sockets: Sequence[ListeningSocket]
    tls: ssl.SSLContext | None
    balancer: AcceptBalancer | None = None
    retire_requested: asyncio.Event = field(default_factory=asyncio.Event)
    operations: Sequence[ListeningSocket] = ()
    row: "TableRow | None" = None
    load: Callable[[], Config] | None = None
    on_retire: Callable[[], object] = ignore

    def retire(self) -> None:
        """Let the other processes take over."""
        self.on_retire()
        self.retire_requested.set()


class App:
    """The request handler; counts running requests, for the drain."""

    def __init__(
        self,
        service: Service,
        config: Config,
        *,
        own_listener: bool = False,
        limiter: "Limiter | None" = None,
        audit: "AuditLog | None" = None,
    ) -> None:
        """`own_listener`: operators have an address of their own. Without `limiter` nothing is limited."""
        self._metrics = service.metrics
        self._shares = service.processor_shares
        self.gate = Gate(service, config)
        access = self.gate.access
        self._registry = RegistryApi(service.cache, config, access)
        memory = config.cache.memory // RESPONSE_CACHE_DIVISOR
        self.response_cache = ResponseCache(
            memory,
            service.metrics,
            service.record_use,
            removal_epoch=service.removal_epoch,
            access_epoch=service.access_epoch,
            scope_of=access.scope if limiter is None else limiter.scoped(access.scope),
        )
        self.response_cache.hits.limit = None if limiter is None else limiter.passes
        self.response_cache.hits.audit = self._audit = audit
        self._limiter = limiter
        self.probes = Probes(service, own_listener=own_listener)
        self._page = LandingPage([each.name for each in config.upstreams], probes=not own_listener)
        self._setup = ClientSetup(config.upstreams)
        self._closing = False  # each connection ends after its next response
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        head, scope = None, EVERYBODY
        if isinstance(request.protocol, RequestProtocol):
            head, scope = request.protocol.head, request.protocol.scope
        probe_response = (
            await self.probes.answer(request)
            or self._page.answer(request)
            or await self._setup.answer(request)
        )
        if probe_response is not None:
            if self._closing and not self.probes.draining:
                probe_response.force_close()
            return probe_response
        known = self.response_cache
        record = RequestRecord(request, known.removal_epoch(), known.access_epoch())
        if head is not None:
            record.on_sent = partial(known.ranges.remember, (scope, head), record)
        self._running += 1
        self._idle.clear()
        try:
            response = await self._respond(record)
            if self._closing:  # the client reconnects to a worker that stays
                response.force_close()
            elif head is not None:
                await self.response_cache.remember(scope, head, record, response)
            return response
        except asyncio.CancelledError:
            if not record.streaming:
                record.outcome, record.note = Outcome.ERROR, "the client left before its response"
            raise
        finally:
            fields = record.report(self._metrics)
            if self._audit is not None:
                self._audit.note(record, fields)
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def close(self) -> None:
        """End what runs in the background."""
        self.response_cache.close()
        await self.gate.close()

    def adopt_rules(self, load: Callable[[], Config]) -> None:
        """Answer by the rules of the configuration that `load` returns, and end connections behind that."""
        self._closing = True
        self.response_cache.close()
        self.gate.adopt_rules(load)

    async def retire(self, server: ProtocolFactory, seconds: float, stop: asyncio.Event) -> None:
        """Wait until all clients have left: after their next response, or after `seconds` of idling.

        Running responses are waited for without a limit: other workers serve new requests meanwhile.
        """
        self._closing = True
        self.response_cache.close()
        await first_of(server.no_connections.wait(), stop.wait(), seconds=seconds)
        await first_of(self._idle.wait(), stop.wait())

    async def drain(self, server: ProtocolFactory, seconds: float) -> None:
        """Wait for running requests, at most `seconds`, and for the first ones of new connections."""
        self._closing = self.probes.draining = True
        self.response_cache.close()
        if self._running:
            log.info("finishing responses", responses=self._running, at_most_seconds=seconds)
        await server.await_first_requests(CLOSING_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("responses not finished in time, closing their connections", requests=self._running)

    async def _respond(self, record: RequestRecord) -> web.StreamResponse:
        """Return the response, an error's too. Raises only when cancelled, or when the client left."""
        try:
            return await self._answer(record)
        except (AccessDenied, LimitExceeded) as refusal:
            if record.streaming:
                return responses.cut_short(record)
            response = responses.error(record, refusal)
            record.outcome = Outcome.DENIED if isinstance(refusal, AccessDenied) else Outcome.LIMITED
            record.note = refusal.note
            return response
        except RegistryError as failure:
            record.outcome = OUTCOMES.get(type(failure), Outcome.ERROR)
            return responses.error(record, failure)
        except Exception:
            log.exception("unexpected error", id=record.id)
            if record.streaming:  # the client would take an error document for the rest of the blob
                return responses.cut_short(record)
            message = f"unexpected error in this mirror; see id {record.id} in its log"
            return responses.error(record, RegistryError(Code.UNKNOWN, message))

    async def _answer(self, record: RequestRecord) -> web.StreamResponse:
        """Identify, wait, admit, parse, authorise, handle: the way of every request of the registry API."""
        await self.gate.identify(record)
        return await self._shares.run(partial(self._admit, record), record.bytes_in_memory)

    async def _admit(self, record: RequestRecord) -> web.StreamResponse:
        """Ask the limits, and handle."""
        if self._limiter is None:
            return await self._handle(record)
        async with self._limiter.admitted(record):
            response = await self._handle(record)
            if record.pacer is not None and not record.streaming:
                await record.pacer.take_all(record.bytes)
            return response

    async def _handle(self, record: RequestRecord) -> web.StreamResponse:
        """Parse, authorise, handle."""
        if (tokens := self.gate.token_service(record)) is not None:
            return await tokens.answer(record)
        target = self._registry.parse(record)
        if (marker := marker_image.respond(record, target)) is not None:
            return marker
        try:
            self.gate.authorise(record, target)
            return await self._registry.handle(record, target)
        except AccessDenied as denied:
            raise self.gate.instead_of(denied, record, target) from None


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
        sockets = await asyncio.to_thread(bind_all, config.server.listen)
        operations = await asyncio.to_thread(bind_all, config.server.operations_listen)
        listeners = Listeners(sockets, config.server.tls(), operations=operations)
    limiter, audit = _limiter(service, config, listeners.row), await _open_audit(service, config)
    app = App(
        service,
        config,
        own_listener=bool(listeners.operations),
        limiter=limiter,
        audit=None if audit is None else audit.log,
    )
    if listeners.load is not None:
        listeners.on_retire = partial(app.adopt_rules, listeners.load)
    admission = Admission(client_limit(config.server.connections))
    server = _protocol_factory(app, service, admission)
    runner = web.ServerRunner(server, shutdown_timeout=CLOSING_SECONDS)
    await runner.setup()
    acceptor = _acceptor(server, config, listeners, service.metrics)
    operations_listener = OperationsListener(app.probes, listeners.operations)
    asyncio.get_running_loop().set_exception_handler(_on_loop_error)
    try:
        await app.gate.start()
        await operations_listener.start()
        await _listen(runner, listeners, admission, server.departures, acceptor)
        server.report_to(listeners.balancer)
        ready([format_address(each) for each in listeners.sockets])
        service.warm_up()
        await first_of(stop.wait(), listeners.retire_requested.wait())
        server.report_to(None)
        if listeners.balancer is not None:
            listeners.balancer.leave()
        await _stop_accepting([*listeners.sockets, *listeners.operations])
        for site in runner.sites:
            await site.stop()
        if acceptor is not None:
            acceptor.stop()
        service.cache.stop_prefetch()
        if not stop.is_set():
            await app.retire(server, config.server.shutdown_timeout, stop)
        await app.drain(server, config.server.shutdown_timeout)
    finally:
        await operations_listener.close()
        if acceptor is not None:
            await acceptor.close()
        await runner.cleanup()
        await app.close()
        if limiter is not None:
            await limiter.close()
        if audit is not None:
            await asyncio.to_thread(audit.close)


def _limiter(service: Service, config: Config, row: "TableRow | None") -> "Limiter | None":
    """Return the limiter, None where the configuration limits nothing."""
    if not config.limits:
        return None
    from mirror.web.limits.limiter import Limiter

    return Limiter(config.limit_table(), service.metrics, service.add_usage, row, service.cache.clock)


async def _open_audit(service: Service, config: Config) -> "OpenAudit | None":
    """Open the audit log; None without one. Raises OSError that names its file."""
    if config.audit.file is None:
        return None
    from mirror.web.audit.audit_log import OpenAudit

    return await asyncio.to_thread(OpenAudit, config.audit, service.metrics)


def _protocol_factory(app: App, service: Service, admission: Admission) -> ProtocolFactory:
    return ProtocolFactory(
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

    burst = ACCEPTS if listeners.balancer is None else 1
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
    backlog = ACCEPTS if listeners.balancer is None else 1
    for listener in listeners.sockets:
        listener.balancer, listener.admission = listeners.balancer, admission
        listener.is_departed = departures.is_departed
        if acceptor is None:
            await web.SockSite(runner, listener, backlog=backlog).start()
        else:
            acceptor.listen(listener)


async def _stop_accepting(sockets: Sequence[ListeningSocket]) -> None:
    """Stop accepting one turn before the server closes.

    asyncio drops connections that were accepted in the turn of the loop in which the server is closed.
    """
    for each in sockets:
        asyncio.get_running_loop().remove_reader(each)
    await asyncio.sleep(0)
