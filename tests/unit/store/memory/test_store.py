"""A store in memory."""

import asyncio
from pathlib import Path

from mirror.store.memory.store import MemoryStore
from mirror.store.parts.interfaces import StoreParts


async def test_store_in_memory_leaves_nothing_behind() -> None:
    """The folder of its partials goes with it."""
    memory = await MemoryStore.open()
    parts: StoreParts = memory
    folder = Path(memory._partials.name)
    assert await asyncio.to_thread(folder.is_dir)
    await parts.close()
    assert not await asyncio.to_thread(folder.exists)
