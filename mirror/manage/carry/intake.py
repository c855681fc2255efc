"""Intake of blobs: what the reader of an archive has proven becomes a blob of the folder.

Content comes by a sink, which keeps it if the reader commits it. Imported content is stored as content that
came with an account (Origin.PRIVATE): a repository that names it opens it only if the import, or an upstream,
has said that the repository has it (invariant 5).
"""

import os
from collections.abc import Iterable

from mirror.manage.carry.pieces import PieceOfBlob, PieceSink
from mirror.manage.carry.sinks import BesideSink, BlobSink, PartialSink, SmallSink, own_file, remove_leftovers
from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import SMALL_BYTES, Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.partial.partial import Partial

# Small blobs that are adopted in one transaction.
SMALL_AT_ONCE = 64


class Intake:
    """Blobs that come into a cache folder, for one thread; `flush` at the end keeps the last small ones.

    `stored`: sizes of the blobs that were not here before.
    """

    def __init__(self, folder: CacheDirectory) -> None:
        self._folder = folder
        self._small: dict[Digest, tuple[VerifiedFile, int]] = {}
        self.stored: dict[Digest, int] = {}
        remove_leftovers(folder.partials)

    def has(self, digest: Digest) -> bool:
        """Return whether a blob is here, perhaps by this import."""
        return digest in self._small or self._folder.reader.has(digest)

    def sink(self, digest: Digest, size: int) -> BlobSink | None:
        """Return a sink for a whole blob; None if the blob is here.

        Raises NoRoom if the quota allows no blob of that size, BundleError while another import has the blob.
        """
        if self.has(digest):
            return None
        if size <= SMALL_BYTES:
            return SmallSink(digest, size, self._keep_small)
        partial = Partial.lock(digest, self._folder.partials)
        if partial is None:
            return self._sink_beside(digest, size)
        return PartialSink(self._folder, partial, size, self._note_stored)

    def piece_sink(self, piece: PieceOfBlob) -> BlobSink | None:
        """Return a sink for a piece of a blob; None if the piece, or the blob, is here. Raises as `sink`."""
        if self.has(piece.digest):
            return None
        return PieceSink.open(self._folder, piece, self._note_stored)

    def take_bytes(self, digest: Digest, data: bytes) -> None:
        """Keep a blob that is in memory, and proven."""
        sink = self.sink(digest, len(data))
        if sink is not None:
            sink.write(memoryview(data))
            sink.commit()

    def flush(self) -> None:
        """Adopt the small blobs."""
        small, self._small = self._small, {}
        try:
            if small:
                self._folder.blobs.add(*(verified for verified, _ in small.values()))
                self.stored.update((digest, each.size) for digest, (each, _) in small.items())
        finally:
            for verified, lock in small.values():
                verified.path.unlink(missing_ok=True)
                os.close(lock)
        self._evict(self._folder.evictor.excess(), small)

    def _keep_small(self, digest: Digest, data: bytearray) -> None:
        path, lock = own_file(digest, self._folder.partials)
        try:
            with open(lock, "wb", closefd=False) as file:
                file.write(data)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(lock)
            raise
        verified = VerifiedFile(digest, path, len(data), durable=False, origin=Origin.PRIVATE)
        self._small[digest] = (verified, lock)
        if len(self._small) >= SMALL_AT_ONCE:
            self.flush()

    def _sink_beside(self, digest: Digest, size: int) -> BlobSink:
        """Return a sink for a blob that another process downloads: the first to be complete is kept."""
        path, lock = own_file(digest, self._folder.partials)
        verified = VerifiedFile(digest, path, size, origin=Origin.PRIVATE)
        return BesideSink(self._folder, verified, lock, self._note_stored)

    def _note_stored(self, digest: Digest, size: int, excess: int) -> None:
        self.stored[digest] = size
        self._evict(excess, [digest])

    def _evict(self, excess: int, keep: Iterable[Digest]) -> None:
        if excess > 0:
            self._folder.evictor.evict(list(keep))
