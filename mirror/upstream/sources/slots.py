"""Connections for blobs of one source: a share of those of all sources together."""

import contextlib
from collections.abc import AsyncIterator, Callable

from mirror.util.callbacks import ignore
from mirror.util.slots import SlotGroup, SlotPool, always


class SourceSlots:
    """The connections for blobs of one source; `active` of them bring bytes now."""

    def __init__(self, total: SlotPool, limit: int) -> None:
        """`total` limits the connections for blobs of all sources of all upstreams together."""
        self._group = SlotGroup(total, limit)
        self.active = 0

    @property
    def saturated(self) -> bool:
        """True if one more connection for a blob would have to wait, or would overtake one that waits."""
        return self._group.saturated

    @property
    def is_waited_for(self) -> bool:
        """True if a transfer waits for a connection, which one of this source would give to it."""
        return self._group.pool.waiting > 0 and self._group.saturated

    def reassign(self) -> None:
        """Give connections to transfers that have become urgent."""
        self._group.pool.reassign()

    @contextlib.asynccontextmanager
    async def hold(
        self,
        urgent: Callable[[], bool] = always,
        give_way: Callable[[], object] | None = None,
        on_wait: Callable[[bool], object] = ignore,
    ) -> AsyncIterator[None]:
        """Hold one of the limited connections for blobs; wait until one is free.

        `urgent`: whether a client waits for the bytes; `give_way` ends a transfer that is not urgent, to free
        its connection for one that is. `on_wait`: as for `SlotGroup.slot`.
        """
        async with self._group.slot(urgent, give_way, on_wait):
            self.active += 1
            try:
                yield
            finally:
                self.active -= 1
