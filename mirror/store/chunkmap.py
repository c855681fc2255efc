"""The chunk map of a growing file: how many bytes of each chunk are here.

A small memory-mapped file beside the data: a header, then one 32-bit count per chunk. Because a chunk
counts its bytes instead of being done or not, a transfer that breaks in mid-chunk goes on from where it
stopped. Data is written before its count, so after `kill -9` the map never promises too much; after a
power loss it may, and then verification fails and the blob is fetched anew.

    offset  0  magic         8 bytes
            8  size          u64, bytes of the blob
           16  chunk size    u32, bytes
           20  reserved      u32
           24  count[i]      u32 each, bytes of chunk i that are here, from its start
"""

import mmap
import os
import struct

from mirror.oci.ranges import Span

MAGIC = b"RMCHUNK1"
HEADER = struct.Struct("<8sQII")
COUNT = struct.Struct("<I")


class ChunkMap:
    """Counts per chunk, read and written through memory shared with other processes."""

    def __init__(self, memory: mmap.mmap, size: int, chunk_size: int) -> None:
        self._memory = memory
        self.size = size
        self.chunk_size = chunk_size
        # The same counts for this process, which may ask when the memory is closed already.
        self._counts: list[int] = [
            COUNT.unpack_from(memory, HEADER.size + i * COUNT.size)[0] for i in range(len(self))
        ]
        self._last = len(self) - 1
        self._first_open = 0  # every chunk before this one is complete

    @classmethod
    def create(cls, descriptor: int, size: int, chunk_size: int) -> "ChunkMap":
        """An empty map in the (locked) file `descriptor`, whatever that held before."""
        os.ftruncate(descriptor, 0)
        # With its blocks: a page that a full disk cannot back kills the process that writes it (SIGBUS).
        os.posix_fallocate(descriptor, 0, _length(size, chunk_size))
        memory = mmap.mmap(descriptor, 0)
        HEADER.pack_into(memory, 0, MAGIC, size, chunk_size, 0)
        return cls(memory, size, chunk_size)

    @classmethod
    def load(cls, descriptor: int) -> "ChunkMap | None":
        """The map in the file `descriptor`; None when there is none that makes sense."""
        length = os.fstat(descriptor).st_size
        if length < HEADER.size:
            return None
        memory = mmap.mmap(descriptor, 0)
        magic, size, chunk_size, _ = HEADER.unpack_from(memory, 0)
        if magic != MAGIC or chunk_size == 0 or length != _length(size, chunk_size):
            memory.close()
            return None
        chunks = cls(memory, size, chunk_size)
        if any(chunks.count(index) > chunks.span(index).length for index in range(len(chunks))):
            memory.close()
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
        gaps: list[Span] = []
        for index in range(self._first_open, len(self)):
            if self._is_complete(index):
                continue
            span = self.span(index)
            start = span.start + self.count(index)
            if gaps and gaps[-1].stop == start:
                gaps[-1] = Span(gaps[-1].start, span.stop)
            else:
                gaps.append(Span(start, span.stop))
        return gaps

    def received(self) -> int:
        """Bytes that are here, contiguous or not."""
        return sum(self._counts)

    def close(self) -> None:
        self._memory.close()

    def _is_complete(self, index: int) -> bool:
        # Asked for every chunk many times a second: no Span is made.
        return self._counts[index] == (self.chunk_size if index < self._last else self.span(index).length)


def _chunks(size: int, chunk_size: int) -> int:
    return -(-size // chunk_size)


def _length(size: int, chunk_size: int) -> int:
    return HEADER.size + _chunks(size, chunk_size) * COUNT.size
