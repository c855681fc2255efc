"""Transmission of a blob's bytes from the file to a client's connection.

Plain connections use `sendfile`, TLS connections large reads. Both send only what is in the page cache
already, a bounded piece at a time, so that one client's gigabytes never delay another client.
"""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Protocol, Self
from weakref import WeakKeyDictionary

from aiohttp.abc import AbstractStreamWriter

from mirror.cache.readers import BlobContent, FileReader
from mirror.oci.ranges import Span
from mirror.store.errors import StoreError, reason_of
from mirror.store.readahead import ReadAhead
from mirror.util.fairness.loop_turns import LoopTurns
from mirror.util.tracebacks import without_frames
from mirror.web.pace import TOO_SLOW, Pace
from mirror.web.request_log import RequestRecord

# Bytes sent to one client before the other clients' turn: half a millisecond at memory speed, and nginx's
# sendfile_max_chunk. Half of it costs a third more processor time per byte, double saves nothing.
TURN_BYTES = 2 * 1024 * 1024

# Bytes sent to all clients in one turn of the event loop, then requests have their turn: eight milliseconds.
# A piece counts as LEAST_WORK bytes at the least, which is what its system calls cost.
LOOP_BYTES = 8 * TURN_BYTES
LEAST_WORK = 32 * 1024

# One read for a TLS connection. Encrypted, a piece waits for the client in buffers that keep their size:
# this number is the memory that a slow client costs. Four times as much saves less than a tenth of the
# processor time.
TLS_READ_BYTES = 64 * 1024

# What one such read costs, in bytes of `sendfile` by the same processor time.
TLS_WORK = 4 * TLS_READ_BYTES

# Time, in seconds, after which a client that takes no bytes at all counts as gone. The kernel keeps the time,
# for a machine that vanished (else a quarter of an hour of retransmissions) and for a client that is
# there but does not read (else no limit). nginx, in front of many registries, gives 60; a client that unpacks
# while it pulls may pause for longer.
STALLED_SECONDS = 300.0

# While nothing is being sent, because the fill is slow, only probes find out: first after, and repeated
# every, this many seconds.
PROBE_SECONDS = 60


class BodyWriter(Protocol):
    """One client's connection, for one response. `sent`: body bytes that went out."""

    sent: int

    async def send(self, ahead: ReadAhead, offset: int) -> int:
        """Send what `ahead` has from `offset` on, without waiting for the disk; return the offset reached.

        Raises ConnectionError when the client left, StoreError when the disk fails.
        """
        ...

    async def write(self, piece: bytes) -> None:
        """Send bytes that are in memory."""
        ...

    def close(self) -> None: ...


class BodySender:
    """Sender of one response's body; adds the bytes sent to the record, however the response ends."""

    def __init__(
        self,
        record: RequestRecord,
        writer: AbstractStreamWriter | None,
        content: BlobContent,
    ) -> None:
        self._record = record
        self._content = content
        self._writer = _body_writer(record.request.transport, writer)
        self._pace = Pace(lambda: self._writer.sent, content.when_crowded, self._end_connection)

    def __enter__(self) -> Self:
        self._record.body = self._writer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pace.close()
        self._record.body = None
        self._record.bytes += self._writer.sent
        self._writer.close()

    async def send(self, span: Span) -> None:
        """Send a span of the blob as its bytes become readable. Raises what `wait_readable` raises, too."""
        try:
            await self._content.send(span, self)
        except ConnectionError as error:
            if self._pace.ended:
                raise ConnectionAbortedError(TOO_SLOW) from error
            raise

    def _end_connection(self) -> None:
        if (transport := self._record.request.transport) is not None:
            with suppress(OSError):
                # Not `abort`: a sender waits on a second descriptor, which then would not know.
                transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    @property
    def sent(self) -> int:
        """Return how many bytes of content were sent."""
        return self._writer.sent

    def note(self, text: str) -> None:
        """Add a note to the line about the request."""
        self._record.note = text

    async def send_pieces(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Send pieces, at the client's pace."""
        async with aclosing(pieces) as opened:
            async for piece in opened:
                if self._record.pacer is not None:
                    await self._record.pacer.take_all(len(piece))
                self._pace.begin_send()
                await self._writer.write(piece)
                self._pace.end_send()

    async def send_file(self, reader: FileReader, span: Span) -> None:
        """Send a span of the reader's file as its bytes become readable. Raises as `Outlet.send_file`."""
        offset = span.start
        while offset < span.stop:
            stop = min(await reader.wait_readable(offset), span.stop)
            if self._record.pacer is not None:  # this client's bandwidth is limited
                stop = offset + await self._record.pacer.take(stop - offset)
            ahead = reader.read_ahead(stop)
            while offset < stop and not ahead.stopped():
                await ahead.wait(offset)
                self._pace.begin_send()
                offset = await self._writer.send(ahead, offset)
                self._pace.end_send()
                if offset < span.stop:
                    await asyncio.sleep(0)  # the other clients' turn, even if nothing above had to wait


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTurns] = WeakKeyDictionary()


def loop_turns() -> LoopTurns:
    """Return the turns of the running event loop, which all bodies share."""
    return _turns.setdefault(asyncio.get_running_loop(), LoopTurns(LOOP_BYTES))


def _body_writer(transport: asyncio.Transport | None, writer: AbstractStreamWriter | None) -> BodyWriter:
    if transport is None or writer is None or transport.is_closing():
        raise ConnectionResetError("client left")
    _detect_dead_client(transport.get_extra_info("socket"))
    if transport.get_extra_info("ssl_object") is not None:
        return _TlsWriter(writer)
    return _SendfileWriter(transport, writer)


def _detect_dead_client(connection: socket.socket) -> None:
    """Have the kernel find out when the client has vanished without closing the connection."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)


class _SendfileWriter:
    """`sendfile` on a second descriptor of the client's socket.

    The loop watches the second descriptor for writing, while the transport goes on watching its own for the
    client's leaving. `loop.sendfile` would take the socket from the transport again for each window of a
    growing file, stop reading meanwhile, and enter and leave the selector at each step.
    """

    def __init__(self, transport: asyncio.Transport, writer: AbstractStreamWriter) -> None:
        self.sent = 0
        self._transport = transport
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._turns = loop_turns()
        self._socket = os.dup(transport.get_extra_info("socket").fileno())
        # Bytes written through the transport must be out before `sendfile` writes beside it: wait for all.
        transport.set_write_buffer_limits(high=0)

    async def send(self, ahead: ReadAhead, offset: int) -> int:
        await self._writer.drain()
        if self._transport.is_closing():
            raise ConnectionResetError("client left")
        self._ahead, self._offset = ahead, offset
        await self._turns.turn(self._work())
        if not self._step():
            await self._step_when_writable()
        return self._offset

    async def write(self, piece: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("client left")
        await self._writer.write(piece)
        await self._writer.drain()
        self.sent += len(piece)

    def close(self) -> None:
        os.close(self._socket)

    async def _step_when_writable(self) -> None:
        """Take a step whenever the socket is writable, until nothing more can be sent now."""
        self._done = self._loop.create_future()
        self._loop.add_writer(self._socket, self._on_writable)
        try:
            await self._done
        finally:
            self._loop.remove_writer(self._socket)

    def _on_writable(self) -> None:
        if self._done.done():  # cancelled, and not yet taken from the selector
            return
        if self._turns.take(self._work()):
            self._step_on_turn()
        else:
            self._loop.remove_writer(self._socket)
            self._turns.wait(self._work(), self._on_turn)

    def _on_turn(self) -> None:
        """Take the step for which the socket was writable, and wait until it is writable again."""
        if self._done.done():  # cancelled meanwhile
            self._turns.give_back(self._work())
            return
        self._loop.add_writer(self._socket, self._on_writable)
        self._step_on_turn()

    def _step_on_turn(self) -> None:
        try:
            if self._step():
                self._done.set_result(None)
        except (ConnectionError, StoreError) as error:
            self._done.set_exception(without_frames(error))

    def _step(self) -> bool:
        """Send what the socket takes, up to TURN_BYTES; return whether nothing more can be sent now.

        Gives back the part of the turn that was not needed. A failure needs all of it: the end of a response
        costs as much as a piece, and a crowd that leaves at once delays nobody else.
        """
        before, taken = self.sent, self._work()
        finished = self._send_piece()
        self._turns.give_back(taken - max(self.sent - before, LEAST_WORK))
        return finished

    def _work(self) -> int:
        """Return the most that the next step may do."""
        return max(LEAST_WORK, min(TURN_BYTES, self._ahead.stop - self._offset))

    def _send_piece(self) -> bool:
        ahead, offset = self._ahead, self._offset
        size = min(TURN_BYTES, ahead.ready_until(offset) - offset)
        if size == 0:
            return True
        try:
            sent = os.sendfile(self._socket, ahead.file.fileno(), offset, size)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _classified(error) from error
        if sent == 0:
            raise _file_too_short(offset)
        self.sent += sent
        self._offset += sent
        return self._offset == ahead.stop


class _TlsWriter:
    """Reads of the page cache through the transport, which encrypts them.

    `loop.sendfile` would read at the file's position, which growing readers share, in a thread and 256 KiB at
    a time. TLS in the kernel would need OpenSSL on the socket itself, and asyncio has it on memory buffers.
    """

    def __init__(self, writer: AbstractStreamWriter) -> None:
        self.sent = 0
        self._writer = writer

    async def send(self, ahead: ReadAhead, offset: int) -> int:
        turns = loop_turns()
        await turns.turn(TLS_WORK)
        while size := min(TLS_READ_BYTES, ahead.ready_until(offset) - offset):
            piece = _pread(ahead.file.fileno(), size, offset)
            await self._writer.write(piece)
            self.sent += len(piece)
            offset += len(piece)
            if offset < ahead.stop:
                await asyncio.sleep(0)  # as in BodySender._send: writing waits only on a full transport
                await turns.turn(TLS_WORK)
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
        raise StoreError(f"send: {reason_of(error)}") from error
    if not piece:
        raise _file_too_short(offset)
    return piece


def _classified(error: OSError) -> Exception:
    """Tell a `sendfile` failure of the disk (EIO) from a failure of the connection (every other errno)."""
    if error.errno == errno.EIO:
        return StoreError(f"send: {reason_of(error)}")
    return (
        error if isinstance(error, ConnectionError) else ConnectionAbortedError(error.errno, error.strerror)
    )


def _file_too_short(offset: int) -> StoreError:
    return StoreError(f"the blob's file ends at {offset}, before it should")
