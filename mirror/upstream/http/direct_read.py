"""Large bodies straight from the socket: no parser and no copy between it and what is written to the disk.

aiohttp parses the head of an answer. Its parser then looks at all of the body too, and copies it, to find
where it ends; of a body whose length was told that is known. Such a body is taken over: until its end the
transport fills two buffers in turn, one while the bytes of the other are written. Then the connection goes
back to aiohttp, to be used again.
"""

import asyncio
from collections.abc import Sequence
from typing import Self

import aiohttp
from aiohttp.client_proto import ResponseHandler

# Each of the two buffers, in bytes: much for one write, and still in the processor's cache when it is hashed.
# Of a body that is shorter, much has come with its head: it is left to aiohttp.
BUFFER = 1024 * 1024
# What of a body is given first: little, because a client waits for it to be written.
FIRST = 64 * 1024


class DirectReader(asyncio.BufferedProtocol):
    """What is still to come of a body; `next` gives what has."""

    def __init__(self, response: aiohttp.ClientResponse, handler: ResponseHandler, patience: float) -> None:
        """`handler`: aiohttp's protocol on the connection of `response`."""
        self._handler = handler
        self._content = response.content
        self._patience = patience
        # aiohttp's timer would take a body that it does not see for silence.
        handler.read_timeout = None
        handler.start_timeout()
        early = self._drained()
        self._early = [part for part in (early[:FIRST], early[FIRST:]) if part]
        self._left = (response.content_length or 0) - len(early)
        self._filling = self._spare = memoryview(b"")  # made when they are needed, which is not at first
        self._filled = 0
        self._arrived = asyncio.Event()
        self._paused = False
        self._transport = handler.transport
        if self._transport is not None and self._left:
            self._transport.set_protocol(self)
            self._pause()  # what is here goes first: a client waits for it

    @classmethod
    def of(cls, response: aiohttp.ClientResponse, patience: float) -> Self | None:
        """Take over the body of `response`, unread yet; None where that is impossible, or not worth it.

        `patience`: how long to wait for a byte, in seconds.
        """
        connection, told = response.connection, response.content_length or 0
        handler = None if connection is None else connection.protocol
        if handler is None or "Transfer-Encoding" in response.headers or told < BUFFER:
            return None
        if response.content.exception() is not None:  # broken already: what had come is still to be had
            return None
        return cls(response, handler, patience)

    async def next(self) -> Sequence[bytes | memoryview]:
        """What has come since the last call, good until the next one; nothing at the end.

        Raises TimeoutError, and aiohttp.ClientPayloadError when it ends too early, after all before it.
        """
        if self._early:
            return [self._early.pop(0)]
        self._resume()
        while not self._filled and self._left:
            await self._wait()
        if not self._filled:
            return []
        arrived, self._filled = self._filling[: self._filled], 0
        self._filling, self._spare = self._spare, self._filling  # its bytes are used until the next call
        self._resume()
        return [arrived]

    async def _wait(self) -> None:
        if self._transport is None:
            raise aiohttp.ClientPayloadError
        self._arrived.clear()
        async with asyncio.timeout(self._patience):
            await self._arrived.wait()

    # What the transport calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._filled == len(self._filling):
            # At first. And when aiohttp has the connection read on, though it is paused: it does so for an
            # answer that came before this one, and was read to its end only now.
            larger = memoryview(bytearray(self._filled + min(BUFFER, self._left)))
            larger[: self._filled] = self._filling
            self._filling = larger
        return self._filling[self._filled : self._filled + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._left -= nbytes
        self._arrived.set()
        if not self._left:
            self._hand_back()
        elif self._filled == len(self._filling):
            self._pause()

    def eof_received(self) -> None:
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._arrived.set()
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _drained(self) -> bytes:
        """What aiohttp has read of the body; reading it may make more of it."""
        parts = []
        while part := self._content.read_nowait():
            parts.append(part)
        return b"".join(parts)

    def _hand_back(self) -> None:
        """The body is over; for aiohttp too, which then has the connection free."""
        if self._transport is not None:
            self._transport.set_protocol(self._handler)
            self._transport = None  # it may be another answer's in a moment
            self._content.feed_eof()

    def _pause(self) -> None:
        if self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Also on a connection that is closing: its end is learnt by reading."""
        if self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()
