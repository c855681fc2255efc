"""A partial that another process fills, as this process sees it: readable, with requests for what comes next.

There is no notice of new bytes: that would need a server, or connections among all workers. This process
polls; a poll is one `pread` of a few hundred bytes in the page cache, and costs a few microseconds.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from mirror.oci.digest import Digest
from mirror.store.lock import data_path, is_name_of, lock_path, lock_shared
from mirror.store.partial.chunk_map import COUNT, REQUEST_SLOTS, REQUESTS_AT, WHOLE_REQUESTED, ChunkMap


class RemotePartial:
    """Both files of a partial, open, without the lock. They stay readable when their names are gone."""

    def __init__(self, digest: Digest, map_: int, data: int, chunks: ChunkMap) -> None:
        self.digest = digest
        self.chunks = chunks  # as of the last `refresh`
        self.map = map_
        self._data = data
        self._slot = os.getpid() % REQUEST_SLOTS
        self._requested = 0

    @classmethod
    def open(cls, digest: Digest, folder: Path) -> "RemotePartial | None":
        """Open the partial; None while there is nothing to follow. Blocks: runs in a disk thread."""
        path = lock_path(digest, folder)
        with ExitStack() as opened:
            try:
                map_ = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                opened.callback(os.close, map_)
                data = os.open(data_path(digest, folder), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                opened.callback(os.close, data)
                lock_shared(data)
            except FileNotFoundError:
                return None
            chunks = ChunkMap.snapshot(map_)
            # The map of one fill and the data of the next must not be taken for a pair. A verified map
            # belongs to a blob about to be adopted, or to a process that died: not to be trusted.
            if (
                chunks is None
                or chunks.verified
                or os.fstat(data).st_size != chunks.size
                or not is_name_of(path, map_)
            ):
                return None
            opened.pop_all()
            return cls(digest, map_, data, chunks)

    def refresh(self) -> ChunkMap:
        """Return the map as it is now; the last one while its writer creates a new map."""
        self.chunks = ChunkMap.snapshot(self.map, self.chunks) or self.chunks
        return self.chunks

    @property
    def is_unlinked(self) -> bool:
        """Return whether the partial was adopted or discarded."""
        return os.fstat(self.map).st_nlink == 0

    def request(self, offset: int | None, *, whole: bool = True) -> None:
        """Ask the process that fills the blob to fetch `offset` first, for readers here; None: no request.

        `whole`: they read the whole blob.

        There are REQUEST_SLOTS places. Two processes that have the same one overwrite each other in turns.
        """
        request = 0 if offset is None else offset // self.chunks.chunk_size + 1
        slots = self.chunks.requests.slots
        if request == self._requested and (not request or slots()[self._slot] == request):
            return
        self._requested = request
        stored = request | WHOLE_REQUESTED if request and whole else request
        os.pwrite(self.map, COUNT.pack(stored), REQUESTS_AT + self._slot * COUNT.size)

    def open_reader(self) -> BinaryIO:
        """Open a reader, as `Partial.open_reader`."""
        return os.fdopen(os.dup(self._data), "rb", buffering=0)

    def has_files(self, map_: int, data: int) -> bool:
        """Return whether these descriptors are of the same two files."""
        pairs = ((self.map, map_), (self._data, data))
        return all(_identity(ours) == _identity(theirs) for ours, theirs in pairs)

    def close(self) -> None:
        """Close both files."""
        os.close(self.map)
        os.close(self._data)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino)
