"""The asynchronous face of the cache folder: each method is one hop into a disk thread, or none.

What is small and in use is answered from memory (`store.memory`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.batch import Batcher
from mirror.store.blobs.blobs import EvictedBlob
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.cache_dir import CacheDirectory, LocalContent, StoredManifest
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.memory_cache import Content, MemoryCache
from mirror.store.metadata.index import Link, ReferrersEntry, TagEntry
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.lease import BlobLease, Lease
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.retrying import RetryingDisk
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Threads that read blobs ahead of their senders: as many as a disk serves well, and not all there are.
READERS = 4

# What is made free on a full disk besides what is asked for, in bytes: so that it is not at once full again.
MORE_ROOM = 16 * 1024 * 1024

# What nobody resumes is looked for this often, in seconds.
SWEEP_SECONDS = 3600.0


class Store:
    """Blobs, books and partials of one cache folder."""

    def __init__(self, folder: CacheDirectory, memory: int) -> None:
        self.folder = folder
        self.on_evicted: Callable[[Sequence[EvictedBlob]], object] = bool  # told what the quota has cost
        self.health = folder.health
        self._memory = MemoryCache(memory, folder.epoch.removals)
        self._pins: Sequence[Pin] = ()  # of the configuration
        self._pinned = True  # they are written down
        self._swept = -SWEEP_SECONDS
        self._used: dict[Digest, float] = {}
        self._open: Counter[Digest] = Counter()
        self._tidying = asyncio.Lock()
        self.executor = DiskExecutor(first=folder.open_connections)
        self._leases: Batcher[Digest, BlobLease | None] = Batcher(self.executor, folder.acquire_leases)
        self._key_leases: Batcher[str, Lease | None] = Batcher(self.executor, folder.acquire_key_leases)
        self._small_writes: Batcher[tuple[BlobLease, bytes], int] = Batcher(
            self.executor, folder.put_small_blobs
        )
        self._disk = RetryingDisk(self.executor, folder.recovery, folder.health, self.make_room)
        # Apart, so that a crowd reading old blobs from a slow disk does not keep look-ups and fills waiting.
        self.readers = DiskExecutor(READERS)

    @classmethod
    async def open(cls, path: Path, settings: CacheSettings | None = None) -> "Store":
        """`settings` for quota and memory, None for neither. StoreError names the folder and the reason."""
        opener = DiskExecutor(1)
        try:
            folder = await opener.run(CacheDirectory, path, settings)
            await opener.run(folder.recovery.drop_connections)
        except StoreError as error:
            raise StoreError(f"cannot use the cache folder {path}: {error.__cause__ or error}") from error
        finally:
            opener.executor.shutdown(wait=False)
        return cls(folder, 0 if settings is None else settings.memory)

    @property
    def is_writable(self) -> bool:
        """Whether what is fetched can be kept: not while there is trouble with writing."""
        return self._disk.is_writable

    def report_write_failure(self, error: StoreError) -> None:
        """Something could not be written, and nothing is until `recover` finds that it can."""
        self._disk.report_write_failure(error)

    async def recover(self) -> None:
        """See whether what was in trouble works again, and whether the folder is still there."""
        await self._disk.recover()
        if (self.folder.recreated or not self._pinned) and self.is_writable:
            self.folder.recreated = False
            await self.configure_pins(self._pins)

    async def warm_up(self) -> None:
        """Open each thread's connections to the books before somebody waits for them."""
        await self.executor.warm_up()

    async def look_up(self, repository: Repository, digest: Digest) -> LocalContent:
        if (known := self._memory.content(repository, digest)) is not None:
            return LocalContent(known.link, True)
        link = self._memory.link(repository, digest)
        return await self.executor.run(self.folder.look_up, repository, digest, link)

    async def open_blob(self, repository: Repository, digest: Digest) -> LocalContent:
        """As `held`, and the blob opened where the repository may have it; the caller closes it."""
        if (known := self._memory.content(repository, digest)) is not None:
            self.touch(digest)
            return LocalContent(known.link, True, data=known.data)
        writes = self._memory.version
        link = self._memory.link(repository, digest)
        opening = self.executor.start(self.folder.open_blob, repository, digest, link)
        try:
            held = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        if held.data is not None and held.link is not None:
            self._memory.put_content(repository, digest, Content(held.link, held.data), writes)
        if held.blob is not None or held.data is not None:
            self.touch(digest)
        return held

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """The manifest, if it is here and linked to the repository as a manifest."""
        content = self._memory.content(repository, digest)
        if content is None:
            writes = self._memory.version
            link = self._memory.link(repository, digest)
            content = await self.executor.run(self.folder.manifest, repository, digest, link)
            if content is None:
                return None
            self._memory.put_content(repository, digest, content, writes)
        if content.link.media_type is None:
            return None
        self.touch(digest)
        return StoredManifest(content.data, digest, content.link.media_type)

    def touch(self, digest: Digest) -> None:
        """It is being used; written down by and by (`flush_used`)."""
        self._used[digest] = time.time()

    def begin_reading(self, digest: Digest) -> Callable[[], None]:
        """Somebody reads it, be it for hours: it is in use until the returned function is called."""
        self._open[digest] += 1

        def end() -> None:
            self._open[digest] -= 1
            if not self._open[digest]:
                del self._open[digest]

        return end

    async def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a blob of up to `limit` bytes, whatever repository it came through."""
        return await self.executor.run(self.folder.read, digest, limit)

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Keep a verified manifest, and link it and what it names to the repository, if that can be."""
        content = Content(Link(manifest.media_type, len(manifest.data)), manifest.data)
        links = {**children, manifest.digest: content.link}
        await self._link(repository, links, self.folder.put_manifest, repository, manifest, children)
        self._memory.forget(repository, links)
        self._memory.put_content(repository, manifest.digest, content, self._memory.version)
        if self.is_writable:
            await self.evict_excess([manifest.digest])

    async def add_link(self, repository: Repository, digest: Digest, link: Link) -> None:
        links = {digest: link}
        await self._link(repository, links, self.folder.index.add_links, repository, links)
        self._memory.forget(repository, (digest,))

    async def quarantine_if_unreadable(self, digest: Digest) -> None:
        """It broke off while it was being sent: the next one who asks is to get another."""
        with suppress(StoreError):
            await self.executor.run(self.folder.blobs.quarantine_if_unreadable, digest)

    async def adopt(self, verified: VerifiedFile) -> None:
        """Move a verified file into the blob store, and make room for it."""
        excess = await self._disk.write(self.folder.adopt, verified)
        await self.evict_excess([verified.digest], excess)

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        known = self._memory.tag(repository, tag)
        if known is not None:
            return known
        writes = self._memory.version
        entry = await self._disk.read_or(None, lambda: self.folder.index.tag(repository, tag))
        if entry is not None:
            self._memory.put_tag(repository, tag, entry, writes)
        return entry

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        self._memory.forget_tag(repository, tag)
        await self._disk.best_effort(self.folder.put_tag, repository, tag, entry)
        self._memory.forget_tag(repository, tag)
        self._memory.put_tag(repository, tag, entry, self._memory.version)

    async def drop_tag(self, repository: Repository, tag: Tag) -> None:
        self._memory.forget_tag(repository, tag)
        await self._disk.best_effort(self.folder.drop_tag, repository, tag)
        self._memory.forget_tag(repository, tag)

    async def known_tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        """Up to `limit` tags with an entry, after `after` in order."""
        none: list[str] = []
        return await self._disk.read_or(none, lambda: self.folder.index.tags(repository, after, limit))

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        return await self._disk.read_or(None, lambda: self.folder.index.referrers(repository, digest))

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        await self._disk.best_effort(self.folder.put_referrers, repository, digest, entry)

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        return await self.executor.run(self.folder.index.repositories, prefix, after, limit)

    async def acquire_lease(self, digest: Digest) -> BlobLease | None:
        """Acquire the lease for filling a small blob; None while another process holds it."""
        return await self._had(self._leases.start(digest), _give_up)

    async def acquire_key_lease(self, key: str) -> Lease | None:
        """Acquire the lease under a key (`store.lock`); None while another process holds it."""
        return await self._had(self._key_leases.start(key), _give_up)

    async def put_small_blob(self, repository: Repository, lease: BlobLease, content: Content) -> None:
        """Store a small blob, which was verified, if that can be, and give up its lock."""
        self._memory.put_content(repository, lease.digest, content, self._memory.version)
        try:
            excess = await self._kept(lease, content.data)
        except StoreError as error:
            self.report_write_failure(error)
        else:
            await self.evict_excess([lease.digest], excess)

    async def release_lease(self, lease: Lease) -> None:
        """Nothing came of it."""
        await self.executor.run(lease.release)

    async def missing_blobs(self, digests: Sequence[Digest]) -> list[Digest]:
        """Which of them are not here."""
        return await self.executor.run(lambda: [each for each in digests if not self.folder.has(each)])

    async def lock_partial(
        self, repository: Repository, digest: Digest
    ) -> tuple[Partial | None, LocalContent]:
        """The partial of `digest`, new or resumed, None while another process holds it; and then `held`."""
        locking = self.executor.start(self._locked, repository, digest)
        return await self._had(locking, lambda had: _give_up(had[0]))

    def _locked(self, repository: Repository, digest: Digest) -> tuple[Partial | None, LocalContent]:
        return self.folder.recovery.write(self.folder.lock_partial, repository, digest)

    async def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """The partial of `digest` that another process fills; None when there is nothing to follow yet."""
        return await self._had(self.executor.start(self.folder.open_remote_partial, digest), _unfollow)

    def remote_growing_file(self, followed: RemotePartial, *, verify_first: bool) -> GrowingFile:
        """What another process fills, for readers of this one."""
        return GrowingFile(followed, followed.chunks, self.executor, verify_first=verify_first)

    async def preallocate(self, partial: Partial, size: int, chunk_size: int) -> None:
        """Make room for `size` bytes beforehand, so that `grow` need not. What fails, fails again there."""
        with suppress(StoreError):
            await run_to_completion(self.executor.run(self.folder.allocate, partial, size, chunk_size))

    async def open_growing_file(
        self, partial: Partial, size: int, chunk_size: int, *, verify_first: bool = False
    ) -> GrowingFile:
        """The partial as a growing file of `size` bytes: resumed if it was that size, else from nothing."""
        chunks = partial.chunks
        if chunks is None or chunks.size != size:
            chunks = await self._disk.write(self.folder.allocate, partial, size, chunk_size)
        growing = GrowingFile(partial, chunks, self.executor, verify_first=verify_first)
        growing.make_room = self.make_room
        return growing

    async def discard_partial(self, partial: Partial) -> None:
        """Remove the partial's files: they were adopted, or are worthless."""
        await self.executor.run(partial.discard)

    async def release_partial(self, partial: Partial) -> None:
        """Close the partial and give up its lock; what it holds stays for the next fill."""
        await self.executor.run(partial.release)

    async def evict(self, keep: Sequence[Digest] = (), need: int = 0) -> None:
        """Bring the cache within its quota, and have `need` bytes free; `keep` stays in any case."""
        async with self._tidying:
            with suppress(StoreError):  # a full disk takes no notes, and is to be made less full all the same
                await self.flush_last_use()  # so that what is in use is known to be
            gone = await self.executor.run(self.folder.evict, keep, need)
        if gone:
            self.on_evicted(gone)

    async def evict_excess(self, keep: Sequence[Digest] = (), excess: int | None = None) -> None:
        """As `tidy`, if there is an `excess`. That it fails is a matter of housekeeping."""
        with suppress(StoreError):
            found = await self.executor.run(self.folder.excess) if excess is None else excess
            if found > 0:
                await run_to_completion(
                    self.evict(keep)
                )  # or what is gone would not be told when the mirror stops

    async def make_room(self, need: int = 0) -> None:
        """The disk is full: evict until `need` bytes and some more are free, whatever comes of it."""
        with suppress(StoreError):
            await self.evict(need=need + MORE_ROOM)

    async def run_housekeeping(self) -> None:
        """What is to be done now and then; of what concerns all processes, one of them does it."""
        await self.recover()
        if not await self.executor.run(self.folder.claim_housekeeping):
            await self.flush_last_use()
            return
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            await self.remove_old_partials()
        await self.evict()

    async def remove_old_partials(self) -> None:
        """Remove what crashes have left."""
        if gone := await self.executor.run(self.folder.remove_old_partials):
            log.info("removed what a fill that nobody resumed had left", files=len(gone))

    async def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Pin what the configuration says, and no longer what it said before; later, where that cannot be."""
        self._pins = pins
        self._pinned = await self._disk.best_effort(self.folder.configure_pins, pins)

    async def stats(self) -> tuple[int, int]:
        """Bytes and number of blobs."""
        return await self.executor.run(self.folder.blobs.stats)

    async def check(self) -> list[str]:
        """What is inconsistent in the blob store, as sentences."""
        return await self.executor.run(self.folder.blobs.check)

    async def flush_last_use(self) -> None:
        """Write the last-use times gathered since the last call; what is being read is used now."""
        used, self._used = self._used, {}
        used.update(dict.fromkeys(self._open, time.time()))
        if used:
            await self.executor.run(self.folder.blobs.touch, used)

    async def close(self) -> None:
        with suppress(StoreError):
            await self.flush_last_use()
        await self.executor.run(self.folder.release_housekeeping)
        self.readers.executor.shutdown(wait=False)
        await self.executor.close(self.folder.close)

    async def _had(self, having: "asyncio.Future[T]", unwanted: Callable[[T], object]) -> T:
        """What a thread brings. Whoever waits may leave: `unwanted` is then called with it, in a thread.

        And only then he has left: when the mirror stops, the threads end when all tasks have.
        """
        try:
            return await asyncio.shield(having)
        except asyncio.CancelledError:
            await run_to_completion(self._let_go(having, unwanted))
            raise

    async def _let_go(self, having: "asyncio.Future[T]", unwanted: Callable[[T], object]) -> None:
        with suppress(StoreError):
            await self.executor.run(unwanted, await having)

    async def _kept(self, lease: BlobLease, data: bytes) -> int:
        """The excess after storing it, with more room or in a mended folder where that was wanting."""
        with suppress(StoreError):
            return await self._small_writes.do((lease, data))
        return await self._disk.write(self.folder.put_small_blob, lease.digest, data)

    async def _link(
        self,
        repository: Repository,
        links: Mapping[Digest, Link],
        work: Callable[P, object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """As `_note`; what cannot be written down is remembered, so that it need not be asked each time."""
        noted = await self._disk.best_effort(work, *args, **kwargs)
        self._memory.put_links(repository, links, written=noted)


def _give_up(had: Lease | Partial | None) -> None:
    if had is not None:
        had.release()


def _unfollow(had: RemotePartial | None) -> None:
    if had is not None:
        had.close()


def _close_unwanted(opening: "asyncio.Future[LocalContent]") -> None:
    """Whoever asked for a blob has left while it was being opened."""
    if not opening.cancelled() and opening.exception() is None and (blob := opening.result().blob):
        blob.file.close()
