"""A section of code that one process of this mirror enters at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from mirror.store.errors import StoreError
from mirror.store.parts.interfaces import LocalLeases
from mirror.util.tasks import run_to_completion

# Poll interval, in seconds, for another process's progress while a reader waits: processes send each other
# no notice (`store.partial.remote_partial`). 5 ms is a sixth of what the first byte of a layer takes to come
# from a nearby registry.
POLL_SECONDS = 0.005


@asynccontextmanager
async def exclusive(leases: LocalLeases, key: str) -> AsyncIterator[None]:
    """Hold the lease on `key` (`store.lock.blob_key`, `name_key`) while the section runs.

    A caller that waited should look in the store again: another process may have fetched the content. Where
    the disk allows no lock, every process enters, and each fetches for itself.
    """
    lease = None
    with suppress(StoreError):
        while (lease := await leases.acquire(key)) is None:  # noqa: ASYNC110  # a file lock
            await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        if lease is not None:
            with suppress(StoreError):
                await run_to_completion(leases.release(lease))
