"""The listener for other mirrors: a blob that this process downloads, from an offset on, as its bytes come.

Only mirrors with the secret of the peers are answered (`mirror.access.peer_proof`); all others get 403, and
learn nothing. A blob that is in the store already is sent, too: a mirror that followed it wants the rest.
"""

import os
import re
import time
from collections.abc import Callable
from typing import BinaryIO

from aiohttp import web

from mirror.access.peer_proof import ANSWER_HEADER, REQUEST_HEADER, PeerProof, subject
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import GrowingFile
from mirror.store.store import Store
from mirror.system.sockets import bind_all, format_address
from mirror.transfer.shared.leading import LeadingFills
from mirror.upstream.errors import UpstreamError
from mirror.util.log import get_logger
from mirror.web.connections.side_listener import SideBounds, SideListener

log = get_logger(__name__)

# Bytes of one read and one write.
PIECE = 1024 * 1024

# Connections at a time: a herd of mirrors follows one blob. Who has no secret can take no descriptors beyond.
CONNECTIONS = 1024

# Time, in seconds, in which a mirror takes a piece: a herd shares a slow line.
UNREAD_SECONDS = 300.0

MISDIRECTED = 421

_PATH = re.compile(r"/v2/peers/blobs/([a-z0-9]+:[0-9a-f]+)")
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


class PeerListener:
    """Server of the peers at one address, which all processes of this mirror share."""

    def __init__(
        self,
        store: Store,
        leading: LeadingFills,
        proof: PeerProof,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._leading = leading
        self._proof = proof
        self._wall_clock = wall_clock
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
                    return await _Sending(request, self._store.executor, file, growing).send(
                        span, growing.size, proof
                    )
            blob = await self._store.content.open_any(digest)
            if blob is None:
                return web.Response(status=MISDIRECTED, headers={"Connection": "close"})
            with blob.file:
                return await _Sending(request, self._store.executor, blob.file, None).send(
                    span, blob.size, proof
                )
        except (StoreError, UpstreamError) as error:
            log.debug("peer not sent a blob to its end", digest=str(digest), reason=str(error))
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=503)


class _Sending:
    """One answer: a file up to where it may be read, and on as it grows."""

    def __init__(
        self, request: web.BaseRequest, executor: DiskExecutor, file: BinaryIO, growing: GrowingFile | None
    ) -> None:
        self._request = request
        self._executor = executor
        self._file = file
        self._growing = growing

    async def send(self, span: tuple[int, int | None], size: int, proof: str) -> web.StreamResponse:
        start, stop = span[0], size if span[1] is None else min(span[1], size)
        if start >= stop:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        response = web.StreamResponse(status=206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers[ANSWER_HEADER] = proof
        response.content_length = stop - start
        await response.prepare(self._request)
        offset = start
        while offset < stop:
            readable = size if self._growing is None else await self._growing.wait_readable(offset)
            while offset < min(readable, stop):
                length = min(PIECE, min(readable, stop) - offset)
                data = await self._executor.run(os.pread, self._file.fileno(), length, offset)
                if not data:
                    raise StoreError("the file is shorter than it was")
                await response.write(data)
                offset += len(data)
        await response.write_eof()
        return response
