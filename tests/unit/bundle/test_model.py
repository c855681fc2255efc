"""Names of images in a bundle."""

import pytest

from mirror.bundle.errors import BundleError
from mirror.bundle.model import BundleImage, ContentDescriptor, check_name, split_name
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST

DIGEST = Digest.of(b"")
ROOT = ContentDescriptor(OCI_MANIFEST, DIGEST, 0)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("quay.io/org/app:1", ("quay.io/org/app", "1", "")),
        ("registry.lan:5000/app:v1", ("registry.lan:5000/app", "v1", "")),
        ("registry.lan:5000/app", ("registry.lan:5000/app", "", "")),
        (f"quay.io/org/app@{DIGEST}", ("quay.io/org/app", "", str(DIGEST))),
    ],
)
def test_name_is_split_into_repository_tag_and_digest(name: str, parts: tuple[str, str, str]) -> None:
    """A colon before a slash belongs to a port."""
    assert split_name(name) == parts


def test_image_has_repository_and_tag() -> None:
    """Both come from its name."""
    image = BundleImage("quay.io/org/app:1", ROOT)
    assert (image.repository, image.tag) == ("quay.io/org/app", "1")


@pytest.mark.parametrize(
    "name", ["", "app", "app:1", "quay.io/app", "quay.io/", "quay.io/a b:1", "q.io/a:1\n"]
)
def test_name_that_is_not_full_is_refused(name: str) -> None:
    """A bare tag becomes another program's localhost/v1:latest."""
    with pytest.raises(BundleError):
        check_name(name)
