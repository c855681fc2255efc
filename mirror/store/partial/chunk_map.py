"""The chunk map of a growing file: how many bytes of each chunk are here.

A small memory-mapped file beside the data: a header, then one 32-bit count per chunk. A chunk counts its
bytes, so that a transfer that breaks in the middle of a chunk resumes where it stopped. Data is written
before its count, so after `kill -9` the map never promises too much; after a power loss it may, and then
verification fails and the blob is fetched again.

    offset  0  magic         8 bytes
            8  size          u64, bytes of the blob
           16  chunk size    u32, bytes
           20  epoch         u32, how often the blob was started from nothing
           24  state         u32, 1 when the whole blob was verified, just before it is adopted, 2 as long
                             as all bytes came without an account, and 4 once one came with an account;
                             an earlier version tells neither; 8 once the last chunk may have been sent
           28  requests[8]   u32 each, 1 + the chunk that readers of another process wait for; 0 for none;
                             with the highest bit set if one of them reads the whole blob
           60  count[i]      u32 each, bytes of chunk i that are here, from its start

The holder of the lock on the file writes everything but the requests. Other processes read the map with
`pread`: a mapping would kill them (SIGBUS) when the file is truncated under it because the blob is started
from nothing.
"""

import mmap
import os
import struct
from collections.abc import Sequence

from mirror.oci.ranges import Span
from mirror.store.blobs.entries import Origin

MAGIC = b"RMCHUNK2"
HEADER = struct.Struct("<8sQIII32x")
COUNT = struct.Struct("<I")
STATE_AT = 24
VERIFIED = 1
TAIL_RELEASED = 8
ORIGINS = {Origin.UNKNOWN: 0, Origin.PUBLIC: 2, Origin.PRIVATE: 4}
REQUESTS_AT = 28
REQUESTS = struct.Struct("<8I")
REQUEST_SLOTS = 8
WHOLE_REQUESTED = 1 << 31


class ChunkMap:
    """The counts per chunk, read and written through memory shared with other processes."""

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        """Read the counts. `memory` must hold a map (`_is_map`)."""
        self._memory = memory
        self.requests = ChunkRequests(self, memory)
        self.size: int
        self.chunk_size: int
        self.epoch: int
        _, self.size, self.chunk_size, self.epoch, state = HEADER.unpack_from(memory, 0)
        self.verified = bool(state & VERIFIED)
        self.tail_released = bool(state & TAIL_RELEASED)
        self.origin = _origin_of(state)
        # A copy of the counts for this process, which may read them after the memory is closed.
        self._counts: list[int] = list(struct.unpack_from(f"<{len(self)}I", memory, HEADER.size))
        self._last = len(self) - 1
        self._first_incomplete = 0  # all chunks before this index are complete

    @classmethod
    def create(cls, descriptor: int, size: int, chunk_size: int, *, public: bool = False) -> "ChunkMap":
        """Create an empty map in the (locked) file `descriptor`, whatever the file held before.

        `public`: the bytes will come without an account.
        """
        before = os.pread(descriptor, HEADER.size, 0)
        epoch = HEADER.unpack(before)[3] + 1 if before.startswith(MAGIC) else 1
        if before:  # not of an empty file, as in `Partial.allocate`
            os.ftruncate(descriptor, 0)
        # Allocated first: a page that a full disk cannot back kills the process that writes it (SIGBUS).
        os.posix_fallocate(descriptor, 0, _map_length(size, chunk_size))
        memory = mmap.mmap(descriptor, 0)
        state = ORIGINS[Origin.PUBLIC if public else Origin.PRIVATE]
        HEADER.pack_into(memory, 0, MAGIC, size, chunk_size, epoch % 2**32, state)
        return cls(memory)

    @classmethod
    def load(cls, descriptor: int) -> "ChunkMap | None":
        """Load the map from the (locked) file `descriptor`; None if the file has no consistent map."""
        if os.fstat(descriptor).st_size < HEADER.size:
            return None
        memory = mmap.mmap(descriptor, 0)
        if not _is_map(memory) or not (chunks := cls(memory))._is_consistent():
            memory.close()
            return None
        # The mark may be from before a power failure, which destroyed the bytes and left the map.
        chunks._set_state(verified=False, origin=chunks.origin)
        return chunks

    @classmethod
    def snapshot(cls, descriptor: int, before: "ChunkMap | None" = None) -> "ChunkMap | None":
        """Return a copy of the map as it is now, for a process without the lock; None while there is no map.

        `before`: an earlier copy, which is returned if nothing has changed.
        """
        memory = bytearray(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        if before is not None and memory == before._memory:
            return before
        if not _is_map(memory):
            return None
        chunks = cls(memory)
        if before is not None and before.epoch == chunks.epoch:
            chunks._first_incomplete = before._first_incomplete
        elif not chunks._is_consistent():
            return None
        return chunks

    def __len__(self) -> int:
        return _chunk_count(self.size, self.chunk_size)

    def span(self, index: int) -> Span:
        """Return the bytes of a chunk."""
        start = index * self.chunk_size
        return Span(start, min(start + self.chunk_size, self.size))

    def count(self, index: int) -> int:
        """Return how many bytes of a chunk are here."""
        return self._counts[index]

    def record(self, offset: int, length: int) -> None:
        """Record `length` bytes written at `offset`. ValueError unless they continue their chunk."""
        stop = offset + length
        while offset < stop:
            index = offset // self.chunk_size
            end = min(stop, self.span(index).stop)
            done = end - index * self.chunk_size
            if offset - index * self.chunk_size > self.count(index):
                raise ValueError(f"bytes at {offset} leave a hole in chunk {index}")
            if done > self.count(index):
                self._counts[index] = done
                COUNT.pack_into(self._memory, HEADER.size + index * COUNT.size, done)
            offset = end

    def contiguous(self) -> int:
        """Return how many bytes are here from the start of the blob without a gap."""
        while self._first_incomplete < len(self) and self._is_complete(self._first_incomplete):
            self._first_incomplete += 1
        if self._first_incomplete == len(self):
            return self.size
        return self._first_incomplete * self.chunk_size + self.count(self._first_incomplete)

    def available(self, offset: int) -> int:
        """Return where the bytes end that are here from `offset` on without a gap; `offset` if none are."""
        contiguous = self.contiguous()
        if offset < contiguous or offset >= self.size:
            return contiguous
        index = offset // self.chunk_size
        while index < len(self) and self._is_complete(index):
            index += 1
        if index == len(self):
            return self.size
        return max(offset, index * self.chunk_size + self.count(index))

    def missing(self) -> list[Span]:
        """Return the spans that are not here, in order; neighbours merged."""
        # Called twenty times a second for a thousand chunks: a loop over plain counts, without Spans.
        counts, chunks, gaps = self._counts, len(self._counts), []
        index = self._first_incomplete
        while index < chunks:
            if self._is_complete(index):
                index += 1
                continue
            start = index * self.chunk_size + counts[index]
            index += 1
            while index < chunks and not counts[index]:
                index += 1
            gaps.append(Span(start, min(index * self.chunk_size, self.size)))
        return gaps

    def received(self) -> int:
        """Return how many bytes are here, contiguous or not."""
        return sum(self._counts)

    def sendable(self, offset: int) -> int:
        """Return where the bytes end that may be sent from `offset` on before the whole is verified.

        One chunk is held back (invariant 4): the last one; or, once that was released, the missing one that
        is nearest to the end. When none is missing any more, nothing is sent until all is verified. The chunk
        that comes last is therefore sent to no reader, whichever process serves it.
        """
        available = self.available(offset)
        if not self.tail_released:
            return min(available, self._last * self.chunk_size)
        held = self._last_missing()
        start = 0 if held is None else held * self.chunk_size
        if held is not None and offset >= start + self.chunk_size:
            return available
        return min(available, max(start, offset))

    def release_tail(self) -> bool:
        """Release the last chunk if it is here and another one is not; return whether that is new."""
        if self.tail_released or self._last_missing() in (None, self._last):
            return False
        self.tail_released = True
        self._set_state(verified=self.verified, origin=self.origin)
        return True

    def _last_missing(self) -> int | None:
        """Return the last chunk that is not complete; None if all are."""
        return next((index for index in range(self._last, -1, -1) if not self._is_complete(index)), None)

    def set_verified(self) -> None:
        """Mark the whole blob as verified: other processes may send all of it."""
        self._set_state(verified=True, origin=self.origin)

    def set_private(self) -> None:
        """Mark the bytes as ones that came, in part, with an account."""
        self._set_state(verified=self.verified, origin=Origin.PRIVATE)

    def _set_state(self, *, verified: bool, origin: Origin) -> None:
        self.verified, self.origin = verified, origin
        state = VERIFIED * verified | TAIL_RELEASED * self.tail_released | ORIGINS[origin]
        COUNT.pack_into(self._memory, STATE_AT, state)

    def close(self) -> None:
        """Close the mapping."""
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()

    def _is_consistent(self) -> bool:
        return all(self.count(index) <= self.span(index).length for index in range(len(self)))

    def _is_complete(self, index: int) -> bool:
        # Called for every chunk many times a second: no Span is made.
        return self._counts[index] == (self.chunk_size if index < self._last else self.span(index).length)


class ChunkRequests:
    """The requests in a chunk map: what readers of other processes wait for."""

    def __init__(self, chunks: ChunkMap, memory: mmap.mmap | bytearray) -> None:
        self._chunks = chunks
        self._memory = memory

    def offsets(self) -> list[int]:
        """Return the offsets of missing bytes that are requested."""
        chunks = self._chunks
        requested = [request - 1 for request in self.slots() if 0 < request <= len(chunks)]
        starts = [index * chunks.chunk_size + chunks.count(index) for index in requested]
        return [
            start for index, start in zip(requested, starts, strict=True) if start < chunks.span(index).stop
        ]

    def slots(self) -> Sequence[int]:
        """Return the requests, each 1 + a chunk, or 0."""
        stored: Sequence[int] = REQUESTS.unpack_from(self._memory, REQUESTS_AT)
        return [each & ~WHOLE_REQUESTED for each in stored]

    def whole(self) -> bool:
        """Return whether a reader that waits reads the whole blob."""
        return any(each & WHOLE_REQUESTED for each in REQUESTS.unpack_from(self._memory, REQUESTS_AT))


def _chunk_count(size: int, chunk_size: int) -> int:
    return -(-size // chunk_size)


def _is_map(memory: mmap.mmap | bytearray) -> bool:
    """Return whether this is a header, followed by as many counts as the header says."""
    if len(memory) < HEADER.size:
        return False
    magic, size, chunk_size, _, _ = HEADER.unpack_from(memory, 0)
    return bool(magic == MAGIC and chunk_size > 0 and len(memory) == _map_length(size, chunk_size))


def _map_length(size: int, chunk_size: int) -> int:
    return HEADER.size + _chunk_count(size, chunk_size) * COUNT.size


def _origin_of(state: int) -> Origin:
    """Return the origin of the bytes; a state of two origins is of an unknown version, and private."""
    found = [origin for origin, bits in ORIGINS.items() if state & bits]
    return found[-1] if found else Origin.UNKNOWN
