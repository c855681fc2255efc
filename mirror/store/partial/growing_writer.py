"""The writer of a growing file and its verifier: bytes from sources to the disk, hashed as they come.

The writer has room made for the bytes. The verifier releases a blob that has its digest, and no other one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiofiles.os import wrap

from mirror.oci.ranges import Span
from mirror.store.blobs import quota
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.errors import StoreError, translated
from mirror.store.executor import DiskExecutor
from mirror.store.health import FaultKind, kind_of
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Hasher, Partial
from mirror.util.tasks import run_to_completion

MakeRoom = Callable[[int], Awaitable[object]]

# Bytes after which the room is checked first. A client waits for the first ones, and a check delays them.
FIRST_ROOM = 256 * 1024

# aiofiles has no write at an offset, so it wraps one of ours.
_write_at = wrap(Partial.write)


class GrowingWriter:
    """The right to fill a growing file, of the process that has the lock of the partial."""

    def __init__(
        self,
        file: GrowingFile,
        partial: Partial,
        executor: DiskExecutor,
        make_room: MakeRoom | None = None,
    ) -> None:
        """`make_room` is called on a full disk, with the bytes that are missing."""
        self.file = file
        self.verifier = GrowingVerifier(file, partial, executor)
        self._partial = partial
        self._executor = executor
        self._make_room = make_room
        self._making_room = asyncio.Lock()
        self._room_made_at = -1  # how many bytes were here when room was made last
        self._unaccounted = 0  # bytes written since room was asked for
        self._first_room = False

    def ask_for_room_soon(self) -> None:
        """Ask for room once FIRST_ROOM bytes are written, and from then on as always."""
        self._first_room = True

    async def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write consecutive bytes, off the loop. Raises StoreError, for instance on a full disk."""
        hasher = self.verifier.claim(offset)
        try:
            await run_to_completion(self._write(offset, parts, hasher))
        finally:
            if hasher is not None:
                self.verifier.release()
        length = sum(len(part) for part in parts)
        self.file.chunks.record(offset, length)
        self.verifier.wake()
        self.file.notify_readers()
        self._unaccounted += length
        step = min(FIRST_ROOM, quota.ROOM_STEP) if self._first_room else quota.ROOM_STEP
        if self._unaccounted >= step:
            self._unaccounted, self._first_room = 0, False
            self.file.room_due.set()

    async def _write(
        self,
        offset: int,
        parts: Sequence[bytes | memoryview],
        hasher: Hasher | None,
        *,
        again: bool = True,
    ) -> None:
        try:
            with translated("write the growing file"):
                await _write_at(self._partial, offset, parts, hasher, executor=self._executor.executor)
        except StoreError as error:
            if not again or self._make_room is None or kind_of(error) is not FaultKind.FULL:
                raise
            async with self._making_room:  # once for all connections that have met the full disk
                if self._room_made_at != self.file.received():
                    self._room_made_at = self.file.received()
                    await self._make_room(self.file.size - self.file.received())
            await self._write(offset, parts, hasher, again=False)

    async def restart(self) -> None:
        """Discard the bytes, which are wrong. Only while no reader here can have received any.

        Readers in other processes learn of it by the epoch of the map.
        """
        file = self.file
        # A reader that comes while the disk is busy must not receive bytes that are being discarded.
        withheld, file.withheld = file.withheld, True
        file.chunks = await self._executor.run(
            self._partial.allocate,
            file.size,
            file.chunk_size,
            public=file.chunks.origin is Origin.PUBLIC,
        )
        self.verifier.restart()
        file.withheld = withheld


class GrowingVerifier:
    """One hash over a growing file, by the writer where its bytes continue it, else from the disk."""

    def __init__(self, file: GrowingFile, partial: Partial, executor: DiskExecutor) -> None:
        self.file = file
        self._partial = partial
        self._executor = executor
        self._hasher = Hasher(file.digest)
        self._hashing = False
        self._changed = asyncio.Event()

    def claim(self, offset: int) -> Hasher | None:
        """Return the hasher to one who has the bytes at `offset` in memory, if these are the next ones.

        The hasher is to be given back by `release`.
        """
        if self._hashing or self._hasher.offset != offset:
            return None
        self._hashing = True
        return self._hasher

    def release(self) -> None:
        """Take the hasher back."""
        self._hashing = False

    def wake(self) -> None:
        """Have `hash_contiguous` look again: bytes have come, or all of the blob is wanted."""
        self._changed.set()

    async def hash_contiguous(self) -> None:
        """Hash the bytes that the writer did not, as they become contiguous, until all are hashed.

        A blob that is read by ranges is hashed once all of it is wanted. Runs beside writes. StoreError.
        """
        file = self.file
        while self._hasher.offset < file.size:
            waits = self._hashing or file.chunks.contiguous() <= self._hasher.offset
            if waits or not file.demand.whole:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._hashing = True
            try:
                stop = file.chunks.contiguous()
                await run_to_completion(self._executor.run(self._partial.hash_until, self._hasher, stop))
            finally:
                self._hashing = False

    def complete(self) -> VerifiedFile | None:
        """Release a blob that has its digest to the readers, and return it for adoption; else None."""
        if self._hasher.offset != self.file.size or not self._hasher.matches():
            return None
        self.file.verified = True
        self.file.chunks.set_verified()
        self.file.wake_readers()
        return self._partial.verified_file()

    async def span_hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """Hash spans as `Partial.span_hashes`; once all bytes are here. StoreError."""
        return await run_to_completion(self._executor.run(self._partial.span_hashes, spans))

    def restart(self) -> None:
        """Hash from the beginning: the file has been emptied."""
        self._hasher = Hasher(self.file.digest)
