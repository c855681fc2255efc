"""One file of the journal of pushes: records, and zeros behind them.

    b"PUSH", length of the content (4 bytes), checksum of the content (16), content

The zeros are written when the file is created, so that a later sync writes the bytes of the records and
nothing else: neither a size nor a list of blocks, for which the file system would write its own journal.

The writer holds a lock on its file (`flock`). A file without one is complete, or its writer has died.
"""

import hashlib
import os
import secrets
import struct
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from mirror.store.lock import try_lock
from mirror.util.durable import sync_folder

MAGIC = b"PUSH"
CHECKSUM_BYTES = 16
HEAD = struct.Struct(f">4sI{CHECKSUM_BYTES}s")

# Bytes of zeros in one write.
ZEROS = 1024 * 1024


def record(content: bytes) -> bytes:
    """Return the record of a content."""
    return HEAD.pack(MAGIC, len(content), _checksum(content)) + content


def records(data: bytes) -> Iterator[bytes]:
    """Yield the contents of the records of a file, up to the first one that is not whole.

    A crash leaves such a record at the end alone: each is on the disk before the next one is written.
    """
    at = 0
    while at + HEAD.size <= len(data):
        magic, length, checksum = HEAD.unpack_from(data, at)
        at += HEAD.size
        content = data[at : at + length]
        if magic != MAGIC or len(content) != length or _checksum(content) != checksum:
            return
        yield content
        at += length


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


class JournalFile:
    """A file of the journal that this process appends to. Raises OSError."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._at = 0
        self.close = weakref.finalize(self, os.close, descriptor)  # leaves the file to those that settle it

    @classmethod
    def create(cls, folder: Path, size: int) -> "JournalFile":
        """Create a file with room for `size` bytes of records."""
        path = folder / f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        descriptor = try_lock(path)
        if descriptor is None:
            raise AssertionError("a new file is locked")
        try:
            for start in range(0, size, ZEROS):
                os.pwrite(descriptor, bytes(min(ZEROS, size - start)), start)
            os.fsync(descriptor)
            sync_folder(folder)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return cls(descriptor, size)

    def append(self, data: bytes) -> bool:
        """Have a record on the disk; return False if there is no room for it, and nothing is written."""
        if self._at + len(data) > self._size:
            return False
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self._at + written)
        os.fdatasync(self._descriptor)
        self._at += len(data)
        return True
