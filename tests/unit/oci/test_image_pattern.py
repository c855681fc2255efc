"""Patterns of images: as Docker reads names, and with stars."""

import pytest

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin, is_literal, literal, on_platform
from mirror.oci.reference import Repository

D = Digest.of(b"d")
NAMES = {"index.docker.io": "docker.io", "docker.io": "docker.io", "hub": "docker.io", "quay.io": "quay.io"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("org/app", "docker.io/org/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine:3", "docker.io/library/alpine:3"),
        ("hub/alpine", "docker.io/library/alpine:latest"),
        ("Quay.io/org/app:V1", "quay.io/org/app:V1"),
        ("quay.io/org/*:v*", "quay.io/org/*:v*"),
        ("quay.io/org/*", "quay.io/org/*:*"),
        ("quay.io/*", "quay.io/*:*"),
        ("docker.io/*", "docker.io/*:*"),
        ("alpine*:3", "docker.io/library/alpine*:3"),
        ("*/app:1", "*/app:1"),
        ("*", "*:*"),
        ("registry.lan:5000/app", "registry.lan:5000/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        (f"alpine@{D}", f"docker.io/library/alpine@{D}"),
        (f"alpine:3@{D}", f"docker.io/library/alpine@{D}"),
        (f"@{D}", f"*@{D}"),
        (str(D), f"*@{D}"),
    ],
)
def test_names_are_as_docker_has_them(text: str, meant: str) -> None:
    """Short forms, aliases, ports; and what it became means the same again."""
    assert str(ImagePattern.parse(text, NAMES)) == meant
    assert ImagePattern.printed(meant) == ImagePattern.parse(meant, NAMES) == ImagePattern.parse(text, NAMES)


def test_an_upstream_may_be_called_anything() -> None:
    """What was printed is read without knowing the upstreams."""
    images = ImagePattern.parse("lab/app:1", {"lab": "lab"})
    assert str(images) == "lab/app:1"
    assert ImagePattern.printed("lab/app:1") == images
    with pytest.raises(ValueError, match="not a pattern"):
        ImagePattern.printed("lab/app")


def test_for_a_listing_no_tag_is_every_tag() -> None:
    """As `docker images alpine` has it."""
    assert str(ImagePattern.parse("alpine", any_tag=True)) == "docker.io/library/alpine:*"


@pytest.mark.parametrize(
    "text", ["", "Alpine", "a//b", "alpine:", "alpine:a b", "a@sha256:1", "quay.io/", "a b"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(ValueError, match=r"not a|not the name|neither"):
        ImagePattern.parse(text)


@pytest.mark.parametrize(
    ("pattern", "tag", "expected"),
    [
        ("quay.io/org/*:v*", "v1", True),
        ("quay.io/org/*:v*", "1", False),
        ("quay.io/*:v1", "v1", True),
        ("quay.io/org:v1", "v1", False),
        ("quay.io/org/*", "", True),
        ("quay.io/org/*:?*", "", False),
        (f"quay.io/org/app@{D}", "whatever", True),
        (f"@{D}", "", True),
        (f"@{Digest.of(b'other')}", "", False),
    ],
)
def test_what_matches(pattern: str, tag: str, expected: bool) -> None:
    """A star is also for slashes; what has no tag is among every tag only."""
    repository = Repository("quay.io", "org/app")
    assert ImagePattern.parse(pattern).match(repository, tag, str(D)) is expected


def test_a_pin_has_platforms() -> None:
    """Behind the pattern; printed as it is read."""
    pin = Pin.parse("alpine:3 linux/amd64 linux/arm/v7 linux/amd64")
    assert pin.platforms == ("linux/amd64", "linux/arm/v7")
    assert Pin.parse(str(pin)) == pin
    with pytest.raises(ValueError, match="not a platform"):
        Pin.parse("alpine amd64")


def test_platforms() -> None:
    """One without a variant is every variant, and no wish is everything."""
    assert on_platform("linux/arm/v7", ("linux/arm",))
    assert not on_platform("linux/arm64", ("linux/arm",))
    assert on_platform("linux/arm64", ())


def test_the_literal_part() -> None:
    """By which the books are searched."""
    assert (literal("quay.io/org/*:v*"), literal("abc"), literal("[ab]c")) == ("quay.io/org/", "abc", "")
    assert (is_literal("abc"), is_literal("a?c")) == (True, False)
