"""Connections that are used again only if their last answer ended where it said it would.

HTTP/1.1 has no name for an answer: what comes next on a connection answers what was asked last. A server, or
a cache in front of it, that sends more than it announced would answer the next request, for another
repository. aiohttp looks at a connection when an answer ends, not when the next request begins.
"""

import asyncio
import re
import select
from contextvars import ContextVar
from typing import Any

import aiohttp

from mirror.upstream.http.addresses import is_private_address
from mirror.upstream.http.aiohttp_internals import (
    AiohttpConnector,
    AiohttpHandler,
    AiohttpResponse,
    Connection,
    limit_body,
    peer_of,
)

# Factor on the time limit for the head of the answer to this task's request. A registry that fetches a blob
# itself first answers late, as Docker, Podman and skopeo wait for.
HEAD_PATIENCE: ContextVar[float] = ContextVar("HEAD_PATIENCE", default=1.0)


# End of a head, with whatever line ends the server has.
_END = re.compile(rb"\r?\n\r?\n")
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r?\n", re.IGNORECASE)
_LENGTH = re.compile(rb"(?<=\n)content-length:[^\n]*\n", re.IGNORECASE)


def without_length(data: bytes) -> bytes:
    """Return the first bytes of an answer, without its Content-Length if the body comes in chunks.

    RFC 9112 6.3 lets the chunks decide, and clients that are written in Go do so; aiohttp's parser refuses
    such an answer. A head that comes in several pieces is left as it is.
    """
    end = _END.search(data)
    head = data[: end.end()] if end is not None else b""
    return _LENGTH.sub(b"", head) + data[len(head) :] if _CHUNKED.search(head) else data


class CheckedHandler(AiohttpHandler):
    """aiohttp's protocol of one connection, which ends the connection at bytes that nobody asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._answers = 0  # since the last request, without the informational ones
        self._head_is_due = False
        self.used = False

    def set_response_params(self, **params: Any) -> None:
        """Prepare for the answer to one request."""
        self._answers, self._head_is_due, self.used = 0, True, True
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take the head of an answer from the parser."""
        if data[0].code >= 200:
            self._answers += 1
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if self._head_is_due:
            self._head_is_due = False
            plain = without_length(data)
            if len(plain) < len(data):
                self.force_close()
                data = plain
        if data and self._answers and self.body_ended:
            self.end()
            return
        body = self.body
        super().data_received(data)
        if body is not None and self.exception() is not None:
            self._break_off(body)
        if self._answers > 1:
            self.end()

    def _break_off(self, body: aiohttp.StreamReader) -> None:
        """End a body whose framing broke, for the reader of it.

        aiohttp's parser in C lets go of the body at a wrong chunk and closes the connection, with which the
        time limit ends: a reader that has the head already would wait without end.
        """
        if not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the body's chunks are broken"))


class CheckedConnector(AiohttpConnector):
    """A pool that hands out no connection on which something waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(CheckedHandler, **options)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            handler = connection.protocol
            if not isinstance(handler, CheckedHandler) or not handler.used:
                return connection
            if not handler.should_close and not _something_waits(handler.transport):
                return connection
            connection.close()


def _something_waits(transport: asyncio.BaseTransport | None) -> bool:
    """Return True if bytes, or the end of the connection, have arrived and were not read yet."""
    if transport is None:
        return True
    decrypted = transport.get_extra_info("ssl_object")
    if decrypted is not None and decrypted.pending():
        return True
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class CheckedResponse(AiohttpResponse):
    """An answer that knows whether a private address sent it; by then TLS has proven the server's name."""

    from_private_address = False
    head_timeout: float

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head, whole within HEAD_PATIENCE times `head_timeout`, even if its bytes drip in."""
        peer = peer_of(connection)
        async with asyncio.timeout(HEAD_PATIENCE.get() * self.head_timeout):
            await super().start(connection)
        if HEAD_PATIENCE.get() > 1:
            limit_body(connection, self.head_timeout)
        self.from_private_address = peer is not None and is_private_address(peer[0])
        return self


def response_class(head_timeout: float) -> type[CheckedResponse]:
    """Return the class of answers whose whole head must come within `head_timeout` seconds."""
    return type("CheckedResponse", (CheckedResponse,), {"head_timeout": head_timeout})
