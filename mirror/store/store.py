"""The asynchronous face of this folder: each method is one hop into a disk thread.

<cache folder>/           0700
    blobs/                verified blobs and their entries
    books/                links, tag entries, referrers, repositories
    partial/              fills that are running, or were interrupted
    quarantine/           files that were found wrong
"""

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs import Blobs, OpenBlob
from mirror.store.combine import Combined
from mirror.store.disk import Verified
from mirror.store.errors import StoreError
from mirror.store.growing import GrowingFile, Partial
from mirror.store.index import Index, Link, ReferrersEntry, TagEntry
from mirror.store.lock import lock_path, try_lock
from mirror.store.recent import Recent
from mirror.store.threads import DiskThreads
from mirror.tasks import to_the_end

# Blobs up to this size are handled whole, in memory: configs, and the many small layers. 256 KiB are hashed
# in less time than it takes to wake a thread, so they are proven each time they are read from the disk.
SMALL_BYTES = 256 * 1024

# The part of the memory that is for tag entries.
TAG_SHARE = 8

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

    `present` says that the bytes are here, be it for other repositories. They come only with a link
    (invariant 5): whole in `data` if they are few (SMALL_BYTES), else as `blob`, which is open.
    """

    link: Link | None
    present: bool
    blob: OpenBlob | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """Something small, and the link by which its repository has it."""

    link: Link
    data: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of this process to fill a digest; `present` says that nothing is left to be filled."""

    digest: Digest
    path: Path
    lock: int
    present: bool

    def release(self) -> None:
        """In this order: whoever locks the file after that sees that it has no name.

        A fill that did not know the size may have left data, with which nobody will go on.
        """
        self.path.with_suffix(".data").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        os.close(self.lock)


class Store:
    """Blobs, books and partials of one cache folder, and in memory what of them is small and in use."""

    def __init__(self, folder: Path, max_size: int, memory: int) -> None:
        """Opens or creates everything; blocking, so call `open` from a coroutine."""
        self._partials = folder / "partial"
        ours = not folder.exists() or (folder / "books").is_dir() or not any(folder.iterdir())
        for each in (folder, folder / "blobs", folder / "books", self._partials):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ours:  # and not /srv, or a home, in which everybody else would lose their files
            os.chmod(folder, 0o700)
        self._blobs = Blobs(folder / "blobs", folder / "quarantine", max_size)
        self._index = Index(folder / "books")
        self._used: dict[Digest, float] = {}
        self._tags: Recent[tuple[Repository, Tag], TagEntry] = Recent(memory // TAG_SHARE)
        self._contents: Recent[tuple[Repository, Digest], Content] = Recent(memory - memory // TAG_SHARE)
        self._writes = 0
        self.threads = DiskThreads()
        self._claims: Combined[Digest, Claim | None] = Combined(self.threads, self._claim)
        self._keeps: Combined[tuple[Claim, bytes], None] = Combined(self.threads, self._keep)
        # Apart, so that a crowd reading old blobs from a slow disk does not keep look-ups and fills waiting.
        self.readers = DiskThreads(READERS)

    @classmethod
    async def open(cls, folder: Path, max_size: int, memory: int = 0) -> "Store":
        """`max_size` and `memory` in bytes. Raises StoreError naming the folder and the reason."""
        opener = DiskThreads(1)
        try:
            return await opener.run(cls, folder, max_size, memory)
        except StoreError as error:
            raise StoreError(f"cannot use the cache folder {folder}: {error.__cause__ or error}") from error
        finally:
            opener.executor.shutdown(wait=False)

    async def held(self, repository: Repository, digest: Digest) -> Held:
        if (known := self._contents.get((repository, digest))) is not None:
            return Held(known.link, True)
        return await self.threads.run(self._held, repository, digest)

    async def open_blob(self, repository: Repository, digest: Digest) -> Held:
        """As `held`, and the blob opened where the repository may have it; the caller closes it."""
        if (known := self._contents.get((repository, digest))) is not None:
            self.touch(digest)
            return Held(known.link, True, data=known.data)
        writes = self._writes
        opening = self.threads.start(self._open_blob, repository, digest)
        try:
            held = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        if held.data is not None and held.link is not None:
            self._remember(repository, digest, Content(held.link, held.data), writes)
        if held.blob is not None or held.data is not None:
            self.touch(digest)
        return held

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """The manifest, if it is here and linked to the repository as a manifest."""
        content = self._contents.get((repository, digest))
        if content is None:
            writes = self._writes
            content = await self.threads.run(self._manifest, repository, digest)
            if content is None:
                return None
            self._remember(repository, digest, content, writes)
        if content.link.media_type is None:
            return None
        self.touch(digest)
        return StoredManifest(content.data, digest, content.link.media_type)

    def touch(self, digest: Digest) -> None:
        """It is being used; written down by and by (`flush_used`)."""
        self._used[digest] = time.time()

    async def small_blob(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a blob of up to `limit` bytes, whatever repository it came through."""
        return await self.threads.run(self._read, digest, limit)

    async def put_manifest(
        self, repository: Repository, manifest: StoredManifest, children: Mapping[Digest, Link]
    ) -> None:
        """Keep a verified manifest, and link it and what it names to the repository."""
        await self.threads.run(self._put_manifest, repository, manifest, children)
        self._forget(repository, manifest.digest, *children)
        link = Link(manifest.media_type, len(manifest.data))
        self._remember(repository, manifest.digest, Content(link, manifest.data), self._writes)

    async def add_link(self, repository: Repository, digest: Digest, link: Link) -> None:
        await self.threads.run(self._index.add_links, repository, {digest: link})
        self._forget(repository, digest)

    async def adopt(self, verified: Verified) -> None:
        """Move a verified file into the blob store."""
        await self.threads.run(self._blobs.add, verified)

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        known = self._tags.get((repository, tag))
        if known is not None:
            return known
        writes = self._writes
        entry = await self.threads.run(self._index.tag, repository, tag)
        if entry is not None and writes == self._writes:
            self._tags.put((repository, tag), entry, 0)
        return entry

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        self._writes += 1
        await self.threads.run(self._index.put_tag, repository, tag, entry)
        self._writes += 1
        self._tags.put((repository, tag), entry, 0)

    async def drop_tag(self, repository: Repository, tag: Tag) -> None:
        self._writes += 1
        await self.threads.run(self._index.drop_tag, repository, tag)
        self._writes += 1
        self._tags.drop((repository, tag))

    async def known_tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        """Up to `limit` tags with an entry, after `after` in order."""
        return await self.threads.run(self._index.tags, repository, after, limit)

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        return await self.threads.run(self._index.referrers, repository, digest)

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        await self.threads.run(self._index.put_referrers, repository, digest, entry)

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        return await self.threads.run(self._index.repositories, prefix, after, limit)

    async def claim(self, digest: Digest) -> Claim | None:
        """The lock for filling a small blob, and whether it is here by now; None while another has it."""
        claiming = self._claims.start(digest)
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(self._release_unwanted)
            raise

    async def keep(self, repository: Repository, claim: Claim, content: Content) -> None:
        """Store a small blob, which was verified, and give up its lock."""
        self._remember(repository, claim.digest, content, self._writes)
        await self._keeps.do((claim, content.data))

    async def give_up(self, claim: Claim) -> None:
        """Nothing came of it."""
        await self.threads.run(claim.release)

    async def lacking(self, digests: Sequence[Digest]) -> list[Digest]:
        """Which of them are not here."""
        return await self.threads.run(lambda: [each for each in digests if not self._blobs.has(each)])

    async def lock_partial(self, repository: Repository, digest: Digest) -> tuple[Partial | None, Held]:
        """The partial of `digest`, new or resumed, None while another process holds it; and then `held`."""
        return await self.threads.run(self._lock_partial, repository, digest)

    async def prepare(self, partial: Partial, size: int, chunk_size: int) -> None:
        """Make room for `size` bytes beforehand, so that `grow` need not. What fails, fails again there."""
        with suppress(StoreError):
            await to_the_end(self.threads.run(partial.allocate, size, chunk_size))

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

    def _lock_partial(self, repository: Repository, digest: Digest) -> tuple[Partial | None, Held]:
        partial = Partial.lock(digest, self._partials)
        try:
            return partial, self._held(repository, digest)
        except BaseException:
            if partial is not None:
                partial.release()
            raise

    def _held(self, repository: Repository, digest: Digest) -> Held:
        return Held(self._index.link(repository, digest), self._blobs.has(digest))

    def _open_blob(self, repository: Repository, digest: Digest) -> Held:
        link = self._index.link(repository, digest)
        if link is None:
            return Held(None, self._blobs.has(digest))
        blob = self._blobs.open(digest)
        if blob is None or blob.size > SMALL_BYTES:
            return Held(link, blob is not None, blob)
        blob.file.close()
        data = self._read(digest, SMALL_BYTES)
        return Held(link, data is not None, data=data)

    def _manifest(self, repository: Repository, digest: Digest) -> Content | None:
        link = self._index.link(repository, digest)
        if link is None or link.media_type is None:
            return None
        data = self._read(digest, MAX_MANIFEST_BYTES)
        return None if data is None else Content(link, data)

    def _release_unwanted(self, claiming: "asyncio.Future[Claim | None]") -> None:
        """Whoever wanted to fill has left while the lock was being had."""
        if not claiming.cancelled() and claiming.exception() is None and (claim := claiming.result()):
            self.threads.start(claim.release)

    def _remember(self, repository: Repository, digest: Digest, content: Content, writes: int) -> None:
        """Keep a copy in memory, unless something was written since it was read (`writes`): it may be old."""
        if writes == self._writes:
            self._contents.put((repository, digest), content, len(content.data))

    def _forget(self, repository: Repository, *digests: Digest) -> None:
        """What was written is not what is in memory."""
        self._writes += 1
        for digest in digests:
            self._contents.drop((repository, digest))

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
            self._add({manifest.digest: manifest.data})
        link = Link(manifest.media_type, len(manifest.data))
        self._index.add_links(repository, {**children, manifest.digest: link})

    def _claim(self, digests: Sequence[Digest]) -> list[Claim | None]:
        claims: list[Claim | None] = []
        for digest in digests:
            path = lock_path(digest, self._partials)
            lock = try_lock(path)
            claims.append(None if lock is None else Claim(digest, path, lock, self._blobs.has(digest)))
        return claims

    def _keep(self, kept: Sequence[tuple[Claim, bytes]]) -> list[None]:
        try:
            self._add({claim.digest: data for claim, data in kept})
        finally:
            for claim, _ in kept:
                claim.release()
        return [None] * len(kept)

    def _add(self, contents: Mapping[Digest, bytes]) -> None:
        """Keep what is small. When the disk is full, nothing is left lying about that makes it fuller."""
        try:
            self._blobs.add(*(self._written(digest, data) for digest, data in contents.items()))
        except BaseException:
            for digest in contents:
                self._small_path(digest).unlink(missing_ok=True)
            raise

    def _written(self, digest: Digest, data: bytes) -> Verified:
        if Digest.of(data, digest.algorithm) != digest:
            raise ValueError(f"these bytes do not hash to {digest}")
        path = self._small_path(digest)
        with open(path, "wb") as file:
            file.write(data)
        # Not durable: `_read` proves it each time, and what a power failure has spoilt is fetched anew.
        return Verified(digest, path, len(data), durable=False)

    def _small_path(self, digest: Digest) -> Path:
        """Where this thread, and no other, writes it."""
        return self._partials / f"small-{digest.encoded}-{os.getpid()}-{threading.get_ident()}"


def _close_unwanted(opening: "asyncio.Future[Held]") -> None:
    """Whoever asked for a blob has left while it was being opened."""
    if not opening.cancelled() and opening.exception() is None and (blob := opening.result().blob):
        blob.file.close()
