"""Writer of pushes: files first, then their entries, then the links that name them (invariant 8)."""

from collections.abc import Sequence
from contextlib import suppress

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import SMALL_BYTES, Origin
from mirror.store.blobs.small_files import SmallFiles
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import BlobLost, PushRefused
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_journal import JOURNALED_BYTES, PushJournal
from mirror.store.hosted.pushes import PushedManifest, Quotas
from mirror.store.metadata.index import TagEntry
from mirror.util.durable import sync_file

PutTags = list[tuple[Tag, TagEntry | None]]


class PushWriter:
    """Pushes into one cache folder. Every method blocks. Raises OSError and sqlite3.Error."""

    def __init__(self, folder: CacheDirectory, index: HostedIndex) -> None:
        self._folder = folder
        self._index = index
        self._files = SmallFiles(folder.blobs, folder.partials)
        self._journal = PushJournal(folder.path)

    def put_manifests(self, pushes: Sequence[PushedManifest]) -> list[PutTags | PushRefused]:
        """Keep manifests; a refused one changes nothing."""
        refused: dict[int, PutTags | PushRefused] = {}
        links = self._index.links_of(pushes)
        for number, push in enumerate(pushes):
            try:
                self._index.check(push, links[push.repository])
            except PushRefused as error:
                refused[number] = error
        accepted = [push for number, push in enumerate(pushes) if number not in refused]
        self._add_files(accepted)
        results = self._index.put_manifests(accepted, self._journal.add if self._folder.durable else None)
        self._index.release(
            push.digest
            for push, result in zip(accepted, results, strict=True)
            if isinstance(result, PushRefused)
        )
        following = iter(results)
        return [refused[number] if number in refused else next(following) for number in range(len(pushes))]

    def _add_files(self, pushes: Sequence[PushedManifest]) -> None:
        """Keep the files of manifests that are not here: those in the journal without a sync."""
        new = {each.digest: each.data for each in pushes if not self._folder.blobs.has(each.digest)}
        short = {digest: data for digest, data in new.items() if len(data) <= JOURNALED_BYTES}
        self._files.add(short, Origin.PRIVATE, retained=True)
        if long := {digest: data for digest, data in new.items() if digest not in short}:
            self._files.add(long, Origin.PRIVATE, durable=self._folder.durable, retained=True)
            self._sync_blobs()

    def commit_blob(self, repository: Repository, verified: VerifiedFile, quotas: Quotas) -> int:
        """Keep the file of an upload, and link it; return the excess of the cache. Raises PushRefused."""
        # A second attempt, after room was made, finds the file in its place already.
        if verified.path.exists() or not self._folder.blobs.has(verified.digest):
            self._folder.blobs.add(verified)
        self._link_blob(repository, verified.digest, verified.size, quotas)
        return self._folder.evictor.excess()

    def link_blob(self, repository: Repository, digest: Digest, quotas: Quotas) -> bool:
        """Link a blob to a further repository; return whether the blob is here. Raises PushRefused."""
        row = self._folder.blobs.table.row(str(digest))
        if row is None:
            return False
        try:
            self._link_blob(repository, digest, row.size, quotas)
        except BlobLost:
            return False
        return True

    def _link_blob(self, repository: Repository, digest: Digest, size: int, quotas: Quotas) -> None:
        """Link a blob, once its file, its entry and its class are on the disk."""
        blobs = self._folder.blobs
        blobs.retention.retain([str(digest)])
        if self._folder.durable and size <= SMALL_BYTES and (row := blobs.table.row(str(digest))):
            with suppress(FileNotFoundError):  # lost: who reads the blob is told so
                sync_file(self._folder.blobs.folder / row.name)
        self._sync_blobs()
        try:
            self._index.link_blob(repository, digest, size, quotas)
        except PushRefused:
            self._index.release([digest])
            raise

    def _sync_blobs(self) -> None:
        """Have the entries on the disk before a link names their blobs."""
        if self._folder.durable:
            self._folder.blobs.database.sync_log()
