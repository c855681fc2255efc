"""Names of images to fetch."""

import pytest

from mirror.manage.warm.images import TagPattern, WarmImage, parse_image
from mirror.manage.warm.versions import VersionRange
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag

NAMES = {
    "docker.io": "docker.io",
    "index.docker.io": "docker.io",
    "quay.io": "quay.io",
    "reg.lan:5000": "reg.lan:5000",
}
ALPINE = Repository("docker.io", "library/alpine")
DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("alpine", WarmImage(ALPINE, Tag("latest"))),
        ("alpine:3.20", WarmImage(ALPINE, Tag("3.20"))),
        ("index.docker.io/library/alpine:3.20", WarmImage(ALPINE, Tag("3.20"))),
        (f"alpine@{DIGEST}", WarmImage(ALPINE, DIGEST)),
        (f"alpine:3.20@{DIGEST}", WarmImage(ALPINE, DIGEST)),
        ("quay.io/org/app:v1", WarmImage(Repository("quay.io", "org/app"), Tag("v1"))),
        ("reg.lan:5000/app", WarmImage(Repository("reg.lan:5000", "app"), Tag("latest"))),
        ("alpine:3.*", WarmImage(ALPINE, tags=TagPattern("3.*"))),
        ("alpine:>=3.18 <4", WarmImage(ALPINE, tags=VersionRange.parse(">=3.18 <4"))),
        ("reg.lan:5000/app:^1", WarmImage(Repository("reg.lan:5000", "app"), tags=VersionRange.parse("^1"))),
    ],
)
def test_names_of_images(text: str, image: WarmImage) -> None:
    assert parse_image(text, NAMES) == image
    assert parse_image(str(image), NAMES) == image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quay.io/org/*:v1", "must name one repository"),
        ("*", "must name one repository"),
        (str(DIGEST), "must name one repository"),
        ("ghcr.io/org/app", "ghcr.io is not configured; the upstreams are docker.io, quay.io, reg.lan:5000"),
        ("Alpine", "is not the name of an image"),
        ("alpine:3 20", "neither a tag nor a pattern"),
        ("alpine:-x", "is not a tag"),
        ("alpine:>=x", "is not a range"),
        ("alpine@sha256:12", "digest"),
        ("", "is not the name"),
    ],
)
def test_names_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_image(text, NAMES)


def test_pattern_selects_no_signatures() -> None:
    """The tags of signatures belong to their images."""
    tags = ["3.19", "3.20", "2.0", f"sha256-{DIGEST.encoded}.sig", f"sha256-{DIGEST.encoded}"]
    assert TagPattern("3.*").select(tags) == ["3.19", "3.20"]
    assert TagPattern("*").select(tags) == ["3.19", "3.20", "2.0"]


def test_image_of_a_selected_tag() -> None:
    assert parse_image("alpine:3.*", NAMES).of_tag("3.1") == WarmImage(ALPINE, Tag("3.1"))
