"""What kind of manifest some bytes are."""

import pytest

from mirror.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from mirror.upstream.media_types import is_generic, is_page, manifest_type, media_type


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, ""), ("", ""), ("a/b", "a/b"), ("a/B+json ; charset=utf-8", "a/B+json")],
)
def test_media_type(header: str | None, expected: str) -> None:
    """The type stays as it was sent, its parameters go."""
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
        ("text/plain", b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_manifest_type(kind: str, body: bytes, expected: str) -> None:
    """A Content-Type that says something is kept; one that says nothing is replaced by what the body says."""
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
def test_not_a_manifest(kind: str, body: bytes) -> None:
    """A page, a body that is no JSON object, and an object that nothing names are no manifests."""
    with pytest.raises(ValueError, match=r"manifest"):
        manifest_type(kind, body)


def test_types_that_say_nothing() -> None:
    """Every manifest's type is application/..., and not each of these is a manifest's."""
    assert not is_generic(OCI_MANIFEST)
    assert is_generic("Application/JSON")
    assert is_generic("text/html")
    assert is_generic("")


def test_pages() -> None:
    """HTML in either spelling is a page for browsers."""
    assert is_page("text/HTML")
    assert not is_page("application/json")
