"""Bodies of pushes: read as they are asked for, a few buffers at a time, and never before a client may push.

Until `start` nothing is read but what came with the head, and `100 Continue` is not sent; behind a short body
that came whole a client may send one buffer more. A body that was read to its end leaves the connection open
for the next request; any other ends it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from aiohttp import HttpVersion11, hdrs

from mirror.web import framing
from mirror.web.connections.aiohttp_internals import NO_BODY, Message, Refused
from mirror.web.framing import SURPLUS_BYTES, UnreadBody
from mirror.web.hosted.chunked import ChunkedDecoder, WrongChunk

# Bytes that asyncio reads at a time, at most; and that are held as they came: while there are as many, no
# more are read.
READ_BYTES = 256 * 1024
HELD_BYTES = 128 * 1024

# Time, in seconds, for the next byte of a body: a client may compress what it sends. Time for all the bytes
# that are asked for at once.
IDLE_SECONDS = 120.0
PIECE_SECONDS = 600.0

# Bytes that are decoded before other requests have their turn, if they come in tiny chunks, and what is tiny.
DECODED_BYTES = 16 * 1024
MANY_PARTS = 64

# Parts up to this size, in bytes, are copied into one: a client may send a byte at a time.
SMALL_PART = 4096

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

METHODS = frozenset({"POST", "PUT", "PATCH"})

Part = bytes | bytearray | memoryview


class WrongBody(Exception):
    """A body that cannot be read: `status` and message are for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Parts:
    """Consecutive bytes of a body, mostly without a copy."""

    def __init__(self) -> None:
        self.size = 0
        self._found: list[Part] = []

    def add(self, part: Part) -> None:
        """Append bytes."""
        self.size += len(part)
        last = self._found[-1] if self._found else None
        if len(part) > SMALL_PART:
            self._found.append(part)
        elif isinstance(last, bytearray):
            last += part
        else:
            self._found.append(bytearray(part))

    def take(self) -> Sequence[Part]:
        """Return the bytes."""
        return self._found


class PushedBody(UnreadBody):
    """The body of one push. `length`: in bytes, None where it comes in chunks."""

    keeps_connection = True

    def __init__(
        self, transport: asyncio.Transport, length: int | None, *, awaits_continue: bool = False
    ) -> None:
        super().__init__(transport)
        self.length = length
        self._socket = transport
        self._awaits_continue = awaits_continue
        self._decoder = ChunkedDecoder() if length is None else None
        self._missing = length or 0
        self._raw: deque[bytes] = deque()
        self._held = 0
        self._step = DECODED_BYTES
        self._surplus = SURPLUS_BYTES
        self._started = self._refused = self._client_gone = False
        self._arrived = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Return whether the body was read to its end."""
        return self._missing == 0 if self._decoder is None else self._decoder.ended

    def is_eof(self) -> bool:
        return self.is_complete or super().is_eof()

    at_eof = is_eof

    def feed(self, data: bytes) -> bytes:
        """Hold what has come, and stop reading while there is enough."""
        if self._refused:
            self._surplus -= len(data)
            enough = self._surplus < 0
        else:
            self._raw.append(data)
            self._held += len(data)
            self._arrived.set()
            # A short body that came whole is seldom followed by anything: to stop reading costs more.
            enough = self._held >= HELD_BYTES or not (self._started or self._held == self._missing)
        if enough:
            self._pause()
        return b""

    def client_left(self) -> None:
        super().client_left()
        self._client_gone = True
        self._arrived.set()

    def start(self) -> None:
        """Read from now on: the client may push."""
        if self._started:
            return
        self._started = True
        if self._awaits_continue and not self._raw and not self._client_gone:
            self._socket.write(CONTINUE)
        self._resume()

    async def take(self, wanted: int) -> Parts:
        """Return the next bytes: `wanted` at least, or what is left; none at the end.

        Raises WrongBody, and ConnectionError when the client has left.
        """
        parts = Parts()
        if self.is_complete:
            return parts
        if self._decoder is None and self._raw and len(self._raw[0]) >= self._missing:  # nothing to wait for
            await self._decode(parts)
            return parts
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                while parts.size < wanted and not self.is_complete:
                    if self._raw:
                        await self._decode(parts)
                    else:
                        await self._wait()
        except TimeoutError:
            raise WrongBody(408, "the rest of the body did not come in time") from None
        except WrongChunk as error:
            raise WrongBody(400, str(error)) from None
        return parts

    def rest(self) -> bytes:
        """Return what came behind the end of the body."""
        return b"".join(self._raw)

    async def readany(self) -> bytes:
        """Give up the body: take as much as keeps the answer from being lost, until the client leaves."""
        self._refused = True
        self._surplus -= self._held
        self._raw.clear()
        self._held = 0
        if self._surplus >= 0:
            self._resume()
        return await super().readany()

    async def _wait(self) -> None:
        if self._client_gone:
            raise ConnectionResetError("the client left before the end of the body")
        self._arrived.clear()
        self._resume()
        async with asyncio.timeout(IDLE_SECONDS):
            await self._arrived.wait()

    async def _decode(self, parts: Parts) -> None:
        """Move what has come into `parts`, up to the end of the body."""
        data = self._raw.popleft()
        self._held -= len(data)
        if self._decoder is None:
            mine, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(mine)
            parts.add(mine)
        else:
            found, rest = self._decoder.feed(data[: self._step])
            rest += data[self._step :]
            for each in found:
                parts.add(each)
            self._step = DECODED_BYTES
            if len(found) > MANY_PARTS:
                await asyncio.sleep(0)
            else:
                self._step = READ_BYTES
        if rest:
            self._raw.appendleft(rest)
            self._held += len(rest)

    def _pause(self) -> None:
        if not self._socket.is_closing():
            self._socket.pause_reading()

    def _resume(self) -> None:
        if not self._socket.is_closing():
            self._socket.resume_reading()


def body_of(message: Message, transport: asyncio.Transport) -> UnreadBody:
    """Return the body of a request: one that is read for what may be a push."""
    if isinstance(message, Refused) or message.method not in METHODS or not _is_push(message.path):
        return framing.body_of(message, transport)
    if framing.refusal(message) is not None or message.upgrade or hdrs.UPGRADE in message.headers:
        return framing.body_of(message, transport)
    encodings = message.headers.getall(hdrs.TRANSFER_ENCODING, [])
    lengths = message.headers.getall(hdrs.CONTENT_LENGTH, [])
    expected = message.headers.get(hdrs.EXPECT, "").lower()
    awaits = expected == "100-continue" and message.version == HttpVersion11
    if len(encodings) == 1 and not lengths and encodings[0].lower() == "chunked":
        return PushedBody(transport, None, awaits_continue=awaits)
    if not encodings and len(lengths) == 1 and _is_length(lengths[0]):
        return PushedBody(transport, int(lengths[0]), awaits_continue=awaits)
    return framing.body_of(message, transport)


def has_no_body(content: object) -> bool:
    """Return whether a request came without a body."""
    return content is NO_BODY


def _is_push(path: str) -> bool:
    return "/blobs/uploads" in path or "/manifests/" in path


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15
