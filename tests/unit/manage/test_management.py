"""The facade: each use case in an event loop, beside a running mirror and on a stopped one's folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.bundle.archives.opening import open_archive
from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.manage.management import Management
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import PinTooLarge, StoreError
from mirror.store.store import Store
from mirror.util.rate_limiter import RateLimiter
from tests.fakes.cached import X, Y, open_folder, put_blob, put_image
from tests.unit.manage.carry.bundles import exported, selected
from tests.unit.manage.carry.carrying import options

EVERYTHING = ImagePattern.parse("*/*:*")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two images of one repository and one of another, and a blob of none."""
    with closing(open_folder(tmp_path / "cache")) as folder:
        put_image(folder, X, "1", [b"a" * 2000, b"b" * 3000])
        put_image(folder, X, "2", [b"a" * 2000])
        put_image(folder, Y, "1", [b"c" * 1000])
        folder.blobs.touch({put_blob(folder, b"of nobody"): 1.0})
    return tmp_path / "cache"


@pytest.fixture
async def management(cache: Path) -> AsyncIterator[Management]:
    opened = await Management.open(cache, CacheSettings(dir=cache, min_free=Amount()))
    yield opened
    await opened.aclose()


async def test_management_lists_images(management: Management) -> None:
    """The images, in order, as `ls` has them."""
    found = [each.reference async for each in management.images(EVERYTHING)]
    assert found == ["docker.io/library/x:1", "docker.io/library/x:2", "quay.io/org/y:1"]


async def test_management_removes_images(management: Management, cache: Path) -> None:
    """A dry run removes nothing; the real one is seen by another process."""
    wanted = ImagePattern.parse("x:1")
    said = [each async for each in management.removal(wanted, dry_run=True)]
    assert [each async for each in management.removal(wanted)] == said
    assert said[0].images == ("docker.io/library/x:1",)

    def has_layer() -> bool:
        with closing(CacheDirectory(cache)) as other:
            return other.blobs.has(Digest.of(b"b" * 3000))

    assert not await asyncio.to_thread(has_layer)
    assert [each async for each in management.removal(wanted)] == []


async def test_management_collects_garbage(management: Management, cache: Path) -> None:
    """A blob of nobody goes; what is foreign is named."""
    await asyncio.to_thread((cache / "blobs" / "mine.txt").touch)
    kinds = [each.kind async for each in management.garbage(dry_run=True)]
    assert [each.kind async for each in management.garbage()] == kinds == ["blob of no repository"]
    assert [path.name for path in await management.foreign_files()] == ["mine.txt"]
    assert await management.excess() <= 0
    assert await management.shortage() is None


async def test_management_counts_usage(management: Management) -> None:
    """All with their upstreams, or those that match."""
    names = [each.name async for each in management.usage()]
    assert names == ["docker.io/library/x", "docker.io", "quay.io/org/y", "quay.io"]
    assert [each.name async for each in management.usage(ImagePattern.parse("quay.io/*"))] == [
        "quay.io/org/y"
    ]
    totals = await management.disk_totals()
    assert (totals.count, totals.blobs > 6000, totals.pinned, totals.scrub) == (9, True, 0, None)


async def test_management_pins(management: Management) -> None:
    """Pin, sizes, list, unpin."""
    pin = Pin.of("x:1", [], {})
    kept = await management.pin(pin)
    assert await management.pin_sizes(pin) == (kept, kept)
    assert [str(each.pin.images) for each in await management.pins()] == ["docker.io/library/x:1"]
    assert [await management.unpin(pin.images) for _ in range(2)] == [True, False]


async def test_management_raises_what_the_use_case_raises(cache: Path, tmp_path: Path) -> None:
    """Errors of the use case as they are; errors of the disk as StoreError."""
    small = CacheSettings.model_validate({"dir": cache, "max_size": "1KiB", "min_free": "0"})
    management = await Management.open(cache, small)
    with pytest.raises(PinTooLarge):
        await management.pin(Pin.of("x:1", [], {}))
    await management.aclose()
    await asyncio.to_thread((tmp_path / "file").touch)
    with pytest.raises(StoreError):
        await Management.open(tmp_path / "file")


async def test_management_verifies(management: Management) -> None:
    """A check that was left goes on where it stopped; its progress is in bytes."""
    begun = await management.verification(RateLimiter(0), quick=False, repair=False)
    check = management.verify(begun)
    steps = [each async for each in check]
    assert (len(begun.findings), check.progress) == (0, begun.progress)
    assert check.progress.done == check.progress.total
    assert sum(each.read for each in steps) == begun.progress.done


async def test_management_beside_a_running_mirror(cache: Path) -> None:
    """The folder of a running store is shared: its own connections stay open when the facade ends."""
    store = await Store.open(cache, CacheSettings(dir=cache, min_free=Amount()))
    management = Management(store.folder)
    assert len([each async for each in management.images(EVERYTHING)]) == 3
    removed = store.folder.epoch.removals()
    assert len([each async for each in management.removal(ImagePattern.parse("y:1"))]) == 0
    assert len([each async for each in management.removal(ImagePattern.parse("quay.io/org/y:1"))]) == 1
    assert store.folder.epoch.removals() != removed
    await management.aclose()
    assert await store.known_tags(X, "", 9) == ["1", "2"]
    await store.close()


def test_management_without_an_event_loop(cache: Path) -> None:
    """A command uses the same use cases in its own thread."""
    with closing(open_folder(cache)) as folder:
        management = Management(folder)
        assert len([*management.images(EVERYTHING)]) == 3
        assert management.disk_totals().now().count == 9
        assert management.unpin(EVERYTHING).now() is False


async def test_management_carries_images(management: Management, tmp_path: Path) -> None:
    """A command would export what is collected here; an import reads in the facade's thread."""
    management.folder.trusts_unknown = True  # as where no upstream has an account
    found = await management.collect(selected("x:1"))
    assert len(found.contents.images) == 1
    assert len(await management.have()) == 9

    def bundle() -> Path:
        with closing(open_folder(tmp_path / "other")) as other:
            put_image(other, Y, "2", [b"carried"])
            return exported(other, tmp_path / "lab.tar", "quay.io/org/y:2")[0]

    file, counted = await asyncio.to_thread(bundle), list[int]()
    run = await management.begin_import(options())
    with await asyncio.to_thread(file.open, "rb") as stream, open_archive(stream) as archive:
        await management.read_archive(run, archive, "lab.tar", counted.append)
        results = [each.state async for each in management.finish_import(run)]
    assert results == ["imported"]
    assert sum(counted) > 7
