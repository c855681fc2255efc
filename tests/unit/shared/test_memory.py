"""The twins in memory; tests/contract/test_shared_engines.py has what they do as engines."""

from mirror.shared.lease_text import new_holder
from mirror.shared.memory import MemoryLeases, MemoryObjects


async def test_memory_lease_lapses_by_its_clock() -> None:
    """The time of a lease is that of the clock that is handed in."""
    now = 100.0
    leases, mine, other = MemoryLeases(lambda: now), new_holder(), new_holder()
    await leases.acquire("a", mine, 10)
    now = 109.9
    assert await leases.acquire("a", other, 10) == mine
    now = 110.0
    assert await leases.acquire("a", other, 10) == other


async def test_memory_objects_have_a_version_for_each_write() -> None:
    """The same bytes again are another version."""
    objects = MemoryObjects()
    assert await objects.create("a", b"1")
    first = await objects.read("a")
    assert first is not None
    assert await objects.replace("a", b"1", first.version)
    assert not await objects.replace("a", b"1", first.version)
    assert not await objects.replace("b", b"1", first.version)
