"""Exclusive sections: one process at a time."""

import asyncio
import os
from pathlib import Path

import pytest

from mirror.store.lock import name_key
from mirror.store.store import Store
from mirror.transfer.exclusive import acquire, exclusive
from mirror.util.tasks import Tasks

KEY = name_key("library/a:latest")


async def test_exclusive_sections_do_not_overlap(tmp_path: Path, tasks: Tasks) -> None:
    """Two stores on one folder, as two processes have: the second waits until the first is done."""
    first, second = await Store.open(tmp_path / "cache"), await Store.open(tmp_path / "cache")
    events: list[str] = []
    inside, leave = asyncio.Event(), asyncio.Event()

    async def section(store: Store, name: str, until: asyncio.Event) -> None:
        async with exclusive(store.transfers.leases, KEY):
            events.append(f"{name} in")
            inside.set()
            await until.wait()
            events.append(f"{name} out")

    one = tasks.spawn(section(first, "first", leave), name="first")
    await inside.wait()
    two = tasks.spawn(section(second, "second", leave), name="second")
    # A lease that the second process requests is refused meanwhile.
    assert await second.transfers.leases.acquire(KEY) is None
    leave.set()
    await asyncio.gather(one, two)
    assert events == ["first in", "first out", "second in", "second out"]
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []
    await first.close()
    await second.close()


async def test_exclusive_section_without_locks_is_entered(tmp_path: Path) -> None:
    """A section is entered all the same where the folder for locks is gone."""
    store = await Store.open(tmp_path / "cache")
    await asyncio.to_thread(os.rmdir, tmp_path / "cache" / "partial")
    async with exclusive(store.transfers.leases, KEY):
        pass
    await store.close()


async def test_acquire_pauses_between_attempts() -> None:
    """The first attempt needs no pause, and what an attempt raises is raised."""
    steps: list[str] = []
    answers: list[str | Exception | None] = [None, None, "lease", OSError("no locks")]

    async def attempt() -> str | None:
        steps.append("attempt")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pause() -> None:
        steps.append("pause")

    assert await acquire(attempt, pause) == "lease"
    assert steps == ["attempt", "pause", "attempt", "pause", "attempt"]
    with pytest.raises(OSError, match="no locks"):
        await acquire(attempt, pause)
