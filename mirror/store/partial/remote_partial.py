"""A partial that another process fills, as this one sees it: to be read, and to say what is wished for.

Nobody tells this process when there is more: that would need a server, or connections among all workers. It
looks, and a look is one `pread` of a few hundred bytes that are in the page cache: a few microseconds.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from mirror.oci.digest import Digest
from mirror.store.lock import data_path, is_name_of, lock_path, lock_shared
from mirror.store.partial.chunk_map import COUNT, WISHED_AT, WISHES, ChunkMap


class RemotePartial:
    """Both files of a partial, open, without the lock. Stays what it is when their names go."""

    def __init__(self, digest: Digest, map_: int, data: int, chunks: ChunkMap) -> None:
        self.digest = digest
        self.chunks = chunks  # as at the last look
        self.map = map_
        self._data = data
        self._slot = os.getpid() % WISHES
        self._wish = 0

    @classmethod
    def open(cls, digest: Digest, folder: Path) -> "RemotePartial | None":
        """None when there is nothing to follow, or not yet. Blocks: runs in a disk thread."""
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
            # A map of one fill and the data of the next one must not be taken for a pair. What was verified
            # before we came is about to be adopted, or the word of somebody who died: not to be relied on.
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
        """The map as it is now; as it was, while its writer begins it anew."""
        self.chunks = ChunkMap.snapshot(self.map, self.chunks) or self.chunks
        return self.chunks

    @property
    def is_unlinked(self) -> bool:
        """Whether it was adopted, or thrown away."""
        return os.fstat(self.map).st_nlink == 0

    def request(self, offset: int | None) -> None:
        """Readers here wait at `offset`: whoever fills shall bring that first. None: nobody waits.

        There are few places for wishes. Two processes that have the same one write in turns.
        """
        wish = 0 if offset is None else offset // self.chunks.chunk_size + 1
        if wish == self._wish and (not wish or self.chunks.requests()[self._slot] == wish):
            return
        self._wish = wish
        os.pwrite(self.map, COUNT.pack(wish), WISHED_AT + self._slot * COUNT.size)

    def open_reader(self) -> BinaryIO:
        """As `Partial.open_reader`."""
        return os.fdopen(os.dup(self._data), "rb", buffering=0)

    def has_files(self, map_: int, data: int) -> bool:
        """Whether these are the very files that are followed."""
        pairs = ((self.map, map_), (self._data, data))
        return all(os.path.samestat(os.fstat(ours), os.fstat(theirs)) for ours, theirs in pairs)

    def close(self) -> None:
        os.close(self.map)
        os.close(self._data)
