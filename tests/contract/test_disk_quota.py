"""A quota of the file system's own (EDQUOT), a real one of btrfs: there is room, but not for the cache.

Of the kinds of quota that Linux has, those of btrfs need no kernel option of their own.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from tests.contract.test_disk_trouble import is_kept, new_image, pull, troubles
from tests.disks import MIB, formatted
from tests.fakes.registry import FakeRegistry
from tests.programs import program
from tests.running import configured, mirror_of, serving

pytestmark = pytest.mark.needs("mkfs.btrfs", "btrfs", root=True)

ROOM_BYTES = 24 * MIB


def btrfs(*arguments: str | Path) -> None:
    subprocess.run([program("btrfs"), *arguments], check=True, capture_output=True)


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def limited_folder(tmp_path: Path) -> Iterator[Path]:
    """Create a folder that may grow to 24 MiB, on a file system with ten times as much."""
    with formatted(tmp_path / "disk", "btrfs", 160 * MIB) as disk:
        btrfs("quota", "enable", disk)
        btrfs("subvolume", "create", disk / "ours")
        btrfs("qgroup", "limit", str(ROOM_BYTES), disk / "ours")
        yield disk / "ours"


def make_old(blobs: BlobStore) -> None:
    """Make all blobs look unused for long."""
    blobs.table.touch({Digest.parse(row.digest): 1.0 for row in blobs.table.rows("", 100)})


async def test_disk_quota_evicts_unused_blobs(hub: FakeRegistry, limited_folder: Path) -> None:
    """A quota that is used up is a reason to evict, even though the file system has room.

    The eviction is done at once, or at the next housekeeping run if the quota has no room for its own writes.
    """
    async with mirror_of(hub, limited_folder / "cache") as mirror:
        store = mirror.service._store
        for tag in "abcdefg":
            await pull(mirror, new_image(hub, tag))
            await store.executor.run(make_old, store.folder.blobs)
            await asyncio.to_thread(
                btrfs, "filesystem", "sync", limited_folder
            )  # evicted blobs count until then
            await store.upkeep.recover()
            assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "after")
        assert await mirror.metric('registry_mirror_evicted_blobs_total{reason="room"}') > 0
        assert await store.upkeep.check() == []


async def test_disk_quota_used_up_by_pins(hub: FakeRegistry, limited_folder: Path) -> None:
    """Pulls go on, the log says the same as for a full disk, and caching resumes when there is more room."""
    config = configured(limited_folder / "cache", {"docker.io": hub.url})
    pinned = config.cache.model_copy(update={"pins": ("x:*",)})
    async with serving(config.model_copy(update={"cache": pinned})) as mirror:
        for tag in "abcdefg":
            await pull(mirror, new_image(hub, tag))
        assert await troubles(mirror) == {"full"}
        assert await mirror.metric("registry_mirror_passed_through_total") > 0
        await asyncio.to_thread(btrfs, "qgroup", "limit", "none", limited_folder)
        await mirror.service._store.upkeep.recover()
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "after")
        assert await mirror.service._store.upkeep.check() == []
