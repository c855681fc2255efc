"""The view of a growing file that another process fills: its chunk map as it was read last."""

from mirror.store.partial.chunk_map import ChunkMap
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial


class RemoteView:
    """A blob that another process fills as readers of this process see it, in `file`."""

    def __init__(self, remote: RemotePartial, demand: Demand, *, verify_first: bool = False) -> None:
        self.file = GrowingFile(remote, remote.chunks, demand, verify_first=verify_first)

    def update(self, chunks: ChunkMap) -> bool:
        """Take over the chunk map of the process that fills the blob.

        Returns False if that process threw away bytes that readers here received: they must be cut short.
        """
        file = self.file
        if chunks is file.chunks:
            return True
        if chunks.epoch != file.chunks.epoch:
            same = (chunks.size, chunks.chunk_size) == (file.size, file.chunk_size)
            if not same or not file.unread:
                file.rewritten = True
                return False
        file.chunks = chunks
        file.verified = chunks.verified
        file.wake_readers()
        return True

    def priority_offset(self) -> int | None:
        """Return the offset to request: a reader's beyond a gap, or else the first one."""
        waiting = self.file.waiting_offsets()
        contiguous = self.file.chunks.contiguous()
        return min((each for each in waiting if each > contiguous), default=min(waiting, default=None))

    def take_over(self, partial: Partial) -> None:
        """Have the file filled by this process from now on; readers go on as before."""
        if partial.chunks is None:
            raise AssertionError("the partial has no chunk map to continue")
        self.file.source = partial
        self.file.chunks = partial.chunks
