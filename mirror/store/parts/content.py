"""Blobs and manifests of a cache folder, for the event loop. Small content in use is answered from memory."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import OpenBlob, Origin
from mirror.store.blobs.prover import Proof, Prover
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.links.content import LocalContent, StoredManifest
from mirror.store.links.link_store import LinkStore
from mirror.store.memory_cache import Content, MemoryCache, OpenContent
from mirror.store.metadata.index import Link
from mirror.store.parts.last_use import LastUse
from mirror.store.parts.room import FolderRoom
from mirror.util.tasks import Tasks


class FolderContent:
    """The blobs of one cache folder: a `ContentStore`."""

    def __init__(
        self,
        folder: CacheDirectory,
        executor: DiskExecutor,
        memory: MemoryCache,
        links: LinkStore,
        room: FolderRoom,
        last_use: LastUse,
    ) -> None:
        self.touch = last_use.touch
        self.begin_reading = last_use.begin_reading
        self._folder = folder
        self._executor = executor
        self._memory = memory
        self._links = links
        self._room = room

    async def look_up(self, repository: Repository, digest: Digest) -> LocalContent:
        """Look up link and presence, without content."""
        if (known := self._memory.content(repository, digest)) is not None:
            return LocalContent(known.link, True)
        link = self._memory.unwritten.get(repository, digest)
        return await self._executor.run(self._folder.reader.look_up, repository, digest, link)

    async def open_blob(self, repository: Repository, digest: Digest) -> LocalContent:
        """Look up as `look_up`, and open the blob if the repository has a link; the caller closes it."""
        if (known := self._memory.open(repository, digest)) is not None:
            self.touch(digest)
            return LocalContent(known.link, True, known.blob, known.data)
        version = self._memory.version
        link = self._memory.unwritten.get(repository, digest)
        opening = self._executor.start(self._folder.reader.open_blob, repository, digest, link)
        found = await self._executor.await_or_release(opening, LocalContent.close)
        self._memory.keep(repository, digest, OpenContent(found.link, found.blob, found.data), version)
        if found.is_open:
            self.touch(digest)
        return found

    def take_absent(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link of a blob that was missing when its manifest came, once; None for all others.

        Another process may have stored it since: who takes the lease looks again.
        """
        return self._memory.take_absent(repository, digest)

    async def open_any(self, digest: Digest) -> OpenBlob | None:
        """Open a blob, whatever repository it came through; the caller closes it. StoreError."""
        opening = self._executor.start(self._folder.blobs.open, digest)
        return await self._executor.await_or_release(opening, _close)

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Return the manifest if it is here and linked to the repository as a manifest."""
        content = self._memory.content(repository, digest)
        if content is None:
            version = self._memory.version
            link = self._memory.unwritten.get(repository, digest)
            content = await self._executor.run(self._folder.reader.manifest, repository, digest, link)
            if content is None:
                return None
            self._memory.put_content(repository, digest, content, version)
        if content.link.media_type is None:
            return None
        self.touch(digest)
        return StoredManifest(content.data, digest, content.link.media_type, content.link)

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Store a verified manifest if possible, and link it and its children to the repository."""
        content = Content(manifest.stored_link(), manifest.data)
        links, missing = {**children, manifest.digest: content.link}, list[Digest]()

        def put_manifest() -> None:
            self._folder.writer.put_manifest(repository, manifest, children)
            missing[:] = self._folder.reader.missing_among(children)

        await self._links.write(repository, links, put_manifest)
        self._memory.forget(repository, links)
        absent = {digest: children[digest] for digest in missing}
        self._memory.note_absent(repository, absent, self._memory.version)
        self._memory.put_content(repository, manifest.digest, content, self._memory.version)
        if self._room.is_writable:
            await self._room.evict_excess([manifest.digest])

    async def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a whole blob of up to `limit` bytes, whatever repository it came through."""
        return await self._executor.run(self._folder.reader.read, digest, limit)

    async def missing_blobs(self, digests: Sequence[Digest]) -> list[Digest]:
        """Return those of `digests` that are not here."""
        has = self._folder.reader.has
        return await self._executor.run(lambda: [each for each in digests if not has(each)])

    def opens(self, link: Link, origin: Origin) -> bool:
        """Return whether a link opens a blob: a name alone does not open what came with an account."""
        return self._folder.reader.opens(link, origin)

    async def quarantine_if_unreadable(self, digest: Digest) -> None:
        """Read a blob that broke off while it was sent; an unreadable file is a miss for the next client."""
        with suppress(StoreError):
            await self._executor.run(self._folder.blobs.quarantine_if_unreadable, digest)

    async def is_quarantined(self, digest: Digest, file: os.stat_result | None = None) -> bool:
        """Return whether the blob was found corrupt; `file`: whether that file of it was. StoreError."""
        return await self._executor.run(self._folder.blobs.quarantined.holds, digest, file)

    def prover(self, tasks: Tasks, on_proven: Callable[[Proof], object]) -> Prover:
        """Return what proves blobs again that are sent often."""
        return Prover(self._folder.blobs, self._folder.proofs, tasks, on_proven)


def _close(blob: OpenBlob | None) -> None:
    if blob is not None:
        blob.file.close()
