"""Upkeep through the facade, in an event loop."""

import asyncio
from pathlib import Path

from mirror.manage.management import Management
from mirror.util.rate_limiter import RateLimiter


async def test_management_collects_garbage(management: Management, cache: Path) -> None:
    """A blob of nobody goes; what is foreign is named."""
    await asyncio.to_thread((cache / "blobs" / "mine.txt").touch)
    kinds = [each.kind async for each in management.upkeep.collect_garbage(dry_run=True)]
    assert (
        [each.kind async for each in management.upkeep.collect_garbage()]
        == kinds
        == ["blob of no repository"]
    )
    assert [path.name for path in await management.upkeep.foreign_files()] == ["mine.txt"]
    assert await management.disk.excess() <= 0
    assert await management.disk.shortage() is None


async def test_management_verifies(management: Management) -> None:
    """A check that was left goes on where it stopped; its progress is in bytes."""
    begun = await management.upkeep.begin_verification(RateLimiter(0), quick=False, repair=False)
    check = management.upkeep.verify(begun)
    steps = [each async for each in check]
    assert (len(begun.findings), check.progress) == (0, begun.progress)
    assert check.progress.done == check.progress.total
    assert sum(each.read for each in steps) == begun.progress.done
