"""The facade: each use case in an event loop, beside a running mirror and on a stopped one's folder."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.manage.management import Management
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.store.errors import PinTooLarge, StoreError
from mirror.store.store import Store
from tests.fakes.cached import X, open_folder

EVERYTHING = ImagePattern.parse("*/*:*")


async def test_management_raises_what_the_use_case_raises(cache: Path, tmp_path: Path) -> None:
    """Errors of the use case as they are; errors of the disk as StoreError."""
    small = CacheSettings.model_validate({"dir": cache, "max_size": "1KiB", "min_free": "0"})
    management = await Management.open(cache, small)
    with pytest.raises(PinTooLarge):
        await management.pins.add(Pin.of("x:1", [], {}))
    await management.aclose()
    await asyncio.to_thread((tmp_path / "file").touch)
    with pytest.raises(StoreError):
        await Management.open(tmp_path / "file")


async def test_management_beside_a_running_mirror(cache: Path) -> None:
    """The folder of a running store is shared: its own connections stay open when the facade ends."""
    store = await Store.open(cache, CacheSettings(dir=cache, min_free=Amount()))
    management = Management(store.folder)
    assert len([each async for each in management.images.matching(EVERYTHING)]) == 3
    removed = store.folder.epoch.removals()
    assert len([each async for each in management.images.remove(ImagePattern.parse("y:1"))]) == 0
    assert len([each async for each in management.images.remove(ImagePattern.parse("quay.io/org/y:1"))]) == 1
    assert store.folder.epoch.removals() != removed
    await management.aclose()
    assert await store.metadata.known_tags(X, "", 9) == ["1", "2"]
    await store.close()


def test_management_without_an_event_loop(cache: Path) -> None:
    """A command uses the same use cases in its own thread."""
    with closing(open_folder(cache)) as folder:
        management = Management(folder)
        assert len([*management.images.matching(EVERYTHING)]) == 3
        assert management.disk.totals().now().count == 9
        assert management.pins.remove(EVERYTHING).now() is False
