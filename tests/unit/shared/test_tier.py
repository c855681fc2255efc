"""The tier as one mirror sees it: limits, and going on alone."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.content import verified
from mirror.shared.engines import Engines
from mirror.shared.errors import TierError, TierFault
from mirror.shared.health import LONGEST_PAUSE, limited
from mirror.shared.interfaces import Holder, TierObject
from mirror.shared.keys import fill_key
from mirror.shared.lease_text import new_holder
from mirror.shared.memory import MemoryLeases, MemoryTier
from mirror.shared.probe import Fitness
from mirror.shared.tier import LEASE_SECONDS, FillClaim, SharedTier
from tests.bench.swarm import clock as simulated

DATA = b"shared" * 100
DIGEST = Digest.of(DATA)


async def fit() -> Fitness:
    return Fitness()


class Hanging(MemoryTier):
    """A store that answers no question."""

    async def stat(self, digest: Digest) -> TierObject | None:
        await asyncio.Event().wait()
        return None


async def chunks() -> AsyncIterator[bytes]:
    yield DATA


def tier_of(
    objects: MemoryTier | None = None,
    leases: MemoryLeases | None = None,
    probe: Callable[[], Awaitable[Fitness]] = fit,
    limit: float = 0.05,
) -> SharedTier:
    engines = Engines("s3://b", objects or MemoryTier(), leases or MemoryLeases(), probe)
    return SharedTier(engines, limit, Metrics())


async def started(tier: SharedTier) -> SharedTier:
    tier.start()
    while not tier.usable and tier.objects.reason is None:  # noqa: ASYNC110  # a background task
        await asyncio.sleep(0)
    return tier


async def test_tier_before_its_probe_is_not_used() -> None:
    """A mirror is alone until the bucket was found fit."""
    tier = tier_of()
    assert await tier.find(DIGEST) is None
    assert await tier.claim(DIGEST) is None
    assert not tier.usable
    await started(tier)
    assert tier.usable
    await tier.close()


async def test_tier_has_what_was_published() -> None:
    """Content goes there and comes back, and is counted."""
    tier = await started(tier_of())
    assert await tier.publish(verified(DIGEST, len(DATA), chunks))
    found = await tier.find(DIGEST)
    assert found is not None
    assert found.size == len(DATA)
    async with tier.open_range(DIGEST, Span(1, 4)) as part:
        assert b"".join([chunk async for chunk in part.chunks]) == DATA[1:4]
    await tier.remove(DIGEST)
    assert await tier.find(DIGEST) is None
    await tier.close()


async def test_tier_that_hangs_is_not_waited_for() -> None:
    """The first question ends at the limit, the next one is not asked; the state says why."""
    tier = await started(tier_of(Hanging()))
    assert await tier.find(DIGEST) is None
    assert not tier.usable
    assert await tier.find(DIGEST) is None
    assert "within 0.05 s" in tier.state()["objects"]["reason"]
    claim = await tier.claim(DIGEST)
    assert isinstance(claim, FillClaim)  # the coordinator answers
    claim.release()
    await tier.close()


async def test_tier_claim_is_for_one_mirror() -> None:
    """The second mirror is told who has it; released, the blob is free."""
    leases = MemoryLeases()
    first, second = [await started(tier_of(leases=leases)) for _ in range(2)]
    first.address = "http://10.0.0.1:5001"
    claim = await first.claim(DIGEST)
    assert isinstance(claim, FillClaim)
    held = await second.claim(DIGEST)
    assert isinstance(held, Holder)
    assert held.address == first.address
    claim.release()
    claim.release()
    while await second.holder(DIGEST) is not None:  # noqa: ASYNC110  # released in the background
        await asyncio.sleep(0)
    await first.close()
    await second.close()


async def test_tier_that_is_unfit_is_not_used_and_says_so() -> None:
    """Nothing is shared without ranges; blobs are shared without conditions, and nobody is coordinated."""

    async def without_ranges() -> Fitness:
        return Fitness("no ranges: use another one")

    async def without_conditions() -> Fitness:
        return Fitness(None, "no conditions: use a Redis")

    tier = await started(tier_of(probe=without_ranges))
    assert (tier.usable, tier.state()["objects"]["reason"]) == (False, "no ranges: use another one")
    await tier.close()
    tier = await started(tier_of(probe=without_conditions))
    assert tier.usable
    assert await tier.claim(DIGEST) is None
    assert tier.state()["leases"] == {"usable": False, "reason": "no conditions: use a Redis"}
    await tier.close()


async def test_tier_refuses_to_publish_what_is_corrupt_here() -> None:
    """Corrupt content here is no fault of the store."""
    tier = await started(tier_of())
    with pytest.raises(TierError) as caught:
        await tier.publish(verified(Digest.of(b"other"), 5, chunks))
    assert caught.value.fault is TierFault.WRONG
    assert tier.usable
    await tier.close()


def test_tier_takes_its_lease_again_from_a_coordinator_that_was_flushed() -> None:
    """A lease that nobody has is this mirror's again; one that another mirror has stays that one's."""

    async def work() -> None:
        clock, key = asyncio.get_running_loop().time, fill_key(DIGEST)
        leases, other = MemoryLeases(clock), new_holder("http://10.0.0.2:5001")
        tier = await started(SharedTier(Engines("s3://b", MemoryTier(), leases, fit), 1.0, Metrics(), clock))
        claim = await tier.claim(DIGEST)
        assert isinstance(claim, FillClaim)
        await leases.release(key, claim.holder)  # as a flush would
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert await leases.holder(key) == claim.holder
        await leases.release(key, claim.holder)
        await leases.acquire(key, other, LEASE_SECONDS)
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert await leases.holder(key) == other
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert await leases.holder(key) is None  # it is renewed no longer
        await tier.close()

    simulated.run(work())


class Late:
    """Engines that answer after `seconds`, or not at all."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.objects, self.leases = LateTier(self), LateLeases(self)

    def tier(self, limit: float) -> SharedTier:
        engines = Engines("s3://b", self.objects, self.leases, fit)
        return SharedTier(engines, limit, Metrics(), asyncio.get_running_loop().time)


class LateTier(MemoryTier):
    def __init__(self, late: Late) -> None:
        super().__init__()
        self._late = late

    async def stat(self, digest: Digest) -> TierObject | None:
        await asyncio.sleep(self._late.seconds)
        return await super().stat(digest)


class LateLeases(MemoryLeases):
    def __init__(self, late: Late) -> None:
        super().__init__(asyncio.get_running_loop().time)
        self._late = late

    async def acquire(self, key: str, holder: Holder, seconds: float) -> Holder:
        await asyncio.sleep(self._late.seconds)
        return await super().acquire(key, holder, seconds)

    async def holder(self, key: str) -> Holder | None:
        await asyncio.sleep(self._late.seconds)
        return await super().holder(key)


def test_tier_that_hangs_costs_requests_one_limit_however_long_it_hangs() -> None:
    """An engine that failed is asked in the background alone, and used again once it answers there."""

    async def work() -> None:
        clock, late = asyncio.get_running_loop().time, Late(0.0)
        tier = await started(late.tier(limit=2.0))
        late.seconds, waited = math.inf, 0.0
        while clock() < 300.0:
            began = clock()
            assert await tier.find(DIGEST) is None
            assert await tier.holder(DIGEST) is None
            waited += clock() - began
            await asyncio.sleep(0.1)
        assert waited == pytest.approx(4.0)
        assert not tier.usable
        assert not tier.coordinated
        late.seconds = 0.0
        await asyncio.sleep(LONGEST_PAUSE + 2.0)
        assert tier.usable
        assert tier.coordinated
        await tier.close()

    simulated.run(work())


def test_tier_that_is_slow_costs_a_request_one_limit_for_each_engine() -> None:
    """Answers that come in time each add up to no more; engines that answer are used by other requests."""

    async def work() -> None:
        clock, late = asyncio.get_running_loop().time, Late(1.9)
        tier = await started(late.tier(limit=2.0))
        began = clock()
        with limited(tier.waits()):
            for _ in range(5):
                await tier.find(DIGEST)
                await tier.holder(DIGEST)
            await asyncio.gather(*(tier.find(DIGEST) for _ in range(5)))
        assert clock() - began <= 4.0
        assert tier.usable
        assert tier.coordinated
        await tier.close()

    simulated.run(work())
