"""How the bytes of a blob get from its file into a client's connection.

Plain connections by `sendfile`, TLS by large reads; both only of what is in the page cache already, a bounded
piece at a time, so that one client's gigabytes never make another one wait.
"""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from types import TracebackType
from typing import Protocol, Self

from aiohttp.abc import AbstractStreamWriter

from mirror.cache.readers import BlobReader
from mirror.oci.ranges import Span
from mirror.store.errors import StoreError
from mirror.store.readahead import ReadAhead
from mirror.transfer.passthrough import PassThroughBlob
from mirror.upstream.errors import WrongBytes
from mirror.web.request_log import RequestRecord

# The most one client is sent before it is the others' turn: half a millisecond at memory speed, and nginx's
# sendfile_max_chunk. Half of it costs a third more processor time per byte, double saves nothing.
TURN_BYTES = 2 * 1024 * 1024

# One read for a TLS connection. Encrypted, it waits for the client in buffers that keep their size: that is
# what a slow one costs in memory. Four times as much saves less than a tenth of the processor time.
TLS_READ_BYTES = 64 * 1024

# How long a client may take nothing at all before it counts as gone, in seconds. The kernel keeps the time,
# for the one whose machine vanished (else a quarter of an hour of retransmissions) and for the one that is
# there but does not read (else for ever). nginx, in front of many registries, gives 60; a client that unpacks
# while it pulls may take a longer breath.
STALLED_SECONDS = 300.0

# When nothing is being sent, because the fill is slow, only probes find out: after this long, and again.
PROBE_SECONDS = 60


class ClientWriter(Protocol):
    """One client's connection, for one response. `sent`: body bytes that went out."""

    sent: int

    async def send(self, ahead: ReadAhead, offset: int) -> int:
        """Send from `offset` on what is ahead without waiting for the disk; returns how far that was.

        Raises ConnectionError when the client left, StoreError when the disk fails.
        """
        ...

    async def write(self, piece: bytes) -> None:
        """Send what is in memory."""
        ...

    def close(self) -> None: ...


class BodySender:
    """The body of one response: counts for the exchange what went out, however it ends."""

    def __init__(self, record: RequestRecord, writer: AbstractStreamWriter | None) -> None:
        self._exchange = record
        self._outlet = _outlet(record.request.transport, writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exchange.bytes += self._outlet.sent
        self._outlet.close()

    async def send(self, content: BlobReader | PassThroughBlob, span: Span) -> None:
        """Send a span of the blob, as its bytes may be read. Also raises what `wait_readable` does."""
        if isinstance(content, PassThroughBlob):
            await self._pass(content.stream(span))
            return
        await self._send_from(content, span, span.start)

    async def _send_from(self, content: BlobReader, span: Span, offset: int) -> None:
        """The rest of a span from `offset` on."""
        before = self._outlet.sent - offset
        try:
            await self._send(content, Span(offset, span.stop))
        except StoreError as error:
            offset = self._outlet.sent - before
            rest = content.continue_from_upstream(error, span, offset)
            self._exchange.note = f"passed through from byte {offset}: {error}"
            await self._pass(rest)
        except WrongBytes as error:
            offset = self._outlet.sent - before
            with closing(await content.reopen_elsewhere(error, Span(span.start, offset))) as fresh:
                self._exchange.note = f"from another source from byte {offset}: {error}"
                await self._send_from(fresh, span, offset)

    async def _pass(self, stream: AsyncGenerator[bytes, None]) -> None:
        """What comes from the upstream, at the pace of the client."""
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                await self._outlet.write(piece)

    async def _send(self, reader: BlobReader, span: Span) -> None:
        offset = span.start
        while offset < span.stop:
            stop = min(await reader.wait_readable(offset), span.stop)
            ahead = reader.read_ahead(stop)
            while offset < stop and not ahead.halted():
                await ahead.wait(offset)
                offset = await self._outlet.send(ahead, offset)
                if offset < span.stop:
                    await asyncio.sleep(0)  # the others' turn, even if nothing above had to wait


def _outlet(transport: asyncio.Transport | None, writer: AbstractStreamWriter | None) -> ClientWriter:
    if transport is None or writer is None or transport.is_closing():
        raise ConnectionResetError("client left")
    _watch(transport.get_extra_info("socket"))
    if transport.get_extra_info("ssl_object") is not None:
        return _Encrypted(writer)
    return _Plain(transport, writer)


def _watch(connection: socket.socket) -> None:
    """Have the kernel find out when the client is gone without a word."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)


class _Plain:
    """`sendfile` on a second descriptor of the client's socket.

    The loop watches that one for writing, while the transport goes on watching its own for the client's
    leaving. `loop.sendfile` would take the socket from the transport anew for each window of a growing file,
    stop reading meanwhile, and enter and leave the selector at each step.
    """

    def __init__(self, transport: asyncio.Transport, writer: AbstractStreamWriter) -> None:
        self.sent = 0
        self._transport = transport
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._socket = os.dup(transport.get_extra_info("socket").fileno())
        # What is written through the transport must be out before we write beside it: wait for all of it.
        transport.set_write_buffer_limits(high=0)

    async def send(self, ahead: ReadAhead, offset: int) -> int:
        await self._writer.drain()
        if self._transport.is_closing():
            raise ConnectionResetError("client left")
        self._ahead, self._offset = ahead, offset
        if not self._step():
            await self._turns()
        return self._offset

    async def write(self, piece: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("client left")
        await self._writer.write(piece)
        await self._writer.drain()
        self.sent += len(piece)

    def close(self) -> None:
        os.close(self._socket)

    async def _turns(self) -> None:
        """A step whenever the socket takes more, until nothing more can be sent now."""
        self._done = self._loop.create_future()
        self._loop.add_writer(self._socket, self._turn)
        try:
            await self._done
        finally:
            self._loop.remove_writer(self._socket)

    def _turn(self) -> None:
        if self._done.done():  # cancelled, and not yet taken from the selector
            return
        try:
            if self._step():
                self._done.set_result(None)
        except (ConnectionError, StoreError) as error:
            self._done.set_exception(error)

    def _step(self) -> bool:
        """Send what the socket takes, up to TURN_BYTES; whether nothing more can be sent now."""
        ahead, offset = self._ahead, self._offset
        size = min(TURN_BYTES, ahead.look(offset) - offset)
        if size == 0:
            return True
        try:
            sent = os.sendfile(self._socket, ahead.file.fileno(), offset, size)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _told(error) from error
        if sent == 0:
            raise _short(offset)
        self.sent += sent
        self._offset += sent
        return self._offset == ahead.stop


class _Encrypted:
    """Reads of the page cache through the transport, which encrypts them.

    `loop.sendfile` would read at the file's position, which growing readers share, in a thread and 256 KiB at
    a time. TLS in the kernel would need OpenSSL on the socket itself, and asyncio has it on memory buffers.
    """

    def __init__(self, writer: AbstractStreamWriter) -> None:
        self.sent = 0
        self._writer = writer

    async def send(self, ahead: ReadAhead, offset: int) -> int:
        while size := min(TLS_READ_BYTES, ahead.look(offset) - offset):
            piece = _pread(ahead.file.fileno(), size, offset)
            await self._writer.write(piece)
            self.sent += len(piece)
            offset += len(piece)
            if offset < ahead.stop:
                await asyncio.sleep(0)  # as in Sending.send: writing waits only while the transport is full
        return offset

    async def write(self, piece: bytes) -> None:
        await self._writer.write(piece)
        self.sent += len(piece)

    def close(self) -> None:
        pass


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    try:
        piece = os.pread(descriptor, size, offset)
    except OSError as error:
        raise StoreError(f"send: {error}") from error
    if not piece:
        raise _short(offset)
    return piece


def _told(error: OSError) -> Exception:
    """Whether `sendfile` failed because of the disk or, in every other case, the connection."""
    if error.errno == errno.EIO:
        return StoreError(f"send: {error}")
    return (
        error if isinstance(error, ConnectionError) else ConnectionAbortedError(error.errno, error.strerror)
    )


def _short(offset: int) -> StoreError:
    return StoreError(f"the blob's file ends at {offset}, before it should")
