"""Media types of manifests."""

import pytest

from mirror.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from mirror.upstream.media_types import is_generic, is_page, manifest_type, media_type


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, ""), ("", ""), ("a/b", "a/b"), ("a/B+json ; charset=utf-8", "a/B+json"), ("a/b\udcff", "")],
)
def test_media_type_without_parameters(header: str | None, expected: str) -> None:
    """The type stays as it was sent, its parameters are dropped."""
    assert media_type(header) == expected


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (OCI_MANIFEST, b"{}", OCI_MANIFEST),
        ("application/vnd.example.thing+json", b"{}", "application/vnd.example.thing+json"),
        ("application/json", b'{"mediaType": "%b"}' % DOCKER_LIST.encode(), DOCKER_LIST),
        ("", b'{"schemaVersion": 2, "manifests": []}', OCI_INDEX),
        ("text/plain", b'{"schemaVersion": 2, "layers": []}', OCI_MANIFEST),
        ("image/png", b'{"mediaType": "%b"}' % DOCKER_LIST.encode(), DOCKER_LIST),
        ("application/octet-stream", b'{"schemaVersion": 2, "config": {}}', OCI_MANIFEST),
        ("", b'{"mediaType": "a/b\\r\\nX: y", "schemaVersion": 2, "layers": []}', OCI_MANIFEST),
        ("", b'{"mediaType": "a/\\ud800", "schemaVersion": 2, "manifests": []}', OCI_INDEX),
        ("text/plain", b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_manifest_type(kind: str, body: bytes, expected: str) -> None:
    """A specific Content-Type is kept; a generic one is replaced by the type in the body."""
    assert manifest_type(kind, body) == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"{}"),
        (OCI_MANIFEST, b"<html>"),
        (OCI_MANIFEST, b"[]"),
        (OCI_MANIFEST, b"[" * 100_000),
        (OCI_MANIFEST, b""),
        ("application/json", b"{}"),
        ("application/json", b'{"mediaType": 5}'),
    ],
)
def test_manifest_type_of_other_content(kind: str, body: bytes) -> None:
    """A page, a body that is no JSON object, and an object without a known type are no manifests."""
    with pytest.raises(ValueError, match=r"manifest"):
        manifest_type(kind, body)


def test_generic_types() -> None:
    """Manifest types begin with application/, but some types that do are generic."""
    assert not is_generic(OCI_MANIFEST)
    assert is_generic("Application/JSON")
    assert is_generic("text/html")
    assert is_generic("")


def test_page_types() -> None:
    """HTML in either spelling is a page for browsers."""
    assert is_page("text/HTML")
    assert not is_page("application/json")
