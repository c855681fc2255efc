"""One HTTP exchange with any host: connections, timeouts, TLS, proxies; foreign exceptions translated.

This layer follows no redirects and knows no credentials.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType

import aiohttp
from msgspec import Struct
from yarl import URL

from mirror import __version__
from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.system.malloc import keep_buffers
from mirror.upstream.errors import AnswerTooLong, Failure, UpstreamError
from mirror.upstream.http.aiohttp_internals import unread
from mirror.upstream.http.connections import HEAD_PATIENCE, CheckedConnector, CheckedResponse, response_class
from mirror.upstream.http.direct_read import DirectReader
from mirror.upstream.http.failures import describe, has_hung_up, is_own, reason
from mirror.upstream.http.low_speed import LowSpeedLimit
from mirror.upstream.http.proxy import Proxies
from mirror.upstream.http.redirect import is_private_host, origin
from mirror.upstream.http.resolver import GuardedResolver
from mirror.util.fairness.budget import current_budget
from mirror.util.log import debug_enabled, get_logger
from mirror.util.tls import client_context, load_pair
from mirror.util.tracebacks import without_frames
from mirror.util.tracing.spans import begin_exchange, end_exchange

log = get_logger(__name__)

# Longest header line in bytes. aiohttp's 8190 is too short: signed Locations with session tokens, and some
# CSP headers, are longer.
_MAX_HEADER = 128 * 1024
# Most bytes that one read of asyncio brings; mirror.transfer.sources.receiving collects more.
_READ_BUFFER = 256 * 1024

# Time limit for the head of a blob's answer, in times `read_timeout`.
BLOB_PATIENCE = 4.0

_STATUSES = frozenset(int(status) for status in HTTPStatus)

Response = aiohttp.ClientResponse

# Returns the bytes of a body that came since the last call, valid until the next call; none at the end.
PartReader = Callable[[], Awaitable[Sequence[bytes | memoryview]]]


class Transport:
    """Connections to one upstream, opened at first use inside the loop; `close` ends them."""

    def __init__(self, settings: UpstreamSettings, metrics: Metrics, *, offline: bool = False) -> None:
        """`offline` makes every request fail: nothing is sent, resolved or connected to."""
        self._offline = offline
        self.name = settings.name
        self.url = URL(settings.url.rstrip("/"), encoded=True)
        self._settings = settings
        self._metrics = metrics
        self._proxies = Proxies.from_environment()
        self._session: aiohttp.ClientSession | None = None
        self._identity: ssl.SSLContext | None = None  # with the client certificate, if there is one
        self._origin = origin(self.url)
        self._knows_us = {self._origin, *(origin(URL(realm)) for realm in settings.realms)}
        self._private_peer = False

    def bypass_proxies(self) -> None:
        """Connect directly, whatever the environment says: the host is in a network of the operator."""
        self._proxies = Proxies({})

    @property
    def private(self) -> bool:
        """True if redirects may lead to private addresses: if configured, or if the upstream is private.

        An https upstream is private as long as its last answer came from a private address: its certificate
        was valid there. A wrong answer of a name server proves nothing, and nothing is believed for good.
        """
        return (
            self._settings.private_redirects
            or self.url.scheme == "http"
            or is_private_host(self.url.host or "")
            or self._private_peer
        )

    async def warm_up(self) -> None:
        """Create the session, certificates included, without dialling."""
        if not self._offline and self._session is None:
            await self._open()

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        proven: bool = False,
        identified: bool = True,
    ) -> Response:
        """Return the answer of any status, its body unread. The caller closes it.

        `proven`: a digest proves the body. Such requests have connections of their own, so that a body that
        is longer than announced answers no request for a tag or a token, however late its surplus comes.
        `identified`: the client certificate may be shown, if the URL is of an origin that knows us.
        """
        return await self._exchange(method, url, headers, proven=proven, identified=identified)

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes) -> Response:
        """Return the answer to a POST with a body, as `send` does."""
        return await self._exchange("POST", url, headers, body=body)

    async def upload(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None
    ) -> Response:
        """Return the answer to a request with a body, which may be a stream, as `send` does."""
        return await self._exchange(method, url, headers, body=body)

    async def _exchange(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        proven: bool = False,
        identified: bool = True,
        body: bytes | AsyncIterable[bytes] | None = None,
    ) -> Response:
        if self._offline:
            raise UpstreamError(
                Failure.OFFLINE, f"not cached, and {self.name} is not asked: this mirror is offline"
            )
        session, began = self._session or await self._open(), time.monotonic()
        proxy = self._proxies.choose(url)
        patience = BLOB_PATIENCE if proven else 1.0
        token = HEAD_PATIENCE.set(patience)
        own = origin(url) == self._origin
        span, headers = begin_exchange(self.name, url.host or "", method, headers, own=own)
        try:
            with self.translated(url):
                # aiohttp's pool tells requests with and without server_hostname apart; TLS does not.
                response = await session.request(
                    method,
                    url,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    proxy=proxy,
                    ssl=self._context_for(url, proxy) if identified else True,
                    server_hostname=url.raw_host if proven else None,
                    timeout=self._timeout(patience),
                )
                end_exchange(span, response.status)
        except UpstreamError as error:
            self._metrics.upstream_requests.labels(self.name, str(error.failure)).inc()
            error.unanswered = error.temporary and not error.own
            end_exchange(span, None, str(error.failure))
            self._log_exchange(method, url, began, reason=str(error))
            raise
        finally:
            HEAD_PATIENCE.reset(token)
            end_exchange(span, None, "cancelled")  # unless it has ended
        if isinstance(response, CheckedResponse) and own:
            self._private_peer = proxy is None and response.from_private_address
        self._metrics.upstream_requests.labels(self.name, _status_label(response.status)).inc()
        self._log_exchange(method, url, began, status=response.status)
        return response

    def _timeout(self, patience: float = 1.0) -> aiohttp.ClientTimeout:
        settings = self._settings
        return aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_timeout, sock_read=patience * settings.read_timeout
        )

    def _context_for(self, url: URL, proxy: URL | None) -> ssl.SSLContext | bool:
        """Return the TLS context that shows the client certificate, or True for the session's own.

        It is shown to the upstream and its realms only (invariant 6). aiohttp shows it to a proxy over https
        too, and so it is not used with one.
        """
        if self._identity is None:
            return True
        shown = origin(url) in self._knows_us and (proxy is None or proxy.scheme == "http")
        return self._identity if shown else True

    def _log_exchange(self, method: str, url: URL, began: float, **outcome: object) -> None:
        """Log a request at level debug. The path is left out for other hosts than the upstream's own."""
        if debug_enabled():
            # A redirect's target is a signed URL, which is a credential.
            shown = f"{_place(url)}{url.raw_path}" if origin(url) == self._origin else _place(url)
            total_ms = round((time.monotonic() - began) * 1000, 2)
            log.debug(
                "upstream asked", upstream=self.name, method=method, url=shown, **outcome, total_ms=total_ms
            )

    async def chunks(self, response: Response) -> AsyncGenerator[bytes, None]:
        """Yield a body as it arrives, also the last bytes before a break; raise TIMEOUT if it is too slow."""
        count, began = self._counter(response), time.monotonic()
        with self.translated(response.url):
            try:
                async for chunk in response.content.iter_any():
                    count(len(chunk), began)
                    yield chunk
                    began = time.monotonic()
            except (aiohttp.ClientError, OSError):
                if rest := unread(response.content):
                    count(len(rest), began)
                    yield rest
                raise

    def direct_reader(self, response: Response) -> PartReader | None:
        """Return a reader of a large body straight from the socket; None where only `chunks` works.

        It raises TIMEOUT as `chunks` does.
        """
        count = self._counter(response)
        with self.translated(response.url):
            reader = DirectReader.take_over(response, self._settings.read_timeout)
        if reader is None:
            return None

        async def next_parts() -> Sequence[bytes | memoryview]:
            began = time.monotonic()
            with self.translated(response.url):
                parts = await reader.next()
            count(sum(len(part) for part in parts), began)
            return parts

        return next_parts

    def _counter(self, response: Response) -> Callable[[int, float], None]:
        """Return a function to call with the bytes that came and the start of the wait for them.

        The function counts the bytes and raises TIMEOUT if the body is too slow.
        """
        counter = self._metrics.upstream_bytes.labels(self.name)
        limit = LowSpeedLimit(self._settings.read_timeout)
        budget = current_budget()

        def count(length: int, began: float) -> None:
            if not limit.allows(length, time.monotonic() - began):
                message = f"{self.name}: {_place(response.url)}: the answer comes too slowly"
                raise UpstreamError(Failure.TIMEOUT, message)
            counter.inc(length)
            if budget is not None:
                budget.add(length)

        return count

    async def read(self, response: Response, limit: int) -> bytes:
        """Return the whole body and free the connection; raise AnswerTooLong beyond `limit` bytes."""
        if (response.content_length or 0) > limit:
            error = self._too_long(response, limit)
            error.announced = True
            raise error
        body, count, began = bytearray(), self._counter(response), time.monotonic()
        with self.translated(response.url):
            while chunk := await response.content.readany():
                count(len(chunk), began)
                body += chunk
                if len(body) > limit:
                    body.clear()  # the traceback refers to this frame
                    raise self._too_long(response, limit)
                began = time.monotonic()
        return bytes(body)

    def _too_long(self, response: Response, limit: int) -> AnswerTooLong:
        response.close()
        message = f"{self.name}: the answer is longer than {limit} bytes"
        return AnswerTooLong(Failure.INVALID, message, status=response.status)

    def translated(self, url: URL) -> "Translation":
        """Translate exceptions of aiohttp and the system to UpstreamError, as a context manager."""
        return Translation(self.name, url)

    def redacted(self, text: str) -> str:
        """Return `text` without the passwords of proxies: a proxy may answer with a page of its own."""
        for secret in self._proxies.secrets():
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self) -> aiohttp.ClientSession:
        context, identity = await asyncio.to_thread(self._contexts)
        # Another request may have opened the session while the thread read the certificates.
        if self._session is None:
            self._identity = identity
            self._session = self._new_session(context)
        return self._session

    def _contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
        """Return the context of the session, and the one that shows the client certificate, if any."""
        certificate, key = self._settings.client_cert, self._settings.client_key
        context, identity = self._tls(), None
        if certificate is not None and key is not None:
            identity = self._tls(shared=False)
            try:
                load_pair(identity, certificate, key)
            except (OSError, ValueError) as error:
                why = reason(error) if isinstance(error, OSError) else str(error)
                message = f"{self.name}: client_cert {certificate}, client_key {key}: {why}"
                raise UpstreamError(Failure.INVALID, message) from None
        return context, identity

    def _tls(self, *, shared: bool = True) -> ssl.SSLContext:
        if self._settings.ca_file is None and shared:
            return client_context()
        # In addition to the system's certificates: the registry may be private while its CDN is public.
        context = ssl.create_default_context()
        try:
            if self._settings.ca_file is not None:
                context.load_verify_locations(self._settings.ca_file)
        except OSError as error:
            message = f"{self.name}: ca_file {self._settings.ca_file}: {reason(error)}"
            raise UpstreamError(Failure.INVALID, message) from None
        return context

    def _new_session(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        settings = self._settings
        keep_buffers()
        resolver = GuardedResolver(
            aiohttp.ThreadedResolver(),
            self.url.host or "",
            [*(URL(realm).host or "" for realm in settings.realms), *self._proxies.hosts()],
            private=lambda: self.private,
            timeout=settings.connect_timeout,
        )
        return aiohttp.ClientSession(
            connector=CheckedConnector(limit=settings.max_connections, resolver=resolver, ssl=context),
            timeout=self._timeout(),
            headers={"User-Agent": f"registry-mirror/{__version__}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            requote_redirect_url=False,
            response_class=response_class(settings.read_timeout),
            read_bufsize=_READ_BUFFER,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )


class ResponseContent(Struct, frozen=True):
    """The body of one answer, to be read: an `upstream.body.BodyContent`."""

    transport: Transport
    response: Response

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self.transport.chunks(self.response)

    def direct_reader(self) -> PartReader | None:
        return self.transport.direct_reader(self.response)


class Translation:
    """Translates exceptions of aiohttp and the system, raised in its block, to UpstreamError.

    The cause is dropped: aiohttp's messages quote whole URLs, signatures included (invariant 6).
    """

    __slots__ = ("_name", "_url")

    def __init__(self, name: str, url: URL) -> None:
        """`name`: of the upstream that is asked for `url`."""
        self._name = name
        self._url = url

    def __enter__(self) -> None:
        """Do nothing: only the end of the block counts."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, aiohttp.ClientError | OSError | ValueError):
            return
        failure, why = describe(error, self._url)
        without_frames(error)  # aiohttp keeps it with the body, which the frames refer to
        failed = UpstreamError(failure, f"{self._name}: {_place(self._url)}: {why}")
        failed.own, failed.hung_up = is_own(error), has_hung_up(error)
        raise failed from None


def _status_label(status: int) -> str:
    """Return a status for a metric: an upstream makes up numbers, and each would be a series of its own."""
    return str(status) if status in _STATUSES else f"{status // 100}xx"


def _place(url: URL) -> str:
    scheme, host, port = origin(url)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
