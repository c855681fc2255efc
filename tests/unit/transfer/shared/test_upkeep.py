"""Upkeep by running mirrors: one cleans, and none loses what another uses or has pinned."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import cast

import pytest

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.engines import Engines
from mirror.shared.errors import TierError, TierFault
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryTier
from mirror.shared.tier import SharedTier
from mirror.shared.upkeep.keeper import TierKeeper
from mirror.shared.upkeep.ledger import UpkeepLedger
from mirror.shared.upkeep.plan import HOUR, TierLimits
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.store import Store
from mirror.transfer.shared import upkeep as upkeep_module
from mirror.transfer.shared.revoked_tokens import RevokedTokens
from mirror.transfer.shared.upkeep import MOST_USES, UPKEEP_SECONDS, TierUpkeep, UseNotes
from tests.unit.manage.shared.test_upkeep import put
from tests.unit.shared.test_tier import fit, started


class Site:
    """Mirrors that share engines in memory, and a clock."""

    def __init__(self) -> None:
        self.now = 1000 * HOUR
        clock = lambda: self.now  # noqa: E731
        self.blobs, self.objects = MemoryTier(clock), MemoryObjects(clock)
        self.leases = MemoryLeases(clock)

    async def mirror(self, name: str, limits: TierLimits) -> tuple[SharedTier, TierUpkeep, Metrics]:
        engines = Engines("s3://b", self.blobs, self.leases, fit, small=self.objects)
        metrics, clock = Metrics(), lambda: self.now
        tier = await started(SharedTier(engines, 5.0, metrics, clock))
        ledger = UpkeepLedger(self.objects)
        parts = (ledger, TierKeeper(self.blobs, self.objects, ledger, clock))
        return tier, TierUpkeep(tier, self.leases, parts, limits, metrics, clock, name), metrics


def pins(*digests: Digest) -> Callable[[], Awaitable[Iterable[str]]]:
    async def pinned() -> Iterable[str]:
        return [str(each) for each in digests] + ["not a digest"]

    return pinned


async def test_upkeep_is_done_by_one_mirror_and_keeps_what_others_use() -> None:
    """The quota holds; a blob that another mirror reads, and one that it has pinned, stay."""
    site = Site()
    idle, read, pinned = [await put(site.blobs, data * 10) for data in (b"idle", b"read", b"pins")]
    limits = TierLimits(size=100)
    one, upkeep, metrics = await site.mirror("one", limits)
    two, other, others_metrics = await site.mirror("two", limits)
    site.now += 10 * HOUR
    async with two.open_range(read, Span(0, 10)) as part:
        assert [chunk async for chunk in part.chunks]
    await other.tick(pins(pinned))  # has the lease
    assert await site.blobs.stat(idle) is None
    assert await site.blobs.stat(read) is not None
    assert await site.blobs.stat(pinned) is not None
    assert others_metrics.shared_removed._value.get() == 1
    site.now += 1
    idle = await put(site.blobs, b"idle" * 100)
    site.now += UPKEEP_SECONDS / 2
    await upkeep.tick(pins())
    assert metrics.shared_size._value.get() == 0  # the other has the lease still
    site.now += 3 * HOUR
    await upkeep.tick(pins())
    assert await site.blobs.stat(idle) is None
    assert await site.blobs.stat(pinned) is not None
    assert metrics.shared_removed._value.get() >= 1
    for each in (one, two):
        await each.close()


async def test_upkeep_without_limits_removes_nothing_and_writes_uses_in_batches() -> None:
    """Uses of a minute are one object; a process that is not elected writes no pins."""
    site = Site()
    tier, upkeep, _ = await site.mirror("one", TierLimits())
    digests = [await put(site.blobs, bytes([number])) for number in range(5)]
    for digest in digests:
        assert await tier.find(digest) is not None
    await upkeep.tick(None)
    await tier.find(digests[0])
    await upkeep.tick(None)
    (key,) = site.objects._objects
    assert len(site.objects._objects[key].data) == 5 * 8
    assert site.objects._objects[key].version == "1"
    site.now += 10_000 * HOUR
    await upkeep.tick(pins())
    assert len([each async for each in site.blobs.list()]) == 5
    await tier.close()


async def test_upkeep_without_limits_keeps_no_small_objects_for_ever() -> None:
    """Uses, records and leases go as they do with limits; each mirror sees to that once a day."""
    site = Site()
    tier, upkeep, _ = await site.mirror("one", TierLimits())
    digest = await put(site.blobs, b"blob")
    for _ in range(24):
        await tier.find(digest)
        await upkeep.tick(None)
        site.now += HOUR
    for prefix in ("records", "leases"):
        await site.objects.write(f"{prefix}/x", b"x")
    assert len(site.objects._objects) == 26
    site.now += 100 * 24 * HOUR
    await upkeep.tick(pins())
    small = [each for each in site.objects._objects if not each.startswith(("leases/upkeep", "pins/"))]
    assert small == []
    assert await site.blobs.stat(digest) is not None
    await tier.close()


class Looking:
    """Revocations of others; each look for them is counted."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.looks = asyncio.Semaphore(0)

    async def sync(self, executor: DiskExecutor) -> int:
        self.looks.release()
        if self.error is not None:
            raise self.error
        return 0


@pytest.mark.parametrize("error", [None, TierError(TierFault.REFUSED, "no"), OSError("no")])
async def test_revoked_tokens_are_looked_for_whatever_becomes_of_the_upkeep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Pins that cannot be read put it off no more than a failure of it puts off the upkeep."""
    monkeypatch.setattr(upkeep_module, "TICK_SECONDS", 0.01)
    site, store = Site(), await Store.open(tmp_path / "cache")
    tier, upkeep, _ = await site.mirror("one", TierLimits())
    looking, pins_read = Looking(error), asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def broken() -> dict[str, int]:
        loop.call_soon_threadsafe(pins_read.release)
        raise StoreError("the pins cannot be read")

    monkeypatch.setattr(store.folder.pins, "pinned_sizes", broken)
    running = asyncio.create_task(upkeep.run(store, cast(RevokedTokens, looking)))
    async with asyncio.timeout(20):
        for _ in range(2):
            await looking.looks.acquire()
            await pins_read.acquire()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await tier.close()
    await store.close()


def test_use_notes_are_bounded_and_of_one_hour() -> None:
    """More blobs than that count as used when they were written."""
    now = 0.0
    notes = UseNotes(lambda: now)
    for number in range(MOST_USES + 10):
        notes.note(Digest("sha256", f"{number:064x}"[::-1]))
    assert len(notes.marks) <= MOST_USES
    now = 2 * HOUR
    notes.note(Digest.of(b"x"))
    assert (notes.hour, len(notes.marks)) == (2, 1)
