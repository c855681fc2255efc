"""Room in memory; tests/contract/test_store_parts.py has what both implementations do."""

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import EvictedBlob, Origin
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.memory.room import MemoryRoom, MemoryUpkeep
from mirror.store.parts.interfaces import Room, StoreUpkeep


async def test_room_in_memory_is_a_number_of_bytes() -> None:
    """An eviction is reported; bytes that changed are found."""
    blobs = MemoryBlobs(3)
    memory = MemoryRoom(blobs)
    room: Room = memory
    upkeep: StoreUpkeep = MemoryUpkeep(blobs, memory)
    evicted: list[EvictedBlob] = []
    room.on_evicted = evicted.extend
    for data in (b"ab", b"cd"):
        blobs.add(Digest.of(data), data, Origin.PUBLIC)
    assert (await room.excess(), await room.left()) == (1, -1)
    await room.evict_excess([Digest.of(b"ab")])
    assert evicted == [EvictedBlob(Digest.of(b"cd"), 2)]
    blobs.blobs[Digest.of(b"ab")].data = b"xx"
    assert await upkeep.check() == [f"{Digest.of(b'ab')} is wrong"]
