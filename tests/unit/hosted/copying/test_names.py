"""Names of both ends of a copy."""

import pytest

from mirror.hosted.copying.names import ImagePlace, parse_place
from mirror.hosted.copying.places import CopyFailed
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag

KNOWN = ("office", "docker.io")


@pytest.mark.parametrize(
    ("text", "registry", "path", "reference"),
    [
        ("office/app:1", "office", "app", "1"),
        ("office/team/app", "office", "team/app", "None"),
        ("registry.lan:5000/app:1.0", "registry.lan:5000", "app", "1.0"),
        ("localhost:5000/a/b", "localhost:5000", "a/b", "None"),
        ("alpine:3", "docker.io", "library/alpine", "3"),
        ("org/app", "docker.io", "org/app", "None"),
        (f"quay.io/a@sha256:{'0' * 64}", "quay.io", "a", f"sha256:{'0' * 64}"),
    ],
)
def test_names_are_parsed_as_docker_has_them(text: str, registry: str, path: str, reference: str) -> None:
    found = parse_place(text, KNOWN)
    assert (found.registry, found.path, str(found.reference)) == (registry, path, reference)


@pytest.mark.parametrize("text", ["", "office/", "office/team/"])
def test_names_below_a_registry_end_with_a_slash(text: str) -> None:
    if text:
        assert parse_place(text, KNOWN).below
    else:
        with pytest.raises(CopyFailed):
            parse_place(text, KNOWN)


@pytest.mark.parametrize(
    "text", ["office/UP:1", "office//a", "reg.lan/a:1/", "a.lan/b:" + "x" * 200, "a b.c/d"]
)
def test_wrong_names_are_refused(text: str) -> None:
    with pytest.raises(CopyFailed):
        parse_place(text, KNOWN)


@pytest.mark.parametrize(
    ("target", "name", "expected"),
    [
        ("office/app:1", "quay.io/org/app:2", "office/app:1"),
        ("office/app", "quay.io/org/app:2", "office/app:2"),
        ("office/app", "2", "office/app:2"),
        ("office/app", "", "office/app:latest"),
        ("office/", "quay.io/org/app:2", "office/org/app:2"),
        ("office/copies/", "org/app:2", "office/copies/org/app:2"),
        ("office/", "other/app:1", "office/other/app:1"),
        ("backup.lan/x/", "office/app:1", "backup.lan/x/app:1"),
    ],
)
def test_images_of_an_archive_keep_their_names(target: str, name: str, expected: str) -> None:
    assert str(parse_place(target, KNOWN).for_image(name, KNOWN)) == expected


def test_image_without_a_name_needs_one() -> None:
    with pytest.raises(CopyFailed, match="has no name"):
        ImagePlace("office", "", None, below=True).for_image("")
    assert parse_place("office/a", KNOWN).for_image("3").reference == Tag("3")


def test_registry_without_an_image_is_no_image_of_docker() -> None:
    """Else `office` for `office/` would send the image to docker.io/library/office."""
    with pytest.raises(CopyFailed, match=r"'office' is a registry.*office/"):
        parse_place("office", ["office"])
    assert str(parse_place("office:1", ["office"])) == "docker.io/library/office:1"


def test_place_of_a_digest_takes_no_other_image() -> None:
    own, other = Digest.of(b"own"), Digest.of(b"other")
    assert parse_place(f"office/app@{own}", ["office"]).tags_for(own) == []
    assert parse_place("office/app:1", ["office"]).tags_for(own) == [Tag("1")]
    with pytest.raises(CopyFailed, match=str(own)):
        parse_place(f"office/app@{other}", ["office"]).tags_for(own)
