"""Content with its proof."""

import io
import json

import pytest

from mirror.bundle.archives.found import Discard, FoundContent, Kept, is_index, manifest_in
from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.model import BundleManifest
from mirror.bundle.plan import Slice
from mirror.bundle.pump import Pump
from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fakes.bundles import Shelf, Taken, random_bytes


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_content_is_committed_with_its_digest(size: int) -> None:
    """The sink has all bytes, and is committed once."""
    data, taken = random_bytes(size, 1), Taken()
    digest = Digest.of(data)
    with Pump() as pump:
        found = FoundContent(io.BytesIO(data), Slice(digest, size, 0, size), "a", pump)
        found.stream_to(taken.sink(found.slice))
    assert (taken.contents, taken.aborted) == ({digest: data}, 0)


@pytest.mark.parametrize("data", [b"other", b"righ", b"", b"x" * 3_000_000])
def test_content_with_another_digest_is_aborted(data: bytes) -> None:
    """The sink drops what it has."""
    digest, taken = Digest.of(b"right"), Taken()
    with Pump() as pump:
        found = FoundContent(io.BytesIO(data), Slice(digest, 5, 0, 5), "the entry", pump)
        with pytest.raises(Damaged, match="the entry"):
            found.stream_to(taken.sink(found.slice))
    assert (taken.contents, taken.aborted) == ({}, 1)


def test_sink_that_fails_is_aborted() -> None:
    """A full disk leaves nothing."""

    class Full(Discard):
        aborted = False

        def write(self, data: memoryview, /) -> None:
            raise OSError(28, "no space")

        def abort(self) -> None:
            self.aborted = True

    sink = Full()
    with Pump() as pump, pytest.raises(OSError, match="no space"):
        FoundContent(io.BytesIO(b"x"), Slice(Digest.of(b"x"), 1, 0, 1), "a", pump).stream_to(sink)
    assert sink.aborted


@pytest.mark.parametrize("media_type", [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST])
def test_manifest_says_its_type(media_type: str) -> None:
    """The field wins over a guess."""
    data = json.dumps({"mediaType": media_type, "layers": []}).encode()
    found = manifest_in(data)
    assert found == BundleManifest(data, media_type)
    assert is_index(found) == (media_type in (OCI_INDEX, DOCKER_LIST))


def test_manifest_without_a_type_is_guessed() -> None:
    """The field is optional in OCI."""
    shelf = Shelf()
    descriptor = shelf.layer(b"x")
    for field, expected in (
        ({"config": descriptor, "layers": []}, OCI_MANIFEST),
        ({"manifests": [descriptor]}, OCI_INDEX),
    ):
        found = manifest_in(json.dumps({"schemaVersion": 2, **field}).encode())
        assert found is not None
        assert found.media_type == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\x1f\x8b",
        b"{}",
        b'{"config":{"Cmd":[]},"rootfs":{}}',
        b'{"mediaType":"a/b"}',
        b'{"subject":[{"name":"x"}],"_type":"https://in-toto.io/Statement/v1"}',
        b'{"a":' * 10000,
    ],
)
def test_other_content_is_no_manifest(data: bytes) -> None:
    """Configs, statements and layers are blobs."""
    assert manifest_in(data) is None


def test_manifests_in_memory_are_limited() -> None:
    """Each counts once."""
    kept = Kept(10)
    for _ in range(3):
        kept.add(Digest.of(b"a"), BundleManifest(b"12345678", OCI_INDEX), "a")
    with pytest.raises(BundleError, match="b: the manifests"):
        kept.add(Digest.of(b"b"), BundleManifest(b"123", OCI_INDEX), "b")
