"""Pins, removals and the quota, as clients of a running mirror see them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from mirror.manage.removal import ImageRemoval
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.store.blobs.quota import IN_USE
from mirror.store.cache_dir import CacheDirectory
from tests.disks import MIB
from tests.fakes.content import FakeImage, some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, mirror_of, serving
from tests.wire import Wire, get, request_head

# Each image is a layer of 100 kB, a config and a manifest.
LAYER = 100_000


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


def limited(
    fake: FakeRegistry, cache: Path, count: int, **cache_settings: object
) -> AbstractAsyncContextManager[Running]:
    """A mirror with room for `count` images."""
    config = configured(cache, {"docker.io": fake.url})
    settings = config.cache.model_validate(
        {"dir": cache, "max_size": count * (LAYER + 2000), "min_free": 0, "memory": 0, **cache_settings}
    )
    return serving(config.model_copy(update={"cache": settings}))


def images_of(fake: FakeRegistry, count: int) -> list[FakeImage]:
    layers = some_layers(count, LAYER)
    return [fake.add_image(f"library/x{number}", "t", [layer]) for number, layer in enumerate(layers)]


async def pull(address: str, image: FakeImage) -> None:
    manifest = await get(address, f"/v2/{image.repository}/manifests/{image.tag}")
    assert (manifest.status, manifest.body) == (200, image.manifest_data)
    for digest, data in zip(image.blobs, (image.config_data, *image.layers_data), strict=True):
        blob = await get(address, f"/v2/{image.repository}/blobs/{digest}")
        assert (blob.status, blob.body) == (200, data)


async def with_folder(mirror: Running, work: Callable[[CacheDirectory], object]) -> None:
    """Run `work` as a command does: with the same folder, opened a second time."""

    def call() -> None:
        folder = CacheDirectory(mirror.config.cache.dir, mirror.config.cache)
        work(folder)
        folder.close()

    await asyncio.to_thread(call)


async def age_everything(mirror: Running) -> None:
    """Age everything, as if it had not been used for a while."""
    await mirror.service._store.upkeep.flush_last_use()
    shift = "UPDATE Cache SET access_time = access_time - ?"
    await with_folder(mirror, lambda folder: folder.blobs._cache._sql(shift, (2 * IN_USE,)))


async def test_pinned_image_survives_eviction(hub: FakeRegistry, tmp_path: Path) -> None:
    """Ten images through room for three: the pinned one is never fetched again."""
    images = images_of(hub, 10)
    async with limited(hub, tmp_path / "cache", 3) as mirror:
        await with_folder(mirror, lambda folder: folder.pinning.pin(Pin.parse("x0:t")))
        for image in images:
            await pull(mirror.address, image)
            await mirror.settled()
            await age_everything(mirror)
        await mirror.service._store.room.evict()
        size, _ = await mirror.service._store.upkeep.stats()
        assert size <= 3 * (LAYER + 2000)
        asked = len(hub.log)
        await pull(mirror.address, images[0])
        assert len(hub.log) == asked
        assert await mirror.metric('registry_mirror_evicted_blobs_total{reason="room"}') >= 7
        await pull(mirror.address, images[1])
        assert len(hub.log) > asked


async def test_pins_of_the_configuration(hub: FakeRegistry, tmp_path: Path) -> None:
    """A pattern in the configuration pins images that are pulled later."""
    images = images_of(hub, 4)
    async with limited(hub, tmp_path / "cache", 2, pins=["x0:*"]) as mirror:
        for image in images:
            await pull(mirror.address, image)
            await mirror.settled()
            await age_everything(mirror)
        asked = len(hub.log)
        await pull(mirror.address, images[0])
        assert len(hub.log) == asked


@pytest.mark.parametrize("by_other_process", [True, False])
@pytest.mark.parametrize("copies", ["all", "responses"])
async def test_content_served_from_memory_is_kept(
    hub: FakeRegistry, tmp_path: Path, by_other_process: bool, copies: str
) -> None:
    """Store small content again that was evicted, and is served from memory nevertheless.

    A copy that only the response cache has is dropped, so that the next request restores the content.
    """
    (image,) = images_of(hub, 1)
    small = [image.manifest, image.config]
    async with limited(hub, tmp_path / "cache", 3, memory=MIB) as mirror:
        store = mirror.service._store
        for _ in range(3):
            await pull(mirror.address, image)
            await mirror.settled()
        await store.upkeep.flush_last_use()
        if by_other_process:
            await with_folder(mirror, lambda folder: folder.evictor.evict(need=1 << 60))
        else:
            await store.room.evict(need=1 << 60)
        assert await store.content.missing_blobs(small) == small
        if copies == "responses":
            store._memory._contents.clear()
        requests = hub.requests()
        for path in ("manifests/t", f"blobs/{image.config}"):
            assert (await get(mirror.address, f"/v2/{image.repository}/{path}")).status == 200
        assert hub.requests() == requests
        await mirror.service.statistics.refresh()  # the response cache says later what it has served
        await store.upkeep.flush_last_use()
        if copies == "responses":
            await pull(mirror.address, image)
            await mirror.settled()
        assert await store.content.missing_blobs(small) == []
        await pull(mirror.address, image)  # the layer too
        await mirror.settled()
        assert await store.upkeep.check() == []
    offline = configured(tmp_path / "cache", {"docker.io": hub.url}, server={"offline": True})
    async with serving(offline) as mirror:
        manifest = await get(mirror.address, f"/v2/{image.repository}/manifests/{image.tag}")
        assert (manifest.status, manifest.body) == (200, image.manifest_data)


async def test_removal_is_effective_at_once(hub: FakeRegistry, tmp_path: Path) -> None:
    """Manifest, config and tag are in memory, and whole responses are cached, and all are invalidated."""
    image = hub.add_image("library/x", "t", [b"layer"])
    async with mirror_of(hub, tmp_path / "cache") as mirror, await Wire.open(mirror.address) as wire:
        heads = [
            request_head("GET", f"/v2/library/x/{path}")
            for path in ("manifests/t", f"manifests/{image.manifest}", f"blobs/{image.config}")
        ]
        for head in heads * 3:
            wire.writer.write(head)
            assert (await wire.reply()).status == 200
        await mirror.settled()
        asked = len(hub.log)
        for head in heads:
            wire.writer.write(head)
            await wire.reply()
        assert len(hub.log) == asked
        await with_folder(
            mirror, lambda folder: list(ImageRemoval(folder, ImagePattern.parse("x:t")).carry_out())
        )
        hub.repository("library/x").tags.clear()
        wire.writer.write(heads[0])
        assert (await wire.reply()).status == 404
        wire.writer.write(heads[2])
        assert (await wire.reply()).status == 200
        assert len(hub.log) > asked + 1


async def test_removal_during_a_pull(hub: FakeRegistry, tmp_path: Path) -> None:
    """A client that is being served is served to the end; the next client has the image from the upstream."""
    image = hub.add_image("library/x", "t", some_layers(1, 6_000_000))
    layer = f"/v2/library/x/blobs/{image.layers[0]}"
    async with mirror_of(hub, tmp_path / "cache") as mirror, await Wire.open(mirror.address) as slow:
        await pull(mirror.address, image)
        await mirror.settled()
        slow.send("GET", layer)
        head = await slow.head()
        await with_folder(
            mirror, lambda folder: list(ImageRemoval(folder, ImagePattern.parse("x:t")).carry_out())
        )
        body = await slow.reader.readexactly(int(head.headers["content-length"]))
        assert body == image.layers_data[0]
        before = hub.requests("GET", image.layers[0])
        await pull(mirror.address, image)
        assert hub.requests("GET", image.layers[0]) > before
