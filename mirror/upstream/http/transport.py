"""One HTTP exchange with whatever host: connections, timeouts, TLS, proxies; foreign exceptions translated.

No redirect is followed here and no credential is known here.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from mirror import __version__
from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.system.malloc import keep_buffers
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.direct_read import DirectReader
from mirror.upstream.http.failures import describe, reason
from mirror.upstream.http.low_speed import LowSpeedLimit
from mirror.upstream.http.proxy import Proxies
from mirror.upstream.http.redirect import is_private_host, origin
from mirror.upstream.http.resolver import GuardedResolver

# aiohttp's 8190 is too short: signed Locations with session tokens pass it, and so do some CSP headers.
_MAX_HEADER = 128 * 1024
# What one read of asyncio's brings at most. Who wants more to be waiting collects it (mirror.cache.pieces).
_READ_BUFFER = 256 * 1024

Response = aiohttp.ClientResponse

# Gives what has come of a body since it was last called, good until it is called again; nothing at the end.
PartReader = Callable[[], Awaitable[Sequence[bytes | memoryview]]]


class Transport:
    """The connections of one upstream. Opened at first use, inside the loop; `close` ends them."""

    def __init__(self, settings: UpstreamSettings, metrics: Metrics, *, offline: bool = False) -> None:
        """`offline`: nothing is sent, looked up or connected to, whatever is asked."""
        self._offline = offline
        self.name = settings.name
        self.url = URL(settings.url.rstrip("/"), encoded=True)
        self._settings = settings
        self._metrics = metrics
        self._proxies = Proxies.from_environment()
        self._session: aiohttp.ClientSession | None = None
        self._resolver: GuardedResolver | None = None

    @property
    def private(self) -> bool:
        """Whether redirects may lead to private addresses: configured, or the upstream is such itself."""
        return (
            self._settings.private_redirects
            or self.url.scheme == "http"
            or is_private_host(self.url.host or "")
            or (self._resolver is not None and self._resolver.private)
        )

    async def warm_up(self) -> None:
        """Make what requests go out with, certificates read and all; nothing is dialled."""
        if not self._offline and self._session is None:
            await self._open()

    async def send(self, method: str, url: URL, headers: Mapping[str, str]) -> Response:
        """The answer, whatever its status, its body unread. The caller closes it."""
        if self._offline:
            raise UpstreamError(
                Failure.OFFLINE, f"not cached, and {self.name} is not asked: this mirror is offline"
            )
        session = self._session or await self._open()
        try:
            with self.translated(url):
                response = await session.request(
                    method, url, headers=headers, allow_redirects=False, proxy=self._proxies.choose(url)
                )
        except UpstreamError as error:
            self._metrics.upstream_requests.labels(self.name, str(error.failure)).inc()
            error.unanswered = error.temporary
            raise
        self._metrics.upstream_requests.labels(self.name, str(response.status)).inc()
        return response

    async def chunks(self, response: Response) -> AsyncGenerator[bytes, None]:
        """The pieces of a body as they come in, also the last ones where it breaks. TIMEOUT when it drips."""
        came, began = self._watched(response), time.monotonic()
        with self.translated(response.url):
            try:
                async for piece in response.content.iter_any():
                    came(len(piece), began)
                    yield piece
                    began = time.monotonic()
            except (aiohttp.ClientError, OSError):
                if left := _left(response.content):
                    came(len(left), began)
                    yield left
                raise

    def direct_reader(self, response: Response) -> PartReader | None:
        """A large body straight from the socket; None when `chunks` has to do. TIMEOUT as there."""
        came = self._watched(response)
        with self.translated(response.url):
            intake = DirectReader.of(response, self._settings.read_timeout)
        if intake is None:
            return None

        async def next_parts() -> Sequence[bytes | memoryview]:
            began = time.monotonic()
            with self.translated(response.url):
                parts = await intake.next()
            came(sum(len(part) for part in parts), began)
            return parts

        return next_parts

    def _watched(self, response: Response) -> Callable[[int, float], None]:
        """To be told how much of a body came, and since when that was waited for; counts it."""
        counter = self._metrics.upstream_bytes.labels(self.name)
        progress = LowSpeedLimit(self._settings.read_timeout)

        def came(length: int, began: float) -> None:
            if not progress.came(length, time.monotonic() - began):
                message = f"{self.name}: {_place(response.url)}: the answer comes too slowly"
                raise UpstreamError(Failure.TIMEOUT, message)
            counter.inc(length)

        return came

    async def read(self, response: Response, limit: int) -> bytes:
        """The whole body; the connection is free afterwards. INVALID when it is longer than `limit`."""
        body = bytearray()
        async with contextlib.aclosing(self.chunks(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limit:
                    response.close()
                    message = f"{self.name}: the answer is longer than {limit} bytes"
                    raise UpstreamError(Failure.INVALID, message, status=response.status)
        return bytes(body)

    @contextlib.contextmanager
    def translated(self, url: URL) -> Iterator[None]:
        """What aiohttp and the system raise becomes an UpstreamError.

        Without the cause: aiohttp's messages quote whole URLs, signatures included (invariant 6).
        """
        try:
            yield
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure, what = describe(error, url)
            raise UpstreamError(failure, f"{self.name}: {_place(url)}: {what}") from None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self) -> aiohttp.ClientSession:
        context = await asyncio.to_thread(self._tls)
        # Somebody else may have been quicker while the thread read the certificates.
        if self._session is None:
            self._session = self._new_session(context)
        return self._session

    def _tls(self) -> ssl.SSLContext | bool:
        if self._settings.ca_file is None:
            return True
        # Added to the system's, not instead of them: the registry is ours, its CDN may be the world's.
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(self._settings.ca_file)
        except OSError as error:
            message = f"{self.name}: ca_file {self._settings.ca_file}: {reason(error)}"
            raise UpstreamError(Failure.INVALID, message) from None
        return context

    def _new_session(self, context: ssl.SSLContext | bool) -> aiohttp.ClientSession:
        settings = self._settings
        keep_buffers()
        self._resolver = GuardedResolver(
            aiohttp.ThreadedResolver(),
            self.url.host or "",
            [*(URL(realm).host or "" for realm in settings.realms), *self._proxies.hosts()],
            private=self.private,
            timeout=settings.connect_timeout,
        )
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.max_connections, resolver=self._resolver, ssl=context
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=settings.connect_timeout, sock_read=settings.read_timeout
            ),
            headers={"User-Agent": f"registry-mirror/{__version__}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            requote_redirect_url=False,
            response_class=_timely(settings.read_timeout),
            read_bufsize=_READ_BUFFER,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )


def _timely(seconds: float) -> type[Response]:
    """Answers whose head is here as a whole within so many seconds, however steadily its bytes drip in."""

    class Timely(Response):
        async def start(self, connection: Connection) -> Response:
            async with asyncio.timeout(seconds):
                return await super().start(connection)

    return Timely


def _left(content: aiohttp.StreamReader) -> bytes:
    """What had come when the body broke, and was not read yet.

    Up to twice `_READ_BUFFER`, that aiohttp keeps to itself once there is an error, and that would have to be
    asked for again.
    """
    error = content.exception()
    if error is None:
        return b""
    content.set_exception(None)  # type: ignore[arg-type]  # it has no other way to say "read on"
    try:
        return content.read_nowait()
    finally:
        content.set_exception(error)


def _place(url: URL) -> str:
    scheme, host, port = origin(url)
    return f"{scheme}://{host}:{port}"
