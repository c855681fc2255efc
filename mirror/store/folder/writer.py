"""Writes to blobs and index that belong together, in an order that a crash leaves right (invariant 8)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import SMALL_BYTES, Origin
from mirror.store.blobs.small_files import SmallFiles
from mirror.store.eviction import Evictor
from mirror.store.invalidation import Epoch
from mirror.store.links.content import StoredManifest
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Index, Link, ReferrersEntry, TagEntry
from mirror.store.partial.lease import BlobLease
from mirror.store.pins.pins import Pins


class ContentWriter:
    """Writes to one cache folder, which other processes and the pins learn of. Any thread; blocks."""

    def __init__(
        self,
        blobs: BlobStore,
        index: Index,
        evictor: Evictor,
        pins: Pins,
        epoch: Epoch,
        partials: Path,
        *,
        durable: bool,
    ) -> None:
        self._blobs = blobs
        self._index = index
        self._evictor = evictor
        self._pins = pins
        self._epoch = epoch
        self._durable = durable
        self._small_files = SmallFiles(blobs, partials)

    def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Store a verified manifest, and link the manifest and its children to the repository."""
        if not self._blobs.has(manifest.digest):
            self._small_files.add({manifest.digest: manifest.data}, manifest.origin)
        self._index.add_links(repository, {**children, manifest.digest: manifest.stored_link()})
        self._pins.note_change(repository)

    def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Write a tag entry; the pins are computed again if the tag points elsewhere now."""
        known = self._index.tag(repository, tag)
        self._index.put_tag(repository, tag, entry)
        if known is None or known.digest != entry.digest:
            self._pins.note_change(repository)

    def drop_tag(self, repository: Repository, tag: Tag) -> None:
        """Remove a tag entry."""
        self._index.drop_tag(repository, tag)
        self._pins.note_change(repository)

    def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        """Write a referrers list; the pins are computed again if the list has changed."""
        known = self._index.referrers(repository, digest)
        self._index.put_referrers(repository, digest, entry)
        if known is None or known.manifests != entry.manifests:
            self._pins.note_change(repository)

    def remove_images(
        self, repository: Repository, tags: Iterable[str], links: Iterable[Digest], blobs: Iterable[Digest]
    ) -> None:
        """Remove tags and links of a repository, then blobs that nothing needs any more.

        Links go before blobs: no repository ever has a link to a blob that is gone. All processes learn of it
        in between, however far it came, so that none serves the images from memory any more.
        """
        try:
            self._index.drop(repository, tags, links)
        finally:
            self._epoch.note_removal()
            self._epoch.note_pin_change()
        for digest in blobs:
            self._blobs.remove(digest)

    def put_small_blobs(self, blobs: Sequence[tuple[BlobLease, bytes, Origin]]) -> list[int]:
        """Store small blobs and release their leases; return the `excess` after that, for each."""
        try:
            for origin in Origin:
                some = {lease.digest: data for lease, data, of in blobs if of is origin}
                self._small_files.add(some, origin)
        finally:
            for lease, _, _ in blobs:
                lease.release()
        return [self._evictor.excess()] * len(blobs)

    def put_small_blob(self, digest: Digest, data: bytes, origin: Origin = Origin.UNKNOWN) -> int:
        """Store a small blob without a lease; return the `excess` after that."""
        self._small_files.add({digest: data}, origin)
        return self._evictor.excess()

    def restore(self, copies: Mapping[Digest, Content], missing: Collection[Digest]) -> None:
        """Store evicted small blobs again; for one without a copy, all copies in memory are dropped."""
        for origin in Origin:
            some = {key: each.data for key, each in copies.items() if each.origin is origin}
            self._small_files.add(some, origin)
        if any(each not in copies for each in missing):
            self._epoch.note_removal()

    def adopt(self, verified: VerifiedFile) -> int:
        """Move a verified file into the blob store; return the `excess` after that."""
        # Small blobs are verified at each read, so that no caller need wait until they are durable.
        durable = verified.durable and self._durable and verified.size > SMALL_BYTES
        self._blobs.add(replace(verified, durable=durable))
        return self._evictor.excess()
