"""A quota of the file system's own (EDQUOT): there is room, and it is not ours. A real one, of btrfs.

Of the kinds of quota that Linux has, those of btrfs need no kernel option of their own.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from tests.contract.test_disk_trouble import an_image, is_kept, pulled, troubles
from tests.disks import MIB, formatted
from tests.fakes.registry import FakeRegistry
from tests.programs import program
from tests.running import configured, mirror_of, serving

pytestmark = pytest.mark.needs("mkfs.btrfs", "btrfs", root=True)

ROOM = 24 * MIB


def btrfs(*arguments: str | Path) -> None:
    subprocess.run([program("btrfs"), *arguments], check=True, capture_output=True)


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def rationed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may grow to 24 MiB, on a file system with ten times as much."""
    with formatted(tmp_path / "disk", "btrfs", 160 * MIB) as disk:
        btrfs("quota", "enable", disk)
        btrfs("subvolume", "create", disk / "ours")
        btrfs("qgroup", "limit", str(ROOM), disk / "ours")
        yield disk / "ours"


def make_old(blobs: BlobStore) -> None:
    """All that is here."""
    blobs.touch({Digest.parse(row.digest): 1.0 for row in blobs.rows("", 100)})


async def test_what_was_not_used_for_long_makes_room(hub: FakeRegistry, rationed: Path) -> None:
    """A quota that is used up is a reason to evict, though the file system has room.

    At once, or where not even the notes that this takes have room, when it is next looked at.
    """
    async with mirror_of(hub, rationed / "cache") as mirror:
        store = mirror.service._store
        for tag in "abcdefg":
            await pulled(mirror, an_image(hub, tag))
            await store.executor.run(make_old, store.folder.blobs)
            await asyncio.to_thread(btrfs, "filesystem", "sync", rationed)  # or what is gone still counts
            await store.recover()
            assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "after")
        assert await mirror.metric('registry_mirror_evicted_blobs_total{reason="room"}') > 0
        assert await store.check() == []


async def test_a_quota_that_is_used_up(hub: FakeRegistry, rationed: Path) -> None:
    """By what is pinned: pulls go on, it is told as a full disk is; caching resumes when there is more."""
    config = configured(rationed / "cache", {"docker.io": hub.url})
    pinned = config.cache.model_copy(update={"pins": ("x:*",)})
    async with serving(config.model_copy(update={"cache": pinned})) as mirror:
        for tag in "abcdefg":
            await pulled(mirror, an_image(hub, tag))
        assert await troubles(mirror) == {"full"}
        assert await mirror.metric("registry_mirror_passed_through_total") > 0
        await asyncio.to_thread(btrfs, "qgroup", "limit", "none", rationed)
        await mirror.service._store.recover()
        assert await troubles(mirror) == set()
        assert await is_kept(hub, mirror, "after")
        assert await mirror.service._store.check() == []
