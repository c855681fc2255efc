"""One upkeep of the object store: what goes by the limits, and small objects that nobody needs any more."""

import time
from collections.abc import Callable

from msgspec import Struct

from mirror.shared.bucket_records import MISSING_SECONDS
from mirror.shared.errors import TierError
from mirror.shared.interfaces import ConditionalObjects, ObjectTier, TierObject
from mirror.shared.keys import LEASES, MISSING, PROBES, RECORDS
from mirror.shared.upkeep.ledger import UpkeepLedger
from mirror.shared.upkeep.plan import TierCleaning, TierLimits
from mirror.shared.upkeep.sweeper import UploadSweeper
from mirror.util.log import get_logger

log = get_logger(__name__)

# How long small objects are kept, in seconds, since they were last written. A word of an upstream that was
# not confirmed for so long is asked for again. Clients may ask for any number of tags that there are not.
KEPT = {
    RECORDS: 90 * 24 * 3600.0,
    MISSING: MISSING_SECONDS,
    LEASES: 24 * 3600.0,
    PROBES: 24 * 3600.0,
}


class UpkeepResult(Struct, frozen=True):
    """Result of one upkeep: the blobs that are there afterwards, their size, and those that went."""

    blobs: int
    size: int
    removed: list[TierObject]


class TierKeeper:
    """The upkeep of one bucket. Raises TierError; what was done until then stays done."""

    def __init__(
        self,
        blobs: ObjectTier,
        objects: ConditionalObjects,
        ledger: UpkeepLedger,
        clock: Callable[[], float] = time.time,
        uploads: UploadSweeper | None = None,
    ) -> None:
        """`uploads`: sweeps uploads that have not ended; None where the store's list cannot be had."""
        self._blobs = blobs
        self._objects = objects
        self._ledger = ledger
        self._clock = clock
        self._uploads = uploads

    async def run(self, limits: TierLimits, *, dry: bool = False) -> UpkeepResult:
        """Remove what goes by the limits; with `dry` only say what would go."""
        now = self._clock()
        plan = TierCleaning(await self._ledger.read(now), limits, now)
        async for each in self._blobs.list():
            plan.count(each)
        plan.decide()
        removed = []
        async for each in self._blobs.list():
            if plan.goes(each):
                removed.append(each)
                if not dry:
                    await self._blobs.remove(each.digest)
        if not dry:
            await self._sweep(now)
        size = plan.size - sum(each.size for each in removed)
        return UpkeepResult(plan.blobs - len(removed), size, removed)

    async def tidy(self) -> None:
        """Fold and forget uses and small objects; no blob goes."""
        now = self._clock()
        await self._ledger.read(now)
        await self._sweep(now)

    async def _sweep(self, now: float) -> None:
        for prefix, seconds in KEPT.items():
            async for each in self._objects.names(prefix):
                if now - each.modified > seconds:
                    await self._objects.delete(each.key)
        if self._uploads is not None:
            try:
                await self._uploads.sweep()
            except TierError as error:  # keys that may not list uploads may do all else
                log.warning("uploads that have not ended are left in the shared tier", reason=str(error))
