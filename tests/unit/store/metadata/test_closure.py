"""Closures: the parts of an image."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import Closures, Part
from mirror.store.metadata.index import ReferrersEntry, TagEntry
from tests.fakes.cached import X, Y, listed, open_folder, put_image, put_index, put_manifest, put_signature
from tests.fakes.content import descriptor, image_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def closure(folder: CacheDirectory, root: Digest, *platforms: str) -> dict[Digest, Part]:
    walk = Closures(folder.index, folder.reader.read)
    return {part.digest: part for part in walk.parts(X, Part(root, 0, True), platforms)}


def test_closure_of_an_image(folder: CacheDirectory) -> None:
    """Manifest, config and layers, with their sizes; each once."""
    digests = put_image(folder, X, "t", [b"layer", b"other", b"layer"])
    found = closure(folder, digests[0])
    assert set(found) == set(digests)
    assert found[Digest.of(b"layer")] == Part(Digest.of(b"layer"), 5)


def test_closure_ends_at_missing_manifests(folder: CacheDirectory) -> None:
    """Content that is no manifest leads nowhere either."""
    index = put_index(folder, X, "t", [[b"one"], [b"two"]])
    assert len(closure(folder, index)) == 3
    nonsense = put_manifest(folder, X, b"nonsense")
    assert set(closure(folder, nonsense)) == {nonsense}


def test_closure_of_an_index_by_platforms(folder: CacheDirectory) -> None:
    """All platforms, or the wanted ones."""
    index = put_index(folder, X, "t", [[b"one"], [b"two"]])
    for number, layer in enumerate((b"one", b"two")):
        put_manifest(folder, X, image_manifest(f"config{number}".encode(), [layer]))
    assert len(closure(folder, index)) == 7
    found = closure(folder, index, "linux/arch1")
    assert Digest.of(b"two") in found
    assert Digest.of(b"one") not in found
    assert len(found) == 4


def test_closure_has_attestations_of_its_platforms(folder: CacheDirectory) -> None:
    """BuildKit puts attestations into the index."""
    first, second = image_manifest(b"c1", [b"1"]), image_manifest(b"c2", [b"2"])
    entries = []
    for data, arch in ((first, "amd64"), (second, "arm64")):
        entries.append({**descriptor(OCI_MANIFEST, data), "platform": {"os": "linux", "architecture": arch}})
        about = {"vnd.docker.reference.digest": str(Digest.of(data))}
        proof = descriptor(OCI_MANIFEST, b"proof of " + arch.encode())
        unknown = {"os": "unknown", "architecture": "unknown"}
        entries.append({**proof, "platform": unknown, "annotations": about})
    index = put_manifest(folder, X, json.dumps({"manifests": entries}).encode(), "t", OCI_INDEX)
    found = closure(folder, index, "linux/arm64")
    assert set(found) == {index, Digest.of(second), Digest.of(b"proof of arm64")}
    assert found[Digest.of(b"proof of arm64")].is_referrer
    assert len(closure(folder, index)) == 5


def test_closure_has_referrers(folder: CacheDirectory) -> None:
    """Signatures by tag, and the referrers API's list; of this repository, and to any depth."""
    (root, *_) = put_image(folder, X, "t", [b"layer"])
    signature = put_signature(folder, X, root)
    of_signature = put_signature(folder, X, signature[0], "att")
    elsewhere = put_signature(folder, Y, root, "sbom")
    sbom = image_manifest(b"{}", [b"sbom"])
    folder.writer.put_referrers(
        X, root, ReferrersEntry(json.dumps([listed(sbom), {"digest": "nonsense"}]), 1.0)
    )
    put_manifest(folder, X, sbom)
    found = closure(folder, root)
    assert {*signature, *of_signature, Digest.of(sbom), Digest.of(b"sbom")} <= set(found)
    assert all(found[each].is_referrer for each in signature)
    assert not set(elsewhere) & set(found) - {Digest.of(b"{}")}


def test_closure_of_a_circle_ends(folder: CacheDirectory) -> None:
    """Two digests that refer to each other cannot be made, but a list can say so."""
    (root, *_) = put_image(folder, X, "t", [b"layer"])
    folder.writer.put_referrers(
        X, root, ReferrersEntry(json.dumps([{**descriptor(OCI_MANIFEST, b"", str(root))}]), 1.0)
    )
    folder.index.put_tag(X, Tag(f"sha256-{root.encoded}"), TagEntry(str(root), OCI_INDEX, 1, 1.0))
    assert len(closure(folder, root)) == 3


def test_closure_reads_known_manifests_once(folder: CacheDirectory) -> None:
    """Manifests never change; but a manifest that was missing may be here by now."""
    index = put_index(folder, X, "t", [[b"one"]])
    first = Closures(folder.index, folder.reader.read, {})
    assert len(list(first.parts(X, Part(index, 0, True)))) == 2
    put_manifest(folder, X, image_manifest(b"config0", [b"one"]))
    asked: list[Digest] = []

    def read(digest: Digest, limit: int) -> bytes | None:
        asked.append(digest)
        return folder.reader.read(digest, limit)

    second = Closures(folder.index, read, first.visited)
    assert len(list(second.parts(X, Part(index, 0, True)))) == 4
    assert asked == [Digest.of(image_manifest(b"config0", [b"one"]))]
