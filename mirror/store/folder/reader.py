"""Blobs, manifests and links as a repository may see them: by a link that opens them (invariant 5)."""

from collections.abc import Mapping

from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.reference import Repository
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.entries import SMALL_BYTES, Origin
from mirror.store.health import Capability
from mirror.store.links.content import LocalContent
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Index, Link
from mirror.store.recovery import Recovery

# Blobs of one manifest that are looked for when it is stored.
MOST_LOOKED_FOR = 200


class ContentReader:
    """Reads from one cache folder; content that a failing disk cannot read is a miss. Any thread; blocks."""

    def __init__(self, blobs: BlobStore, index: Index, recovery: Recovery) -> None:
        self.trusts_unknown = False  # blobs of unknown origin are public, as without accounts
        self._blobs = blobs
        self._index = index
        self._recovery = recovery

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link that the index has; None too if the index cannot be read."""
        return self._recovery.read_or(Capability.METADATA, None, lambda: self._index.link(repository, digest))

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is here; False too if the entries of the blobs cannot be read."""
        return self._recovery.read_or(Capability.BLOBS, False, lambda: self._blobs.has(digest))

    def missing_among(self, children: Mapping[Digest, Link]) -> list[Digest]:
        """Return the blobs of a manifest that are not here; none of an image with very many."""
        blobs = {str(digest): digest for digest, link in children.items() if link.media_type is None}
        if len(blobs) > MOST_LOOKED_FOR:
            return []
        table, unknown = self._blobs.table, dict.fromkeys(blobs, (0, 0.0))
        here = self._recovery.read_or(Capability.BLOBS, unknown, lambda: table.sizes_and_last_use(blobs))
        return [digest for name, digest in blobs.items() if name not in here]

    def look_up(self, repository: Repository, digest: Digest, link: Link | None = None) -> LocalContent:
        """Look up link and presence, without content. `link`: the link, if the caller has it already."""
        link = link or self.link(repository, digest)
        origin = self._recovery.read_or(Capability.BLOBS, None, lambda: self._blobs.origin(digest))
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
        blob = self._recovery.read_or(Capability.BLOBS, None, lambda: self._blobs.open(digest))
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
        return self._recovery.read_or(Capability.BLOBS, None, lambda: self._read_verified(digest, limit))

    def _read_verified(self, digest: Digest, limit: int) -> bytes | None:
        data = self._blobs.read(digest, limit)
        # Small enough to verify on every read: a flipped bit on disk never reaches a client.
        if data is not None and Digest.of(data, digest.algorithm) != digest:
            self._blobs.quarantine(digest)
            return None
        return data
