"""The request handler: identify, admit, parse, authorise, handle; and the end of what runs."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from mirror.cache.results import Outcome
from mirror.config.schema import Config
from mirror.oci.errors import Code, RegistryError
from mirror.service.service import Service
from mirror.util.log import get_logger
from mirror.util.tasks import first_of
from mirror.util.tracing.spans import begin_request, end_request, is_traced
from mirror.web import responses
from mirror.web.accept.protocol_factory import ProtocolFactory
from mirror.web.access_control import AccessControl, AccessDenied
from mirror.web.fastpath.known_blobs import open_stored
from mirror.web.identity.challenge import LoginRequired
from mirror.web.identity.credentials import NotVerified, WrongCredentials
from mirror.web.identity.gate import Gate
from mirror.web.landing_page import LandingPage
from mirror.web.limits.refusal import LimitExceeded
from mirror.web.onboarding import marker_image
from mirror.web.onboarding.client_setup import ClientSetup
from mirror.web.probes import Probes
from mirror.web.protocol import RequestProtocol
from mirror.web.registry_api import RegistryApi
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache

if TYPE_CHECKING:
    from mirror.web.activity.activity import Activity
    from mirror.web.audit.audit_log import AuditLog
    from mirror.web.hosted.push_api import PushApi
    from mirror.web.limits.limiter import Limiter
    from mirror.web.peers.redirects import StoreRedirects

log = get_logger(__name__)

# The response cache gets one part in this many of `cache.memory`.
RESPONSE_CACHE_DIVISOR = 4

# Time, in seconds, before the drain for the first requests of new connections, and after it for connections
# that were asked to close but have not.
CLOSING_SECONDS = 1.0

# What becomes of requests with these errors; all others fail.
OUTCOMES = {LoginRequired: Outcome.CHALLENGED, WrongCredentials: Outcome.DENIED, NotVerified: Outcome.DENIED}


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
        activity: "Activity | None" = None,
    ) -> None:
        """`own_listener`: operators have an address of their own. Without `limiter` nothing is limited.

        `activity`: where people may look at it.
        """
        self._metrics = service.metrics
        self._shares = service.processor_shares
        self.gate = Gate(service, config)
        access = self.gate.access
        self._registry = RegistryApi(service.cache, config, access, _pushes(service, config, access))
        self._registry.redirects = _redirects(service, config)
        self._registry.push_epoch = service.push_epoch
        memory = config.cache.memory // RESPONSE_CACHE_DIVISOR
        self.response_cache = ResponseCache(
            memory,
            service.metrics,
            service.record_use,
            removal_epoch=service.removal_epoch,
            access_epoch=service.access_epoch,
            scope_of=access.scope if limiter is None else limiter.scoped(access.scope),
        )
        self.response_cache.push_epoch = service.push_epoch
        self.response_cache.logins.rights_of = (
            access.rights if limiter is None else limiter.apart(access.rights)
        )
        self.response_cache.hits.limit = None if limiter is None else limiter.passes
        self.response_cache.hits.audit = self._audit = audit
        blobs = self.response_cache.blobs
        blobs.open = partial(open_stored, service.cache, config.server.header_timeout)
        blobs.begin, blobs.end = self._begin, self._end
        self._activity = activity
        if activity is not None:
            self.response_cache.hits.watch = activity
        self._limiter = limiter
        self.probes = Probes(service, own_listener=own_listener)
        self._page = LandingPage([each.name for each in config.upstreams], probes=not own_listener)
        self._setup = ClientSetup(config.upstreams)
        self._closing = False  # each connection ends after its next response
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        head, scope = None, 0
        if isinstance(request.protocol, RequestProtocol):
            head, scope = request.protocol.head, request.protocol.scope
            if is_traced(request.headers):
                head = None  # no other request has it
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
            record.on_begun = partial(known.blobs.remember, (scope, head), record)
        self._begin()
        if self._activity is not None:
            self._activity.begin(record)
        span = begin_request(request.headers)
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
            end_request(span, fields)
            if self._audit is not None:
                self._audit.note(record, fields)
            if self._activity is not None:
                self._activity.end(record, fields)
            self._end()

    def _begin(self) -> None:
        self._running += 1
        self._idle.clear()

    def _end(self) -> None:
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
        try:
            await self.gate.identify(record)
        except RegistryError as refused:
            raise (await self._limiter.refusal(record, refused) if self._limiter else refused) from None
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


def _redirects(service: Service, config: Config) -> "StoreRedirects | None":
    """Return the redirects to a shared store; None where no client is sent there."""
    if service.shared is None or not config.shared.redirect:
        return None
    from mirror.web.peers.redirects import StoreRedirects

    return StoreRedirects(service.shared.urls, config.shared.redirect, service.metrics)


def _pushes(service: Service, config: Config, access: AccessControl) -> "PushApi | None":
    """Return the handlers of pushes; what they need is imported where something is hosted."""
    if not config.hosted:
        return None
    from mirror.web.hosted.push_api import push_api

    return push_api(service, config, access)
