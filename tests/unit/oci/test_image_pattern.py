"""Image patterns: names as Docker reads them, with wildcards."""

import pytest

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import (
    ImagePattern,
    Pin,
    escaped_address,
    is_literal,
    literal,
    on_platform,
)
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
        ("[::1]:5000/app", "[[]::1]:5000/app:latest"),
        ("[2001:DB8:0::1]/org/*:v*", "[[]2001:db8::1]/org/*:v*"),
        (f"alpine@{D}", f"docker.io/library/alpine@{D}"),
        (f"alpine:3@{D}", f"docker.io/library/alpine@{D}"),
        (f"@{D}", f"*@{D}"),
        (str(D), f"*@{D}"),
    ],
)
def test_pattern_names_are_docker_names(text: str, meant: str) -> None:
    """Short forms, aliases and ports parse as Docker parses them; the printed form parses back."""
    assert str(ImagePattern.parse(text, NAMES)) == meant
    assert ImagePattern.printed(meant) == ImagePattern.parse(meant, NAMES) == ImagePattern.parse(text, NAMES)


def test_printed_pattern_needs_no_upstream_names() -> None:
    """A printed pattern parses back whatever the upstreams are called."""
    images = ImagePattern.parse("lab/app:1", {"lab": "lab"})
    assert str(images) == "lab/app:1"
    assert ImagePattern.printed("lab/app:1") == images
    with pytest.raises(ValueError, match="not a pattern"):
        ImagePattern.printed("lab/app")


def test_pattern_without_tag_means_every_tag_in_listings() -> None:
    """`any_tag` gives the meaning of `docker images alpine`."""
    assert str(ImagePattern.parse("alpine", any_tag=True)) == "docker.io/library/alpine:*"


@pytest.mark.parametrize(
    "text", ["", "Alpine", "a//b", "alpine:", "alpine:a b", "a@sha256:1", "quay.io/", "a b"]
)
def test_invalid_pattern_is_refused(text: str) -> None:
    """The error is a sentence."""
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
def test_pattern_matches(pattern: str, tag: str, expected: bool) -> None:
    """A star matches slashes too; an image without a tag matches only the pattern of every tag."""
    repository = Repository("quay.io", "org/app")
    assert ImagePattern.parse(pattern).match(repository, tag, str(D)) is expected


def test_pin_has_platforms() -> None:
    """Platforms follow the pattern; the printed pin parses back."""
    pin = Pin.parse("alpine:3 linux/amd64 linux/arm/v7 linux/amd64")
    assert pin.platforms == ("linux/amd64", "linux/arm/v7")
    assert Pin.parse(str(pin)) == pin
    with pytest.raises(ValueError, match="not a platform"):
        Pin.parse("alpine amd64")


def test_pin_with_a_wrong_name_is_refused_for_the_name() -> None:
    """The name is reported first, even if the words behind it are not platforms either."""
    with pytest.raises(ValueError, match="'BAD' is not the name of an image"):
        Pin.parse("BAD name")


def test_platform_without_variant_includes_every_variant() -> None:
    """`linux/arm` includes linux/arm/v7; an empty list includes every platform."""
    assert on_platform("linux/arm/v7", ("linux/arm",))
    assert not on_platform("linux/arm64", ("linux/arm",))
    assert on_platform("linux/arm64", ())


def test_literal_prefix_of_a_pattern() -> None:
    """The part before the first wildcard bounds the search of the index."""
    assert (literal("quay.io/org/*:v*"), literal("abc"), literal("[ab]c")) == ("quay.io/org/", "abc", "")
    assert (is_literal("abc"), is_literal("a?c")) == (True, False)


def test_pattern_of_an_ipv6_address_is_no_wildcard() -> None:
    """The brackets are those of the address; the printed form parses back and matches the same."""
    app = Repository("[::1]:5000", "org/app")
    pattern = ImagePattern.parse("[0:0::1]:5000/org/*:1")
    assert pattern.match(app, "1", str(D))
    assert not pattern.match(Repository("1:5000", "org/app"), "1", str(D))
    assert ImagePattern.printed(str(pattern)) == pattern
    assert escaped_address("[::1]:5000/*") == "[[]::1]:5000/*"
    for text in ("quay.io/*", "[ab]*/x", "*", "[::1/x", "[:::]/x"):
        assert escaped_address(text) == text
