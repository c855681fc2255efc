"""Blobs that an export reads, held: no eviction takes them away meanwhile.

A blob is open with a shared lock, as for a client that reads it. An eviction skips such a file, and the open
file stays readable if `rm` or a scrub removes its name. A process has a limit of open files: blobs beyond it
are marked as just used, and opened when it is their turn.
"""

import os
import time
from collections.abc import Iterable
from typing import BinaryIO, Self

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory

# Descriptors that are left for databases, outputs and all else.
RESERVED = 64


class BlobGone(Exception):
    """A blob was removed before the export read it. `digest` names it."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"{digest} was removed from the cache during the export; repeat the command")
        self.digest = digest


class HeldBlobs:
    """Open blobs by digest, to be closed; `limit`: open files of this process."""

    def __init__(self, folder: CacheDirectory, limit: int) -> None:
        self._folder = folder
        self._most = max(0, limit - RESERVED)
        self._open: dict[Digest, BinaryIO] = {}

    def hold(self, digests: Iterable[Digest]) -> list[Digest]:
        """Hold blobs; return those that are gone already."""
        wanted = list(digests)
        gone = [each for each in wanted[: self._most] if not self._hold(each)]
        later = wanted[self._most :]
        missing = self._folder.blobs.table.touch(dict.fromkeys(later, time.time())) if later else []
        return [*gone, *missing]

    def _hold(self, digest: Digest) -> bool:
        blob = self._folder.blobs.open(digest)
        if blob is not None:
            self._open[digest] = blob.file
        return blob is not None

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob at its beginning; the caller closes it. Raises BlobGone. One reader at a time."""
        held = self._open.get(digest)
        if held is not None:
            file: BinaryIO = os.fdopen(os.dup(held.fileno()), "rb", buffering=0)
            file.seek(0)
            return file
        blob = self._folder.blobs.open(digest)
        if blob is None:
            raise BlobGone(digest)
        return blob.file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let evictions have all blobs again."""
        while self._open:
            self._open.popitem()[1].close()
