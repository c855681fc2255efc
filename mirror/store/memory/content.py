"""Blobs and manifests in memory."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES, OpenBlob, Origin
from mirror.store.blobs.prover import Proof
from mirror.store.links.content import LocalContent, StoredManifest
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.memory.room import MemoryRoom
from mirror.store.metadata.index import Link
from mirror.util.tasks import Tasks


class NoProofs:
    """`Proofs` of blobs in memory, which no disk can change."""

    def note_sent(self, digest: Digest, client: str) -> None:
        """Do nothing."""

    def note_use(self, digest: Digest, client: str | None) -> bool:
        return False

    def is_pending(self, digest: Digest) -> bool:
        return False


class MemoryContent:
    """The blobs of one process: a `ContentStore`."""

    def __init__(self, blobs: MemoryBlobs, room: MemoryRoom) -> None:
        self.trusts_unknown = False  # as of `folder.reader.ContentReader`
        self._absent: dict[Digest, tuple[Repository, Link]] = {}
        self._blobs = blobs
        self._room = room

    def touch(self, digest: Digest) -> None:
        if (blob := self._blobs.blobs.get(digest)) is not None:
            blob.used = time.time()

    def begin_reading(self, digest: Digest) -> Callable[[], None]:
        self._blobs.reading[digest] += 1

        def end() -> None:
            self._blobs.reading[digest] -= 1
            if not self._blobs.reading[digest]:
                del self._blobs.reading[digest]

        return end

    async def look_up(self, repository: Repository, digest: Digest) -> LocalContent:
        link, blob = self._blobs.links.get((repository, digest)), self._blobs.blobs.get(digest)
        unconfirmed = link is not None and blob is not None and not self.opens(link, blob.origin)
        return LocalContent(link, blob is not None, unconfirmed=unconfirmed)

    async def open_blob(self, repository: Repository, digest: Digest) -> LocalContent:
        found = await self.look_up(repository, digest)
        if found.link is None or not found.present or found.unconfirmed:
            return found
        self.touch(digest)
        data = self._blobs.blobs[digest].data
        if len(data) <= SMALL_BYTES:
            return LocalContent(found.link, True, data=data)
        return LocalContent(found.link, True, self._blobs.open(digest))

    def take_absent(self, repository: Repository, digest: Digest) -> Link | None:
        known = self._absent.get(digest)
        if known is None or known[0] != repository or digest in self._blobs.blobs:
            return None
        del self._absent[digest]
        return known[1]

    async def open_any(self, digest: Digest) -> OpenBlob | None:
        return self._blobs.open(digest)

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        found = await self.look_up(repository, digest)
        if found.link is None or found.link.media_type is None or not found.present or found.unconfirmed:
            return None
        self.touch(digest)
        return StoredManifest(self._blobs.blobs[digest].data, digest, found.link.media_type, found.link)

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        self._blobs.add(manifest.digest, manifest.data, manifest.origin)
        for digest, link in {**children, manifest.digest: manifest.stored_link()}.items():
            self._blobs.add_link(repository, digest, link)
        blobs = {digest: link for digest, link in children.items() if link.media_type is None}
        missing = blobs.keys() - self._blobs.blobs.keys()
        self._absent.update({digest: (repository, blobs[digest]) for digest in missing})
        await self._room.evict_excess([manifest.digest])

    async def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        blob = self._blobs.blobs.get(digest)
        return None if blob is None or len(blob.data) > limit else blob.data

    async def missing_blobs(self, digests: Sequence[Digest]) -> list[Digest]:
        return [each for each in digests if each not in self._blobs.blobs]

    def opens(self, link: Link, origin: Origin) -> bool:
        unknown = origin is Origin.UNKNOWN and self.trusts_unknown
        return link.confirmed is not None or origin is Origin.PUBLIC or unknown

    async def quarantine_if_unreadable(self, digest: Digest) -> None:
        """Do nothing: memory can be read."""

    async def is_quarantined(self, digest: Digest, file: os.stat_result | None = None) -> bool:
        return False

    def prover(self, tasks: Tasks, on_proven: Callable[[Proof], object]) -> NoProofs:
        return NoProofs()
