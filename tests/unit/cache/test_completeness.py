"""Completeness: images with missing blobs, while no upstream can be asked for them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.util.ttl_cache import TTLCache
from tests.fakes.content import FakeImage, descriptor
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get, head

X = "/v2/docker.io/library/x"


@pytest.fixture
async def image(hub: FakeRegistry, mirror: Running) -> FakeImage:
    """An image whose manifest is cached, and whose blobs are not."""
    image = hub.add_image("library/x", "t", [b"a", b"b"])
    await get(mirror.address, f"{X}/manifests/t")
    return image


@pytest.fixture
async def offline(mirror: Running, tmp_path: Path) -> AsyncIterator[Running]:
    """A second mirror on the same cache, which asks no upstream."""
    config = configured(tmp_path / "cache", {"docker.io": "http://127.0.0.1:9"}, server={"offline": True})
    async with serving(config) as running:
        yield running


async def fetch(mirror: Running, image: FakeImage) -> None:
    for digest in (image.config, *image.layers):
        await get(mirror.address, f"{X}/blobs/{digest}")
        await mirror.landed(digest)


async def test_completeness_refuses_an_incomplete_image(
    mirror: Running, offline: Running, image: FakeImage
) -> None:
    """404 by tag and digest, GET and HEAD: a client without a way back tries another mirror."""
    for reference in ("t", image.manifest):
        assert (await head(offline.address, f"{X}/manifests/{reference}")).status == 404
        reply = await get(offline.address, f"{X}/manifests/{reference}")
        message = json.loads(reply.body)["errors"][0]["message"]
        assert (reply.status, "3 blobs" in message, "offline" in message) == (404, True, True)
    assert (await get(mirror.address, f"{X}/manifests/t")).status == 200


async def test_completeness_allows_a_complete_image(
    mirror: Running, offline: Running, image: FakeImage
) -> None:
    """The image is served as soon as its last blob is here."""
    await fetch(mirror, image)
    for reference in ("t", image.manifest):
        assert (await get(offline.address, f"{X}/manifests/{reference}")).body == image.manifest_data


async def test_completeness_is_off_with_serve_incomplete(
    mirror: Running, tmp_path: Path, image: FakeImage
) -> None:
    """The manifest of an incomplete image is served with tags.serve_incomplete."""
    config = configured(
        tmp_path / "cache",
        {"docker.io": "http://127.0.0.1:9"},
        server={"offline": True},
        tags={"serve_incomplete": True},
    )
    async with serving(config) as running:
        assert (await get(running.address, f"{X}/manifests/t")).body == image.manifest_data


async def test_completeness_of_an_index_needs_one_platform(
    hub: FakeRegistry, mirror: Running, offline: Running
) -> None:
    """An index is served when one of its platforms is complete, and not when none is."""
    whole, half = (hub.add_image("library/x", None, [name]) for name in (b"whole", b"half"))
    for name, images in (("one", [half, whole]), ("none", [half])):
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(OCI_MANIFEST, image.manifest_data) for image in images],
        }
        hub.add_manifest("library/x", json.dumps(index).encode(), OCI_INDEX, name)
        await get(mirror.address, f"{X}/manifests/{name}")
    assert (await get(offline.address, f"{X}/manifests/one")).status == 404
    for image in (whole, half):
        await get(mirror.address, f"{X}/manifests/{image.manifest}")
    await fetch(mirror, whole)
    offline.service.cache.images._completeness._counts = TTLCache(0.0, 1)
    assert (await get(offline.address, f"{X}/manifests/one")).status == 200
    assert (await get(offline.address, f"{X}/manifests/none")).status == 404


async def test_completeness_allows_all_manifests_of_an_index_that_was_served(
    hub: FakeRegistry, mirror: Running, offline: Running
) -> None:
    """The manifest of a platform without blobs is refused, unless its index was served before."""
    whole, half = (hub.add_image("library/x", None, [name]) for name in (b"whole", b"half"))
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, image.manifest_data) for image in (half, whole)],
    }
    hub.add_manifest("library/x", json.dumps(index).encode(), OCI_INDEX, "both")
    for reference in ("both", str(half.manifest), str(whole.manifest)):
        await get(mirror.address, f"{X}/manifests/{reference}")
    await fetch(mirror, whole)
    assert (await get(offline.address, f"{X}/manifests/{half.manifest}")).status == 404
    assert (await get(offline.address, f"{X}/manifests/both")).status == 200
    assert (await get(offline.address, f"{X}/manifests/{half.manifest}")).body == half.manifest_data


async def test_completeness_of_a_manifest_without_blobs(
    hub: FakeRegistry, mirror: Running, offline: Running
) -> None:
    """An artifact without blobs, or a manifest of an unknown kind, is complete."""
    hub.add_manifest("library/x", b'{"config":7}', "application/vnd.odd", "odd")
    await get(mirror.address, f"{X}/manifests/odd")
    assert (await get(offline.address, f"{X}/manifests/odd")).body == b'{"config":7}'
