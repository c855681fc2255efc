"""The doctor's image, served by a mirror that has no such image and asks no upstream for it."""

import pytest

from mirror.oci.marker import marker_image
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import get, head

MARKER = "0123456789abcdef"
NAME = f"registry-mirror-doctor/{MARKER}"


@pytest.mark.parametrize("path", [f"/v2/{NAME}", f"/v2/quay.io/{NAME}", f"/quay.io/v2/{NAME}"])
async def test_marker_image_is_served_for_every_upstream(
    mirror: Running, hub: FakeRegistry, path: str
) -> None:
    """Manifests by tag and digest, and blobs, also in part; no upstream is asked, and nothing is cached."""
    image = marker_image(MARKER)
    tag = await get(mirror.address, f"{path}/manifests/check")
    assert (tag.status, tag.header("docker-content-digest")) == (200, str(image.index))
    asked = await head(mirror.address, f"{path}/manifests/check")
    assert asked.header("content-length") == str(len(image.manifests[image.index][1]))
    for digest, (kind, data) in image.manifests.items():
        reply = await get(mirror.address, f"{path}/manifests/{digest}")
        assert (reply.body, reply.header("content-type")) == (data, kind)
    for digest, data in image.blobs.items():
        assert (await get(mirror.address, f"{path}/blobs/{digest}")).body == data
        part = await get(mirror.address, f"{path}/blobs/{digest}", "Range: bytes=2-5")
        assert (part.status, part.body) == (206, data[2:6])
    assert hub.log == []
    assert b"doctor" not in (await get(mirror.address, "/v2/_catalog")).body


@pytest.mark.parametrize(
    "path",
    [f"{NAME}/manifests/latest", f"{NAME}/manifests/sha256:{'0' * 64}", f"{NAME}/blobs/sha256:{'0' * 64}"],
)
async def test_marker_image_has_nothing_else(mirror: Running, hub: FakeRegistry, path: str) -> None:
    """Anything else below a marker is a 404 of the mirror's own."""
    assert (await get(mirror.address, f"/v2/{path}")).status == 404
    assert hub.log == []


async def test_other_repositories_are_the_upstream_s(mirror: Running, hub: FakeRegistry) -> None:
    """A repository that only begins like one of the doctor is asked for as any other."""
    assert (await get(mirror.address, "/v2/registry-mirror-doctor/app/manifests/check")).status == 404
    assert hub.requests() > 0
