"""One process at a time."""

import asyncio
import os
from pathlib import Path

from mirror.store.lock import name_key
from mirror.store.store import Store
from mirror.transfer.exclusive import exclusive
from mirror.util.tasks import Tasks

KEY = name_key("library/a:latest")


async def test_second_process_waits_until_first_is_done(tmp_path: Path, tasks: Tasks) -> None:
    """Two stores on one folder, as two processes have them: the sections do not overlap."""
    first, second = await Store.open(tmp_path / "cache"), await Store.open(tmp_path / "cache")
    told: list[str] = []
    inside, leave = asyncio.Event(), asyncio.Event()

    async def section(store: Store, name: str, until: asyncio.Event) -> None:
        async with exclusive(store, KEY):
            told.append(f"{name} in")
            inside.set()
            await until.wait()
            told.append(f"{name} out")

    one = tasks.spawn(section(first, "first", leave), name="first")
    await inside.wait()
    two = tasks.spawn(section(second, "second", leave), name="second")
    # A claim that the second process asks for itself is refused meanwhile.
    assert await second.acquire_key_lease(KEY) is None
    leave.set()
    await asyncio.gather(one, two)
    assert told == ["first in", "first out", "second in", "second out"]
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []
    await first.close()
    await second.close()


async def test_a_disk_without_locks_keeps_nobody_out(tmp_path: Path) -> None:
    """Where the folder for locks is gone, the section is entered all the same."""
    store = await Store.open(tmp_path / "cache")
    await asyncio.to_thread(os.rmdir, tmp_path / "cache" / "partial")
    async with exclusive(store, KEY):
        pass
    await store.close()
