"""Leases of the processes of this mirror: how one is waited for, and a section that one process enters."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from mirror.store.errors import StoreError
from mirror.store.parts.interfaces import LocalLeases
from mirror.util.tasks import run_to_completion

# Poll interval, in seconds, for another process's progress while a reader waits: processes send each other
# no notice (`store.partial.remote_partial`). 5 ms is a sixth of what the first byte of a layer takes to come
# from a nearby registry.
POLL_SECONDS = 0.005

T = TypeVar("T")


async def poll() -> None:
    """Pause between two attempts to get a lease."""
    await asyncio.sleep(POLL_SECONDS)


async def acquire(
    attempt: Callable[[], Awaitable[T | None]], pause: Callable[[], Awaitable[None]] = poll
) -> T:
    """Repeat an attempt to get a lease until it gets one, and return that.

    `attempt` returns None while another process has the lease; `pause` is awaited before the next one. Raises
    what these raise: StoreError where the disk allows no lock.
    """
    while (held := await attempt()) is None:
        await pause()
    return held


@asynccontextmanager
async def exclusive(leases: LocalLeases, key: str) -> AsyncIterator[None]:
    """Hold the lease on `key` (`store.lock.blob_key`, `name_key`) while the section runs.

    A caller that waited should look in the store again: another process may have fetched the content. Where
    the disk allows no lock, every process enters, and each fetches for itself.
    """
    lease = None
    with suppress(StoreError):
        lease = await acquire(partial(leases.acquire, key))
    try:
        yield
    finally:
        if lease is not None:
            with suppress(StoreError):
                await run_to_completion(leases.release(lease))
