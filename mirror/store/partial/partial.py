"""A partial: a fill's data file in the folder `partial/`, its chunk map, and the lock on the map."""

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

# Bytes of one read for hashing: large enough that hashing is the cost, not the calls.
HASH_STEP = 1024 * 1024

# Most buffers of one system call (Linux).
IOV_MAX = 1024


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
        lock_shared(self.descriptor)  # for readers, which may outlast the fill
        try:
            self.chunks = self._load()
        except BaseException:
            os.close(self.descriptor)
            raise

    @classmethod
    def lock(cls, digest: Digest, folder: Path) -> "Partial | None":
        """Lock the partial of `digest`, new or left by an earlier fill; None if another process fills it."""
        lock = try_lock(lock_path(digest, folder))
        if lock is None:
            return None
        try:
            return cls(digest, folder, lock)
        except BaseException:
            os.close(lock)
            raise

    def allocate(self, size: int, chunk_size: int, *, public: bool = False) -> ChunkMap:
        """Start from nothing, with the size known. `public`: the bytes will come without an account."""
        self._drop_map()
        # First the map: a follower in another process must not take the new bytes for the old ones.
        self.chunks = ChunkMap.create(self._lock, size, chunk_size, public=public)
        # Not for an empty file: what comes after a truncation to 0 is written out by ext4 at the close.
        if os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, size)
        return self.chunks

    def record_whole(self, size: int, chunk_size: int) -> None:
        """Record that the data file has the whole blob; all of it is still to be verified."""
        os.ftruncate(self.descriptor, size)
        self._drop_map()
        self.chunks = ChunkMap.create(self._lock, size, chunk_size)
        self.chunks.record(0, size)

    def restore(self, path: Path, chunk_size: int) -> None:
        """Make a whole blob's file the data of this partial: nothing is missing, all is still to be verified.

        The map is kept if it is of that size, so that a follower's partial is continued.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        self._drop_map()
        chunks = ChunkMap.load(self._lock)
        if chunks is None or chunks.size != size:
            if chunks is not None:
                chunks.close()
            chunks = ChunkMap.create(self._lock, size, chunk_size)
        self.chunks = chunks
        # First the map: without the data, which has another size, it counts for nothing.
        chunks.record(0, size)
        os.rename(path, self.data_path)
        os.close(self.descriptor)
        self.descriptor = os.open(self.data_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        lock_shared(self.descriptor)

    def is_continuation_of(self, remote: RemotePartial) -> bool:
        """Return whether this is the partial that was followed, with its content, and locked here now."""
        return (
            self.chunks is not None
            and self.chunks.epoch == remote.chunks.epoch
            and remote.has_files(self._lock, self.descriptor)
        )

    def open_reader(self) -> BinaryIO:
        """Open the data file under a descriptor of its own, which outlives rename and release.

        Its position is shared: read by `sendfile` or `pread` at offsets only.
        """
        return os.fdopen(os.dup(self.descriptor), "rb", buffering=0)

    def write(self, offset: int, parts: Sequence[bytes | memoryview], hasher: "Hasher | None") -> None:
        """Write consecutive bytes, and hash them while they are in the processor's cache."""
        view = deque(parts)
        while view:
            batch = [view[i] for i in range(min(len(view), IOV_MAX))]
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
        """Feed the hasher from the disk, from where it stopped up to `stop`."""
        while hasher.offset < stop:
            data = os.pread(self.descriptor, min(HASH_STEP, stop - hasher.offset), hasher.offset)
            if not data:
                raise StoreError(f"{self.data_path.name} is shorter than it was written")
            hasher.update(data)

    def span_hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """Return the hash of each span as it is on disk, by the algorithm of the digest."""
        found = []
        for span in spans:
            hash_ = self.digest.hasher()
            for offset in range(span.start, span.stop, HASH_STEP):
                hash_.update(os.pread(self.descriptor, min(HASH_STEP, span.stop - offset), offset))
            found.append(hash_.digest())
        return found

    def verified_file(self) -> VerifiedFile:
        """Return the file for adoption; only `GrowingFile.complete` may ask."""
        return VerifiedFile(self.digest, self.data_path, os.fstat(self.descriptor).st_size)

    def discard(self) -> None:
        """Remove both files; the caller must still release the lock."""
        self._discarded = True
        self.data_path.unlink(missing_ok=True)
        self._map_path.unlink(missing_ok=True)

    def release(self) -> None:
        """Close everything and release the lock; received bytes stay for the next fill.

        Without received bytes no file stays: requests for random digests must not fill the disk with names.
        If the disk refuses to unlink, the lock is released nevertheless: other processes wait for it.
        """
        # Once only: after that the names may be those of another process's files.
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
    """A running hash, and the offset up to which it has hashed."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._hash = digest.hasher()
        self.offset = 0

    def update(self, data: bytes | memoryview) -> None:
        """Hash the next bytes."""
        self._hash.update(data)
        self.offset += len(data)

    def matches(self) -> bool:
        """Return whether the bytes so far have the digest."""
        return self._hash.hexdigest() == self._digest.encoded
