"""One cache folder: blobs and books together, synchronously.

<cache folder>/           0700
    blobs/                verified blobs and their entries
    books/                links, tag entries, referrers, repositories; locked by the one that keeps house
    partial/              fills that are running, or were interrupted
    quarantine/           files that were found wrong
    pins, kept            what is to be kept (pinfile.py), and what that is made of (known.py)
    version               of this layout
    generation            what tells all processes that something was removed, or is pinned (generation.py)
    evicting              locked by who makes room, or changes what may go
"""

import math
import os
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.blobs import START, BlobStore, EvictedBlob, EvictionReason, OpenBlob
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.quota import IN_USE, DiskRoom, Quota, Shortage
from mirror.store.durable import try_allocate
from mirror.store.errors import NoRoom, PinTooLarge
from mirror.store.health import Capability, StoreHealth
from mirror.store.invalidation import Epoch
from mirror.store.lock import exclusive_lock, try_lock_folder
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Index, Link, ReferrersEntry, TagEntry
from mirror.store.orphans import old_partials
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.lease import BlobLease, Lease, acquire, acquire_blobs
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.pins.pins import EvictionGuard, Pins
from mirror.store.recovery import Recovery
from mirror.util.log import get_logger

log = get_logger(__name__)

# Blobs up to this size are handled whole, in memory: configs, and the many small layers. 256 KiB are hashed
# in less time than it takes to wake a thread, so they are proven each time they are read from the disk.
SMALL_BYTES = 256 * 1024

# A fill that was broken off is resumed for a week, in seconds; then what it takes is better used otherwise.
RESUMED_SECONDS = 7 * 24 * 3600.0

# For how long eviction trusts that nothing has come in front of what it has passed, in seconds: nothing does,
# but for a clock that was set back.
PASSED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class StoredManifest:
    data: bytes
    digest: Digest
    media_type: str


@dataclass(frozen=True, slots=True)
class LocalContent:
    """What is here for one repository and digest.

    `present` says that the bytes are here, be it for other repositories. They come only with a link
    (invariant 5): whole in `data` if they are few (SMALL_BYTES), else as `blob`, which is open.
    """

    link: Link | None
    present: bool
    blob: OpenBlob | None = None
    data: bytes | None = None


class CacheDirectory:
    """Every method may be called from any thread; all of them block."""

    def __init__(self, path: Path, settings: CacheSettings | None = None) -> None:
        """Opens or creates everything. `settings` for the quota, None for none."""
        self.path = path
        self.partials = path / "partial"
        self.health = StoreHealth()
        self.durable = settings is None or settings.durability == "safe"
        self.blobs = BlobStore(path / "blobs", path / "quarantine")
        self.index = Index(path / "books")
        self.recovery = Recovery(path, (self.blobs.database, self.index.database), self.health)
        self.recovery.open()
        self.epoch = Epoch(path / "generation")
        self.blobs.on_entry_dropped = self.epoch.note_removal
        self.recreated = False  # something was made anew, and what the configuration wants in it is not there
        self.recovery.on_repaired = self._repaired
        self.pins = Pins(path, self.index, self.read, self.epoch)
        # Whoever was killed after it wrote something, and before it said so, may have been the last one here.
        self.epoch.note_pin_change()
        total = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).total
        self._quota = Quota() if settings is None else Quota.for_disk(settings, total)
        self._housekeeping: int | None = None
        self._evicting = path / "evicting"
        self._judged = (0, False)  # which pins were looked at, and whether they are too much
        self._passed = (0, 0.0, START)  # what eviction need not look at: for which pins, until when, how far

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """As the books have it, if they can be read."""
        return self.recovery.read_or(Capability.METADATA, None, lambda: self.index.link(repository, digest))

    def has(self, digest: Digest) -> bool:
        return self.recovery.read_or(Capability.BLOBS, False, lambda: self.blobs.has(digest))

    def look_up(self, repository: Repository, digest: Digest, link: Link | None = None) -> LocalContent:
        """`link`: where it is known without the books, here and below."""
        return LocalContent(link or self.link(repository, digest), self.has(digest))

    def open_blob(self, repository: Repository, digest: Digest, link: Link | None = None) -> LocalContent:
        """As `held`, and the content where the repository may have it; the caller closes it."""
        link = link or self.link(repository, digest)
        if link is None:
            return LocalContent(None, self.has(digest))
        blob = self.recovery.read_or(Capability.BLOBS, None, lambda: self.blobs.open(digest))
        if blob is None or blob.size > SMALL_BYTES:
            return LocalContent(link, blob is not None, blob)
        blob.file.close()
        data = self.read(digest, SMALL_BYTES)
        return LocalContent(link, data is not None, data=data)

    def manifest(self, repository: Repository, digest: Digest, link: Link | None = None) -> Content | None:
        """The manifest, if it is here and linked to the repository as a manifest."""
        link = link or self.link(repository, digest)
        if link is None or link.media_type is None:
            return None
        data = self.read(digest, MAX_MANIFEST_BYTES)
        return None if data is None else Content(link, data)

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a blob of up to `limit` bytes, whatever repository it came through."""
        return self.recovery.read_or(Capability.BLOBS, None, lambda: self._read(digest, limit))

    def _read(self, digest: Digest, limit: int) -> bytes | None:
        data = self.blobs.read(digest, limit)
        # Small enough to prove on every read: a flipped bit on disk never reaches a client.
        if data is not None and Digest.of(data, digest.algorithm) != digest:
            self.blobs.quarantine(digest)
            return None
        return data

    def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Keep a verified manifest, and link it and what it names to the repository."""
        if not self.blobs.has(manifest.digest):
            self._add({manifest.digest: manifest.data})
        link = Link(manifest.media_type, len(manifest.data))
        self.index.add_links(repository, {**children, manifest.digest: link})
        self.pins.note_change(repository)

    def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        known = self.index.tag(repository, tag)
        self.index.put_tag(repository, tag, entry)
        if known is None or known.digest != entry.digest:
            self.pins.note_change(repository)

    def drop_tag(self, repository: Repository, tag: Tag) -> None:
        self.index.drop_tag(repository, tag)
        self.pins.note_change(repository)

    def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        known = self.index.referrers(repository, digest)
        self.index.put_referrers(repository, digest, entry)
        if known is None or known.manifests != entry.manifests:
            self.pins.note_change(repository)

    def pin(self, pin: Pin) -> int:
        """Keep what matches from now on; how many bytes that are, as far as they are known.

        Raises PinTooLarge, and nothing is changed.
        """
        with self.eviction_lock():
            kept, asked = self.pins.pinned_sizes(), self.pins.closure([pin])
            used, more = sum(kept.values()), sum(size for key, size in asked.items() if key not in kept)
            allowed = self.size_limit()
            if used + more > allowed:
                raise PinTooLarge(used, more, allowed)
            self.pins.add(pin)
            return sum(asked.values())

    def unpin(self, images: ImagePattern) -> bool:
        """Whether there was such a pin; those of the configuration stay."""
        with self.eviction_lock():
            return self.pins.remove(images)

    def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Have those of the configuration be these. Where they are, nothing is written."""
        if self.pins.has_configured(pins):
            return
        with self.eviction_lock():
            self.pins.configure(pins)

    def eviction_lock(self) -> AbstractContextManager[None]:
        """While this is held nothing is evicted, in no process, and nobody else changes what may go."""
        return exclusive_lock(self._evicting)

    def acquire_leases(self, digests: Sequence[Digest]) -> list[BlobLease | None]:
        """Acquire a lease for filling each digest; None where another process holds it."""
        return acquire_blobs(digests, self.partials, self.has)

    def acquire_key_leases(self, keys: Sequence[str]) -> list[Lease | None]:
        """Acquire a lease under each key; None where another process holds it."""
        return acquire(keys, self.partials)

    def put_small_blobs(self, kept: Sequence[tuple[BlobLease, bytes]]) -> list[int]:
        """Store small blobs, and give up their locks; each is told the `excess` after that."""
        try:
            self._add({lease.digest: data for lease, data in kept})
        finally:
            for lease, _ in kept:
                lease.release()
        return [self.excess()] * len(kept)

    def put_small_blob(self, digest: Digest, data: bytes) -> int:
        """Store a small blob without a lock; the `excess` after that."""
        self._add({digest: data})
        return self.excess()

    def adopt(self, verified: VerifiedFile) -> int:
        """Move a verified file into the blob store; the `excess` after that."""
        # What is small is proven at each read, and need not be waited for.
        durable = verified.durable and self.durable and verified.size > SMALL_BYTES
        self.blobs.add(replace(verified, durable=durable))
        return self.excess()

    def lock_partial(self, repository: Repository, digest: Digest) -> tuple[Partial | None, LocalContent]:
        """The partial of `digest`, new or resumed, None while another process holds it; and then `held`."""
        partial = Partial.lock(digest, self.partials)
        try:
            return partial, self.look_up(repository, digest)
        except BaseException:
            if partial is not None:
                partial.release()
            raise

    def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """The partial of `digest` that another process fills; None when there is nothing to follow yet."""
        return RemotePartial.open(digest, self.partials)

    def allocate(self, partial: Partial, size: int, chunk_size: int) -> ChunkMap:
        """Start a partial from nothing, with room for `size` bytes. NoRoom where there cannot be as much."""
        usage = shutil.disk_usage(self.path)
        if size > usage.free:
            raise NoRoom(f"{partial.digest} takes {size} bytes, and {usage.free} are free", size)
        return partial.allocate(size, chunk_size)

    def excess(self) -> int:
        """How many bytes are too many. Fills count with their whole size: what is to come needs room too."""
        return self._quota.excess(self.room())

    def evict(self, keep: Collection[Digest] = (), need: int = 0) -> list[EvictedBlob]:
        """Remove what is too old, and then, least recently used first, what is too much.

        And as much as it takes for `need` bytes to be free, whatever the quota allows. But nothing of `keep`,
        nor what is pinned or being read. What was used a moment ago (quota.IN_USE) goes last, after what
        interrupted fills have left, and what is small last of all: it makes little room, and is soon missed.
        """
        gone: list[EvictedBlob] = []
        with self.eviction_lock():
            now, kept = time.time(), EvictionGuard(keep, self.pins)
            if self._quota.max_age < math.inf:
                old = self._evict(now - max(self._quota.max_age, IN_USE), None, kept)
                gone += (replace(each, reason=EvictionReason.AGE) for each in old)
            if (excess := max(self.excess(), self._lacking(need))) > 0:
                unused = self._evict(now - IN_USE, excess, kept)
                gone += unused
                if (left := excess - sum(each.size for each in unused)) > 0:
                    left = self._give_up_partials(now - IN_USE, left)
                    gone += self.blobs.evict_in_use(now - IN_USE, left, kept, SMALL_BYTES)
            self._warn_of_pins()
            with suppress(OSError):  # a full disk takes no notes
                self.pins.write_journal()
        return gone

    def _give_up_partials(self, before: float, excess: int) -> int:
        """Remove what interrupted fills have left, which counts as if they went on; what is left to go."""
        partials, least = old_partials(self.partials, before, remove=True), self.room().used - excess
        while (held := self.room().used) > least and next(partials, None) is not None:
            pass
        return held - least

    def _lacking(self, need: int) -> int:
        """How many bytes have to go for `need` to be free. That there is a quota shows when it is tried."""
        free = shutil.disk_usage(self.path).free
        if need > free or not need:
            return max(0, need - free)
        try:
            try_allocate(self.partials, need)
        except OSError:
            return need
        return 0

    def _warn_of_pins(self) -> None:
        """Once: what a pattern matches, or the configuration pins, may be more than there is room for.

        That is borne. A mirror that did not start because of it would serve nobody, and keep nothing.
        """
        now, (judged, too_much) = self.epoch.pin_changes(), self._judged
        if judged == now:
            return
        pinned, allowed = sum(self.pins.pinned_sizes().values()), self.size_limit()
        if pinned > allowed and not too_much:
            to_do = "raise cache.max_size, lower cache.min_free, or pin less"
            log.warning("pins take more than there is room for", pinned=pinned, allowed=allowed, to_do=to_do)
        self._judged = (now, pinned > allowed)

    def _evict(self, before: float, excess: int | None, kept: EvictionGuard) -> list[EvictedBlob]:
        """What is pinned and not used is what is oldest: it is not gone through again each time."""
        pinned, until, passed = self._passed
        now = time.monotonic()
        if pinned != self.epoch.pin_changes() or now >= until:
            pinned, until, passed = self.epoch.pin_changes(), now + PASSED_SECONDS, START
        eviction = self.blobs.evict(before, excess, kept, passed)
        self._passed = (pinned, until, eviction.resume_after)
        return eviction.evicted

    def size_limit(self) -> int:
        """How many bytes the cache may hold."""
        return self._quota.size_limit(self.room())

    def shortage(self, margin: int = 0) -> Shortage | None:
        """Return what to tell when `min_free` leaves the cache `margin` bytes or less: nothing is kept."""
        return self._quota.shortage(self.room(), self.path, margin)

    def room(self) -> DiskRoom:
        """What there is and what is used; fills count with their whole size."""
        # In this order: what is adopted meanwhile is missed, and not counted twice; its fill looks again.
        usage, kept = shutil.disk_usage(self.path), self.blobs.size()
        reserved, written = 0, 0
        with os.scandir(self.partials) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # adopted, or given up, since it was listed
                    status = entry.stat()
                    reserved += status.st_size
                    written += 512 * status.st_blocks
        free = usage.free - max(0, reserved - written)
        return DiskRoom(usage.total, free, kept + reserved)

    def claim_housekeeping(self) -> bool:
        """Whether this process is the one, among those on this folder, that does what needs doing once.

        Who is, stays it until `leave_house`, or its end.
        """
        if self._housekeeping is None:
            self._housekeeping = try_lock_folder(self.path / "books")
        return self._housekeeping is not None

    def release_housekeeping(self) -> None:
        """Let another process keep it."""
        if self._housekeeping is not None:
            os.close(self._housekeeping)
            self._housekeeping = None

    def open_connections(self) -> None:
        """Open this thread's connections, which otherwise its first call does."""
        self.blobs.size()
        self.index.repositories("", "", 1)

    def _repaired(self) -> None:
        self.epoch.reopen()
        self.recreated = True

    def remove_old_partials(self) -> list[str]:
        """Remove what crashes have left; the names of what is gone."""
        before = time.time() - RESUMED_SECONDS
        return [each.path.name for each in old_partials(self.partials, before, remove=True)]

    def close(self) -> None:
        """Close this thread's connections; nothing is asked of the folder any more."""
        self.epoch.close()
        self.blobs.close()
        self.index.close()

    def _add(self, contents: Mapping[Digest, bytes]) -> None:
        """Keep what is small. When the disk is full, nothing is left lying about that makes it fuller."""
        try:
            self.blobs.add(*(self._written(digest, data) for digest, data in contents.items()))
        except BaseException:
            for digest in contents:
                self._small_path(digest).unlink(missing_ok=True)
            raise

    def _written(self, digest: Digest, data: bytes) -> VerifiedFile:
        if Digest.of(data, digest.algorithm) != digest:
            raise ValueError(f"these bytes do not hash to {digest}")
        path = self._small_path(digest)
        with open(path, "wb") as file:
            file.write(data)
        # Not durable: `read` proves it each time, and what a power failure has spoilt is fetched anew.
        return VerifiedFile(digest, path, len(data), durable=False)

    def _small_path(self, digest: Digest) -> Path:
        """Where this thread, and no other, writes it."""
        return self.partials / f"small-{digest.encoded}-{os.getpid()}-{threading.get_ident()}"
