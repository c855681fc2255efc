"""Slots: a limited resource, given first to the work that a client waits for.

Each `SlotGroup` has a limit, and all groups of a `SlotPool` together have one. Work is urgent while a client
waits for it; that changes as clients come and go, and `SlotPool.reassign` is called then.

1. Urgent claims get free slots first. Clients have their turns in turn, and the claims of each in the order
   of their arrival: a claim that comes behind others of its client goes behind as many of each other client.
2. The other claims get the rest, but one slot in RESERVE stays free for urgent claims.
3. An urgent claim that finds no free slot gets that of a holder that is not urgent: the latest one gives way.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mirror.util.callbacks import ignore
from mirror.util.fairness.client import current_client

# One slot in this many is for urgent claims alone; none of a limit that is smaller.
RESERVE = 8

# Claims that may wait for each slot of a pool: with more, work is refused instead of queued.
WAITING_PER_SLOT = 4


def always() -> bool:
    """Return True: for work that ends when its client leaves."""
    return True


class SlotClaim:
    """A slot, or the wait for one. `release` ends both; it may be called more than once."""

    def __init__(
        self, group: "SlotGroup", urgent: Callable[[], bool], give_way: Callable[[], object] | None
    ) -> None:
        self.group = group
        self.urgent = urgent
        self.give_way = give_way
        self.client = current_client()
        self.rank = 0  # urgent claims of the client that waited before
        self.yielding = False  # `give_way` was called
        self._granted = asyncio.Event()

    @property
    def granted(self) -> bool:
        """Return whether the slot is held, or was held before its release."""
        return self._granted.is_set()

    def grant(self) -> None:
        """Let `wait` return; called by the pool."""
        self._granted.set()

    async def wait(self) -> None:
        """Wait for the slot."""
        await self._granted.wait()

    def release(self) -> None:
        """Give the slot back, or stop waiting for it."""
        self.group.pool.remove(self)


class SlotPool:
    """All groups that share one limit, and the claims on them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: dict[SlotClaim, None] = {}
        self._waiting: dict[SlotClaim, None] = {}
        self._last_urgent = -math.inf

    def idle_seconds(self) -> float:
        """Return for how long no claim has been urgent, in seconds; 0 while one is."""
        now = time.monotonic()
        if any(claim.urgent() for claim in (*self._holders, *self._waiting)):
            self._last_urgent = now
        return now - self._last_urgent

    @property
    def waiting(self) -> int:
        """Number of claims that wait."""
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Return whether so many claims wait that no further one should."""
        return len(self._waiting) >= WAITING_PER_SLOT * self._limit

    def add(self, claim: SlotClaim) -> None:
        """Grant the claim, or let it wait."""
        claim.rank = sum(each.client == claim.client and each.urgent() for each in self._waiting)
        self._waiting[claim] = None
        self.reassign()

    def remove(self, claim: SlotClaim) -> None:
        """Forget the claim, and give its slot to the next one."""
        if claim.urgent():
            self._last_urgent = time.monotonic()
        self._waiting.pop(claim, None)
        if claim in self._holders:
            del self._holders[claim]
            claim.group.held -= 1
            self.reassign()

    def reassign(self) -> None:
        """Grant what can be granted; call it when work has become urgent, or is urgent no more."""
        if not self._waiting:
            return
        for claim in sorted(self._waiting, key=lambda each: (not each.urgent(), each.rank)):
            if self.has_room(claim.group, urgent=claim.urgent()):
                del self._waiting[claim]
                self._holders[claim] = None
                claim.group.held += 1
                claim.grant()
        self._reclaim()

    def has_room(self, group: "SlotGroup", *, urgent: bool) -> bool:
        """Return whether a slot of the group is free for a claim of this urgency."""
        left = min(self._left(group.limit, group.held, urgent), self._left(self._limit, self.held, urgent))
        return left > 0

    @property
    def held(self) -> int:
        """Number of slots that are held."""
        return len(self._holders)

    def urgent_waits(self, group: "SlotGroup") -> bool:
        """Return whether an urgent claim waits for a slot of the group."""
        return any(claim.group is group and claim.urgent() for claim in self._waiting)

    @staticmethod
    def _left(limit: int, held: int, urgent: bool) -> int:
        return limit - held - (0 if urgent else limit // RESERVE)

    def _reclaim(self) -> None:
        """Ask one holder to give way for each urgent claim that still waits."""
        coming = [claim for claim in self._holders if claim.yielding]
        for claim in [each for each in self._waiting if each.urgent()]:
            own_only = claim.group.held >= claim.group.limit
            fitting = [each for each in self._holders if not own_only or each.group is claim.group]
            if (expected := next((each for each in coming if each in fitting), None)) is not None:
                coming.remove(expected)
                continue
            for holder in reversed(fitting):
                if not holder.yielding and holder.give_way is not None and not holder.urgent():
                    holder.yielding = True
                    holder.give_way()
                    break


class SlotGroup:
    """The slots of one source or upstream; `held` of them are in use."""

    def __init__(self, pool: SlotPool, limit: int) -> None:
        self.pool = pool
        self.limit = limit
        self.held = 0

    @property
    def saturated(self) -> bool:
        """True if one more urgent claim would have to wait, or would overtake one that waits."""
        return not self.pool.has_room(self, urgent=True) or self.pool.urgent_waits(self)

    def claim(
        self, urgent: Callable[[], bool] = always, give_way: Callable[[], object] | None = None
    ) -> SlotClaim:
        """Claim a slot; `give_way` is called when an urgent claim needs the slot of one that is not urgent.

        The holder then ends its work soon, and releases the claim.
        """
        claim = SlotClaim(self, urgent, give_way)
        self.pool.add(claim)
        return claim

    @asynccontextmanager
    async def slot(
        self,
        urgent: Callable[[], bool] = always,
        give_way: Callable[[], object] | None = None,
        on_wait: Callable[[bool], object] = ignore,
    ) -> AsyncIterator[None]:
        """Hold a slot; wait until one is free. Arguments as for `claim`.

        If there is a wait, `on_wait` is called with True at its beginning, and with False at its end.
        """
        claim = self.claim(urgent, give_way)
        try:
            if not claim.granted:
                on_wait(True)
                try:
                    await claim.wait()
                finally:
                    on_wait(False)
            yield
        finally:
            claim.release()
