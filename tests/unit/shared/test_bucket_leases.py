"""Leases in a bucket: clocks, foreign objects, and writes that were lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.shared.bucket_leases import ABANDONED, BucketLeases
from mirror.shared.lease_text import new_holder
from mirror.shared.memory import MemoryObjects


class Clock:
    """Two clocks of one mirror that a test sets."""

    def __init__(self, objects: MemoryObjects) -> None:
        self.now, self.wall = 0.0, 1_000_000.0
        self.leases = BucketLeases(objects, lambda: self.now, lambda: self.wall, lambda: 0.0)


@pytest.fixture
def mirrors() -> tuple[Clock, Clock]:
    """Two mirrors of one bucket, whose own clocks have nothing to do with each other."""
    objects = MemoryObjects(lambda: 1_000_000.0)
    return Clock(objects), Clock(objects)


async def test_bucket_lease_is_watched_for_its_time(mirrors: tuple[Clock, Clock]) -> None:
    """A mirror that sees a lease for the first time waits for its time by its own clock, and then has it."""
    first, second = mirrors
    mine, other = new_holder(), new_holder()
    assert await first.leases.acquire("a", mine, 10) == mine
    assert await second.leases.acquire("a", other, 10) == mine
    second.now = 9.9
    assert await second.leases.acquire("a", other, 10) == mine
    second.now = 10.0
    assert await second.leases.acquire("a", other, 10) == other
    assert not await first.leases.renew("a", mine, 10)


async def test_bucket_lease_that_is_renewed_is_kept(mirrors: tuple[Clock, Clock]) -> None:
    """A renewal changes the object, although it says nothing new."""
    first, second = mirrors
    mine, other = new_holder(), new_holder()
    await first.leases.acquire("a", mine, 10)
    for _ in range(5):
        assert await second.leases.acquire("a", other, 10) == mine
        assert await first.leases.renew("a", mine, 10)
        second.now += 9.0
    assert await second.leases.holder("a") == mine


async def test_bucket_lease_of_long_ago_is_free_at_once(mirrors: tuple[Clock, Clock]) -> None:
    """A mirror that died last week keeps nobody waiting; a clock that is a minute ahead ends no lease."""
    first, second = mirrors
    mine, other = new_holder(), new_holder()
    await first.leases.acquire("a", mine, 10)
    second.wall += 10 * ABANDONED - 1
    assert await second.leases.acquire("a", other, 10) == mine
    second.wall += 2
    assert await second.leases.acquire("a", other, 10) == other


@given(st.binary(max_size=700))
async def test_bucket_lease_of_foreign_bytes_is_free(data: bytes) -> None:
    """Bytes of others under a lease's key bother nobody."""
    objects = MemoryObjects()
    await objects.create("leases/a", data)
    leases, mine = BucketLeases(objects, chance=lambda: 0.0), new_holder()
    assert await leases.holder("a") is None
    assert await leases.acquire("a", mine, 10) == mine


async def test_bucket_lease_whose_answer_was_lost_is_ours() -> None:
    """A store that wrote, and said that the condition did not hold, is asked who holds the lease."""

    class Lossy(MemoryObjects):
        async def create(self, key: str, data: bytes) -> bool:
            await super().create(key, data)
            return False

    leases, mine = BucketLeases(Lossy(), chance=lambda: 0.0), new_holder()
    assert await leases.acquire("a", mine, 10) == mine
