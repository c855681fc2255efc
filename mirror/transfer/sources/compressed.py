"""A blob that a proxy has compressed on the way: decoded on the disk, where that gives the digest.

Registries store blobs as they are named, and the mirror asks for `identity`. Clients that are written in Go
decode what says `Content-Encoding: gzip` all the same. Mostly the label is wrong (`upstream.http.encodings`),
so a blob is only decoded when its bytes are not those of the digest.
"""

import os
from collections.abc import Collection
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.partial.partial import Hasher, Partial
from mirror.transfer.context import TransferContext
from mirror.upstream.http.encodings import GZIP, Gunzip
from mirror.util.log import get_logger

log = get_logger(__name__)

# Compressed bytes that one call decodes, so that other calls get their turn in the thread.
STEP = 1024 * 1024


async def decode(context: TransferContext, partial: Partial, encodings: Collection[str]) -> int | None:
    """Make the decoded blob the data of the partial, whole; return its size.

    None, and nothing is changed, if no label says gzip, or the decoded bytes are not those of the digest.
    Raises StoreError.
    """
    if GZIP.isdisjoint(encodings):
        return None
    run = context.store.executor.run
    limit = await context.store.room.size_limit()
    decoding = await run(_Decoding, partial, limit)
    try:
        while await run(decoding.step):
            pass
        if not decoding.matches():
            return None
        await run(partial.restore, decoding.path, context.settings.chunk_size)
    finally:
        await run(decoding.close)
    log.info("blob was compressed on the way, decoded", digest=str(partial.digest), bytes=decoding.size)
    return decoding.size


class _Decoding:
    """The decoded bytes of a partial in a file beside it. Synchronous: runs in a disk thread."""

    def __init__(self, partial: Partial, limit: int) -> None:
        digest: Digest = partial.digest
        self.path: Path = partial.data_path.with_name(f"decoded-{digest.encoded}-{os.getpid()}")
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._source = partial.descriptor
        self._offset = 0
        self._limit = limit
        self._hasher = Hasher(digest)
        self._gunzip = Gunzip()

    @property
    def size(self) -> int:
        return self._hasher.offset

    def step(self) -> bool:
        """Decode the next bytes; return whether there may be more."""
        data = os.pread(self._source, STEP, self._offset)
        self._offset += len(data)
        for piece in self._gunzip.pieces(data):
            if self.size + len(piece) > self._limit:
                return False
            self._hasher.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file, view) :]
        return bool(data) and not self._gunzip.ended

    def matches(self) -> bool:
        return self._gunzip.complete and self._hasher.matches()

    def close(self) -> None:
        """Close the file, and remove it unless the partial has it now."""
        os.close(self._file)
        self.path.unlink(missing_ok=True)
