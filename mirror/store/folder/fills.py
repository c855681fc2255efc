"""Leases and partials of a cache folder: the files of fills that run, or were interrupted."""

import time
from collections.abc import Sequence
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.blobs import BlobStore
from mirror.store.errors import NoRoom
from mirror.store.eviction import Evictor
from mirror.store.folder.reader import ContentReader
from mirror.store.links.content import LocalContent
from mirror.store.metadata.index import Link
from mirror.store.orphans import RESUMED_SECONDS, file_without_entry, old_partials
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.lease import BlobLease, Lease, acquire, acquire_blobs
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.util.log import get_logger

log = get_logger(__name__)

# Chunk size of a blob that is restored without its chunk map, in bytes.
RESTORED_CHUNK = 8 * 1024 * 1024


class FillFiles:
    """The folder `partial/`. Any thread; blocks."""

    def __init__(self, partials: Path, blobs: BlobStore, reader: ContentReader, evictor: Evictor) -> None:
        self._partials = partials
        self._blobs = blobs
        self._reader = reader
        self._evictor = evictor

    def acquire_leases(self, digests: Sequence[Digest]) -> list[BlobLease | None]:
        """Acquire a lease for filling each digest; None where another process holds it."""
        return acquire_blobs(digests, self._partials, self._reader.has)

    def acquire_key_leases(self, keys: Sequence[str]) -> list[Lease | None]:
        """Acquire a lease under each key; None where another process holds it."""
        return acquire(keys, self._partials)

    def lock_partial(
        self, repository: Repository, digest: Digest, *, public: bool = False
    ) -> tuple[Partial | None, LocalContent]:
        """Lock the partial of `digest`, new or resumed, and then look the digest up.

        The partial is None while another process holds it. NoRoom if the link names more bytes than the quota
        allows: nothing needs to be asked of the upstream then. `public`: the rest comes without an account.
        """
        partial = Partial.lock(digest, self._partials)
        try:
            local = self._reader.look_up(repository, digest)
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
        path = file_without_entry(self._blobs, partial.digest)
        size = path.stat().st_size if path is not None else 0
        if path is not None and size and (link is None or link.size in (None, size)):
            partial.restore(path, RESTORED_CHUNK)
            log.info("blob without an entry found, adopted if it is right", digest=str(partial.digest))

    def open_remote_partial(self, digest: Digest) -> RemotePartial | None:
        """Open the partial that another process fills; None while there is nothing to follow."""
        return RemotePartial.open(digest, self._partials)

    def allocate(self, partial: Partial, size: int, chunk_size: int, *, public: bool = False) -> ChunkMap:
        """Start a partial of `size` bytes, which takes no room yet. NoRoom if the quota allows less.

        `public`: the bytes will come without an account.
        """
        self._check_room(partial.digest, size)
        return partial.allocate(size, chunk_size, public=public)

    def _check_room(self, digest: Digest, size: int) -> None:
        if not self._evictor.can_hold(size):
            allowed = self._evictor.size_limit()
            raise NoRoom(f"{digest} takes {size} bytes of {allowed} that may be kept, pinned ones included")

    def remove_old_partials(self) -> list[str]:
        """Remove fills that were interrupted and not resumed for a week; return the files' names."""
        before = time.time() - RESUMED_SECONDS
        return [each.path.name for each in old_partials(self._partials, before, remove=True)]
