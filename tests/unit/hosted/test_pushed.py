"""Checks of pushed manifests."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.hosted.pushed import check_manifest
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.hosting import descriptor, index_of, manifest_of

MOST = 4 * 1024 * 1024


def refused(data: bytes, content_type: str | None) -> str:
    with pytest.raises(RegistryError) as caught:
        check_manifest(data, content_type, "sha256", MOST)
    assert caught.value.code == "MANIFEST_INVALID"
    assert caught.value.status == 400
    return caught.value.message


def test_manifest_names_its_contents() -> None:
    found = check_manifest(manifest_of([b"a", b"b", b"a"]), f"{OCI_MANIFEST}; charset=utf-8", "sha256", MOST)
    assert found.media_type == OCI_MANIFEST
    assert found.blobs[1:] == (Digest.of(b"a"), Digest.of(b"b"))
    assert check_manifest(index_of([b"m"]), None, "sha256", MOST).manifests == (Digest.of(b"m"),)


def test_unknown_artifacts_are_taken() -> None:
    """Any JSON object with a media type: what is in it is between clients."""
    found = check_manifest(b'{"anything":[1]}', "application/vnd.test.thing+json", "sha256", MOST)
    assert (found.blobs, found.manifests, found.subject) == ((), (), None)


@pytest.mark.parametrize(
    ("data", "content_type", "message"),
    [
        (b"no json", OCI_MANIFEST, "is not JSON"),
        (b"[1]", OCI_MANIFEST, "not a JSON object"),
        (b"{}", None, "has no media type"),
        (b"{}", "text", "has no media type"),
        (b'{"mediaType":7}', OCI_MANIFEST, "mediaType of the manifest is no text"),
        (manifest_of(), DOCKER_MANIFEST, "the manifest says mediaType"),
        (b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b"{}", OCI_MANIFEST, "has a config"),
        (b"{}", OCI_INDEX, "has a list of manifests"),
        (b'{"layers":[{"digest":"sha256:x","size":1}]}', DOCKER_MANIFEST, "cannot be read"),
        (json.dumps({"layers": [1] * 1025}).encode(), DOCKER_MANIFEST, "more than 1024 contents"),
        (b'{"a":[' + b"1," * 40_000 + b"1]}", OCI_MANIFEST, "too long"),
    ],
)
def test_bad_manifests_are_refused(data: bytes, content_type: str | None, message: str) -> None:
    assert message in refused(data, content_type)


def test_large_manifest_is_refused_by_size() -> None:
    """OCI distribution-spec, "Pushing Manifests": 413 above the limit, which is at least 4 MB."""
    with pytest.raises(RegistryError) as caught:
        check_manifest(b"x" * (MOST + 1), OCI_MANIFEST, "sha256", MOST)
    assert (caught.value.status, caught.value.code) == (413, "SIZE_INVALID")


def test_descriptor_of_a_referrer_has_texts_only() -> None:
    """A number of 5,000 digits among the annotations must not make the list something else than JSON."""
    about = descriptor(Digest.of(b"s"), 1, OCI_MANIFEST)
    data = manifest_of(subject=about, annotations={"a": "b", "n": 10**30, "x": None})
    found = json_text.parse(check_manifest(data, None, "sha256", MOST).descriptor.encode())
    assert found["annotations"] == {"a": "b"}
    long = manifest_of(subject=about, annotations={"a": "x" * 70_000})
    assert "annotations" in refused(long, None)


@given(st.binary(max_size=200) | st.recursive(st.integers() | st.text(), st.lists, max_leaves=5), st.text())
def test_no_body_is_an_error_of_another_kind(body: object, content_type: str) -> None:
    """Each body is kept or refused with an OCI error."""
    data = body if isinstance(body, bytes) else json.dumps({"layers": body, "subject": body}).encode()
    with suppress(RegistryError):
        assert check_manifest(data, content_type, "sha256", MOST).digest == Digest.of(data)
