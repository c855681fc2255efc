"""Disk work that may fail: reads that then find nothing, writes that are tried again with more room."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from mirror.store.errors import NoRoom, PartialLost, ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.health import Capability, FaultKind, StoreHealth, kind_of
from mirror.store.recovery import Recovery

P = ParamSpec("P")
T = TypeVar("T")


class RetryingDisk:
    """`make_room` is called with the bytes that are wanted when the disk is full."""

    def __init__(
        self,
        executor: DiskExecutor,
        recovery: Recovery,
        troubles: StoreHealth,
        make_room: Callable[[int], Awaitable[object]],
    ) -> None:
        self._executor = executor
        self._recovery = recovery
        self._health = troubles
        self._make_room = make_room

    @property
    def is_writable(self) -> bool:
        """Whether what is fetched can be kept: not while there is trouble with writing."""
        return not self._health.is_down(Capability.WRITING)

    def report_write_failure(self, error: StoreError) -> None:
        """Something could not be written, and nothing is until `Recovery.probe` finds that it can."""
        if not isinstance(error, ShuttingDown | PartialLost):
            self._health.report_fault(Capability.WRITING, error)

    async def read_or(self, otherwise: T, work: Callable[[], T]) -> T:
        """From the books, if they can be read; what they do not have is asked of the upstream."""
        return await self._executor.run(self._recovery.read_or, Capability.METADATA, otherwise, work)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns; once more with more room where there was too little. StoreError."""
        try:
            return await self._executor.run(lambda: self._recovery.write(work, *args, **kwargs))
        except NoRoom as error:
            await self._make_room(error.size)
        except StoreError as error:
            if kind_of(error) is not FaultKind.FULL:
                raise
            await self._make_room(0)
        return await self._executor.run(lambda: self._recovery.write(work, *args, **kwargs))

    async def best_effort(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Write into the books, if that can be; whether it could."""
        if not self.is_writable:
            return False
        try:
            await self.write(work, *args, **kwargs)
        except StoreError as error:
            self.report_write_failure(error)
            return False
        return True

    async def recover(self) -> None:
        """See whether what was in trouble works again."""
        kinds = {each.kind for each in self._health.faults()}
        if FaultKind.FULL in kinds:  # then there was no room for the notes that an eviction takes
            await self._make_room(0)
        if FaultKind.READ_ONLY in kinds and await self._executor.run(self._recovery.can_write_files):
            # What was opened meanwhile can only read, and so can what is opened beside it: all of it at once.
            await self._executor.run_in_every_thread(self._recovery.drop_connections)
        await self._executor.run(self._recovery.probe)
