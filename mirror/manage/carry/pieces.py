"""Pieces of a blob that is larger than a part of its bundle: put together in the blob's partial.

The partial keeps what came with one part until the next ones are imported, in any order. Housekeeping removes
the partial after a week without a further piece. A running mirror may go on with it as with an interrupted
download.
"""

from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from mirror.bundle.errors import BundleError, Damaged
from mirror.manage.carry.sinks import OnStored, adopt, write_with_room
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.lock import lock_path
from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.partial import Hasher, Partial
from mirror.util.durable import open_file

# Largest chunk of a partial that is put together from pieces, in bytes.
LARGEST_CHUNK = 64 * 1024 * 1024

# Chunks that a piece may have.
MOST_CHUNKS = 1024


class PieceOfBlob(Struct, frozen=True):
    """`length` bytes from `offset` on of a blob of `size` bytes. Pieces begin at multiples of `step`."""

    digest: Digest
    size: int
    offset: int
    length: int
    step: int

    @property
    def stop(self) -> int:
        """The end of the piece in its blob."""
        return self.offset + self.length

    def fits(self, chunks: ChunkMap) -> bool:
        """Return whether the piece has whole chunks of a map of its blob."""
        borders = (each % chunks.chunk_size == 0 or each == self.size for each in (self.offset, self.stop))
        return chunks.size == self.size and all(borders)

    def chunk_size(self) -> int:
        """Return a size of chunks of which each piece has whole ones, at most LARGEST_CHUNK if possible.

        Raises Damaged for a piece that does not begin and end where pieces do.
        """
        borders = (each % self.step == 0 or each == self.size for each in (self.offset, self.stop))
        if self.length < 1 or not all(borders):
            raise Damaged("pieces of different lengths", str(self.digest))
        parts = (each for each in range(1, MOST_CHUNKS) if self.step % each == 0)
        return next((self.step // each for each in parts if self.step // each <= LARGEST_CHUNK), self.step)


def is_here(folder: CacheDirectory, digest: Digest, start: int, stop: int) -> bool:
    """Return whether bytes of a blob are in its partial."""
    try:
        with open_file(lock_path(digest, folder.partials)) as file:
            chunks = ChunkMap.snapshot(file.fileno())
    except OSError:
        return False
    return chunks is not None and chunks.available(start) >= stop


class PieceSink:
    """One piece; the blob is verified and adopted with the last of them."""

    def __init__(
        self, folder: CacheDirectory, partial: Partial, piece: PieceOfBlob, on_stored: OnStored
    ) -> None:
        self._folder = folder
        self._partial = partial
        self._piece = piece
        self._on_stored = on_stored
        self._at = piece.offset

    @classmethod
    def open(cls, folder: CacheDirectory, piece: PieceOfBlob, on_stored: OnStored) -> "PieceSink | None":
        """Return a sink, None if the piece is here.

        Raises Damaged for a piece of another form than the others, NoRoom, and BundleError while another
        process downloads the blob.
        """
        chunk_size = piece.chunk_size()
        partial = Partial.lock(piece.digest, folder.partials)
        if partial is None:
            raise BundleError("another process downloads this blob now: repeat the import", str(piece.digest))
        try:
            chunks = partial.chunks
            if chunks is None or not piece.fits(chunks):
                chunks = folder.fills.allocate(partial, piece.size, chunk_size)
            chunks.set_private()
            sink = cls(folder, partial, piece, on_stored)
            if chunks.available(piece.offset) < piece.stop:
                return sink
            if not chunks.missing():  # an import was killed after the last piece
                sink._adopt_whole()
        except BaseException:
            partial.release()
            raise
        partial.release()
        return None

    def write(self, data: memoryview, /) -> None:
        write_with_room(self._folder, self._partial, self._at, data, self._piece.size)
        self._at += len(data)

    def take(self, _file: BinaryIO, _path: Path | None, /) -> None:
        """Take nothing: a piece is no whole blob."""

    def commit(self) -> None:
        try:
            chunks = self._partial.chunks
            if chunks is not None:
                chunks.record(self._piece.offset, self._piece.length)
                if not chunks.missing():
                    self._adopt_whole()
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave the pieces that were kept before."""
        self._partial.release()

    def _adopt_whole(self) -> None:
        hasher = Hasher(self._partial.digest)
        self._partial.hash_until(hasher, self._piece.size)
        if not hasher.matches():
            self._partial.discard()
            raise Damaged("the pieces make a blob with another digest", str(self._partial.digest))
        adopt(self._folder, self._partial, self._on_stored)
        self._partial.discard()
