"""The growing file: a blob in the making, which every waiting client reads while it is written.

It is a partial whose size is known, with the readers that follow it. Readers never see the writer: they ask
how far they may read, and send that much from the page cache by `sendfile`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO

from aiofiles.os import wrap

from mirror.oci.ranges import Span
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.errors import StoreError, translated
from mirror.store.executor import DiskExecutor
from mirror.store.health import FaultKind, kind_of
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.partial import Hasher, Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.util.tasks import run_to_completion

# Invariant 4: of anything up to this size nothing is sent before the whole is verified. 4 MiB costs a
# client a few milliseconds on any line, and covers every manifest and config.
HELD_WHOLE = 4 * 1024 * 1024

# What readers are woken for at once, in bytes, and how long they wait for less, in seconds.
ENOUGH = 1024 * 1024
SOON = 0.02

MakeRoom = Callable[[int], Awaitable[object]]

# aiofiles has no write at an offset, so it makes one of ours asynchronous.
_write_at = wrap(Partial.write)


class GrowingFile:
    """A partial of known size that is being filled, and how far its readers may go."""

    def __init__(
        self,
        partial: Partial | RemotePartial,
        chunks: ChunkMap,
        executor: DiskExecutor,
        *,
        verify_first: bool = False,
    ) -> None:
        """`verify_first`: nothing of any size is sent before the whole is verified.

        What is Followed is filled by another process: its readers have what `observe` is told.
        """
        self.digest = partial.digest
        self.size = chunks.size
        self.unread = True  # no reader has had a byte
        self.chunk_size = chunks.chunk_size
        self.on_wait_ahead: Callable[[], object] = (
            bool  # called when a reader waits ahead of what is contiguous
        )
        self.make_room: MakeRoom | None = None  # called, once, when the disk is full: how much is to come
        self._withheld = verify_first or chunks.size <= HELD_WHOLE
        self._last_chunk = (len(chunks) - 1) * chunks.chunk_size
        self._files = partial
        self._chunks = chunks
        self._executor = executor
        self._awaited = asyncio.Event()
        self._hasher = Hasher(partial.digest)
        self._hashing = False
        self._waiting: dict[object, int] = {}
        self._verified = False
        self._failure: Exception | None = None
        self._corrupt = False
        self._changed = asyncio.Event()  # for readers
        self._waking: asyncio.TimerHandle | None = None
        self._written = asyncio.Event()  # for the verifier
        self._closed = False

    def readable(self, offset: int = 0) -> int:
        """Where the bytes end that may be sent now from `offset` on; `offset` or less when there are none.

        Never the holdback before all is verified.
        """
        if self._verified:
            return self.size
        if self._withheld:
            return 0
        return min(self._chunks.available(offset), self._last_chunk)

    async def wait_readable(self, offset: int) -> int:
        """Wait until the byte at `offset` may be sent; returns `readable`.

        Raises what the fill failed with: no more will come, and the reader must be cut short.
        """
        if self._corrupt and self._failure is not None:
            raise self._failure.with_traceback(None)
        readable = self.readable(offset)
        if readable <= offset and not self._verified:
            readable = await self._wait(offset)
        self.unread = False
        return readable

    async def _wait(self, offset: int) -> int:
        waiter = object()
        self._waiting[waiter] = offset
        self._awaited.set()
        if offset > self._chunks.contiguous():
            self.on_wait_ahead()
        try:
            while (readable := self.readable(offset)) <= offset and not self._verified:
                if self._failure is not None:
                    raise self._failure.with_traceback(None)
                await self._changed.wait()
            return readable
        finally:
            del self._waiting[waiter]
            if not self._waiting:
                self._awaited.clear()

    async def wait_for_reader(self) -> None:
        """Until a reader waits."""
        await self._awaited.wait()

    def open_reader(self) -> BinaryIO | None:
        """A file for one reader, who closes it; None when the fill is over (look in the store)."""
        return None if self._closed else self._files.open_reader()

    def missing(self) -> list[Span]:
        return self._chunks.missing()

    def received(self) -> int:
        return self._chunks.received()

    def awaited_offsets(self) -> list[int]:
        """The offsets that readers wait at, those of other processes too."""
        return sorted([*self._waiting.values(), *self._chunks.requested_offsets()])

    def priority_offset(self) -> int | None:
        """The one offset to tell another process of: where who jumped ahead waits, or else who did not."""
        waiting = self._waiting.values()
        contiguous = self._chunks.contiguous()
        return min((each for each in waiting if each > contiguous), default=min(waiting, default=None))

    def update_chunks(self, chunks: ChunkMap) -> bool:
        """What the process that fills it has written by now.

        False when that threw away what readers here have had: they must be cut short.
        """
        if chunks is self._chunks:
            return True
        if chunks.epoch != self._chunks.epoch:
            same = (chunks.size, chunks.chunk_size) == (self.size, self.chunk_size)
            if not same or not self.unread:
                return False
        self._chunks = chunks
        self._verified = chunks.verified
        self._wake()
        return True

    def take_over(self, partial: Partial) -> None:
        """From now on this process fills it; readers go on as before."""
        if partial.chunks is None:
            raise AssertionError("nothing to continue")
        self._files = partial
        self._chunks = partial.chunks

    @property
    def verified(self) -> bool:
        """Whether all of it may be sent."""
        return self._verified

    @property
    def _partial(self) -> Partial:
        if not isinstance(self._files, Partial):
            raise AssertionError("another process fills it")
        return self._files

    async def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write consecutive bytes, off the loop. Raises StoreError, for instance when the disk is full."""
        inline = not self._hashing and self._hasher.offset == offset
        self._hashing = self._hashing or inline
        try:
            await run_to_completion(self._write(offset, parts, self._hasher if inline else None))
        finally:
            if inline:
                self._hashing = False
        self._chunks.record(offset, sum(len(part) for part in parts))
        self._written.set()
        self._tell()

    async def _write(self, offset: int, parts: Sequence[bytes | memoryview], hasher: Hasher | None) -> None:
        try:
            with translated("write the growing file"):
                await _write_at(self._partial, offset, parts, hasher, executor=self._executor.executor)
        except StoreError as error:
            make_room, self.make_room = self.make_room, None
            if make_room is None or kind_of(error) is not FaultKind.FULL:
                raise
            await make_room(self.size - self.received())
            await self._write(offset, parts, hasher)

    async def hash_contiguous(self) -> None:
        """Hash what `write` has not, as it becomes contiguous, until all is; runs beside it. StoreError."""
        while self._hasher.offset < self.size:
            if self._hashing or self._chunks.contiguous() <= self._hasher.offset:
                self._written.clear()
                await self._written.wait()
                continue
            self._hashing = True
            try:
                stop = self._chunks.contiguous()
                await run_to_completion(self._executor.run(self._partial.hash_until, self._hasher, stop))
            finally:
                self._hashing = False

    def complete(self) -> VerifiedFile | None:
        """The whole is here: release it to the readers if it is what its name says; else None."""
        if self._hasher.offset != self.size or not self._hasher.matches():
            return None
        self._verified = True
        self._chunks.set_verified()
        self._wake()
        return self._partial.verified_file()

    async def span_hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """As `Partial.hashes`; once everything is here. StoreError."""
        return await run_to_completion(self._executor.run(self._partial.span_hashes, spans))

    def fail(self, error: Exception, *, corrupt: bool = False) -> None:
        """Tell the readers that no more will come, and why; `corrupt`: nor is what is here to be sent."""
        self._failure, self._corrupt = error, corrupt
        self._wake()

    def is_corrupt(self) -> bool:
        return self._corrupt

    async def restart(self) -> None:
        """Forget what was written: it is wrong. Only while nothing of it could have been read."""
        # Whoever comes while the disk is busy must not be sent what is being thrown away.
        withheld, self._withheld = self._withheld, True
        self._chunks = await self._executor.run(self._partial.allocate, self.size, self._chunks.chunk_size)
        self._hasher = Hasher(self.digest)
        self._withheld = withheld

    def close(self) -> None:
        """The fill is over: no new readers. Those there are keep what they have open."""
        self._closed = True

    def _tell(self) -> None:
        """Wake the readers for whom there is enough, or at least something before long.

        Most of what several connections bring is not what is waited for, and what is, comes in small pieces:
        a herd that wakes for each of them does little else.
        """
        found = [(self.readable(offset), offset) for offset in set(self._waiting.values())]
        ahead = max((readable - offset for readable, offset in found), default=0)
        if ahead <= 0:
            return
        if ahead >= ENOUGH or self.unread or max(found)[0] >= self._last_chunk:
            self._wake()
        elif self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(SOON, self._wake)

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
