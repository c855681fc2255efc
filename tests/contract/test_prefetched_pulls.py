"""Pulls as clients make them, with a mirror that is a step ahead."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fakes.content import image_index, some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, mirror_of
from tests.wire import get, head

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
