"""The growing file: a blob that is being filled, and that every waiting client reads meanwhile.

It is a partial of known size, with the readers that follow it. Readers do not know the writer: they ask how
far they may read, and send that much from the page cache by `sendfile`. The file is changed by the writer and
the verifier (`store.partial.growing_writer`), and, where another process fills the blob, by
`store.partial.remote_view`.
"""

import asyncio
from typing import BinaryIO

from mirror.oci.ranges import Span
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.demand import Demand
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial

# Invariant 4: a blob up to this size is verified as a whole before any byte is sent. 4 MiB costs a client a
# few milliseconds on any line, and covers every manifest and config.
HOLDBACK_BYTES = 4 * 1024 * 1024

# Readers are woken at once for this many bytes, and after this delay, in seconds, for fewer.
WAKE_BYTES = 1024 * 1024
WAKE_DELAY = 0.02


class GrowingFile:
    """A partial of known size that is being filled, and how far its readers may read.

    A reader that waits beyond a gap sets `demand.changed`. `room_due` is set from when room is to be made for
    the next bytes until it was. `verified`: all of the blob may be sent; `rewritten`: another process began
    the file again after readers here had received bytes of it.
    """

    def __init__(
        self,
        source: Partial | RemotePartial,
        chunks: ChunkMap,
        demand: Demand | None = None,
        *,
        verify_first: bool = False,
    ) -> None:
        """Prepare; `verify_first`: a blob of any size is verified as a whole before any byte is sent."""
        self.digest = source.digest
        self.size = chunks.size
        self.chunk_size = chunks.chunk_size
        self.source = source
        self.chunks = chunks
        self.demand = demand or Demand(whole=True)
        self.room_due = asyncio.Event()
        self.unread = True  # no reader received a byte
        self.withheld = (
            verify_first or chunks.size <= HOLDBACK_BYTES
        )  # no byte is sent before all are verified
        self.verified = False
        self.rewritten = False
        self._last_chunk = (len(chunks) - 1) * chunks.chunk_size
        self._reader_waits = asyncio.Event()
        self._waiting: dict[object, int] = {}
        self._error: Exception | None = None
        self._corrupt = False
        self._readable_changed = asyncio.Event()  # for readers
        self._wake_timer: asyncio.TimerHandle | None = None
        self._closed = False

    def readable(self, offset: int = 0) -> int:
        """Return where the bytes end that may be sent from `offset` on now; `offset` or less if none may.

        The last chunk (the holdback) is never included before the whole blob is verified.
        """
        if self.verified:
            return self.size
        if self.withheld:
            return 0
        return self.chunks.sendable(offset)

    async def wait_readable(self, offset: int) -> int:
        """Wait until the byte at `offset` may be sent; return `readable`.

        Raises the error with which the fill failed: the reader must be cut short, since no more bytes will
        come.
        """
        if self._corrupt and self._error is not None:
            raise self._error.with_traceback(None)
        readable = self.readable(offset)
        if readable <= offset and not self.verified:
            readable = await self._wait(offset)
        self.unread = False
        return readable

    async def _wait(self, offset: int) -> int:
        waiter = object()
        self._waiting[waiter] = offset
        self._reader_waits.set()
        if offset > self.chunks.contiguous():
            self.demand.changed.set()
        try:
            while (readable := self.readable(offset)) <= offset and not self.verified:
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
        if (waits or len(self.chunks) in self.chunks.requests.slots()) and self.chunks.release_tail():
            self.wake_readers()

    def open_reader(self) -> BinaryIO | None:
        """Open a file for one reader, which closes it; None when the fill is over: look in the store."""
        return None if self._closed else self.source.open_reader()

    def missing(self) -> list[Span]:
        """Return the spans that are not here."""
        return self.chunks.missing()

    def received(self) -> int:
        """Return how many bytes are here."""
        return self.chunks.received()

    def remote_requests(self) -> tuple[list[int], bool]:
        """Return the offsets that readers of other processes wait at, and whether one reads all of it."""
        return self.chunks.requests.offsets(), self.chunks.requests.whole()

    async def wait_for_reader(self) -> None:
        """Wait until a reader waits."""
        await self._reader_waits.wait()

    def waiting_offsets(self) -> list[int]:
        """Return the offsets that readers of this process wait at."""
        return list(self._waiting.values())

    def awaited_offsets(self) -> list[int]:
        """Return the offsets that readers wait at, here and in other processes."""
        return sorted([*self._waiting.values(), *self.chunks.requests.offsets()])

    def fail(self, error: Exception, *, corrupt: bool = False) -> None:
        """Tell the readers why no more bytes will come; `corrupt`: present bytes must not be sent either."""
        self._error, self._corrupt = error, corrupt
        self.wake_readers()

    def is_corrupt(self) -> bool:
        """Return whether the bytes here must not be sent."""
        return self._corrupt

    def close(self) -> None:
        """End the fill: no new readers. The present ones keep the file they have open."""
        self._closed = True

    def notify_readers(self) -> None:
        """Wake the readers if one has enough bytes, or else after a short delay.

        Most bytes that several connections bring are not those that readers wait for, and those come in small
        pieces: a herd that wakes for each piece does little else.
        """
        found = [(self.readable(offset), offset) for offset in set(self._waiting.values())]
        ahead = max((readable - offset for readable, offset in found), default=0)
        if ahead <= 0:
            return
        if ahead >= WAKE_BYTES or self.unread or max(found)[0] >= self._last_chunk:
            self.wake_readers()
        elif self._wake_timer is None:
            self._wake_timer = asyncio.get_running_loop().call_later(WAKE_DELAY, self.wake_readers)

    def wake_readers(self) -> None:
        """Have all readers look again."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        changed, self._readable_changed = self._readable_changed, asyncio.Event()
        changed.set()
