"""Names of imported images."""

import pytest

from mirror.bundle.errors import BundleError
from mirror.manage.carry.names import ImageName, Namer
from mirror.oci.reference import Repository

NAMES = {"docker.io": "docker.io", "index.docker.io": "docker.io", "quay.io": "quay.io"}
HUB, QUAY = "docker.io", "quay.io"


def name(upstream: str, path: str, tag: str = "") -> ImageName:
    return ImageName(Repository(upstream, path), tag)


def test_names_of_bundles() -> None:
    """Names are full; the name of a registry is that of the configuration."""
    namer = Namer(NAMES)
    assert namer.of_bundle("quay.io/org/app:1") == name(QUAY, "org/app", "1")
    assert namer.of_bundle("index.docker.io/library/x:1") == name(HUB, "library/x", "1")
    assert namer.of_bundle(f"lab.example:5000/app@sha256:{'0' * 64}") == name("lab.example:5000", "app")


@pytest.mark.parametrize(
    "text", ["quay.io/Org/app:1", "quay.io/../app:1", "quay.io/:1", "/app:1", f"quay.io/{'a/' * 200}a:1"]
)
def test_names_of_bundles_that_no_repository_has(text: str) -> None:
    """A wrong name is refused."""
    with pytest.raises(BundleError, match="not a name"):
        Namer(NAMES).of_bundle(text)


@pytest.mark.parametrize(
    ("given", "text", "expected"),
    [
        ("", "app:1", name(HUB, "library/app", "1")),
        ("", "org/app", name(HUB, "org/app", "latest")),
        ("", "quay.io/org/app:1", name(QUAY, "org/app", "1")),
        ("quay.io", "org/app:1", name(QUAY, "org/app", "1")),
        ("quay.io", "index.docker.io/org/app:1", name(HUB, "org/app", "1")),
        ("quay.io/org/app", "1.2", name(QUAY, "org/app", "1.2")),
        ("quay.io/org/app", "docker.io/library/other:3", name(QUAY, "org/app", "3")),
        ("quay.io/org/app:9", "1.2", name(QUAY, "org/app", "9")),
        ("quay.io/org/app", "", name(QUAY, "org/app", "latest")),
    ],
)
def test_names_of_other_archives(given: str, text: str, expected: ImageName) -> None:
    """Names are completed as Docker does, or by the one that the operator gives."""
    assert Namer(NAMES, given).of_archive(text) == expected


@pytest.mark.parametrize(("given", "text"), [("", "1.2"), ("", ""), ("quay.io", "1.2"), ("quay.io", "")])
def test_images_without_a_name_need_one(given: str, text: str) -> None:
    """The message says which option gives it."""
    with pytest.raises(BundleError, match="--as"):
        Namer(NAMES, given).of_archive(text)


@pytest.mark.parametrize("text", ["quay.io/org/*:1", "quay.io/org/app:v*", "quay.io/ORG/app:1"])
def test_patterns_are_no_names(text: str) -> None:
    """An image has one name."""
    with pytest.raises(BundleError, match="name"):
        Namer(NAMES).of_archive(text)
