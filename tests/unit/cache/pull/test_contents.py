"""Contents of an image: platforms of an index, blobs of a manifest."""

import json
from typing import Any

from mirror.cache.pull.contents import (
    ATTACHED_TO,
    attached_to,
    blob_descriptors,
    blobs_of,
    choose,
    platforms_in,
)
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, parse_manifest
from tests.fakes.content import descriptor, image_manifest


def entry(name: str, platform: str | None = None, attached: str | None = None) -> dict[str, Any]:
    found = descriptor(OCI_MANIFEST, name.encode())
    if platform is not None:
        words = platform.split("/")
        found["platform"] = dict(zip(("os", "architecture", "variant"), words, strict=False))
    if attached is not None:
        digest = descriptor(OCI_MANIFEST, attached.encode())["digest"]
        found["platform"] = {"os": "unknown", "architecture": "unknown"}
        found["annotations"] = {ATTACHED_TO: digest}
    return found


def entries(*described: dict[str, Any]) -> tuple[Descriptor, ...]:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
    return parse_manifest(json.dumps(document).encode(), OCI_INDEX).manifests


INDEX = entries(
    entry("a", "linux/amd64"),
    entry("b", "linux/arm64/v8"),
    entry("a attested", attached="a"),
    entry("b attested", attached="b"),
)


def test_choice_of_platform_takes_its_variants() -> None:
    """`linux/arm64` is `linux/arm64/v8` too, without the attestation unless that is wanted."""
    assert choose(INDEX, ("linux/arm64",), attached=False).entries == (INDEX[1],)
    assert choose(INDEX, ("linux/arm64",), attached=True).entries == (INDEX[1], INDEX[3])


def test_choice_of_no_platform_is_everything() -> None:
    """All entries are taken, attestations too."""
    assert choose(INDEX, (), attached=False).entries == INDEX


def test_choice_names_the_platforms_that_an_index_lacks() -> None:
    """The other platforms are taken nevertheless."""
    chosen = choose(INDEX, ("linux/s390x", "linux/amd64"), attached=False)
    assert chosen.entries == (INDEX[0],)
    assert chosen.absent == ("linux/s390x",)


def test_choice_takes_entries_without_a_platform() -> None:
    """An index of artifacts states no platforms, and lacks none."""
    artifacts = entries(entry("x"), entry("y"), entry("x"))
    chosen = choose(artifacts, ("linux/amd64",), attached=False)
    assert chosen.entries == artifacts[:2]
    assert chosen.absent == ()


def test_platforms_of_an_index_do_not_include_attestations() -> None:
    assert platforms_in(INDEX) == ["linux/amd64", "linux/arm64/v8"]
    assert attached_to(INDEX[0]) is None
    assert attached_to(INDEX[2]) == str(INDEX[0].digest)


def test_blobs_of_a_manifest_are_config_and_layers_once() -> None:
    manifest = parse_manifest(image_manifest(b"{}", [b"x", b"y", b"x"]), OCI_MANIFEST)
    assert [each.size for each in blob_descriptors(manifest)] == [2, 1, 1]
    assert blobs_of(manifest) == [each.digest for each in blob_descriptors(manifest)]


def test_blobs_of_an_index_are_none() -> None:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry("a")]}
    assert blobs_of(parse_manifest(json.dumps(document).encode(), OCI_INDEX)) == []
    assert blobs_of(None) == []
