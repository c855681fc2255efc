"""A partial: what the folder `partial/` has of one digest: a data file, its chunk map, the lock on that."""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.errors import StoreError
from mirror.store.lock import data_path, lock_path, lock_shared, try_lock
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.remote_partial import RemotePartial

# One read of the verifier, in bytes: large enough that hashing is the cost, not the calls.
HASH_STEP = 1024 * 1024

# The most buffers of one system call (IOV_MAX of Linux).
IOV_MOST = 1024


class Partial:
    """One digest's data file and chunk map, locked by this process. Synchronous: runs in a disk thread."""

    def __init__(self, digest: Digest, folder: Path, lock: int) -> None:
        self.digest = digest
        self.data_path = data_path(digest, folder)
        self._map_path = lock_path(digest, folder)
        self._lock = lock
        self._discarded = False
        self.descriptor = os.open(
            self.data_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        lock_shared(self.descriptor)  # for its readers, who stay when the fill is over
        try:
            self.chunks = self._load()
        except BaseException:
            os.close(self.descriptor)
            raise

    @classmethod
    def lock(cls, digest: Digest, folder: Path) -> "Partial | None":
        """The partial of `digest`, new or left by an earlier fill; None while another process fills it."""
        lock = try_lock(lock_path(digest, folder))
        if lock is None:
            return None
        try:
            return cls(digest, folder, lock)
        except BaseException:
            os.close(lock)
            raise

    def allocate(self, size: int, chunk_size: int) -> ChunkMap:
        """Start from nothing, with the size known."""
        self._drop_map()
        # First the map: who follows it in another process must not take what comes now for what was there.
        self.chunks = ChunkMap.create(self._lock, size, chunk_size)
        os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, size)
        return self.chunks

    def is_continuation_of(self, followed: RemotePartial) -> bool:
        """Whether this is what was followed, as far as that had come, and its lock is ours now."""
        return (
            self.chunks is not None
            and self.chunks.epoch == followed.chunks.epoch
            and followed.has_files(self._lock, self.descriptor)
        )

    def open_reader(self) -> BinaryIO:
        """The data file under a descriptor of its own, which outlives rename and release.

        Its position is shared: read it by `sendfile` or `pread` at offsets only.
        """
        return os.fdopen(os.dup(self.descriptor), "rb", buffering=0)

    def write(self, offset: int, parts: Sequence[bytes | memoryview], hasher: "Hasher | None") -> None:
        """Write consecutive bytes; hash them too while they are in the processor's cache."""
        view = deque(parts)
        while view:
            batch = [view[i] for i in range(min(len(view), IOV_MOST))]
            written = os.pwritev(self.descriptor, batch, offset)
            offset += written
            while view and written >= len(view[0]):
                written -= len(view.popleft())
            if written:
                view[0] = view[0][written:]
        if hasher is not None:
            for part in parts:
                hasher.update(part)

    def hash_until(self, hasher: "Hasher", stop: int) -> None:
        """Feed what is on disk to the hasher, from where it stopped to `stop`."""
        while hasher.offset < stop:
            data = os.pread(self.descriptor, min(HASH_STEP, stop - hasher.offset), hasher.offset)
            if not data:
                raise StoreError(f"{self.data_path.name} is shorter than it was written")
            hasher.update(data)

    def span_hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """The hash of each of these parts as they are on disk, by the algorithm of the digest."""
        found = []
        for span in spans:
            hash_ = self.digest.hasher()
            for offset in range(span.start, span.stop, HASH_STEP):
                hash_.update(os.pread(self.descriptor, min(HASH_STEP, span.stop - offset), offset))
            found.append(hash_.digest())
        return found

    def verified_file(self) -> VerifiedFile:
        """The name under which a verified blob is adopted; only GrowingFile.verify may ask."""
        return VerifiedFile(self.digest, self.data_path, os.fstat(self.descriptor).st_size)

    def discard(self) -> None:
        """Remove both files; the caller still releases the lock."""
        self._discarded = True
        self.data_path.unlink(missing_ok=True)
        self._map_path.unlink(missing_ok=True)

    def release(self) -> None:
        """Close everything and give up the lock; what was received stays for the next fill.

        Where nothing was, nothing stays: names that nobody has, asked for at random, must not fill the disk.
        If it does not let go of them, the lock is given up all the same: others wait for it.
        """
        # Once only: as soon as the names are gone, they may be those of another process's files.
        if not self._discarded and (self.chunks is None or not self.chunks.received()):
            with suppress(OSError):
                self.discard()
        self._drop_map()
        os.close(self.descriptor)
        os.close(self._lock)

    def _load(self) -> ChunkMap | None:
        chunks = ChunkMap.load(self._lock)
        if chunks is None or chunks.size == os.fstat(self.descriptor).st_size:
            return chunks
        chunks.close()
        return None

    def _drop_map(self) -> None:
        if self.chunks is not None:
            self.chunks.close()
            self.chunks = None


class Hasher:
    """A running hash and how far it has come."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._hash = digest.hasher()
        self.offset = 0

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.offset += len(data)

    def matches(self) -> bool:
        return self._hash.hexdigest() == self._digest.encoded
