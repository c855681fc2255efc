"""One upkeep of a bucket."""

from collections.abc import AsyncIterator

from mirror.shared.errors import TierError, TierFault
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryTier
from mirror.shared.upkeep.keeper import KEPT, TierKeeper
from mirror.shared.upkeep.ledger import UpkeepLedger
from mirror.shared.upkeep.open_uploads import OpenUpload
from mirror.shared.upkeep.plan import HOUR, TierLimits
from mirror.shared.upkeep.sweeper import UploadSweeper
from tests.unit.manage.shared.test_upkeep import put


async def test_keeper_removes_by_the_limits_and_sweeps_small_objects() -> None:
    """Old blobs go, and small objects that were not written for their time; a dry run says so."""
    now = 0.0
    blobs, objects = MemoryTier(lambda: now), MemoryObjects(lambda: now)
    old = await put(blobs, b"old")
    for prefix in KEPT:
        await objects.write(f"{prefix}/x", b"x")
    await objects.write("other/x", b"x")
    now = max(KEPT.values()) - HOUR
    new = await put(blobs, b"new!")
    await objects.write("records/new", b"x")
    now += 2 * HOUR
    keeper = TierKeeper(blobs, objects, UpkeepLedger(objects), lambda: now)
    limits = TierLimits(age=24 * HOUR)
    for dry in (True, False):
        done = await keeper.run(limits, dry=dry)
        assert [each.digest for each in done.removed] == [old]
        assert (done.blobs, done.size) == (1, 4)
        assert (await blobs.stat(old) is None) is not dry
    assert await blobs.stat(new) is not None
    assert sorted(objects._objects) == ["other/x", "records/new"]


class Refused:
    """The uploads of a bucket whose keys may not list them."""

    possible = True

    async def list(self) -> AsyncIterator[OpenUpload]:
        raise TierError(TierFault.REFUSED, "may not list")
        yield

    async def abort(self, upload: OpenUpload) -> None:
        raise AssertionError("there is none")


async def test_keeper_whose_keys_may_not_list_uploads_does_all_else() -> None:
    """The result of a cleaning is told."""
    now = 48 * HOUR
    blobs, objects = MemoryTier(lambda: 0.0), MemoryObjects(lambda: now)
    old = await put(blobs, b"old")
    sweeper = UploadSweeper(Refused(), MemoryLeases())
    keeper = TierKeeper(blobs, objects, UpkeepLedger(objects), lambda: now, sweeper)
    done = await keeper.run(TierLimits(age=24 * HOUR))
    assert [each.digest for each in done.removed] == [old]
    await keeper.tidy()
