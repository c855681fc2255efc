"""Fills into memory. Growing files are files, which `sendfile` sends: they have a private folder."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.errors import NoRoom
from mirror.store.executor import DiskExecutor
from mirror.store.links.content import LocalContent
from mirror.store.lock import blob_key
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.memory.content import MemoryContent
from mirror.store.memory.room import MemoryRoom
from mirror.store.memory_cache import Content
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_partials import growing_partials
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.lease import BlobLease, HeldLease
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial


class MemoryLease(Struct, frozen=True):
    """A key that is held until `free` is called."""

    key: str
    free: Callable[[str], object]

    def release(self) -> None:
        """Release the lease."""
        self.free(self.key)


class MemoryKeys:
    """Leases on keys within one process, beside the locks of partials: `LocalLeases`."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self.held: set[str] = set()
        self._blobs = blobs

    async def acquire_blob(self, digest: Digest) -> BlobLease | None:
        lease = await self.acquire(blob_key(digest))
        return None if lease is None else BlobLease(lease, digest, digest in self._blobs.blobs)

    async def acquire(self, key: str) -> MemoryLease | None:
        if key in self.held:
            return None
        self.held.add(key)
        return MemoryLease(key, self.held.discard)

    async def release(self, lease: HeldLease) -> None:
        lease.release()


class MemoryTransfers:
    """The fills of one process: `Transfers`."""

    def __init__(
        self,
        blobs: MemoryBlobs,
        content: MemoryContent,
        room: MemoryRoom,
        partials: Path,
        executor: DiskExecutor,
    ) -> None:
        self.leases = MemoryKeys(blobs)
        self._blobs = blobs
        self._content = content
        self._room = room
        self._partials = partials
        self._executor = executor

    async def put_small_blob(
        self, repository: Repository, lease: BlobLease, content: Content, origin: Origin = Origin.UNKNOWN
    ) -> None:
        try:
            self._blobs.add(lease.digest, content.data, origin)
        finally:
            lease.release()
        await self._room.evict_excess([lease.digest])

    async def adopt(self, verified: VerifiedFile, *, asked_for: bool = True) -> None:
        data = await self._executor.run(verified.path.read_bytes)
        await self._executor.run(verified.path.unlink)
        self._blobs.add(verified.digest, data, verified.origin)
        self._room.allowance.note_stored(verified.digest, verified.size, asked_for=asked_for)
        await self._room.evict_excess([verified.digest])

    async def lock_partial(
        self, repository: Repository, digest: Digest, *, public: bool = False
    ) -> tuple[Partial | None, LocalContent]:
        key = blob_key(digest)
        partial = None
        if key not in self.leases.held:
            partial = await self._executor.run(Partial.lock, digest, self._partials)
        local = await self._content.look_up(repository, digest)
        if partial is not None and partial.chunks is not None and not public:
            partial.chunks.set_private()
        if partial is not None and not local.present and local.link is not None:
            try:
                self._check_room(digest, local.link.size or 0)
            except NoRoom:
                await self._executor.run(partial.release)
                raise
        return partial, local

    async def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        return await self._executor.run(RemotePartial.open, digest, self._partials)

    async def growing_since(self, moment: float) -> list[Digest]:
        return await self._executor.run(growing_partials, self._partials, moment)

    async def allocate(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> ChunkMap:
        if partial.chunks is not None and partial.chunks.size == size:
            return partial.chunks
        self._check_room(partial.digest, size)
        return await self._executor.run(partial.allocate, size, chunk_size, public=public)

    async def open_growing_file(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> GrowingWriter:
        chunks = await self.allocate(partial, size, chunk_size, public=public)
        return self.growing_writer(GrowingFile(partial, chunks), partial)

    def growing_writer(self, file: GrowingFile, partial: Partial) -> GrowingWriter:
        return GrowingWriter(file, partial, self._executor, self._room.make_room)

    async def discard_partial(self, partial: Partial) -> None:
        await self._executor.run(partial.discard)

    async def release_partial(self, partial: Partial) -> None:
        await self._executor.run(partial.release)

    def _check_room(self, digest: Digest, size: int) -> None:
        if size > self._blobs.limit:
            raise NoRoom(f"{digest} takes {size} bytes of {self._blobs.limit} that may be kept")
