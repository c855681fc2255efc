"""The growing file: a blob that is being filled, and that every waiting client reads meanwhile.

It is a partial of known size, with the readers that follow it. Readers do not know the writer: they ask how
far they may read, and send that much from the page cache by `sendfile`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO

from aiofiles.os import wrap

from mirror.oci.ranges import Span
from mirror.store.blobs import quota
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.errors import StoreError, translated
from mirror.store.executor import DiskExecutor
from mirror.store.health import FaultKind, kind_of
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.partial import Hasher, Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.util.callbacks import ignore
from mirror.util.tasks import run_to_completion

# Invariant 4: a blob up to this size is verified as a whole before any byte is sent. 4 MiB costs a client a
# few milliseconds on any line, and covers every manifest and config.
HOLDBACK_BYTES = 4 * 1024 * 1024

# Readers are woken at once for this many bytes, and after this delay, in seconds, for fewer.
WAKE_BYTES = 1024 * 1024
WAKE_DELAY = 0.02

MakeRoom = Callable[[int], Awaitable[object]]

# aiofiles has no write at an offset, so it wraps one of ours.
_write_at = wrap(Partial.write)


class GrowingFile:
    """A partial of known size that is being filled, and how far its readers may read."""

    def __init__(
        self,
        partial: Partial | RemotePartial,
        chunks: ChunkMap,
        executor: DiskExecutor,
        *,
        verify_first: bool = False,
    ) -> None:
        """Prepare; `verify_first`: a blob of any size is verified as a whole before any byte is sent.

        A RemotePartial is filled by another process: its readers get what `update_chunks` is called with.
        """
        self.digest = partial.digest
        self.size = chunks.size
        self.unread = True  # no reader received a byte
        self.chunk_size = chunks.chunk_size
        self.on_wait_ahead: Callable[[], object] = ignore  # called when a reader waits beyond a gap
        self.on_room_needed: Callable[[], object] = ignore  # called whenever ROOM_STEP bytes were written
        self.make_room: MakeRoom | None = None  # called on a full disk, with the bytes that are missing
        self._making_room = asyncio.Lock()
        self._room_made_at = -1  # how many bytes were here when room was made last
        self._unaccounted = 0  # bytes written since `on_room_needed` was called
        self._withheld = verify_first or chunks.size <= HOLDBACK_BYTES
        self._last_chunk = (len(chunks) - 1) * chunks.chunk_size
        self._source = partial
        self._chunks = chunks
        self._executor = executor
        self._reader_waits = asyncio.Event()
        self._hasher = Hasher(partial.digest)
        self._hashing = False
        self._waiting: dict[object, int] = {}
        self._verified = False
        self._error: Exception | None = None
        self._corrupt = False
        self._rewritten = False
        self._readable_changed = asyncio.Event()  # for readers
        self._wake_timer: asyncio.TimerHandle | None = None
        self._bytes_written = asyncio.Event()  # for the verifier
        self._closed = False

    def readable(self, offset: int = 0) -> int:
        """Return where the bytes end that may be sent from `offset` on now; `offset` or less if none may.

        The last chunk (the holdback) is never included before the whole blob is verified.
        """
        if self._verified:
            return self.size
        if self._withheld:
            return 0
        return self._chunks.sendable(offset)

    async def wait_readable(self, offset: int) -> int:
        """Wait until the byte at `offset` may be sent; return `readable`.

        Raises the error with which the fill failed: the reader must be cut short, since no more bytes will
        come.
        """
        if self._corrupt and self._error is not None:
            raise self._error.with_traceback(None)
        readable = self.readable(offset)
        if readable <= offset and not self._verified:
            readable = await self._wait(offset)
        self.unread = False
        return readable

    async def _wait(self, offset: int) -> int:
        waiter = object()
        self._waiting[waiter] = offset
        self._reader_waits.set()
        if offset > self._chunks.contiguous():
            self.on_wait_ahead()
        try:
            while (readable := self.readable(offset)) <= offset and not self._verified:
                if self._error is not None:
                    raise self._error.with_traceback(None)
                await self._readable_changed.wait()
            return readable
        finally:
            del self._waiting[waiter]
            if not self._waiting:
                self._reader_waits.clear()

    def release_tail(self) -> None:
        """Let readers that wait for the last chunk have it, and hold back another one.

        For a blob that is read by ranges: its index is at its end, and most of it may never come.
        """
        waits = any(offset >= self._last_chunk for offset in self._waiting.values())
        if (waits or len(self._chunks) in self._chunks.requests()) and self._chunks.release_tail():
            self._wake_readers()

    @property
    def withheld(self) -> bool:
        """Return whether all of the blob is verified before any byte is sent."""
        return self._withheld

    def remote_requests(self) -> tuple[list[int], bool]:
        """Return the offsets that readers of other processes wait at, and whether one reads all of it."""
        return self._chunks.requested_offsets(), self._chunks.whole_requested()

    async def wait_for_reader(self) -> None:
        """Wait until a reader waits."""
        await self._reader_waits.wait()

    def open_reader(self) -> BinaryIO | None:
        """Open a file for one reader, which closes it; None when the fill is over: look in the store."""
        return None if self._closed else self._source.open_reader()

    def missing(self) -> list[Span]:
        """Return the spans that are not here."""
        return self._chunks.missing()

    def received(self) -> int:
        """Return how many bytes are here."""
        return self._chunks.received()

    def awaited_offsets(self) -> list[int]:
        """Return the offsets that readers wait at, here and in other processes."""
        return sorted([*self._waiting.values(), *self._chunks.requested_offsets()])

    def priority_offset(self) -> int | None:
        """Return the offset to request of another process: a reader's beyond a gap, or else the first one."""
        waiting = self._waiting.values()
        contiguous = self._chunks.contiguous()
        return min((each for each in waiting if each > contiguous), default=min(waiting, default=None))

    def update_chunks(self, chunks: ChunkMap) -> bool:
        """Take over the chunk map of the process that fills the blob.

        Returns False if that process threw away bytes that readers here received: they must be cut short.
        """
        if chunks is self._chunks:
            return True
        if chunks.epoch != self._chunks.epoch:
            same = (chunks.size, chunks.chunk_size) == (self.size, self.chunk_size)
            if not same or not self.unread:
                self._rewritten = True
                return False
        self._chunks = chunks
        self._verified = chunks.verified
        self._wake_readers()
        return True

    def take_over(self, partial: Partial) -> None:
        """Fill the blob by this process from now on; readers go on as before."""
        if partial.chunks is None:
            raise AssertionError("the partial has no chunk map to continue")
        self._source = partial
        self._chunks = partial.chunks

    @property
    def verified(self) -> bool:
        """Return whether all of the blob may be sent."""
        return self._verified

    @property
    def _partial(self) -> Partial:
        if not isinstance(self._source, Partial):
            raise AssertionError("another process fills this blob")
        return self._source

    async def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write consecutive bytes, off the loop. Raises StoreError, for instance on a full disk."""
        inline = not self._hashing and self._hasher.offset == offset
        self._hashing = self._hashing or inline
        try:
            await run_to_completion(self._write(offset, parts, self._hasher if inline else None))
        finally:
            if inline:
                self._hashing = False
        length = sum(len(part) for part in parts)
        self._chunks.record(offset, length)
        self._bytes_written.set()
        self._notify_readers()
        self._unaccounted += length
        if self._unaccounted >= quota.ROOM_STEP:
            self._unaccounted = 0
            self.on_room_needed()

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
            if not again or self.make_room is None or kind_of(error) is not FaultKind.FULL:
                raise
            async with self._making_room:  # once for all connections that have met the full disk
                if self._room_made_at != self.received():
                    self._room_made_at = self.received()
                    await self.make_room(self.size - self.received())
            await self._write(offset, parts, hasher, again=False)

    async def hash_contiguous(self) -> None:
        """Hash the bytes that `write` did not, as they become contiguous, until all are hashed.

        Runs beside `write`. StoreError.
        """
        while self._hasher.offset < self.size:
            if self._hashing or self._chunks.contiguous() <= self._hasher.offset:
                self._bytes_written.clear()
                await self._bytes_written.wait()
                continue
            self._hashing = True
            try:
                stop = self._chunks.contiguous()
                await run_to_completion(self._executor.run(self._partial.hash_until, self._hasher, stop))
            finally:
                self._hashing = False

    def complete(self) -> VerifiedFile | None:
        """Release a blob that has its digest to the readers, and return it for adoption; else None."""
        if self._hasher.offset != self.size or not self._hasher.matches():
            return None
        self._verified = True
        self._chunks.set_verified()
        self._wake_readers()
        return self._partial.verified_file()

    async def span_hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """Hash spans as `Partial.span_hashes`; once all bytes are here. StoreError."""
        return await run_to_completion(self._executor.run(self._partial.span_hashes, spans))

    def fail(self, error: Exception, *, corrupt: bool = False) -> None:
        """Tell the readers why no more bytes will come; `corrupt`: present bytes must not be sent either."""
        self._error, self._corrupt = error, corrupt
        self._wake_readers()

    def is_corrupt(self) -> bool:
        """Return whether the bytes here must not be sent."""
        return self._corrupt

    def is_rewritten(self) -> bool:
        """Return whether another process began the file again after readers here had received bytes of it."""
        return self._rewritten

    async def restart(self) -> None:
        """Discard the bytes, which are wrong. Only while no reader here can have received any.

        Readers in other processes learn of it by the epoch of the map.
        """
        # A reader that comes while the disk is busy must not receive bytes that are being discarded.
        withheld, self._withheld = self._withheld, True
        self._chunks = await self._executor.run(
            self._partial.allocate,
            self.size,
            self._chunks.chunk_size,
            public=self._chunks.origin is Origin.PUBLIC,
        )
        self._hasher = Hasher(self.digest)
        self._withheld = withheld

    def close(self) -> None:
        """End the fill: no new readers. The present ones keep the file they have open."""
        self._closed = True

    def _notify_readers(self) -> None:
        """Wake the readers if one has enough bytes, or else after a short delay.

        Most bytes that several connections bring are not those that readers wait for, and those come in small
        pieces: a herd that wakes for each piece does little else.
        """
        found = [(self.readable(offset), offset) for offset in set(self._waiting.values())]
        ahead = max((readable - offset for readable, offset in found), default=0)
        if ahead <= 0:
            return
        if ahead >= WAKE_BYTES or self.unread or max(found)[0] >= self._last_chunk:
            self._wake_readers()
        elif self._wake_timer is None:
            self._wake_timer = asyncio.get_running_loop().call_later(WAKE_DELAY, self._wake_readers)

    def _wake_readers(self) -> None:
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        changed, self._readable_changed = self._readable_changed, asyncio.Event()
        changed.set()
