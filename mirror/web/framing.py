"""Framing rules of requests: which are refused, and which end their connection.

The mirror has no use for another protocol, nor for a body but a login's. A request with either is answered,
and then its connection ends: bytes behind such a head could be read as a request by one program and as a body
by the next.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs

from mirror.oci.header_fault import header_fault
from mirror.web.connections.aiohttp_internals import (
    NO_BODY,
    Message,
    Refused,
    RequestBody,
    RequestHead,
    closing,
    long_line,
    refused,
)

# Bytes that a client may still send behind the last request of a connection: all of a client that sends a
# manifest, so that its answer is not lost to the reset that closes a connection with unread bytes.
SURPLUS_BYTES = 256 * 1024

# Longest head of a request, in bytes: one header line of the longest kind, and as much again.
HEAD_BYTES = 128 * 1024

# Longest body that is read, in bytes: a form with a user, a password and a dozen scopes.
FORM_BYTES = 16 * 1024

# The empty line behind the last header.
HEAD_END = b"\r\n\r\n"

# Headers of requests that have more than a head, or that change the connection.
BODY_HEADERS = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nupgrade:")

# What the path of a blob has, in the first bytes of a head.
BLOBS, BEGINNING = b"/blobs/", 512


class Refusal(Exception):
    """A request that is HTTP, and is refused with `status` for its framing. The message is for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def as_message(self) -> Refused:
        """Return the refusal in the place of a request in aiohttp's queue."""
        return refused(self.status, self, self.message)


# The beginnings of a PROXY header, which only a proxy of server.proxy_protocol may send.
PROXY_HEADERS = (b"PROXY TCP", b"PROXY UNKNOWN", b"\r\n\r\n\x00\r\nQUIT\n")
UNEXPECTED_PROXY = Refusal(
    400, "this connection begins with a PROXY header, and server.proxy_protocol does not list its sender"
)

SPEAKS_TLS = "this is TLS, and here plain HTTP is spoken: use http://"

HEAD_TOO_LONG = Refusal(431, f"the head of the request is longer than {HEAD_BYTES} bytes")


class UnreadBody:
    """Stand-in for whatever comes behind the last head of a connection: these bytes are never parsed.

    A connection that closes with unread bytes is reset, and the reset can take the answer from the client.

    aiohttp waits for the end of a body, for `lingering_time`, before it closes the connection. Here the
    wait begins with the end of our direction, and ends when the client has left.

    `keeps_connection`: a body that is read to its end may leave the connection open.
    """

    keeps_connection = False

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._left = asyncio.Event()

    def feed(self, data: bytes) -> bytes:
        """Return what is no part of the body that is read: everything."""
        return data

    @property
    def is_complete(self) -> bool:
        """Return whether the body was read to its end."""
        return False

    def rest(self) -> bytes:
        """Return what came behind the end of a body that keeps the connection."""
        return b""

    def client_left(self) -> None:
        self._left.set()

    def is_eof(self) -> bool:
        return self._left.is_set()

    at_eof = is_eof

    async def readany(self) -> bytes:
        """Tell the client that nothing more comes, and wait until the client leaves."""
        transport = self._transport
        # asyncio would end our direction behind what is buffered, and log a traceback if the client is gone.
        if transport.can_write_eof() and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                transport.write_eof()
            except OSError:  # reset by the client
                self._left.set()
        await self._left.wait()
        return b""

    def set_exception(self, *_: Any) -> None:
        """Ignore aiohttp's note that nothing may read the body any more."""


class PostedForm(UnreadBody):
    """The short body of a request that is the last of its connection."""

    def __init__(self, transport: asyncio.WriteTransport, length: int) -> None:
        super().__init__(transport)
        self._missing = length
        self._parts: list[bytes] = []
        self._complete = asyncio.Event()
        if not length:
            self._complete.set()

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body; return the rest."""
        mine, rest = data[: self._missing], data[self._missing :]
        self._parts.append(mine)
        self._missing -= len(mine)
        if not self._missing:
            self._complete.set()
        return rest

    async def whole(self) -> bytes:
        """Wait for the body, and return it."""
        await self._complete.wait()
        return b"".join(self._parts)


def body_of(message: Message, transport: asyncio.WriteTransport) -> UnreadBody | PostedForm:
    """Return what reads, or does not read, what comes behind the last head of a connection.

    A POST of known and small length is read: a client that logs in sends its password so.
    """
    if isinstance(message, Refused) or message.method != "POST" or refusal(message) is not None:
        return UnreadBody(transport)
    length = message.headers.get(hdrs.CONTENT_LENGTH, "")
    short = length.isascii() and length.isdigit() and len(length) < 6 and int(length) <= FORM_BYTES
    if not short or hdrs.TRANSFER_ENCODING in message.headers or message.upgrade:
        return UnreadBody(transport)
    return PostedForm(transport, int(length))


def refusal(message: RequestHead) -> Refusal | None:
    """Return why the request must not be answered, if it must not."""
    if message.version not in (HttpVersion10, HttpVersion11):
        return Refusal(505, "this server speaks HTTP/1.1 and HTTP/1.0")
    if message.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in message.headers:
        # RFC 9112 6.1: the framing is faulty, because an HTTP/1.0 program before us has not understood it.
        return Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if not message.path.isascii():  # aiohttp's parser in Python lets such bytes through, as surrogates
        return Refusal(400, "the request target has bytes that no URL has: write them as %XX")
    try:
        _ = message.url.host
    except ValueError:  # of a label in punycode, for instance
        return Refusal(400, "the request target names a host that is no host")
    return None


def ends_connection(message: RequestHead, body: RequestBody) -> bool:
    """Return whether the request has a body, or asks for another protocol."""
    return body is not NO_BODY or message.upgrade or hdrs.UPGRADE in message.headers


def first_last(messages: Sequence[tuple[Message, RequestBody]]) -> int | None:
    """Return the place of the first request that is wrong or refused, or that ends its connection."""
    for index, (message, body) in enumerate(messages):
        if isinstance(message, Refused) or refusal(message) or ends_connection(message, body):
            return index
    return None


def as_last(message: Message) -> Message:
    """Return the request as the last one of its connection: answered with `Connection: close`."""
    if isinstance(message, Refused):
        return message
    if (reason := refusal(message)) is not None:
        return reason.as_message()
    return closing(message)


class HeadSplitter:
    """Splitter of a connection's bytes: a part has the end of one head at most, and nothing behind it."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = b""  # the last bytes: the end of a head may come in several segments

    def split(self, data: bytes) -> Iterator[bytes]:
        """Yield `data` in parts."""
        joined, start = self._before + data, len(self._before)
        self._before = joined[-len(HEAD_END) + 1 :]
        search = 0
        while (end := joined.find(HEAD_END, search, -1)) >= 0:
            search = end + len(HEAD_END)
            yield joined[start:search]
            start = search
        yield joined[start:]


def asks_for_blob(data: bytes) -> bool:
    """Return whether a request that begins with `data` asks for a blob's bytes."""
    return data.startswith(b"GET ") and BLOBS in data[:BEGINNING]


def is_one_head(data: bytes) -> bool:
    """Return whether `data` is exactly one request without a body."""
    if not data.startswith((b"GET ", b"HEAD ")) or data.find(b"\n\r\n") != len(data) - 3 or b"\n\n" in data:
        return False
    lower = data.lower()
    return not any(name in lower for name in BODY_HEADERS)


def why_refused(error: BaseException | None, message: str, head: bytes) -> str:
    """Explain why a request cannot be read. aiohttp's own message quotes lines, and secrets with them."""
    if isinstance(error, Refusal):
        return error.message
    if (too_long := long_line(error)) is not None:
        return header_fault(too_long, head) or "a line of the request's head is too long"
    if "HTTPS" in message:
        return SPEAKS_TLS
    if "'Host'" in message:
        return "the request has no Host header"
    if fault := header_fault(message, head):
        return f"the head of the request is wrong: {fault}"
    return "this is not an HTTP/1.1 request"
