"""The asynchronous store: each method takes one hop into a disk thread, or none.

Small content in use is answered from memory. `recovery.py` has the table of what each method does on a
failing disk, `eviction.py` the table of who evicts what.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.batch import Batcher
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import EvictedBlob, Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError, reason_of
from mirror.store.executor import DiskExecutor
from mirror.store.links.content import LocalContent, StoredManifest
from mirror.store.links.link_store import LinkStore
from mirror.store.memory_cache import Content, MemoryCache, OpenContent
from mirror.store.metadata.index import Link, ReferrersEntry, TagEntry
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.lease import BlobLease, Lease
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.retrying import RetryingDisk
from mirror.store.shares.shares import Shares
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)
P = ParamSpec("P")

# Threads that read blobs ahead of their senders: as many reads as a disk serves well at a time.
READERS = 4

# Interval, in seconds, between searches for partials that no fill resumes.
SWEEP_SECONDS = 3600.0


class Store:
    """Blobs, index and partials of one cache folder, for the event loop."""

    def __init__(self, folder: CacheDirectory, memory: int) -> None:
        """`memory`: bytes for small content in use."""
        self.folder = folder
        self.on_evicted: Callable[[Sequence[EvictedBlob]], object] = ignore  # called with what the quota cost
        self.health = folder.health
        self.allowance = folder.evictor.allowance
        self._memory = MemoryCache(memory, folder.epoch.removals)
        self._pins: Sequence[Pin] = ()  # of the configuration
        self._pins_written = True
        self._swept = -SWEEP_SECONDS
        self._used: dict[Digest, float] = {}
        self._open: Counter[Digest] = Counter()
        self._evicting = asyncio.Lock()
        self.executor = DiskExecutor(initialize=folder.open_connections)
        self.shares = Shares(folder, self.executor, self._evict)
        self._leases: Batcher[Digest, BlobLease | None] = Batcher(self.executor, folder.acquire_leases)
        self._key_leases: Batcher[str, Lease | None] = Batcher(self.executor, folder.acquire_key_leases)
        self._writes: Batcher[tuple[BlobLease, bytes, Origin], int] = Batcher(
            self.executor, folder.put_small_blobs
        )
        self._disk = RetryingDisk(self.executor, folder.recovery, folder.health, self.make_room)
        self.links = LinkStore(folder.index, folder.epoch, self._disk, self._memory)
        # Apart: a crowd that reads old blobs from a slow disk must not delay look-ups and fills.
        self.readers = DiskExecutor(READERS)

    @classmethod
    async def open(cls, path: Path, settings: CacheSettings | None = None) -> "Store":
        """Open a folder; `settings` give quota and memory. StoreError names the folder and the reason."""
        opener = DiskExecutor(1)
        try:
            folder = await opener.run(CacheDirectory, path, settings)
            await opener.run(folder.recovery.drop_connections)
        except StoreError as error:
            reason = reason_of(error.__cause__ or error)
            raise StoreError(f"cannot use the cache folder {path}: {reason}") from error
        finally:
            opener.executor.shutdown(wait=False)
        return cls(folder, 0 if settings is None else settings.memory)

    @property
    def is_writable(self) -> bool:
        """Return whether fetched content can be kept: not while writing is down."""
        return self._disk.is_writable

    def report_write_failure(self, error: StoreError) -> None:
        """Mark writing as down until `recover` finds that it works."""
        self._disk.report_write_failure(error)

    async def recover(self) -> None:
        """Test what is down, and recreate what was removed from the folder."""
        await self._disk.recover()
        if (self.folder.recreated or not self._pins_written) and self.is_writable:
            self.folder.recreated = False
            await self.configure_pins(self._pins)

    async def warm_up(self) -> None:
        """Open each thread's database connections before a request waits for them."""
        await self.executor.warm_up()

    async def look_up(self, repository: Repository, digest: Digest) -> LocalContent:
        """Look up link and presence, without content."""
        if (known := self._memory.content(repository, digest)) is not None:
            return LocalContent(known.link, True)
        link = self._memory.link(repository, digest)
        return await self.executor.run(self.folder.look_up, repository, digest, link)

    async def open_blob(self, repository: Repository, digest: Digest) -> LocalContent:
        """Look up as `look_up`, and open the blob if the repository has a link; the caller closes it."""
        if (known := self._memory.open(repository, digest)) is not None:
            self.touch(digest)
            return LocalContent(known.link, True, known.blob, known.data)
        version = self._memory.version
        link = self._memory.link(repository, digest)
        opening = self.executor.start(self.folder.open_blob, repository, digest, link)
        found = await self.executor.await_or_release(opening, LocalContent.close)
        self._memory.keep(repository, digest, OpenContent(found.link, found.blob, found.data), version)
        if found.is_open:
            self.touch(digest)
        return found

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Return the manifest if it is here and linked to the repository as a manifest."""
        content = self._memory.content(repository, digest)
        if content is None:
            version = self._memory.version
            link = self._memory.link(repository, digest)
            content = await self.executor.run(self.folder.manifest, repository, digest, link)
            if content is None:
                return None
            self._memory.put_content(repository, digest, content, version)
        if content.link.media_type is None:
            return None
        self.touch(digest)
        return StoredManifest(content.data, digest, content.link.media_type, content.link)

    def touch(self, digest: Digest) -> None:
        """Note that a blob is used now; `flush_last_use` writes that down later."""
        self._used[digest] = time.time()

    def begin_reading(self, digest: Digest) -> Callable[[], None]:
        """Mark a blob as in use until the returned function is called, hours later perhaps."""
        self._open[digest] += 1

        def end() -> None:
            self._open[digest] -= 1
            if not self._open[digest]:
                del self._open[digest]

        return end

    async def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a whole blob of up to `limit` bytes, whatever repository it came through."""
        return await self.executor.run(self.folder.read, digest, limit)

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Store a verified manifest if possible, and link it and its children to the repository."""
        content = Content(manifest.stored_link(), manifest.data)
        links, work = {**children, manifest.digest: content.link}, self.folder.put_manifest
        await self.links.write(repository, links, work, repository, manifest, children)
        self._memory.forget(repository, links)
        self._memory.put_content(repository, manifest.digest, content, self._memory.version)
        if self.is_writable:
            await self.evict_excess([manifest.digest])

    async def quarantine_if_unreadable(self, digest: Digest) -> None:
        """Read a blob that broke off while it was sent; an unreadable file is a miss for the next client."""
        with suppress(StoreError):
            await self.executor.run(self.folder.blobs.quarantine_if_unreadable, digest)

    async def adopt(self, verified: VerifiedFile, *, asked_for: bool = True) -> None:
        """Move a verified file into the blob store, `asked_for` by a client; evict above the quota."""
        excess = await self._disk.write(self.folder.adopt, verified)
        self.allowance.note_stored(verified.digest, verified.size, asked_for=asked_for)
        await self.evict_excess([verified.digest], excess)

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the tag entry."""
        known = self._memory.tag(repository, tag)
        if known is not None:
            return known
        version = self._memory.version
        entry = await self._disk.read_or(None, lambda: self.folder.index.tag(repository, tag))
        if entry is not None:
            self._memory.put_tag(repository, tag, entry, version)
        return entry

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Write a tag entry."""
        self._memory.forget_tag(repository, tag)
        await self._disk.best_effort(self.folder.put_tag, repository, tag, entry)
        self._memory.forget_tag(repository, tag)
        self._memory.put_tag(repository, tag, entry, self._memory.version)

    async def drop_tag(self, repository: Repository, tag: Tag) -> None:
        """Remove a tag entry."""
        self._memory.forget_tag(repository, tag)
        await self._disk.best_effort(self.folder.drop_tag, repository, tag)
        self._memory.forget_tag(repository, tag)

    async def known_tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        """Return up to `limit` tags that have an entry and sort after `after`, in order."""
        none: list[str] = []
        return await self._disk.read_or(none, lambda: self.folder.index.tags(repository, after, limit))

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        """Return the referrers list of a digest."""
        return await self._disk.read_or(None, lambda: self.folder.index.referrers(repository, digest))

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        """Write the referrers list of a digest."""
        await self._disk.best_effort(self.folder.put_referrers, repository, digest, entry)

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` names that start with `prefix` and sort after `after`, in order."""
        return await self.executor.run(self.folder.index.repositories, prefix, after, limit)

    async def acquire_lease(self, digest: Digest) -> BlobLease | None:
        """Acquire the lease for filling a small blob; None while another process holds it."""
        return await self.executor.await_or_release(self._leases.start(digest), _release)

    async def acquire_key_lease(self, key: str) -> Lease | None:
        """Acquire the lease under a key (`store.lock`); None while another process holds it."""
        return await self.executor.await_or_release(self._key_leases.start(key), _release)

    async def put_small_blob(
        self, repository: Repository, lease: BlobLease, content: Content, origin: Origin = Origin.UNKNOWN
    ) -> None:
        """Store a verified small blob if possible, and release its lease."""
        self._memory.put_content(repository, lease.digest, content, self._memory.version)
        try:
            excess = await self._write_small(lease, content.data, origin)
        except StoreError as error:
            self.report_write_failure(error)
        else:
            await self.evict_excess([lease.digest], excess)

    async def release_lease(self, lease: Lease) -> None:
        """Release a lease without content."""
        await self.executor.run(lease.release)

    async def missing_blobs(self, digests: Sequence[Digest]) -> list[Digest]:
        """Return those of `digests` that are not here."""
        return await self.executor.run(lambda: [each for each in digests if not self.folder.has(each)])

    async def lock_partial(
        self, repository: Repository, digest: Digest, *, public: bool = False
    ) -> tuple[Partial | None, LocalContent]:
        """Lock the partial, new or resumed (None if another process holds it); then look the digest up.

        `public`: its bytes, or those that are missing, come without an account.
        """
        lock = self.folder.recovery.write
        locking = self.executor.start(
            lambda: lock(self.folder.lock_partial, repository, digest, public=public)
        )
        return await self.executor.await_or_release(locking, lambda locked: _release(locked[0]))

    async def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """Open the partial that another process fills; None while there is nothing to follow."""
        opening = self.executor.start(self.folder.open_remote_partial, digest)
        return await self.executor.await_or_release(opening, _close)

    async def allocate(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> ChunkMap:
        """Size the partial for a blob of `size` bytes: resumed if it was of that size, else empty."""
        if partial.chunks is not None and partial.chunks.size == size:
            return partial.chunks
        return await self._disk.write(self.folder.allocate, partial, size, chunk_size, public=public)

    async def open_growing_file(
        self, partial: Partial, size: int, chunk_size: int, *, public: bool = False
    ) -> GrowingWriter:
        """Return a writer of the partial as a growing file, after `allocate`."""
        chunks = await self.allocate(partial, size, chunk_size, public=public)
        return self.growing_writer(GrowingFile(partial, chunks), partial)

    def growing_writer(self, file: GrowingFile, partial: Partial) -> GrowingWriter:
        """Return the writer of a growing file whose partial is locked here."""
        return GrowingWriter(file, partial, self.executor, self.make_room)

    async def discard_partial(self, partial: Partial) -> None:
        """Remove the partial's files: they were adopted, or are worthless."""
        await self.executor.run(partial.discard)

    async def release_partial(self, partial: Partial) -> None:
        """Close the partial and release its lock; its content stays for the next fill."""
        await self.executor.run(partial.release)

    async def evict(self, keep: Sequence[Digest] = (), need: int = 0, filling: Digest | None = None) -> None:
        """Evict as `CacheDirectory.evict`."""
        await self._evict(self.folder.evict, keep, need, filling)

    async def excess(self, ahead: int = 0, filling: Digest | None = None) -> int:
        """Return the excess as `CacheDirectory.excess`."""
        return await self.executor.run(self.folder.excess, ahead, filling)

    async def evict_excess(
        self, keep: Sequence[Digest] = (), excess: int | None = None, filling: Digest | None = None
    ) -> None:
        """Evict if there is an `excess`, None for a look. A failure is left to the next housekeeping run."""
        with suppress(StoreError):
            if (await self.excess(filling=filling) if excess is None else excess) > 0:
                # To completion, else evicted blobs go unreported at shutdown.
                await run_to_completion(self.evict(keep, filling=filling))

    async def make_room(self, missing: int = 0) -> None:
        """Evict on a full disk as `Evictor.make_room`; failures are ignored."""
        with suppress(StoreError):
            await self._evict(self.folder.make_room, missing)

    async def run_housekeeping(self) -> None:
        """Recover, and write last-use times; one process of all on the folder evicts and sweeps too."""
        await self.recover()
        if not await self.executor.run(self.folder.claim_housekeeping):
            await (self.evict() if self.allowance.earned else self.flush_last_use())
            return
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            await self.remove_old_partials()
        await self.evict()

    async def remove_old_partials(self) -> None:
        """Remove fills that were interrupted, by a crash for instance, and not resumed."""
        if names := await self.executor.run(self.folder.remove_old_partials):
            log.info("removed partials that no fill resumed", files=len(names))

    async def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Replace the pins of the configuration by `pins`; at a later `recover` if the disk fails now."""
        self._pins = pins
        self._pins_written = await self._disk.best_effort(self.folder.configure_pins, pins)

    async def stats(self) -> tuple[int, int]:
        """Return bytes and number of blobs."""
        return await self.executor.run(self.folder.blobs.stats)

    async def check(self) -> list[str]:
        """Return the inconsistencies of the blob store as sentences."""
        return await self.executor.run(self.folder.blobs.check)

    async def flush_last_use(self) -> None:
        """Write the last-use times gathered since the last call; a blob that is being read is used now.

        Content that was served from memory and has been evicted is stored again.
        """
        used, self._used = self._used, {}
        used.update(dict.fromkeys(self._open, time.time()))
        if not used or not (missing := await self.executor.run(self.folder.blobs.touch, used)):
            return
        if missing := [each for each in missing if each not in self._open]:
            await self.executor.run(self.folder.restore, self._memory.copies(missing), missing)

    async def close(self) -> None:
        """Write what is in memory only, and close all connections."""
        with suppress(StoreError):
            await self.flush_last_use()
        await self.executor.run(self.folder.release_housekeeping)
        self._memory.close_files()
        self.readers.executor.shutdown(wait=False)
        await self.executor.close(self.folder.close)

    async def _evict(self, work: Callable[P, list[EvictedBlob]], *args: P.args, **kwargs: P.kwargs) -> None:
        async with self._evicting:
            self._memory.close_files()
            with suppress(StoreError):  # a full disk takes no writes, and must get room nevertheless
                await self.flush_last_use()  # so that the eviction knows what is in use
            evicted = await self.executor.run(work, *args, **kwargs)
        if evicted:
            self.on_evicted(evicted)

    async def _write_small(self, lease: BlobLease, data: bytes, origin: Origin) -> int:
        """Return the excess after storing a small blob, with more room or after a repair if need be."""
        with suppress(StoreError):
            return await self._writes.do((lease, data, origin))
        return await self._disk.write(self.folder.put_small_blob, lease.digest, data, origin)


def _release(held: Lease | Partial | None) -> None:
    if held is not None:
        held.release()


def _close(remote: RemotePartial | None) -> None:
    if remote is not None:
        remote.close()
