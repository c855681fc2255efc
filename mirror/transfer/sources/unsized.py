"""Download of a blob whose size is not known: neither its response, nor a HEAD, nor a manifest tells.

The bytes are written as they come, and no client reads them before the end, which tells the size. Then the
blob is verified like any other. A download that breaks is asked for again plainly, and read past what is
here. An upstream that sends without end displaces next to nothing: beyond EVICTABLE bytes, a blob of unknown
size gets the room that is free, and what it finds none for is passed through.
"""

import time

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs import quota
from mirror.store.errors import NoRoom, translated
from mirror.store.partial.partial import Hasher, Partial
from mirror.transfer.context import TransferContext
from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.transfer.sources.compressed import decode
from mirror.transfer.sources.receiving import skipping
from mirror.upstream.body import labelled
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger

log = get_logger(__name__)

# Bytes of one write.
WRITE_BYTES = 1024 * 1024

# Bytes of a blob of unknown size for which others may be evicted. Manifests name the size of each layer, so
# what is left is small: configs, signatures, and what a client asks for without a manifest.
EVICTABLE = 64 * 1024 * 1024


class UnsizedDownload:
    """One download into a locked partial; `run` is called once."""

    def __init__(
        self,
        context: TransferContext,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        partial: Partial,
    ) -> None:
        self._context = context
        self._upstream = upstream
        self._repository = repository
        self._digest = digest
        self._partial = partial
        self._hasher = Hasher(digest)
        self._encoding = ""  # with which the bytes were labelled
        self._offset = 0  # end of the bytes that are written
        self._checked = -1  # up to where room was made
        self._allowed = 0  # bytes that the cache may hold

    async def run(self) -> int:
        """Download to the end, and record all of it in the partial, decoded if need be; return the size.

        Raises UpstreamError, WrongBytes among them, or StoreError, NoRoom for what the cache cannot hold.
        """
        failures = ConsecutiveFailures(self._context.settings.attempts)
        while True:
            source, began = self._upstream.usable_sources()[0], time.monotonic()
            try:
                await self._receive(source)
                break
            except UpstreamError as error:
                failures.record(began, self._offset, time.monotonic())
                if not error.temporary or failures.too_many:
                    raise
                log.info("transfer broke, resuming", reason=str(error), digest=str(self._digest))
        if not self._hasher.matches():
            size = await decode(self._context, self._partial, [self._encoding])
            if size is not None:
                return size
            message = (
                f"{self._upstream.name} sent bytes that are not {self._digest}{labelled(self._encoding)}"
            )
            raise WrongBytes(Failure.INVALID, message)
        record, chunk_size = self._partial.record_whole, self._context.settings.chunk_size
        await self._context.store.executor.run(record, self._offset, chunk_size)
        return self._offset

    async def _receive(self, source: Source) -> None:
        path, location, buffer = self._repository.path, DirectLocation(), bytearray()
        async with (
            source.slots.hold(),
            source.open_blob(path, self._digest, (0, None), location) as body,
        ):
            self._encoding = body.encoding
            try:
                async for piece in skipping(body.chunks(), self._offset):
                    buffer += piece
                    if len(buffer) >= WRITE_BYTES:
                        await self._write(bytes(buffer))
                        buffer.clear()
            finally:
                await self._write(bytes(buffer))

    async def _write(self, data: bytes) -> None:
        stop = self._offset + len(data)
        if stop > self._checked:
            await self._make_room()
            self._checked = stop + quota.ROOM_STEP
        if stop > self._allowed:
            raise NoRoom(f"{self._digest} takes more than the {self._allowed} bytes that may be kept")
        with translated("write a blob of unknown size"):
            await self._context.store.executor.run(self._partial.write, self._offset, [data], self._hasher)
        self._offset += len(data)

    async def _make_room(self) -> None:
        """Make room as bytes come, and look how many may be kept."""
        room = self._context.store.room
        # What is written already counts as used.
        kept = max(self._offset + await room.left(), EVICTABLE)
        self._allowed = min(await room.size_limit(), kept)
        await room.evict_excess()
