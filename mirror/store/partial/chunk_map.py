"""The chunk map of a growing file: how many bytes of each chunk are here.

A small memory-mapped file beside the data: a header, then one 32-bit count per chunk. Because a chunk
counts its bytes instead of being done or not, a transfer that breaks in mid-chunk goes on from where it
stopped. Data is written before its count, so after `kill -9` the map never promises too much; after a
power loss it may, and then verification fails and the blob is fetched anew.

    offset  0  magic         8 bytes
            8  size          u64, bytes of the blob
           16  chunk size    u32, bytes
           20  generation    u32, how often the blob was begun from nothing
           24  verified      u32, 1 when the whole was found right, just before it is adopted
           28  wished[8]     u32 each, 1 + the chunk that readers of another process wait for; 0 for none
           60  count[i]      u32 each, bytes of chunk i that are here, from its start

Who holds the lock on the file writes everything but the wishes. Other processes read it with `pread`: a
mapping would kill them (SIGBUS) when the file is begun anew, and thus truncated, under it.
"""

import mmap
import os
import struct
from collections.abc import Sequence

from mirror.oci.ranges import Span

MAGIC = b"RMCHUNK2"
HEADER = struct.Struct("<8sQIII32x")
COUNT = struct.Struct("<I")
VERIFIED_AT = 24
WISHED_AT = 28
WISHED = struct.Struct("<8I")
WISHES = 8


class ChunkMap:
    """Counts per chunk, read and written through memory shared with other processes."""

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        """`memory` must hold a map (`_is_map`)."""
        self._memory = memory
        self.size: int
        self.chunk_size: int
        self.epoch: int
        _, self.size, self.chunk_size, self.epoch, verified = HEADER.unpack_from(memory, 0)
        self.verified = verified == 1
        # The same counts for this process, which may ask when the memory is closed already.
        self._counts: list[int] = list(struct.unpack_from(f"<{len(self)}I", memory, HEADER.size))
        self._last = len(self) - 1
        self._first_open = 0  # every chunk before this one is complete

    @classmethod
    def create(cls, descriptor: int, size: int, chunk_size: int) -> "ChunkMap":
        """An empty map in the (locked) file `descriptor`, whatever that held before."""
        before = os.pread(descriptor, HEADER.size, 0)
        epoch = HEADER.unpack(before)[3] + 1 if before.startswith(MAGIC) else 1
        os.ftruncate(descriptor, 0)
        # With its blocks: a page that a full disk cannot back kills the process that writes it (SIGBUS).
        os.posix_fallocate(descriptor, 0, _length(size, chunk_size))
        memory = mmap.mmap(descriptor, 0)
        HEADER.pack_into(memory, 0, MAGIC, size, chunk_size, epoch % 2**32, 0)
        return cls(memory)

    @classmethod
    def load(cls, descriptor: int) -> "ChunkMap | None":
        """The map in the (locked) file `descriptor`; None when there is none that makes sense."""
        if os.fstat(descriptor).st_size < HEADER.size:
            return None
        memory = mmap.mmap(descriptor, 0)
        if not _is_map(memory) or not (chunks := cls(memory))._makes_sense():
            memory.close()
            return None
        # What it says was perhaps found before a power failure, which took the bytes and left the map.
        COUNT.pack_into(memory, VERIFIED_AT, 0)
        chunks.verified = False
        return chunks

    @classmethod
    def snapshot(cls, descriptor: int, before: "ChunkMap | None" = None) -> "ChunkMap | None":
        """A copy of the map as it is now, for who does not hold the lock; None while there is none.

        `before`: an earlier copy, which is returned if nothing has changed.
        """
        memory = bytearray(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        if before is not None and memory == before._memory:
            return before
        if not _is_map(memory):
            return None
        chunks = cls(memory)
        if before is not None and before.epoch == chunks.epoch:
            chunks._first_open = before._first_open
        elif not chunks._makes_sense():
            return None
        return chunks

    def __len__(self) -> int:
        return _chunks(self.size, self.chunk_size)

    def span(self, index: int) -> Span:
        start = index * self.chunk_size
        return Span(start, min(start + self.chunk_size, self.size))

    def count(self, index: int) -> int:
        return self._counts[index]

    def record(self, offset: int, length: int) -> None:
        """`length` bytes at `offset` were written. Each chunk fills from its start: `offset` continues it."""
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
        """How many bytes are here from the start of the blob without a gap."""
        while self._first_open < len(self) and self._is_complete(self._first_open):
            self._first_open += 1
        if self._first_open == len(self):
            return self.size
        return self._first_open * self.chunk_size + self.count(self._first_open)

    def available(self, offset: int) -> int:
        """Where the bytes end that are here from `offset` on without a gap; `offset` if that one is not."""
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
        """What is not here, in order; neighbours merged."""
        # Asked for twenty times a second, of a thousand chunks: they are counted, not looked at one by one.
        counts, chunks, gaps = self._counts, len(self._counts), []
        index = self._first_open
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
        """Bytes that are here, contiguous or not."""
        return sum(self._counts)

    def requested_offsets(self) -> list[int]:
        """The offsets, of bytes that are not here, that readers of other processes wait at."""
        wished = [wish - 1 for wish in self.requests() if 0 < wish <= len(self)]
        return [
            index * self.chunk_size + self.count(index) for index in wished if not self._is_complete(index)
        ]

    def requests(self) -> Sequence[int]:
        """The wishes as they are written."""
        return WISHED.unpack_from(self._memory, WISHED_AT)

    def set_verified(self) -> None:
        """The whole blob is what its name says: other processes may send all of it."""
        COUNT.pack_into(self._memory, VERIFIED_AT, 1)

    def close(self) -> None:
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()

    def _makes_sense(self) -> bool:
        return all(self.count(index) <= self.span(index).length for index in range(len(self)))

    def _is_complete(self, index: int) -> bool:
        # Asked for every chunk many times a second: no Span is made.
        return self._counts[index] == (self.chunk_size if index < self._last else self.span(index).length)


def _chunks(size: int, chunk_size: int) -> int:
    return -(-size // chunk_size)


def _is_map(memory: mmap.mmap | bytearray) -> bool:
    """Whether this has a header, and as many counts as that says."""
    if len(memory) < HEADER.size:
        return False
    magic, size, chunk_size, _, _ = HEADER.unpack_from(memory, 0)
    return bool(magic == MAGIC and chunk_size > 0 and len(memory) == _length(size, chunk_size))


def _length(size: int, chunk_size: int) -> int:
    return HEADER.size + _chunks(size, chunk_size) * COUNT.size
