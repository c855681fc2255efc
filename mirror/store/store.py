"""The asynchronous face of this folder: each method is one hop into a disk thread.

<cache folder>/           0700
    blobs/                verified blobs and their entries
    books/                links, tag entries, referrers, repositories
    partial/              fills that are running, or were interrupted
    quarantine/           files that were found wrong
"""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs import Blobs, OpenBlob
from mirror.store.disk import Verified
from mirror.store.errors import StoreError
from mirror.store.growing import GrowingFile, Partial
from mirror.store.index import Index, Link, ReferrersEntry, TagEntry
from mirror.store.threads import DiskThreads

# Threads that read blobs ahead of their senders: as many as a disk serves well, and not all there are.
READERS = 4


@dataclass(frozen=True, slots=True)
class StoredManifest:
    data: bytes
    digest: Digest
    media_type: str


@dataclass(frozen=True, slots=True)
class Held:
    """What is here for one repository and digest.

    `blob` is open, and set only with a link (invariant 5); `present` says that the bytes are here, be it
    for other repositories.
    """

    link: Link | None
    present: bool
    blob: OpenBlob | None = None


class Store:
    """Blobs, books and partials of one cache folder."""

    def __init__(self, folder: Path, max_size: int) -> None:
        """Opens or creates everything; blocking, so call `open` from a coroutine."""
        self._partials = folder / "partial"
        for each in (folder, folder / "blobs", folder / "books", self._partials):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        self._blobs = Blobs(folder / "blobs", folder / "quarantine", max_size)
        self._index = Index(folder / "books")
        self._used: dict[Digest, float] = {}
        self.threads = DiskThreads()
        # Apart, so that a crowd reading old blobs from a slow disk does not keep look-ups and fills waiting.
        self.readers = DiskThreads(READERS)

    @classmethod
    async def open(cls, folder: Path, max_size: int) -> "Store":
        """Raises StoreError naming the folder and the reason."""
        opener = DiskThreads(1)
        try:
            return await opener.run(cls, folder, max_size)
        except StoreError as error:
            raise StoreError(f"cannot use the cache folder {folder}: {error.__cause__ or error}") from error
        finally:
            opener.executor.shutdown(wait=False)

    async def held(self, repository: Repository, digest: Digest) -> Held:
        return await self.threads.run(self._held, repository, digest)

    async def open_blob(self, repository: Repository, digest: Digest) -> Held:
        """As `held`, and the blob opened where the repository may have it; the caller closes it."""
        opening = self.threads.start(self._open_blob, repository, digest)
        try:
            held = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        if held.blob is not None:
            self._used[digest] = time.time()
        return held

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """The manifest, if it is here and linked to the repository as a manifest."""
        manifest = await self.threads.run(self._manifest, repository, digest)
        if manifest is not None:
            self._used[digest] = time.time()
        return manifest

    async def small_blob(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a blob of up to `limit` bytes, whatever repository it came through."""
        return await self.threads.run(self._read, digest, limit)

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Keep a verified manifest, and link it and what it names to the repository."""
        await self.threads.run(self._put_manifest, repository, manifest, children)

    async def add_link(self, repository: Repository, digest: Digest, link: Link) -> None:
        await self.threads.run(self._index.add_links, repository, {digest: link})

    async def adopt(self, verified: Verified) -> None:
        """Move a verified file into the blob store."""
        await self.threads.run(self._blobs.add, verified)

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        return await self.threads.run(self._index.tag, repository, tag)

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        await self.threads.run(self._index.put_tag, repository, tag, entry)

    async def drop_tag(self, repository: Repository, tag: Tag) -> None:
        await self.threads.run(self._index.drop_tag, repository, tag)

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        return await self.threads.run(self._index.referrers, repository, digest)

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        await self.threads.run(self._index.put_referrers, repository, digest, entry)

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        return await self.threads.run(self._index.repositories, prefix, after, limit)

    async def lock_partial(self, digest: Digest) -> Partial | None:
        """The partial of `digest`, new or resumed; None while another process holds it."""
        return await self.threads.run(Partial.lock, digest, self._partials)

    async def grow(
        self, partial: Partial, size: int, chunk_size: int, *, verify_first: bool = False
    ) -> GrowingFile:
        """The partial as a growing file of `size` bytes: resumed if it was that size, else from nothing."""
        chunks = partial.chunks
        if chunks is None or chunks.size != size:
            chunks = await self.threads.run(partial.allocate, size, chunk_size)
        return GrowingFile(partial, chunks, self.threads, verify_first=verify_first)

    async def discard(self, partial: Partial) -> None:
        """Remove the partial's files: they were adopted, or are worthless."""
        await self.threads.run(partial.discard)

    async def release(self, partial: Partial) -> None:
        """Close the partial and give up its lock; what it holds stays for the next fill."""
        await self.threads.run(partial.release)

    async def stats(self) -> tuple[int, int]:
        """Bytes and number of blobs."""
        return await self.threads.run(self._blobs.stats)

    async def check(self) -> list[str]:
        """What is inconsistent in the blob store, as sentences."""
        return await self.threads.run(self._blobs.check)

    async def flush_used(self) -> None:
        """Write the last-use times gathered since the last call."""
        used, self._used = self._used, {}
        if used:
            await self.threads.run(self._blobs.touch, used)

    async def close(self) -> None:
        await self.flush_used()
        self.readers.executor.shutdown(wait=False)
        await self.threads.close(self._close_connections)

    def _close_connections(self) -> None:
        self._blobs.close()
        self._index.close()

    def _held(self, repository: Repository, digest: Digest) -> Held:
        return Held(self._index.link(repository, digest), self._blobs.has(digest))

    def _open_blob(self, repository: Repository, digest: Digest) -> Held:
        link = self._index.link(repository, digest)
        if link is None:
            return Held(None, self._blobs.has(digest))
        blob = self._blobs.open(digest)
        return Held(link, blob is not None, blob)

    def _manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        link = self._index.link(repository, digest)
        if link is None or link.media_type is None:
            return None
        data = self._read(digest, MAX_MANIFEST_BYTES)
        if data is None:
            return None
        return StoredManifest(data, digest, link.media_type)

    def _read(self, digest: Digest, limit: int) -> bytes | None:
        data = self._blobs.read(digest, limit)
        # Small enough to prove on every read: a flipped bit on disk never reaches a client.
        if data is not None and Digest.of(data, digest.algorithm) != digest:
            self._blobs.set_aside(digest)
            return None
        return data

    def _put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        if not self._blobs.has(manifest.digest):
            self._blobs.add(self._written(manifest))
        link = Link(manifest.media_type, len(manifest.data))
        self._index.add_links(repository, {**children, manifest.digest: link})

    def _written(self, manifest: StoredManifest) -> Verified:
        if Digest.of(manifest.data, manifest.digest.algorithm) != manifest.digest:
            raise ValueError(f"manifest does not hash to {manifest.digest}")
        path = self._partials / f"manifest-{os.getpid()}-{time.monotonic_ns()}"
        with open(path, "xb") as file:
            file.write(manifest.data)
        return Verified(manifest.digest, path, len(manifest.data))


def _close_unwanted(opening: "asyncio.Future[Held]") -> None:
    """Whoever asked for a blob has left while it was being opened."""
    if not opening.cancelled() and opening.exception() is None and (blob := opening.result().blob):
        blob.file.close()
