"""The reader of manifests and indexes."""

import json
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    DOCKER_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    ManifestInvalid,
    descriptors_of,
    parse_manifest,
    platform_of,
    referrers_tag,
)


def descriptor(text: str, **more: object) -> dict[str, Any]:
    return {"mediaType": "x", "digest": str(Digest.of(text.encode())), "size": 1, **more}


def parse(document: object) -> Any:
    return parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)


def test_manifest_children_are_config_and_layers() -> None:
    """Children are in order, each digest once; the subject is not a child."""
    layers = [descriptor("a"), descriptor("b"), descriptor("a", urls=["https://x.test"])]
    manifest = parse({"config": descriptor("c"), "layers": layers, "subject": descriptor("s")})
    assert [each.digest for each in manifest.children()] == [Digest.of(t) for t in (b"c", b"a", b"b")]
    assert manifest.subject.digest == Digest.of(b"s")
    assert manifest.layers[2].urls == ("https://x.test",)
    assert not manifest.is_index


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_index_children_are_manifests(media_type: str) -> None:
    """Children are the manifests, whatever other fields the index has."""
    data = json.dumps({"manifests": [descriptor("a", platform={"os": "linux"})]}).encode()
    manifest = parse_manifest(data, media_type)
    assert manifest.is_index
    assert [each.size for each in manifest.children()] == [1]


def test_schema_1_has_no_children() -> None:
    """Schema 1 has other fields: the document is valid and has no children."""
    assert parse({"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}]}).children() == ()


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        None,
        {"layers": {}},
        {"layers": ["x"]},
        {"layers": [{}]},
        {"config": "x"},
        {"layers": [descriptor("a", digest="sha256:x")]},
        {"layers": [descriptor("a", digest=5)]},
        {"layers": [descriptor("a", size=-1)]},
        {"layers": [descriptor("a", size=True)]},
        {"layers": [descriptor("a", size="1")]},
        {"layers": [descriptor("a", size=2**63)]},
        {"layers": [descriptor("a", mediaType=5)]},
        {"layers": [descriptor("a", urls="x")]},
    ],
)
def test_malformed_manifest_is_refused(document: object) -> None:
    """Every malformed document raises ManifestInvalid and no other error."""
    with pytest.raises(ManifestInvalid):
        parse(document)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_manifest_that_is_not_json_is_refused(data: bytes) -> None:
    """Bytes that are not JSON raise ManifestInvalid, and so does very deep nesting."""
    with pytest.raises(ManifestInvalid):
        parse_manifest(data, OCI_MANIFEST)


def test_referrers_tag_fits_into_a_tag() -> None:
    """Both parts are cut: sha512 is too long for a tag."""
    assert str(referrers_tag(Digest.of(b"x"))) == str(Digest.of(b"x")).replace(":", "-")
    long = Digest.of(b"x", "sha512")
    assert str(referrers_tag(long)) == f"sha512-{long.encoded[:64]}"


@pytest.mark.parametrize(
    ("value", "platform"),
    [
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "linux", "architecture": "amd64", "variant": ""}, "linux/amd64"),
        ({"os": "linux", "architecture": "amd64", "rootfs": {}}, "linux/amd64"),
        ({"os": "linux"}, None),
        ({"os": 1, "architecture": "amd64"}, None),
        ("linux/amd64", None),
        (None, None),
    ],
)
def test_platform_of(value: object, platform: str | None) -> None:
    """A platform prints as people write one; a malformed object has none."""
    assert platform_of(value) == platform


def test_descriptors_of_skips_malformed_ones() -> None:
    """Only the valid descriptors of a list are returned."""
    good = descriptor("a", platform={"os": "linux", "architecture": "arm64"})
    (found,) = descriptors_of([good, {"digest": "x"}, {}])
    assert (found.digest, found.platform) == (Digest.of(b"a"), "linux/arm64")
