"""The cache directory: blobs, index, partials and pins of one folder, as blocking calls.

<cache folder>/           0700
    blobs/                verified blobs and their entries
    books/                the index: links, tag entries, referrers, repositories; locked by the housekeeper
    partial/              fills that are running or were interrupted, and leases
    uploads/, pushes/     pushes that are not finished (partial/upload.py); their journal (hosted/)
    replication/, webhooks/    queues to other registries and to webhooks (hosted/replication, hosted/notify)
    quarantine/           corrupt files
    pins, kept            the pins (pins/pin_file.py), and what they name (pins/manifest_journal.py)
    version               version of this layout
    savings.db            what was served and not fetched, by day (series/savings_book.py)
    tokens, token-uses    tokens of clients, and their last use (tokens/token_file.py)
    generation            epochs of removals, pins and access, shared by all processes (invalidation.py)
    proofs                which blobs were sent and proven lately, shared likewise (blobs/proof_table.py)
    evicting              locked during an eviction or a change of pins (eviction.py)
    books-lost, rebuild, restoring/    marks: a database was lost, a restore did not end (recovery.py)
    warm-runs             the last scheduled fetch of each list (manage/warm/job_state.py)
    scrub.cursor, .lock   where the scrub stands, and the process that scrubs (scrub.py)

`recovery.py` has the table of what is a miss on a failing disk, `eviction.py` that of who evicts what.
"""

import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec.structs import replace

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import SMALL_BYTES, EvictedBlob, Origin
from mirror.store.blobs.proof_table import ProofTable
from mirror.store.blobs.quota import DiskRoom, Quota, Shortage
from mirror.store.blobs.small_files import SmallFiles
from mirror.store.errors import NoRoom, PinTooLarge
from mirror.store.eviction import Evictor
from mirror.store.health import Capability, StoreHealth
from mirror.store.invalidation import Epoch
from mirror.store.links.content import LocalContent, StoredManifest
from mirror.store.lock import try_lock_folder
from mirror.store.memory_cache import Content
from mirror.store.metadata.hosted_names import HostedNames
from mirror.store.metadata.index import Index, Link, ReferrersEntry, TagEntry
from mirror.store.orphans import RESUMED_SECONDS, file_without_entry, old_partials
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.lease import BlobLease, Lease, acquire, acquire_blobs
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.pins.pins import Pins
from mirror.store.recovery import Recovery
from mirror.util.log import get_logger

log = get_logger(__name__)

# Chunk size of a blob that is restored without its chunk map, in bytes.
RESTORED_CHUNK = 8 * 1024 * 1024


class CacheDirectory:
    """One cache folder. Every method may be called from any thread; all of them block."""

    def __init__(
        self, path: Path, settings: CacheSettings | None = None, health: StoreHealth | None = None
    ) -> None:
        """Open or create everything. `settings` give the quota, None for no quota."""
        self.path = path
        self.rules = () if settings is None else settings.rules
        self.partials = path / "partial"
        self.health = health or StoreHealth()
        self.durable = settings is None or settings.durability == "safe"
        self.blobs = BlobStore(path / "blobs", path / "quarantine")
        self._small_files = SmallFiles(self.blobs, self.partials)
        self.index = Index(path / "books")
        self.recovery = Recovery(path, (self.blobs.database, self.index.database), self.health)
        self.recovery.open()
        self.blobs.retention.hosted_among = HostedNames(self.index).linked_among
        self.epoch = Epoch(path / "generation")
        self.proofs = ProofTable(path / "proofs")
        self.blobs.on_entry_dropped = self.epoch.note_removal
        self.recreated = False  # a part was recreated, and lacks the pins of the configuration
        self.recovery.on_repaired = self._repaired
        self.pins = Pins(path, self.index, self.read, self.epoch)
        # The last process here may have been killed between a write and the note about the write.
        self.epoch.note_pin_change()
        total = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).total
        quota = Quota() if settings is None else Quota.for_disk(settings, total)
        self.evictor = Evictor(path, self.blobs, self.pins, self.epoch, quota)
        self._housekeeping: int | None = None
        self.trusts_unknown = False  # blobs of unknown origin are public, as without accounts

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link that the index has; None too if the index cannot be read."""
        return self.recovery.read_or(Capability.METADATA, None, lambda: self.index.link(repository, digest))

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is here; False too if the entries of the blobs cannot be read."""
        return self.recovery.read_or(Capability.BLOBS, False, lambda: self.blobs.has(digest))

    def look_up(self, repository: Repository, digest: Digest, link: Link | None = None) -> LocalContent:
        """Look up link and presence, without content. `link`: the link, if the caller has it already."""
        link = link or self.link(repository, digest)
        origin = self.recovery.read_or(Capability.BLOBS, None, lambda: self.blobs.origin(digest))
        unconfirmed = link is not None and origin is not None and not self.opens(link, origin)
        return LocalContent(link, origin is not None, unconfirmed=unconfirmed)

    def opens(self, link: Link, origin: Origin) -> bool:
        """Return whether a link opens a blob: a name alone does not open what came with an account."""
        unknown = origin is Origin.UNKNOWN and self.trusts_unknown
        return link.confirmed is not None or origin is Origin.PUBLIC or unknown

    def open_blob(self, repository: Repository, digest: Digest, link: Link | None = None) -> LocalContent:
        """Look up as `look_up`, and open the blob if the repository's link opens it; the caller closes it.

        A blob of up to SMALL_BYTES is read instead.
        """
        link = link or self.link(repository, digest)
        if link is None:
            return LocalContent(None, self.has(digest))
        blob = self.recovery.read_or(Capability.BLOBS, None, lambda: self.blobs.open(digest))
        if blob is not None and not self.opens(link, blob.origin):
            blob.file.close()
            return LocalContent(link, present=True, unconfirmed=True)
        if blob is None or blob.size > SMALL_BYTES:
            return LocalContent(link, blob is not None, blob)
        blob.file.close()
        data = self.read(digest, SMALL_BYTES)
        return LocalContent(link, data is not None, data=data)

    def manifest(self, repository: Repository, digest: Digest, link: Link | None = None) -> Content | None:
        """Return the manifest if it is here, and the repository's link is a manifest's and opens it."""
        link = link or self.link(repository, digest)
        if link is None or link.media_type is None:
            return None
        if link.confirmed is None and self.look_up(repository, digest, link).unconfirmed:
            return None
        data = self.read(digest, MAX_MANIFEST_BYTES)
        return None if data is None else Content(link, data)

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """Return a whole blob of up to `limit` bytes, whatever repository it came through."""
        return self.recovery.read_or(Capability.BLOBS, None, lambda: self._read_verified(digest, limit))

    def _read_verified(self, digest: Digest, limit: int) -> bytes | None:
        data = self.blobs.read(digest, limit)
        # Small enough to verify on every read: a flipped bit on disk never reaches a client.
        if data is not None and Digest.of(data, digest.algorithm) != digest:
            self.blobs.quarantine(digest)
            return None
        return data

    def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Store a verified manifest, and link the manifest and its children to the repository."""
        if not self.blobs.has(manifest.digest):
            self._small_files.add({manifest.digest: manifest.data}, manifest.origin)
        self.index.add_links(repository, {**children, manifest.digest: manifest.stored_link()})
        self.pins.note_change(repository)

    def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Write a tag entry; the pins are computed again if the tag points elsewhere now."""
        known = self.index.tag(repository, tag)
        self.index.put_tag(repository, tag, entry)
        if known is None or known.digest != entry.digest:
            self.pins.note_change(repository)

    def drop_tag(self, repository: Repository, tag: Tag) -> None:
        """Remove a tag entry."""
        self.index.drop_tag(repository, tag)
        self.pins.note_change(repository)

    def remove_images(
        self, repository: Repository, tags: Iterable[str], links: Iterable[Digest], blobs: Iterable[Digest]
    ) -> None:
        """Remove tags and links of a repository, then blobs that nothing needs any more.

        Links go before blobs: no repository ever has a link to a blob that is gone. All processes learn of it
        in between, however far it came, so that none serves the images from memory any more.
        """
        try:
            self.index.drop(repository, tags, links)
        finally:
            self.epoch.note_removal()
            self.epoch.note_pin_change()
        for digest in blobs:
            self.blobs.remove(digest)

    def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        """Write a referrers list; the pins are computed again if the list has changed."""
        known = self.index.referrers(repository, digest)
        self.index.put_referrers(repository, digest, entry)
        if known is None or known.manifests != entry.manifests:
            self.pins.note_change(repository)

    def pin(self, pin: Pin) -> int:
        """Keep what matches from now on; return how many bytes match, as far as they are known.

        Raises PinTooLarge, and then changes nothing.
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
        """Remove a pin; return whether there was such a pin. Pins of the configuration stay."""
        with self.eviction_lock():
            return self.pins.remove(images)

    def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Replace the pins of the configuration by `pins`. Nothing is written if they are the same."""
        if self.pins.has_configured(pins):
            return
        with self.eviction_lock():
            self.pins.configure(pins)

    def acquire_leases(self, digests: Sequence[Digest]) -> list[BlobLease | None]:
        """Acquire a lease for filling each digest; None where another process holds it."""
        return acquire_blobs(digests, self.partials, self.has)

    def acquire_key_leases(self, keys: Sequence[str]) -> list[Lease | None]:
        """Acquire a lease under each key; None where another process holds it."""
        return acquire(keys, self.partials)

    def put_small_blobs(self, blobs: Sequence[tuple[BlobLease, bytes, Origin]]) -> list[int]:
        """Store small blobs and release their leases; return the `excess` after that, for each."""
        try:
            for origin in Origin:
                some = {lease.digest: data for lease, data, of in blobs if of is origin}
                self._small_files.add(some, origin)
        finally:
            for lease, _, _ in blobs:
                lease.release()
        return [self.excess()] * len(blobs)

    def put_small_blob(self, digest: Digest, data: bytes, origin: Origin = Origin.UNKNOWN) -> int:
        """Store a small blob without a lease; return the `excess` after that."""
        self._small_files.add({digest: data}, origin)
        return self.excess()

    def restore(self, copies: Mapping[Digest, Content], missing: Collection[Digest]) -> None:
        """Store evicted small blobs again; for one without a copy, all copies in memory are dropped."""
        for origin in Origin:
            some = {key: each.data for key, each in copies.items() if each.origin is origin}
            self._small_files.add(some, origin)
        if any(each not in copies for each in missing):
            self.epoch.note_removal()

    def adopt(self, verified: VerifiedFile) -> int:
        """Move a verified file into the blob store; return the `excess` after that."""
        # Small blobs are verified at each read, so that no caller need wait until they are durable.
        durable = verified.durable and self.durable and verified.size > SMALL_BYTES
        self.blobs.add(replace(verified, durable=durable))
        return self.excess()

    def lock_partial(
        self, repository: Repository, digest: Digest, *, public: bool = False
    ) -> tuple[Partial | None, LocalContent]:
        """Lock the partial of `digest`, new or resumed, and then look the digest up.

        The partial is None while another process holds it. NoRoom if the link names more bytes than the quota
        allows: nothing needs to be asked of the upstream then. `public`: the rest comes without an account.
        """
        partial = Partial.lock(digest, self.partials)
        try:
            local = self.look_up(repository, digest)
            if partial is not None and not local.present and local.link is not None:
                self._check_room(digest, local.link.size or 0)
            if partial is not None and not local.present:
                self._restore(partial, local.link)
            if partial is not None and partial.chunks is not None and not public:
                partial.chunks.set_private()
            return partial, local
        except BaseException:
            if partial is not None:
                partial.release()
            raise

    def _restore(self, partial: Partial, link: Link | None) -> None:
        """Take a file that was adopted, and got no entry because of a crash, back into its partial."""
        if partial.chunks is not None and partial.chunks.received():
            return
        path = file_without_entry(self.blobs, partial.digest)
        size = path.stat().st_size if path is not None else 0
        if path is not None and size and (link is None or link.size in (None, size)):
            partial.restore(path, RESTORED_CHUNK)
            log.info("blob without an entry found, adopted if it is right", digest=str(partial.digest))

    def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """Open the partial that another process fills; None while there is nothing to follow."""
        return RemotePartial.open(digest, self.partials)

    def allocate(self, partial: Partial, size: int, chunk_size: int, *, public: bool = False) -> ChunkMap:
        """Start a partial of `size` bytes, which takes no room yet. NoRoom if the quota allows less.

        `public`: the bytes will come without an account.
        """
        self._check_room(partial.digest, size)
        return partial.allocate(size, chunk_size, public=public)

    def _check_room(self, digest: Digest, size: int) -> None:
        if not self.evictor.can_hold(size):
            allowed = self.size_limit()
            raise NoRoom(f"{digest} takes {size} bytes of {allowed} that may be kept, pinned ones included")

    def remove_old_partials(self) -> list[str]:
        """Remove fills that were interrupted and not resumed for a week; return the files' names."""
        before = time.time() - RESUMED_SECONDS
        return [each.path.name for each in old_partials(self.partials, before, remove=True)]

    def evict(
        self, keep: Collection[Digest] = (), need: int = 0, filling: Digest | None = None
    ) -> list[EvictedBlob]:
        """Evict until the quota is met and `need` bytes are free (`store.eviction`); `keep` stays.

        `filling`: as in `excess`.
        """
        return self.evictor.evict(keep, need, SMALL_BYTES, filling)

    def make_room(self, missing: int) -> list[EvictedBlob]:
        """Evict on a full disk for a blob of which bytes are `missing`, if all of them can come to fit."""
        return self.evictor.make_room(missing, SMALL_BYTES)

    def eviction_lock(self) -> AbstractContextManager[None]:
        """Hold off evictions and changes of pins in all processes, as a context manager."""
        return self.evictor.lock()

    def excess(self, ahead: int = 0, filling: Digest | None = None) -> int:
        """Return how many bytes must go for `ahead` more bytes to be within the quota.

        The fill of `filling` counts with the next bytes that it will write (ROOM_AHEAD), too.
        """
        return self.evictor.excess(ahead, filling)

    @property
    def quota(self) -> Quota:
        """The quota that evictions go by."""
        return self.evictor.quota

    def size_limit(self) -> int:
        """Return how many bytes the cache may hold."""
        return self.evictor.size_limit()

    def room(self) -> DiskRoom:
        """Return what the file system has and the cache uses; fills count with what they have written."""
        return self.evictor.room()

    @property
    def min_free(self) -> int:
        """Return the bytes that the quota leaves free on the file system."""
        return self.evictor.quota.min_free

    def shortage(self, margin: int = 0) -> Shortage | None:
        """Return the shortage if `min_free` leaves the cache `margin` bytes or less: nothing is kept then."""
        return self.evictor.quota.shortage(self.room(), self.path, margin)

    def claim_housekeeping(self) -> bool:
        """Return whether this process is the housekeeper: one of all processes on this folder.

        The housekeeper stays so until `release_housekeeping`, or its end.
        """
        if self._housekeeping is None:
            self._housekeeping = try_lock_folder(self.path / "books")
        return self._housekeeping is not None

    def release_housekeeping(self) -> None:
        """Let another process become the housekeeper."""
        if self._housekeeping is not None:
            os.close(self._housekeeping)
            self._housekeeping = None

    def open_connections(self) -> None:
        """Open this thread's database connections, which its first call would do otherwise."""
        self.blobs.size()
        self.index.repositories("", "", 1)

    def _repaired(self) -> None:
        self.epoch.reopen()
        self.recreated = True

    def close(self) -> None:
        """Close this thread's connections. No thread may use the folder afterwards."""
        self.epoch.close()
        self.proofs.close()
        self.blobs.close()
        self.index.close()
