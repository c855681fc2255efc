"""Pulls as clients make them, with a mirror that is a step ahead."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import FillSettings
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from mirror.store.errors import StoreError
from tests.fakes.content import FakeImage, image_index, some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, mirror_of, serving
from tests.wire import get, head

pytestmark = pytest.mark.slow

ACCEPT = f"Accept: {', '.join((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX))}"


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache", fill={"prefetch": 3}) as mirror:
        yield mirror


async def test_prefetch_for_dockerd_with_three_layers_at_a_time(fake: FakeRegistry, mirror: Running) -> None:
    """The next three layers arrive while dockerd waits for the first three; each is downloaded once."""
    images = [fake.add_image("library/x", f"t-{n}", some_layers(6, LARGE + n)) for n in range(2)]
    image = images[0]
    index = image_index([each.manifest_data for each in images])
    digest = fake.add_manifest("library/x", index, OCI_INDEX, "t")
    gates = [fake.hold(layer, after=LARGE // 2) for layer in image.layers]
    assert (await head(mirror.address, "/v2/library/x/manifests/t", ACCEPT)).status == 200
    assert (await get(mirror.address, f"/v2/library/x/manifests/{digest}", ACCEPT)).body == index
    manifest = await get(mirror.address, f"/v2/library/x/manifests/{image.manifest}", ACCEPT)
    assert manifest.body == image.manifest_data
    paths = [f"/v2/library/x/blobs/{blob}" for blob in image.blobs]
    assert (await get(mirror.address, paths[0])).body == image.config_data
    asking = [asyncio.ensure_future(get(mirror.address, path)) for path in paths[1:4]]
    for gate in gates[3:]:
        await gate.reached.wait()
    for gate in gates:
        gate.release()
    replies = await asyncio.gather(*asking, *(get(mirror.address, path) for path in paths[4:]))
    assert tuple(reply.body for reply in replies) == image.layers_data
    assert [fake.requests("GET", blob) for blob in image.blobs] == [1] * 7
    assert not any(fake.requests(None, blob) for blob in images[1].blobs)


async def test_prefetch_serves_the_next_client(fake: FakeRegistry, mirror: Running) -> None:
    """A client that left after the manifest has caused the whole image to be stored for all others."""
    image = fake.add_image("library/x", "t", some_layers(4))
    await get(mirror.address, "/v2/library/x/manifests/t", ACCEPT)
    for blob in image.blobs:
        while fake.requests("GET", blob) == 0:
            await get(mirror.address, "/v2/")
        await mirror.landed(blob)
    asked = len(fake.log)
    for blob, data in zip(image.layers, image.layers_data, strict=True):
        assert (await get(mirror.address, f"/v2/library/x/blobs/{blob}")).body == data
    assert len(fake.log) == asked


@pytest.fixture
async def usual(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror that prefetches as it does without an option."""
    async with mirror_of(fake, tmp_path / "usual", fill={"prefetch": FillSettings().prefetch}) as mirror:
        yield mirror


async def settled(mirror: Running) -> None:
    """Wait until no prefetch is running."""
    while running := [each for each in mirror.service._tasks._running if each.get_name() == "prefetch"]:
        await asyncio.wait(running)


def layers_fetched(fake: FakeRegistry, image: FakeImage) -> list[int]:
    return [fake.requests("GET", layer) for layer in image.layers]


async def test_prefetch_fetches_no_layer_for_a_client_that_looks(fake: FakeRegistry, usual: Running) -> None:
    """`docker manifest inspect -v`, `crane manifest`, `skopeo inspect`: manifests, configs, no layer."""
    images = [fake.add_image("library/x", f"t-{n}", some_layers(6, LARGE + n)) for n in range(3)]
    index = image_index([each.manifest_data for each in images])
    fake.add_manifest("library/x", index, OCI_INDEX, "t")
    await get(usual.address, "/v2/library/x/manifests/t", ACCEPT)
    for image in images:
        await get(usual.address, f"/v2/library/x/manifests/{image.manifest}", ACCEPT)
        await get(usual.address, f"/v2/library/x/blobs/{image.config}")
        for layer in image.layers:
            assert (await head(usual.address, f"/v2/library/x/blobs/{layer}")).status == 200
    await settled(usual)
    assert [layers_fetched(fake, image) for image in images] == [[0] * 6] * 3
    assert [fake.requests("GET", image.config) for image in images] == [1] * 3


async def test_prefetch_brings_the_config_with_the_manifest(fake: FakeRegistry, usual: Running) -> None:
    """A small config is what each client asks for next."""
    image = fake.add_image("library/x", "t", some_layers(2))
    await get(usual.address, "/v2/library/x/manifests/t", ACCEPT)
    await settled(usual)
    asked = len(fake.log)
    assert (await get(usual.address, f"/v2/library/x/blobs/{image.config}")).body == image.config_data
    assert (len(fake.log), layers_fetched(fake, image)) == (asked, [0, 0])


@pytest.mark.parametrize("spans", ["bytes=0-", "bytes=0-8388607"])
@pytest.mark.parametrize("first", [0, 3])
async def test_prefetch_starts_with_the_first_layer(
    fake: FakeRegistry, usual: Running, first: int, spans: str
) -> None:
    """The other layers come while the client waits for its first one, whichever that is, each once."""
    image = fake.add_image("library/x", "t", some_layers(4, LARGE))
    gates = [fake.hold(layer, after=1) for layer in image.layers]
    await get(usual.address, "/v2/library/x/manifests/t", ACCEPT)
    await settled(usual)
    asking = asyncio.ensure_future(
        get(usual.address, f"/v2/library/x/blobs/{image.layers[first]}", f"Range: {spans}")
    )
    for gate in gates:
        await gate.reached.wait()
    assert not asking.done()
    for gate in gates:
        gate.release()
    assert (await asking).body == image.layers_data[first]
    await settled(usual)
    assert layers_fetched(fake, image) == [1] * 4


@pytest.mark.parametrize(
    "spans", ["bytes=0-1", "bytes=0-0", "bytes=-47", "bytes=4096-", "bytes=0-65535", "bytes=0-99,200-299"]
)
async def test_prefetch_does_not_start_for_a_lazy_pull(
    fake: FakeRegistry, usual: Running, spans: str
) -> None:
    """Parts of a layer are what stargz and SOCI ask for, and two bytes to see whether ranges work."""
    image = fake.add_image("library/x", "t", some_layers(3, LARGE))
    await get(usual.address, "/v2/library/x/manifests/t", ACCEPT)
    await settled(usual)
    path = f"/v2/library/x/blobs/{image.layers[0]}"
    assert (await get(usual.address, path, f"Range: {spans}")).status == 206
    await settled(usual)
    assert layers_fetched(fake, image)[1:] == [0, 0]


@pytest.mark.parametrize(("way", "fetched"), [("manifest", 1), (2, 1), ("off", 0), (0, 0), ("0", 0)])
async def test_prefetch_at_the_manifest_or_never(
    fake: FakeRegistry, tmp_path: Path, way: str | int, fetched: int
) -> None:
    """Both can be chosen; a number is that many layers at a time, from the manifest on."""
    image = fake.add_image("library/x", "t", some_layers(3))
    async with mirror_of(fake, tmp_path, fill={"prefetch": way}) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t", ACCEPT)
        await settled(mirror)
        assert layers_fetched(fake, image) == [fetched] * 3
        if not fetched:
            await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")
            await settled(mirror)
            assert layers_fetched(fake, image) == [1, 0, 0]


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_blob_that_another_process_has_brought_is_not_fetched_again(
    fake: FakeRegistry, tmp_path: Path, size: int
) -> None:
    """The manifest told that the blob was missing here, before the other process had it."""
    image = fake.add_image("library/x", "t", some_layers(1, size))
    digest, data = image.layers[0], image.layers_data[0]
    async with (
        mirror_of(fake, tmp_path / "cache") as one,
        mirror_of(fake, tmp_path / "cache") as other,
    ):
        await get(one.address, "/v2/library/x/manifests/t", ACCEPT)
        await get(other.address, "/v2/library/x/manifests/t", ACCEPT)
        assert (await get(other.address, f"/v2/library/x/blobs/{digest}")).body == data
        await other.landed(digest)
        replies = [await get(one.address, f"/v2/library/x/blobs/{digest}") for _ in range(2)]
    assert [each.body for each in replies] == [data, data]
    assert fake.requests("GET", digest) == 1


@pytest.mark.parametrize("trouble", ["turns", "writing", "partials", "quota"])
async def test_blob_that_another_process_has_brought_is_there_where_no_fill_may_begin(
    fake: FakeRegistry, tmp_path: Path, trouble: str
) -> None:
    """All turns are taken, nothing can be written, or the client may fetch no more: it is on the disk."""
    image = fake.add_image("library/x", "t", some_layers(2, LARGE))
    (digest, second), data = image.layers, image.layers_data[0]
    cache, upstreams, fill = (
        tmp_path / "cache",
        {"docker.io": fake.url},
        {"prefetch": "off", "connections": 1},
    )
    limits = [{"name": "all", "upstream_per_day": "4MiB"}] if trouble == "quota" else []
    async with (
        serving(configured(cache, upstreams, fill=fill, limits=limits)) as one,
        serving(configured(cache, upstreams, fill=fill)) as other,
    ):
        for mirror in (one, other):
            await get(mirror.address, "/v2/library/x/manifests/t", ACCEPT)
        await get(other.address, f"/v2/library/x/blobs/{digest}")
        await other.landed(digest)
        gate = fake.hold(second, after=LARGE // 2)
        filling = asyncio.ensure_future(get(one.address, f"/v2/library/x/blobs/{second}"))
        if trouble != "turns":
            gate.release()
            await filling
            await one.landed(second)
        if trouble == "writing":
            one.service._store.room.report_write_failure(StoreError("no writing"))
        if trouble == "partials":
            await asyncio.to_thread((cache / "partial").rename, tmp_path / "gone")
            await asyncio.to_thread((cache / "partial").touch)
        try:
            async with asyncio.timeout(20):
                reply = await get(one.address, f"/v2/library/x/blobs/{digest}")
        finally:
            gate.release()
            await filling
    assert (reply.status, reply.body == data) == (200, True)
    assert fake.requests("GET", digest) == 1
