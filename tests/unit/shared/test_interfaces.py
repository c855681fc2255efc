"""The interfaces of the shared tier."""

from mirror.shared.interfaces import ConditionalObjects, Holder, Leases, ObjectTier
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryTier


def test_twins_in_memory_have_the_interfaces() -> None:
    """mypy compares the twins with the protocols here; tests/contract compares what they do."""
    tier: ObjectTier = MemoryTier()
    leases: Leases = MemoryLeases()
    objects: ConditionalObjects = MemoryObjects()
    assert tier
    assert leases
    assert objects
    assert Holder("a") != Holder("a", "http://b:1")
