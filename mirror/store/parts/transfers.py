"""Leases, partials and growing files of a cache folder, and the adoption of what fills bring."""

from contextlib import suppress

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.batch import Batcher
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.links.content import LocalContent
from mirror.store.memory_cache import Content, MemoryCache
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_partials import growing_partials
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.lease import BlobLease, HeldLease, Lease
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.parts.room import FolderRoom


class FolderLeases:
    """The leases on files of one cache folder: `LocalLeases`."""

    def __init__(self, folder: CacheDirectory, executor: DiskExecutor) -> None:
        self._executor = executor
        self._blobs: Batcher[Digest, BlobLease | None] = Batcher(executor, folder.fills.acquire_leases)
        self._keys: Batcher[str, Lease | None] = Batcher(executor, folder.fills.acquire_key_leases)

    async def acquire_blob(self, digest: Digest) -> BlobLease | None:
        """Acquire the lease for filling a small blob; None while another process holds it."""
        return await self._executor.await_or_release(self._blobs.start(digest), _release)

    async def acquire(self, key: str) -> Lease | None:
        """Acquire the lease under a key (`store.lock`); None while another process holds it."""
        return await self._executor.await_or_release(self._keys.start(key), _release)

    async def release(self, lease: HeldLease) -> None:
        """Release a lease without content."""
        await self._executor.run(lease.release)


class FolderTransfers:
    """The fills of one cache folder: `Transfers`."""

    def __init__(
        self, folder: CacheDirectory, executor: DiskExecutor, memory: MemoryCache, room: FolderRoom
    ) -> None:
        self.leases = FolderLeases(folder, executor)
        self._folder = folder
        self._executor = executor
        self._memory = memory
        self._room = room
        self._disk = room.disk
        self._writes: Batcher[tuple[BlobLease, bytes, Origin], int] = Batcher(
            executor, folder.writer.put_small_blobs
        )

    async def put_small_blob(
        self, repository: Repository, lease: BlobLease, content: Content, origin: Origin = Origin.UNKNOWN
    ) -> None:
        """Store a verified small blob if possible, and release its lease."""
        self._memory.put_content(repository, lease.digest, content, self._memory.version)
        try:
            excess = await self._write_small(lease, content.data, origin)
        except StoreError as error:
            self._room.report_write_failure(error)
        else:
            await self._room.evict_excess([lease.digest], excess)

    async def adopt(self, verified: VerifiedFile, *, asked_for: bool = True) -> None:
        """Move a verified file into the blob store, `asked_for` by a client; evict above the quota."""
        excess = await self._disk.write(self._folder.writer.adopt, verified)
        self._room.allowance.note_stored(verified.digest, verified.size, asked_for=asked_for)
        await self._room.evict_excess([verified.digest], excess)

    async def lock_partial(
        self, repository: Repository, digest: Digest, *, public: bool = False
    ) -> tuple[Partial | None, LocalContent]:
        """Lock the partial, new or resumed (None if another process holds it); then look the digest up.

        `public`: its bytes, or those that are missing, come without an account.
        """
        lock = self._folder.recovery.write
        locking = self._executor.start(
            lambda: lock(self._folder.fills.lock_partial, repository, digest, public=public)
        )
        return await self._executor.await_or_release(locking, lambda locked: _release(locked[0]))

    async def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """Open the partial that another process fills; None while there is nothing to follow."""
        opening = self._executor.start(self._folder.fills.open_remote_partial, digest)
        return await self._executor.await_or_release(opening, _close)

    async def growing_since(self, moment: float) -> list[Digest]:
        """Return the digests whose partials were written since a moment (seconds since the epoch)."""
        return await self._executor.run(growing_partials, self._folder.partials, moment)

    async def allocate(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> ChunkMap:
        """Size the partial for a blob of `size` bytes: resumed if it was of that size, else empty."""
        if partial.chunks is not None and partial.chunks.size == size:
            return partial.chunks
        return await self._disk.write(self._folder.fills.allocate, partial, size, chunk_size, public=public)

    async def open_growing_file(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> GrowingWriter:
        """Return a writer of the partial as a growing file, after `allocate`."""
        chunks = await self.allocate(partial, size, chunk_size, public=public)
        return self.growing_writer(GrowingFile(partial, chunks), partial)

    def growing_writer(self, file: GrowingFile, partial: Partial) -> GrowingWriter:
        """Return the writer of a growing file whose partial is locked here."""
        return GrowingWriter(file, partial, self._executor, self._room.make_room)

    async def discard_partial(self, partial: Partial) -> None:
        """Remove the partial's files: they were adopted, or are worthless."""
        await self._executor.run(partial.discard)

    async def release_partial(self, partial: Partial) -> None:
        """Close the partial and release its lock; its content stays for the next fill."""
        await self._executor.run(partial.release)

    async def _write_small(self, lease: BlobLease, data: bytes, origin: Origin) -> int:
        """Return the excess after storing a small blob, with more room or after a repair if need be."""
        with suppress(StoreError):
            return await self._writes.do((lease, data, origin))
        return await self._disk.write(self._folder.writer.put_small_blob, lease.digest, data, origin)


def _release(held: HeldLease | Partial | None) -> None:
    if held is not None:
        held.release()


def _close(remote: RemotePartial | None) -> None:
    if remote is not None:
        remote.close()
