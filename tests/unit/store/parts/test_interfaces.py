"""The interfaces of a store's parts."""

from pathlib import Path

from mirror.store.parts.interfaces import ContentStore, Metadata, Room, StoreUpkeep, Transfers
from mirror.store.store import Store


async def test_parts_of_a_folder_have_the_interfaces(tmp_path: Path) -> None:
    """mypy compares the parts with the protocols here; tests/contract compares what they do."""
    store = await Store.open(tmp_path)
    metadata: Metadata = store.metadata
    content: ContentStore = store.content
    transfers: Transfers = store.transfers
    room: Room = store.room
    upkeep: StoreUpkeep = store.upkeep
    assert all((metadata, content, transfers, room, upkeep))
    await store.close()
