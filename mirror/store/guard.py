"""The guard of disk work on a disk that may fail: `read_or`, `write` and `best_effort`.

`Recovery.read_or` decides that a failing disk is a miss. Each operation of a store's parts has one of these
policies:

    policy       on a failing disk                        operations
    -----------  ---------------------------------------  -----------------------------------------------
    read_or      a miss: None, False or nothing listed;   look_up, open_blob, manifest, read_blob,
                 while the capability is down, at once    missing_blobs, tag, known_tags, referrers,
                                                          links.read_again, links.first_seen, marks
    write        repair or make room and try again; then  adopt, open_growing_file, GrowingFile.write
                 StoreError, and the fill passes through  (room only), lock_partial (repair only); all
                                                          writes of `hosted.HostedStore`
    best_effort  as write; then writing is down, and the  put_manifest, links.add, links.withdraw, put_tag,
                 client gets its answer nevertheless      drop_tag, put_referrers, put_small_blob, marks,
                                                          configure_pins
    ignored      no report: the next call that needs the  evict_excess, make_room,
                 disk meets the failure                   quarantine_if_unreadable
    raised       StoreError at once; the caller decides   all others: leases, repositories, read_tag_again,
                                                          following a partial, releasing one, statistics;
                                                          all reads of `hosted.HostedStore`

`Recovery.read_or` and `Recovery.write` are the first two, for one thread; `DiskGuard` adds the hop into it,
the room and the third.
"""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from mirror.store.errors import NoRoom, PartialLost, ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.health import Capability, FaultKind, StoreHealth, kind_of
from mirror.store.recovery import Recovery

P = ParamSpec("P")
T = TypeVar("T")


class DiskGuard:
    """The policies of `Recovery` in a disk thread, and a retry after making room on a full disk."""

    def __init__(
        self,
        executor: DiskExecutor,
        recovery: Recovery,
        health: StoreHealth,
        make_room: Callable[[int], Awaitable[object]],
    ) -> None:
        """`make_room` is called when the disk is full, with 0: the writes here are small."""
        self._executor = executor
        self._recovery = recovery
        self._health = health
        self._make_room = make_room

    @property
    def is_writable(self) -> bool:
        """Return whether fetched content can be kept: not while writing is down."""
        return not self._health.is_down(Capability.WRITING)

    def report_write_failure(self, error: StoreError) -> None:
        """Mark writing as down until `Recovery.probe` finds that it works, if the disk is to blame."""
        if not isinstance(error, ShuttingDown | PartialLost):
            self._health.report_fault(Capability.WRITING, error)

    async def read_or(self, default: T, work: Callable[[], T]) -> T:
        """Return what `work` reads in the index; `default` on a failing disk (`Recovery.read_or`)."""
        return await self._executor.run(self._recovery.read_or, Capability.METADATA, default, work)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns; on a full disk call `work` again after making room. StoreError.

        Not after NoRoom: no eviction would help.
        """
        try:
            return await self._executor.run(lambda: self._recovery.write(work, *args, **kwargs))
        except StoreError as error:
            if isinstance(error, NoRoom) or kind_of(error) is not FaultKind.FULL:
                raise
            await self._make_room(0)
        return await self._executor.run(lambda: self._recovery.write(work, *args, **kwargs))

    async def best_effort(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Write as `write`, and return whether that succeeded; a failure is reported, not raised."""
        if not self.is_writable:
            return False
        try:
            await self.write(work, *args, **kwargs)
        except StoreError as error:
            self.report_write_failure(error)
            return False
        return True

    async def recover(self) -> None:
        """Test the capabilities that are down, and use those that work again."""
        await self._probe()
        if FaultKind.FULL in self._fault_kinds():  # not if another program's files have gone meanwhile
            await self._make_room(0)
            await self._probe()

    async def _probe(self) -> None:
        if FaultKind.READ_ONLY not in self._fault_kinds():
            await self._executor.run(self._recovery.probe)
        # After that probe too: behind another fault it may find connections of a disk that was read-only.
        if FaultKind.READ_ONLY in self._fault_kinds():
            if await self._executor.run(self._recovery.can_write_files):
                # A connection opened meanwhile can only read, and so can one beside it: drop all at once.
                await self._executor.run_in_every_thread(self._recovery.drop_connections)
            await self._executor.run(self._recovery.probe)

    def _fault_kinds(self) -> set[FaultKind]:
        return {each.kind for each in self._health.faults()}
