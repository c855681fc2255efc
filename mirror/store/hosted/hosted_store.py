"""Hosted repositories for the event loop: each method takes one hop into a disk thread.

No method here takes a failing disk for a miss, as the cache does: what cannot be read or written is an error,
because there is no upstream to have it from, and because a client must not believe that a push was kept.
"""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.batch import Batcher
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.errors import StoreError
from mirror.store.guard import DiskGuard
from mirror.store.health import Capability
from mirror.store.hosted.errors import PushRefused
from mirror.store.hosted.hosted_index import HostedIndex, Removed
from mirror.store.hosted.hosted_room import HostedRoom
from mirror.store.hosted.push_writer import PushWriter, PutTags
from mirror.store.hosted.pushes import PushedManifest, Quotas
from mirror.store.links.content import LocalContent, StoredManifest
from mirror.store.metadata.index import TagEntry
from mirror.store.store import Store

T = TypeVar("T")


class HostedStore:
    """The hosted repositories of one cache folder."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self.folder = self._folder = store.folder
        self.index = HostedIndex(store.folder, clock)
        self.room = HostedRoom(store.folder, store.executor, self.index)
        self._writer = PushWriter(store.folder, self.index)
        self._pushes: Batcher[PushedManifest, PutTags | PushRefused] = Batcher(
            store.executor, self._writer.put_manifests
        )
        self._disk = DiskGuard(store.executor, store.folder.recovery, store.health, store.room.make_room)

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the entry of a tag whose manifest is here."""
        return await self.read(self._tag, repository, tag)

    def _tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        entry = self._folder.index.tag(repository, tag)
        if entry is None or not self._folder.blobs.has(Digest.parse(entry.digest)):
            return None
        return entry

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Return a manifest of the repository."""
        return self._checked(await self._store.content.manifest(repository, digest))

    async def open_blob(self, repository: Repository, digest: Digest) -> LocalContent:
        """Open a blob, or a manifest, that the repository links; the caller closes it."""
        found = await self._store.content.open_blob(repository, digest)
        return found if found.is_open else self._checked(found)

    def _checked(self, found: T) -> T:
        """Return a result; raise StoreError where a failing disk may be the reason for it."""
        for each in (Capability.METADATA, Capability.BLOBS):
            if self._store.health.is_down(each):
                raise StoreError(f"the cache folder is in trouble ({each.value}); see the log of this mirror")
        return found

    async def put_manifest(self, push: PushedManifest) -> PutTags:
        """Keep a manifest with its tags. Raises PushRefused or StoreError; nothing has changed then.

        Pushes that come together are written together: each transaction waits for the disk.
        """
        try:
            found = await self._pushes.do(push)
        except StoreError:  # once more, alone, after a repair or with room made for it
            (found,) = await self._write(self._writer.put_manifests, (push,))
        if isinstance(found, PushRefused):
            raise found
        return found

    async def commit_blob(self, repository: Repository, verified: VerifiedFile, quotas: Quotas) -> None:
        """Keep the verified file of an upload, and link it. Raises PushRefused or StoreError."""
        kept = replace(verified, origin=Origin.PRIVATE, retained=True, durable=self._folder.durable)
        excess = await self._write(self._writer.commit_blob, repository, kept, quotas)
        await self._store.room.evict_excess([verified.digest], excess)

    async def link_blob(self, repository: Repository, digest: Digest, quotas: Quotas) -> bool:
        """Link a blob to a further repository; return whether the blob is here. Raises PushRefused."""
        return await self._write(self._writer.link_blob, repository, digest, quotas)

    async def delete_tag(self, repository: Repository, tag: Tag, *, immutable: bool) -> bool:
        """Remove a tag; return whether it was there. Raises TagImmutable."""
        return await self._write(self.index.delete_tag, repository, tag, immutable)

    async def delete_manifest(
        self, repository: Repository, digest: Digest, is_fixed: Callable[[str], bool]
    ) -> Removed | None:
        """Remove a manifest with its tags; None if it was not there. Raises TagImmutable."""
        return await self._write(self.index.delete_manifest, repository, digest, is_fixed)

    async def delete_blob(self, repository: Repository, digest: Digest) -> bool:
        """Remove the link to a blob; return whether it was there."""
        return await self._write(self.index.delete_blob, repository, digest)

    async def tags(self, repository: Repository, after: str, limit: int) -> list[str] | None:
        """Return up to `limit` tags in order, after `after`; None for a repository that does not exist."""
        return await self.read(self._tags, repository, after, limit)

    def _tags(self, repository: Repository, after: str, limit: int) -> list[str] | None:
        found = self._folder.index.tags(repository, after, limit)
        return found if found or self.index.queries.exists(repository) else None

    async def referrers(
        self, repository: Repository, subject: Digest, after: str, kinds: Collection[str]
    ) -> tuple[str, str | None]:
        """Return a page of the list of referrers of a digest (`HostedQueries.referrers`)."""
        return await self.read(self.index.queries.referrers, repository, subject, after, kinds)

    async def sources(self, digest: Digest, limit: int) -> Sequence[Repository]:
        """Return up to `limit` repositories that link a blob which is here by their registries' word."""
        return await self.read(self._sources, digest, limit)

    def _sources(self, digest: Digest, limit: int) -> Sequence[Repository]:
        if not self._folder.blobs.has(digest):
            return ()
        return self.index.queries.linking(digest, limit)

    async def may_mount(self, repository: Repository, digest: Digest) -> bool:
        """Return whether a repository's link opens a blob that is here, for good and without an account."""
        return await self.read(self._may_mount, repository, digest)

    def _may_mount(self, repository: Repository, digest: Digest) -> bool:
        link = self._folder.index.link(repository, digest)
        if link is None or link.confirmed is None or not self._folder.blobs.has(digest):
            return False
        return self.index.names.has(repository) or not link.account

    async def read(self, work: Callable[..., T], *args: object) -> T:
        """Return what `work` reads. StoreError."""
        return await self._store.executor.run(work, *args)

    async def _write(self, work: Callable[..., T], *args: object) -> T:
        if not self._disk.is_writable:
            # The disk may be well again: nobody else can tell the client to push to another place.
            with suppress(StoreError):
                await self._disk.recover()
        try:
            return await self._disk.write(work, *args)
        except StoreError as error:
            self._disk.report_write_failure(error)
            raise
