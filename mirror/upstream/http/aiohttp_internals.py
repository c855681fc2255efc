"""aiohttp's client from inside: what the mirror uses there, and aiohttp's documentation does not have.

A pool (`CheckedConnector`) keeps a `ResponseHandler` for each connection: the protocol between transport and
parser, which holds the body of the answer that is being received. The mirror looks at the bytes before the
parser does, ends connections that bring more than was asked for, and reads large bodies from the socket
itself. What this takes of aiohttp has a name here, and no other module of the client uses a private name or
an inner module of aiohttp.

Written against aiohttp 3.14. Each docstring says which name of aiohttp stands behind it, and what no longer
works without that name. The tests of this module use the installed aiohttp, with its parser in C and with the
one in Python: an upgrade that changes a name fails there.
"""

import asyncio
from functools import partial
from typing import Any, Self

import aiohttp
from aiohttp import connector
from aiohttp.client_proto import ResponseHandler

from mirror.util.tracebacks import without_frames

# A connection of the pool while it is used, with its `protocol` and `transport`: None once it was given back.
Connection = connector.Connection


class AiohttpHandler(ResponseHandler):
    """The protocol of one connection. Subclasses override what aiohttp and the transport call.

    aiohttp calls `set_response_params` before each request, and `feed_data` with a tuple of each head and its
    body; the transport calls `data_received`. If aiohttp calls another method, an answer that was not asked
    for is taken for that to the next request.
    """

    @property
    def body(self) -> aiohttp.StreamReader | None:
        """The body that is being received (`_payload`); None before the first head, and after an end."""
        return self._payload

    @property
    def body_ended(self) -> bool:
        """Return whether no byte of an answer is due: what comes now answers nothing."""
        return self.body is None or self.body.is_eof()

    def end(self) -> None:
        """Close the connection, and keep it from being used again (`force_close`)."""
        self.force_close()
        if self.transport is not None:
            self.transport.close()


class AiohttpConnector(aiohttp.TCPConnector):
    """A pool whose connections have handlers of one class, and which hands each out by `connect`."""

    def __init__(self, handler_class: type[AiohttpHandler], **options: Any) -> None:
        """`options` are aiohttp's. Without `_factory` the connections are aiohttp's own, and not checked."""
        super().__init__(**options)
        self._factory = partial(handler_class, loop=self._loop)  # type: ignore[assignment]  # a subclass


class AiohttpResponse(aiohttp.ClientResponse):
    """An answer whose head `start` reads; for subclasses to override.

    The connection of the answer is given to `start`; without that no time limit covers the whole head.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        return await super().start(connection)


def peer_of(connection: Connection) -> tuple[Any, ...] | None:
    """Return the address that a connection leads to (`Connection.transport`)."""
    transport = connection.transport
    return None if transport is None else transport.get_extra_info("peername")


def limit_body(connection: Connection, seconds: float) -> None:
    """Limit the wait for each further byte of the answer (`ResponseHandler.read_timeout`).

    Without it the longer limit for the head of a blob holds for its body too.
    """
    if connection.protocol is not None:
        connection.protocol.read_timeout = seconds


def unread(content: aiohttp.StreamReader) -> bytes:
    """Return the bytes that had come when the body broke and were not read yet.

    These are up to twice the session's `read_bufsize`. aiohttp returns none of them once there is an error
    (`exception`, `set_exception`), and they would have to be requested again.
    """
    error = content.exception()
    if error is None:
        return b""
    content.set_exception(None)  # type: ignore[arg-type]  # aiohttp has no other way to let it be read
    try:
        return content.read_nowait()
    finally:
        content.set_exception(error)


class BorrowedSocket:
    """The transport of an answer, lent to a protocol that reads the rest of the body.

    Meanwhile aiohttp sees nothing of the body, and its time limit stands still. `transport` is None before
    `lend`, and once the connection is lost or handed back: then another answer may use it.
    """

    def __init__(self, response: aiohttp.ClientResponse, handler: ResponseHandler) -> None:
        self._handler = handler
        self._content = response.content
        handler.read_timeout = None
        handler.start_timeout()  # which ends the timer that runs
        self.transport: asyncio.Transport | None = None

    @classmethod
    def of(cls, response: aiohttp.ClientResponse) -> Self | None:
        """Borrow the socket of an answer with an unread body; None where aiohttp has let go of it.

        Also for a body that is broken: aiohttp has the bytes before the break. `response.connection` is None
        once the whole body has come.
        """
        handler = None if response.connection is None else response.connection.protocol
        if handler is None or response.content.exception() is not None:
            return None
        return cls(response, handler)

    def drain(self) -> bytes:
        """Return what aiohttp has read of the body, in a loop: taking bytes may make aiohttp deliver more."""
        parts = []
        while part := self._content.read_nowait():
            parts.append(part)
        return b"".join(parts)

    def lend(self, reader: asyncio.BufferedProtocol) -> None:
        """Have the transport call `reader` from now on, if the connection is not lost."""
        self.transport = self._handler.transport
        if self.transport is not None:
            self.transport.set_protocol(reader)

    def hand_back(self) -> None:
        """Give the connection back to aiohttp, and end the body (`feed_eof`): it goes back to the pool."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.set_protocol(self._handler)
            self._content.feed_eof()

    def eof_received(self) -> None:
        """Report the end of the server's direction to aiohttp."""
        self._handler.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end of the connection to aiohttp, which forgets it."""
        self.transport = None
        self._handler.connection_lost(error)
        # aiohttp keeps it with the body; its frames refer to the reader's buffers.
        if (kept := self._content.exception()) is not None:
            without_frames(kept)

    def pause_writing(self) -> None:
        """Report to aiohttp that the server takes no more."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Report to aiohttp that the server takes more."""
        self._handler.resume_writing()
