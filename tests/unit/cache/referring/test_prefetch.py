"""Referrers are prefetched with an image for clients that will ask for them, and for no others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mirror.cache.prefetch import SMALL_REFERRING
from mirror.cache.referring.prefetch import MOST
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from tests.fakes.content import FakeImage, descriptor, image_manifest
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get

NAME = "library/x"
X = f"/v2/docker.io/{NAME}"
DOCKER = "User-Agent: docker/29.1.0 go/go1.26 containerd-client/2.2.1 storage-driver/overlayfs"
OTHER = "User-Agent: containerd/2.4.2"
FILL = {"prefetch": "layer"}


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(configured(tmp_path / "cache", {"docker.io": fake.url}, fill=FILL)) as mirror:
        yield mirror


def attach(fake: FakeRegistry, image: FakeImage, layer: bytes, config: bytes = b"{}") -> Digest:
    """Add a referrer of an image; return its digest."""
    fake.add_blob(NAME, config)
    fake.add_blob(NAME, layer)
    subject = descriptor(OCI_MANIFEST, image.manifest_data)
    return fake.add_manifest(NAME, image_manifest(config, [layer], subject))


async def settled() -> None:
    """Wait until nothing is fetched in the background."""
    names = ("referrers of", "prefetch")
    while pending := [each for each in asyncio.all_tasks() if each.get_name().startswith(names)]:
        await asyncio.wait(pending)


async def test_referrers_come_with_the_image(fake: FakeRegistry, tmp_path: Path, mirror: Running) -> None:
    """List, manifests and blobs are here when the upstream is not; another client can have them as well."""
    image = fake.add_image(NAME, "t", [b"a"])
    signature = attach(fake, image, b"signature")
    assert (await get(mirror.address, f"{X}/manifests/t", DOCKER)).status == 200
    await settled()
    fake.fault(Fault(raw=b""), times=10_000)
    reply = await get(mirror.address, f"{X}/referrers/{image.manifest}")
    assert [each["digest"] for each in json.loads(reply.body)["manifests"]] == [str(signature)]
    assert (await get(mirror.address, f"{X}/manifests/{signature}")).status == 200
    for data in (b"{}", b"signature"):
        assert (await get(mirror.address, f"{X}/blobs/{Digest.of(data)}")).body == data


async def test_referrers_come_for_a_client_that_has_asked(fake: FakeRegistry, mirror: Running) -> None:
    """The first request for referrers shows that the client asks; the next image comes with them."""
    first, second = (fake.add_image(NAME, tag, [tag.encode()]) for tag in ("1", "2"))
    attach(fake, second, b"signature")
    assert (await get(mirror.address, f"{X}/manifests/1", OTHER)).status == 200
    await settled()
    assert fake.requests("GET", "/referrers/") == 0
    assert (await get(mirror.address, f"{X}/referrers/{first.manifest}", OTHER)).status == 200
    assert (await get(mirror.address, f"{X}/manifests/2", OTHER)).status == 200
    await settled()
    asked = len(fake.log)
    assert (await get(mirror.address, f"{X}/referrers/{second.manifest}")).status == 200
    assert (await get(mirror.address, f"{X}/blobs/{Digest.of(b'signature')}")).status == 200
    assert len(fake.log) == asked


async def test_referrers_are_bounded(fake: FakeRegistry, mirror: Running) -> None:
    """MOST of a list, each once, and no large blobs."""
    image = fake.add_image(NAME, "t", [b"a"])
    large = bytes(SMALL_REFERRING + 1)
    for number in range(MOST + 5):
        attach(fake, image, large if number == 0 else str(number).encode())
    for _ in range(3):
        assert (await get(mirror.address, f"{X}/manifests/t", DOCKER)).status == 200
        await settled()
    assert fake.requests("GET", "/referrers/") == 1
    assert fake.requests("GET", "/manifests/sha256:") == MOST
    assert fake.requests("GET", Digest.of(large)) == 0


@pytest.mark.parametrize("why", ["off", "low", "failing", "other client"])
async def test_referrers_are_not_prefetched(fake: FakeRegistry, tmp_path: Path, why: str) -> None:
    """Nothing comes where other prefetches would not, nor for other clients."""
    fill: dict[str, Any] = {"prefetch": "off" if why == "off" else "layer"}
    image = fake.add_image(NAME, "t", [b"a"])
    attach(fake, image, b"signature")
    if why == "low":
        fake.limit = RateLimit(20)
        fake.limit.used[""] = 17
    async with serving(configured(tmp_path / "cache", {"docker.io": fake.url}, fill=fill)) as mirror:
        if why == "failing":
            fake.fault(Fault(status=503), "/referrers/", times=100)
        client = "User-Agent: podman/5" if why == "other client" else DOCKER
        assert (await get(mirror.address, f"{X}/manifests/t", client)).status == 200
        await settled()
    assert fake.requests("GET", "/referrers/") == (1 if why == "failing" else 0)
    assert fake.requests("GET", Digest.of(b"signature")) == 0
