"""The listener for other mirrors: a blob that this process downloads, from an offset on, as its bytes come.

Only mirrors with the secret of the peers are answered (`mirror.access.peer_proof`); all others get 403, and
learn nothing. A blob that is in the store already is sent, too: a mirror that followed it wants the rest.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import BinaryIO

from aiohttp import web

from mirror.access.peer_proof import ANSWER_HEADER, BEHIND_HEADER, REQUEST_HEADER, PeerProof, subject
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import GrowingFile
from mirror.store.parts.interfaces import StoreParts
from mirror.system.sockets import bind_all, format_address
from mirror.transfer.shared.lead_window import LeadWindow
from mirror.transfer.shared.leading import LeadingFills
from mirror.upstream.errors import UpstreamError
from mirror.util.log import get_logger
from mirror.web.connections.side_listener import SideBounds, SideListener

log = get_logger(__name__)

# Bytes of one read and one write.
PIECE = 1024 * 1024

# Connections at a time: a herd of mirrors follows one blob. Who has no secret can take no descriptors beyond.
CONNECTIONS = 1024

# Mirrors that are sent a piece at the same time, and for how long, in seconds, one that is slow counts as
# such: an upload to the object store has its share of the line beside them, however many follow.
TURNS = 8
TURN_SECONDS = 0.25

# Bytes of one write where more wait for their turn: none is to be silent for long.
SHORT_PIECE = 128 * 1024

# Bytes that the kernel may hold for a connection beyond those that are on their way.
UNSENT_BYTES = 64 * 1024

# Time, in seconds, in which a mirror takes a piece: a herd shares a slow line.
UNREAD_SECONDS = 300.0

MISDIRECTED = 421

_PATH = re.compile(r"/v2/peers/blobs/([a-z0-9]+:[0-9a-f]+)")
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


class PeerListener:
    """Server of the peers at one address, which all processes of this mirror share."""

    def __init__(
        self,
        store: StoreParts,
        leading: LeadingFills,
        proof: PeerProof,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._leading = leading
        self._proof = proof
        self._wall_clock = wall_clock
        self._turns = Turns()
        self._listener = SideListener(self._answer, SideBounds(CONNECTIONS, unread=UNREAD_SECONDS))

    async def start(self, address: str) -> str:
        """Begin to answer at HOST:PORT; return the URL. Raises OSError for an address that cannot be had."""
        sockets = bind_all([address], shared=True)
        await self._listener.start(sockets)
        found = format_address(sockets[0])
        log.info("listener for other mirrors", address=found)
        return f"http://{found}"

    async def close(self) -> None:
        """Stop answering."""
        await self._listener.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, ranges = _PATH.fullmatch(request.path), _RANGE.fullmatch(request.headers.get("Range", ""))
        if request.method != "GET" or path is None or ranges is None:
            return web.Response(status=404)
        start, about = int(ranges[1]), subject(path[1], int(ranges[1]))
        header = request.headers.get(REQUEST_HEADER, "")
        nonce = self._proof.verify_request(header, about, self._wall_clock())
        if nonce is None:
            return web.Response(status=403)
        try:
            digest = Digest.parse(path[1])
        except RegistryError:
            return web.Response(status=404)
        stop = int(ranges[2]) + 1 if ranges[2] else None
        return await self._send(request, digest, (start, stop), self._proof.answer(nonce, about))

    async def _send(
        self, request: web.BaseRequest, digest: Digest, span: tuple[int, int | None], proof: str
    ) -> web.StreamResponse:
        growing = await self._leading.wait_content(digest, request.headers["Range"])
        try:
            if growing is not None and (file := growing.open_reader()) is not None:
                with file:
                    sending = _Sending(request, self._store.executor, file, self._turns)
                    return await sending.follow(growing, self._leading.window(digest), span, proof)
            blob = await self._store.content.open_any(digest)
            if blob is None:
                return web.Response(status=MISDIRECTED, headers={"Connection": "close"})
            with blob.file:
                sending = _Sending(request, self._store.executor, blob.file, self._turns)
                return await sending.send(span, blob.size, proof)
        except (StoreError, UpstreamError) as error:
            log.debug("peer not sent a blob to its end", digest=str(digest), reason=str(error))
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=503)


class Turns:
    """The turns of all that are sent blobs."""

    def __init__(self, turns: int = TURNS, seconds: float = TURN_SECONDS) -> None:
        self._free = asyncio.Semaphore(turns)
        self._seconds = seconds
        self._waiting = 0

    @property
    def piece(self) -> int:
        """Return how many bytes to send in one turn."""
        return SHORT_PIECE if self._waiting else PIECE

    async def take(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send in a turn, which others have when this takes long."""
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        release = _Once(self._free.release)
        timer = asyncio.get_running_loop().call_later(self._seconds, release)
        try:
            await send()
        finally:
            timer.cancel()
            release()


class _Once:
    """A call that is made once."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class _Sending:
    """One answer: a file up to where it may be read, and on as it grows."""

    def __init__(
        self, request: web.BaseRequest, executor: DiskExecutor, file: BinaryIO, turns: Turns
    ) -> None:
        self._request = request
        self._executor = executor
        self._file = file
        self._turns = turns
        self._growing: GrowingFile | None = None
        self._window: LeadWindow | None = None

    async def follow(
        self, growing: GrowingFile, window: LeadWindow | None, span: tuple[int, int | None], proof: str
    ) -> web.StreamResponse:
        """Send a span of a file that grows."""
        self._growing, self._window = growing, window
        following = nullcontext() if window is None else window.following(span[0])
        with following:
            return await self.send(span, growing.size, proof)

    async def send(self, span: tuple[int, int | None], size: int, proof: str) -> web.StreamResponse:
        """Send a span of a file."""
        start, stop = span[0], size if span[1] is None else min(span[1], size)
        if start >= stop:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        response = web.StreamResponse(status=206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers[ANSWER_HEADER] = proof
        if self._window is not None:
            response.headers[BEHIND_HEADER] = str(self._window.best - start)
        response.content_length = stop - start
        await response.prepare(self._request)
        keep_short(self._request)
        await self._send_body(response, start, stop)
        await response.write_eof()
        return response

    async def _send_body(self, response: web.StreamResponse, offset: int, stop: int) -> None:
        while offset < stop:
            readable = stop if self._growing is None else await self._growing.wait_readable(offset)
            while offset < min(readable, stop):
                length = min(self._turns.piece, min(readable, stop) - offset)
                data = await self._executor.run(os.pread, self._file.fileno(), length, offset)
                if not data:
                    raise StoreError("the file is shorter than it was")
                if self._window is not None and offset >= self._window.best:
                    await response.write(data)  # what one mirror has is not lost with this one
                else:
                    await self._turns.take(partial(response.write, data))
                offset += len(data)
                if self._window is not None:
                    self._window.advance(offset)


def keep_short(request: web.BaseRequest) -> None:
    """Keep what the kernel holds for a connection short: who has had its turn takes no more of the line."""
    if request.transport is not None:
        with suppress(OSError):
            request.transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES
            )
