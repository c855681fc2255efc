"""Room in memory, and the upkeep of a store there."""

from collections.abc import Callable, Sequence

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import EvictedBlob
from mirror.store.blobs.headroom import Allowance
from mirror.store.errors import StoreError
from mirror.store.memory.blobs import MemoryBlobs
from mirror.util.callbacks import ignore


class NoShares:
    """`RepositoryShares` without rules."""

    async def check(self, repository: Repository, digest: Digest, size: int | None) -> None:
        """Do nothing."""

    async def evict_excess(self, repository: Repository, digest: Digest, coming: int = 0) -> None:
        """Do nothing."""


class MemoryRoom:
    """The quota of one process: a `Room`. Partials do not count."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self.on_evicted: Callable[[Sequence[EvictedBlob]], object] = ignore
        self.allowance = Allowance()
        self.shares = NoShares()
        self.is_writable = True
        self._blobs = blobs

    def report_write_failure(self, error: StoreError) -> None:
        self.is_writable = False

    async def size_limit(self) -> int:
        return self._blobs.limit

    async def left(self) -> int:
        return self._blobs.limit - self._blobs.used

    async def excess(self, ahead: int = 0, filling: Digest | None = None) -> int:
        return max(0, self._blobs.used + ahead - self._blobs.limit)

    async def evict(self, keep: Sequence[Digest] = (), need: int = 0, filling: Digest | None = None) -> None:
        evicted = self._blobs.evict(keep, await self.excess())  # memory is never full: nothing is needed
        if evicted:
            self.on_evicted(evicted)

    async def evict_excess(
        self, keep: Sequence[Digest] = (), excess: int | None = None, filling: Digest | None = None
    ) -> None:
        await self.evict(keep)

    async def make_room(self, missing: int = 0) -> None:
        """Do nothing: there is no disk that could be full."""


class MemoryUpkeep:
    """The upkeep of one process: a `StoreUpkeep`."""

    def __init__(self, blobs: MemoryBlobs, room: MemoryRoom) -> None:
        self._blobs = blobs
        self._room = room

    async def recover(self) -> None:
        self._room.is_writable = True

    async def warm_up(self) -> None:
        """Do nothing."""

    async def claim_housekeeping(self) -> bool:
        return True

    async def run_housekeeping(self) -> None:
        await self.recover()
        await self._room.evict()

    async def remove_old_partials(self) -> None:
        """Do nothing: no partial outlives its process."""

    async def configure_pins(self, pins: Sequence[Pin]) -> None:
        self._blobs.pins = pins

    async def stats(self) -> tuple[int, int]:
        return self._blobs.used, len(self._blobs.blobs)

    async def check(self) -> list[str]:
        blobs = self._blobs.blobs.items()
        return [f"{key} is wrong" for key, each in blobs if Digest.of(each.data, key.algorithm) != key]

    async def flush_last_use(self) -> None:
        """Do nothing: last uses are in their place."""
