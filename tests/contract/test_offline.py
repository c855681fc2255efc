"""Offline: pulled images are served, no upstream is dialled, and a miss says why."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, mirror_of, serving
from tests.wire import get, head

X = "/v2/docker.io/library/x"


@dataclass
class Cached:
    """A cache folder with one complete image, and the registry that the image came from."""

    folder: Path
    hub: FakeRegistry
    image: FakeImage


@pytest.fixture
async def cached(tmp_path: Path) -> AsyncIterator[Cached]:
    async with FakeRegistry() as hub:
        image = hub.add_image("library/x", "t", [b"a layer", b"b" * 300_000])
        async with mirror_of(hub, tmp_path) as mirror:
            for path in ("manifests/t", *(f"blobs/{digest}" for digest in (image.config, *image.layers))):
                await get(mirror.address, f"{X}/{path}")
            for digest in image.layers:
                await mirror.landed(digest)
            await get(mirror.address, f"{X}/referrers/{image.manifest}")
        hub.log.clear()
        yield Cached(tmp_path, hub, image)


@pytest.fixture
async def offline(cached: Cached) -> AsyncIterator[Running]:
    """A new process on that folder, without a network; every tag is older than `fresh`."""
    config = configured(
        cached.folder, {"docker.io": cached.hub.url}, server={"offline": True}, tags={"fresh": 0}
    )
    async with serving(config) as running:
        yield running


async def test_offline_serves_a_complete_image(cached: Cached, offline: Running) -> None:
    """Served by tag, by digest and in parts; the tag has the warning that it is not confirmed."""
    image = cached.image
    by_tag = await get(offline.address, f"{X}/manifests/t")
    assert (by_tag.body, by_tag.header("warning")[:4]) == (image.manifest_data, "110 ")
    assert int(by_tag.header("age")) >= 0
    assert (await head(offline.address, f"{X}/manifests/t")).header("docker-content-digest") == str(
        image.manifest
    )
    by_digest = await get(offline.address, f"{X}/manifests/{image.manifest}")
    assert (by_digest.body, "warning" in by_digest.headers) == (image.manifest_data, False)
    for digest, data in zip(image.layers, image.layers_data, strict=True):
        assert (await get(offline.address, f"{X}/blobs/{digest}")).body == data
        assert (await get(offline.address, f"{X}/blobs/{digest}", "Range: bytes=2-4")).body == data[2:5]
    assert cached.hub.log == []


async def test_offline_listings(cached: Cached, offline: Running) -> None:
    """Tags, referrers and the catalog list cached content."""
    assert json.loads((await get(offline.address, f"{X}/tags/list")).body)["tags"] == ["t"]
    referrers = await get(offline.address, f"{X}/referrers/{cached.image.manifest}")
    assert (referrers.status, json.loads(referrers.body)["manifests"]) == (200, [])
    unknown = await get(offline.address, f"{X}/referrers/{Digest.of(b'?')}")
    assert (unknown.status, json.loads(unknown.body)["manifests"]) == (200, [])
    assert unknown.header("warning").startswith("110 ")
    catalog = await get(offline.address, "/v2/_catalog")
    assert json.loads(catalog.body)["repositories"] == ["docker.io/library/x"]
    assert cached.hub.log == []


@pytest.mark.parametrize(
    "path",
    [
        f"{X}/manifests/other",
        f"{X}/manifests/{Digest.of(b'?')}",
        f"{X}/blobs/{Digest.of(b'?')}",
        "/v2/docker.io/library/never/tags/list",
        "/v2/library/never/manifests/t?ns=docker.io",
    ],
)
async def test_offline_miss_is_not_found_and_says_why(cached: Cached, offline: Running, path: str) -> None:
    """At once, by every way to address the content: there is nothing to wait for."""
    for method in (get, head):
        assert (await method(offline.address, path)).status == 404
    reply = await get(offline.address, path)
    assert "this mirror is offline" in json.loads(reply.body)["errors"][0]["message"]
    assert cached.hub.log == []


async def test_offline_blob_is_not_served_without_a_link(cached: Cached, offline: Running) -> None:
    """The upstream cannot confirm that the other repository has the blob (invariant 5)."""
    reply = await get(offline.address, f"/v2/docker.io/library/y/blobs/{cached.image.layers[0]}")
    assert (reply.status, cached.hub.log) == (404, [])
