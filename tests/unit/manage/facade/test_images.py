"""Images through the facade, in an event loop."""

import asyncio
from contextlib import closing
from pathlib import Path

from mirror.manage.management import Management
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.store.cache_dir import CacheDirectory

EVERYTHING = ImagePattern.parse("*/*:*")


async def test_management_lists_images(management: Management) -> None:
    """The images, in order, as `ls` has them."""
    found = [each.reference async for each in management.images.matching(EVERYTHING)]
    assert found == ["docker.io/library/x:1", "docker.io/library/x:2", "quay.io/org/y:1"]


async def test_management_removes_images(management: Management, cache: Path) -> None:
    """A dry run removes nothing; the real one is seen by another process."""
    wanted = ImagePattern.parse("x:1")
    said = [each async for each in management.images.remove(wanted, dry_run=True)]
    assert [each async for each in management.images.remove(wanted)] == said
    assert said[0].images == ("docker.io/library/x:1",)

    def has_layer() -> bool:
        with closing(CacheDirectory(cache)) as other:
            return other.blobs.has(Digest.of(b"b" * 3000))

    assert not await asyncio.to_thread(has_layer)
    assert [each async for each in management.images.remove(wanted)] == []
