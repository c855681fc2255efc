"""Upkeep of the tier by the running mirrors: uses and pins are written in batches, one mirror cleans.

The mirror that has the lease cleans, and keeps the lease until it lapses: so the bucket is cleaned once in
UPKEEP_SECONDS, however many mirrors there are. Two that clean at once, because a lease was lost, do no harm.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.shared.errors import TierError
from mirror.shared.interfaces import Leases
from mirror.shared.lease_text import new_holder
from mirror.shared.tier import LEASES, SharedTier
from mirror.shared.upkeep.keeper import TierKeeper
from mirror.shared.upkeep.ledger import UpkeepLedger
from mirror.shared.upkeep.marks import mark_of
from mirror.shared.upkeep.plan import HOUR, TierLimits
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.store import Store
from mirror.transfer.shared.identity import folder_identity
from mirror.transfer.shared.revoked_tokens import RevokedTokens
from mirror.util.log import get_logger

log = get_logger(__name__)

# Interval, in seconds, between two ticks.
TICK_SECONDS = 10.0

# Intervals, in seconds: of writing uses, of writing pins that are the same, of cleaning, and of tidying up
# the small objects where no limit removes blobs.
USES_SECONDS = 60.0
PINS_SECONDS = 24 * 3600.0
UPKEEP_SECONDS = 600.0
TIDY_SECONDS = 24 * 3600.0

UPKEEP_KEY = "upkeep"

# The most blobs of one process and hour whose use is noted; beyond it they count as used when written.
MOST_USES = 65_536


class UseNotes:
    """The blobs that this process has read from the tier, or written there, in this hour."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.hour = 0
        self.marks: set[bytes] = set()
        self.changed = False

    def note(self, digest: Digest) -> None:
        """Note a use."""
        hour = int(self._clock() // HOUR)
        if hour != self.hour:
            self.hour, self.marks = hour, set()
        mark = mark_of(digest)
        if mark not in self.marks and len(self.marks) < MOST_USES:
            self.marks.add(mark)
            self.changed = True


class TierUpkeep:
    """The part of one mirror in the upkeep."""

    def __init__(
        self,
        tier: SharedTier,
        leases: Leases,
        parts: tuple[UpkeepLedger, TierKeeper],
        limits: TierLimits,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        name: str = "",
    ) -> None:
        """`name`: of this mirror, the same after a restart; lower-case letters and digits."""
        self._tier = tier
        self._leases = leases
        self._ledger, self._keeper = parts
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._process = new_holder().owner
        self._mirror = name  # of the folder, once this process is the elected one
        self._next_uses = self._next_look = self._next_pins = self._next_upkeep = 0.0
        self._pins: frozenset[bytes] | None = None
        self.notes = UseNotes(clock)
        tier.on_use = self.notes.note

    async def run(self, store: Store, revoked: RevokedTokens | None = None) -> None:
        """Do what is due, again and again; what one process of a mirror does is done by the elected one."""
        folder, executor = store.folder, store.executor
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                if elected := await executor.run(folder.housekeeper.claim):
                    self._mirror = self._mirror or await executor.run(folder_identity, folder.path)
                    # First: neither a long cleaning nor pins that cannot be read put it off.
                    if revoked is not None:
                        await _refuse_revoked(revoked, executor)
                await self.tick((lambda: executor.run(folder.pins.pinned_sizes)) if elected else None)
            except (StoreError, OSError) as error:
                log.warning("upkeep of the shared tier failed, tried again later", reason=str(error))

    async def tick(self, pinned: Callable[[], Awaitable[Iterable[str]]] | None) -> None:
        """Do what is due. `pinned`: the digests that are pinned here; None for a process that is not elected.

        Failures are logged, and tried again.
        """
        if not self._tier.usable:
            return
        try:
            await self._write_uses()
            if pinned is not None:
                await self._write_pins(pinned)
                await self._clean()
        except TierError as error:
            log.warning("upkeep of the shared tier failed, tried again later", reason=str(error))

    async def _write_uses(self) -> None:
        now = self._clock()
        if self.notes.changed and now >= self._next_uses:
            self._next_uses, self.notes.changed = now + USES_SECONDS, False
            await self._ledger.write_uses(self._process, self.notes.hour, self.notes.marks)

    async def _write_pins(self, pinned: Callable[[], Awaitable[Iterable[str]]]) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look, marks = now + USES_SECONDS, frozenset(_marks(await pinned()))
        if marks != self._pins or (marks and now >= self._next_pins):
            await self._ledger.write_pins(self._mirror or self._process, marks)
            self._pins, self._next_pins = marks, now + PINS_SECONDS

    async def _clean(self) -> None:
        now = self._clock()
        if now < self._next_upkeep or not self._tier.coordinated:
            return
        self._next_upkeep = now + (UPKEEP_SECONDS / 4 if self._limits.any else TIDY_SECONDS)
        mine = new_holder(self._tier.address)
        acquire = lambda: self._leases.acquire(UPKEEP_KEY, mine, UPKEEP_SECONDS)  # noqa: E731
        if await self._tier.ask(LEASES, "acquire", acquire, None) != mine:
            return
        if not self._limits.any:
            await self._keeper.tidy()
            return
        done = await self._keeper.run(self._limits)
        self._metrics.shared_removed.inc(len(done.removed))
        self._metrics.shared_size.set(done.size)
        if done.removed:
            size = sum(each.size for each in done.removed)
            log.info("blobs removed from the shared tier", blobs=len(done.removed), bytes=size)


async def _refuse_revoked(revoked: RevokedTokens, executor: DiskExecutor) -> None:
    try:
        await revoked.sync(executor)
    except (StoreError, TierError, OSError) as error:
        log.warning("revoked tokens not told among mirrors, tried again later", reason=str(error))


def _marks(pinned: Iterable[str]) -> Iterable[bytes]:
    for text in pinned:
        try:
            yield mark_of(Digest.parse(text))
        except RegistryError:
            continue
