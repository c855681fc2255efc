"""The image that only a mirror has."""

import hashlib
import io
import json
import tarfile

import pytest

from mirror.oci.digest import Digest
from mirror.oci.marker import PLATFORMS, marker_image, marker_in, marker_reference

MARKER = "0123456789abcdef"


def test_marker_image_is_whole_and_depends_on_its_marker_alone() -> None:
    """Every descriptor leads to bytes of its size and digest; another marker is another image."""
    image = marker_image(MARKER)
    _, data = image.manifests[image.index]
    children = json.loads(data)["manifests"]
    assert len(children) == len(PLATFORMS) == len(image.manifests) - 1
    for child in children:
        _, text = image.manifests[Digest.parse(child["digest"])]
        assert len(text) == child["size"]
        manifest = json.loads(text)
        for each in (manifest["config"], *manifest["layers"]):
            blob = image.blobs[Digest.parse(each["digest"])]
            assert (len(blob), f"sha256:{hashlib.sha256(blob).hexdigest()}") == (each["size"], each["digest"])
        config = json.loads(image.blobs[Digest.parse(manifest["config"]["digest"])])
        assert config["architecture"] == child["platform"]["architecture"]
        assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    marker_image.cache_clear()
    assert marker_image(MARKER) == image
    assert marker_image("f" * 16).index != image.index


def test_marker_image_has_one_file() -> None:
    """The layer is a tar that every client can unpack."""
    (layer,) = {each for each in marker_image(MARKER).blobs.values() if not each.startswith(b"{")}
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        assert archive.getnames() == ["registry-mirror-doctor"]


@pytest.mark.parametrize(
    ("repository", "marker"),
    [
        (f"registry-mirror-doctor/{MARKER}", MARKER),
        ("registry-mirror-doctor/x", None),
        (f"registry-mirror-doctor/{MARKER}/x", None),
        (f"library/registry-mirror-doctor/{MARKER}", None),
        (f"registry-mirror-doctor/{MARKER.upper()}", None),
        ("registry-mirror-doctor", None),
    ],
)
def test_marker_in_a_repository(repository: str, marker: str | None) -> None:
    """No other repository is taken for one of a marker."""
    assert marker_in(repository) == marker
    assert marker_reference("quay.io", MARKER) == f"quay.io/registry-mirror-doctor/{MARKER}:check"
