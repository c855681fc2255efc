"""Large bodies straight from the socket, without a parser or a copy between the socket and the disk.

aiohttp parses the head of an answer. Then its parser also scans and copies the whole body to find its end,
which is known for a body with a Content-Length. The reader takes such a body over: until its end the
transport fills two buffers in turn, one while the bytes of the other are written. Then the connection goes
back to aiohttp and is reused.
"""

import asyncio
from collections.abc import Sequence
from typing import Self

import aiohttp

from mirror.upstream.http.aiohttp_internals import BorrowedSocket

# Size of each of the two buffers, in bytes: large for one write, and still in the processor's cache when its
# bytes are hashed. A shorter body is left to aiohttp, since much of it has come with its head.
BUFFER = 1024 * 1024
# Most bytes in the first part: little, because a client waits until they are written.
FIRST = 64 * 1024
# A later part waits until it has GATHERED bytes, or for GATHER_SECONDS: a write costs the same for few
# bytes, and a slow network delivers few at a time.
GATHERED, GATHER_SECONDS = 256 * 1024, 0.05


class DirectReader(asyncio.BufferedProtocol):
    """Reader of the rest of a body; `next` returns the bytes that have arrived."""

    def __init__(self, socket: BorrowedSocket, length: int, timeout: float) -> None:
        """`length`: of the whole body, in bytes."""
        self._socket = socket
        self._timeout = timeout
        early = socket.drain()
        self._early = [part for part in (early[:FIRST], early[FIRST:]) if part]
        self._left = length - len(early)
        self._filling = self._spare = memoryview(b"")  # allocated at first use
        self._filled = 0
        self._arrived = asyncio.Event()
        self._begun = False  # a part was returned: a client has the first bytes
        self._enough = 1  # bytes that `next` waits for
        self._paused = False
        if self._left:
            socket.lend(self)
            self._pause()  # the early bytes are written first: a client waits for them

    @classmethod
    def take_over(cls, response: aiohttp.ClientResponse, timeout: float) -> Self | None:
        """Take over the unread body of `response`; None where that is impossible or does not pay.

        `timeout` is the longest wait for a byte, in seconds.
        """
        length = response.content_length or 0
        if "Transfer-Encoding" in response.headers or length < BUFFER:
            return None
        socket = BorrowedSocket.of(response)
        return None if socket is None else cls(socket, length, timeout)

    async def next(self) -> Sequence[bytes | memoryview]:
        """Return the bytes since the last call, valid until the next call; none at the end.

        Raise TimeoutError, or aiohttp.ClientPayloadError at an early end, after all bytes before it.
        """
        begun, self._begun = self._begun, True
        if self._early:
            return [self._early.pop(0)]
        self._resume()
        while not self._filled and self._left:
            await self._wait()
        if not self._filled:
            return []
        if begun and self._filled < GATHERED and self._left:
            await self._gather()
        arrived, self._filled = self._filling[: self._filled], 0
        self._filling, self._spare = self._spare, self._filling  # the caller uses these bytes meanwhile
        self._resume()
        return [arrived]

    async def _wait(self) -> None:
        if self._socket.transport is None:
            raise aiohttp.ClientPayloadError
        self._arrived.clear()
        async with asyncio.timeout(self._timeout):
            await self._arrived.wait()

    async def _gather(self) -> None:
        """Wait for more bytes, which are worth one write together."""
        if self._socket.transport is None:
            return
        self._arrived.clear()
        self._enough = GATHERED
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._arrived.wait()
        except TimeoutError:
            pass  # the network is slow: what is here is written
        finally:
            self._enough = 1

    # Methods that the transport calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._filled == len(self._filling):
            # At first, and if aiohttp resumes a paused connection: it does so for an earlier answer on the
            # connection that was read to its end only now.
            larger = memoryview(bytearray(self._filled + min(BUFFER, self._left)))
            larger[: self._filled] = self._filling
            self._filling = larger
        return self._filling[self._filled : self._filled + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._left -= nbytes
        if self._filled >= self._enough or not self._left:
            self._arrived.set()
        if not self._left:
            self._socket.hand_back()
        elif self._filled == len(self._filling):
            self._pause()

    def eof_received(self) -> None:
        self._socket.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket.connection_lost(exc)
        self._arrived.set()

    def pause_writing(self) -> None:
        self._socket.pause_writing()

    def resume_writing(self) -> None:
        self._socket.resume_writing()

    def _pause(self) -> None:
        if (transport := self._socket.transport) is not None:
            self._paused = True
            transport.pause_reading()

    def _resume(self) -> None:
        """Resume reading, also on a connection that is closing: only a read shows its end."""
        if (transport := self._socket.transport) is not None and self._paused:
            self._paused = False
            transport.resume_reading()
