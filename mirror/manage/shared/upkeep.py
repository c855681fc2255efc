"""Upkeep of the shared tier: its state, blobs that are wrong in it, and blobs that go.

Nothing here needs a running mirror, or disturbs one: an object that is removed while it is read is read to
its end, and a mirror that does not find a blob fetches it upstream.
"""

import time
from collections.abc import AsyncIterator, Callable

from msgspec import Struct

from mirror.oci.ranges import LARGEST, Span
from mirror.shared.engines import Engines
from mirror.shared.errors import ObjectMissing
from mirror.shared.interfaces import TierObject
from mirror.shared.upkeep.keeper import TierKeeper
from mirror.shared.upkeep.ledger import UpkeepLedger
from mirror.shared.upkeep.plan import TierLimits
from mirror.shared.upkeep.sweeper import UploadSweeper


class TierReport(Struct, frozen=True):
    """State of the tier. `reads` and `leases`: None where the bucket is fit for them, or why not."""

    bucket: str
    reads: str | None
    leases: str | None
    blobs: int
    size: int


async def examine(engines: Engines) -> TierReport:
    """Probe the engines, and count the blobs. Raises TierError for one that does not answer."""
    fitness = await engines.probe()
    if fitness.leases is None:
        await engines.leases.holder("status")
    blobs = size = 0
    async for each in engines.objects.list():
        blobs, size = blobs + 1, size + each.size
    return TierReport(engines.name, fitness.reads, fitness.leases, blobs, size)


async def wrong_blobs(engines: Engines) -> AsyncIterator[TierObject]:
    """Read all blobs, and yield those that have not their digest. Raises TierError."""
    async for each in engines.objects.list():
        hasher, length = each.digest.hasher(), 0
        try:
            async with engines.objects.open_range(each.digest, Span(0, LARGEST)) as part:
                async for chunk in part.chunks:
                    hasher.update(chunk)
                    length += len(chunk)
        except ObjectMissing:
            continue
        if (hasher.hexdigest(), length) != (each.digest.encoded, each.size):
            yield each


async def collect(
    engines: Engines,
    limits: TierLimits,
    *,
    dry: bool,
    clock: Callable[[], float] = time.time,
) -> list[TierObject]:
    """Remove the blobs that are beyond the limits, and return them; with `dry`, only return them.

    None that a mirror has pinned, or has used or written in the last two hours. Raises TierError.
    """
    if engines.small is None:
        raise AssertionError("engines without small objects")
    ledger = UpkeepLedger(engines.small)
    sweeper = UploadSweeper(engines.uploads, engines.leases) if engines.uploads is not None else None
    keeper = TierKeeper(engines.objects, engines.small, ledger, clock, sweeper)
    return (await keeper.run(limits, dry=dry)).removed
