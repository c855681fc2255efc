"""The inventory: images of a cache, their sizes and states."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.inventory import ImageSummary, Inventory
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import NEVER, Gone, Link, Provenance, TagEntry
from tests.fakes.cached import (
    LONG_AGO,
    X,
    Y,
    age,
    open_folder,
    put_blob,
    put_image,
    put_index,
    put_manifest,
    put_signature,
)
from tests.fakes.content import image_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def listed(folder: CacheDirectory, pattern: str = "*") -> dict[str, ImageSummary]:
    found = Inventory(folder).images(ImagePattern.parse(pattern, any_tag=True))
    return {each.reference: each for each in found}


def test_inventory_of_a_complete_image(folder: CacheDirectory) -> None:
    """The platform comes from the config; size, last use, and nothing missing."""
    image = put_image(folder, X, "1", [b"a" * 1000])
    age(folder, *image)
    (found,) = listed(folder).values()
    assert (found.reference, found.digest) == ("docker.io/library/x:1", image[0])
    assert (found.platforms, found.missing, found.pinned) == (("linux/amd64",), (), False)
    assert found.size == folder.blobs.table.size()
    assert found.shared == 0
    assert found.last_used == pytest.approx(LONG_AGO)


def test_inventory_tells_that_a_tag_was_imported(folder: CacheDirectory) -> None:
    """The provenance is that of the tag; an image by digest, and a confirmed tag, have none."""
    image = put_image(folder, X, "1", [b"a"])
    put_image(folder, X, "2", [b"b"])
    put_image(folder, X, None, [b"c"])
    imported = Provenance("imported", "usb.tar", 7.0)
    folder.writer.put_tag(X, Tag("1"), TagEntry(str(image[0]), OCI_MANIFEST, 5, NEVER, imported))
    assert [each.provenance for each in listed(folder).values()] == [imported, None, None]


def test_inventory_tells_since_when_an_image_is_gone_upstream(folder: CacheDirectory) -> None:
    """A tag has its own mark; an image without a tag that of its link."""
    tagged = put_image(folder, X, "1", [b"a"])
    untagged = put_image(folder, X, None, [b"c"])
    put_image(folder, X, "2", [b"b"])
    entry = TagEntry(str(tagged[0]), OCI_MANIFEST, 5, 1.0, gone=Gone(7.0, 9.0))
    folder.writer.put_tag(X, Tag("1"), entry)
    folder.index.add_links(X, {untagged[0]: Link(OCI_MANIFEST, 5, 1.0, account=True, gone=Gone(8.0, 9.0))})
    assert [each.gone_since for each in listed(folder).values()] == [7.0, None, 8.0]


def test_inventory_of_missing_parts(folder: CacheDirectory) -> None:
    """Missing blobs are named by digest, and so is a missing root."""
    image = put_image(folder, X, "1", [b"a", b"b"])
    folder.blobs.remove(image[2])
    assert listed(folder)["docker.io/library/x:1"].missing == (str(image[2]),)
    folder.blobs.remove(image[0])
    found = listed(folder)["docker.io/library/x:1"]
    assert (found.missing, found.last_used) == ((str(image[0]),), None)


def test_inventory_of_an_index_lists_platforms(folder: CacheDirectory) -> None:
    """Platforms are here with their manifest; no other one is missing, unless there is none at all."""
    put_index(folder, X, "1", [[b"0"], [b"1"]])
    found = listed(folder)["docker.io/library/x:1"]
    assert (found.platforms, len(found.missing)) == ((), 2)
    put_manifest(folder, X, image_manifest(b"config1", [b"1"]))
    found = listed(folder)["docker.io/library/x:1"]
    blobs = {str(Digest.of(each)) for each in (b"config1", b"1")}
    assert (found.platforms, set(found.missing)) == (("linux/arch1",), blobs)
    for each in (b"config1", b"1"):
        put_blob(folder, each)
    assert listed(folder)["docker.io/library/x:1"].missing == ()
    assert list(listed(folder)) == ["docker.io/library/x:1"]


def test_inventory_counts_shared_bytes(folder: CacheDirectory) -> None:
    """Blobs are shared within a repository, or between two."""
    put_image(folder, X, "1", [b"a" * 100, b"b" * 1000])
    put_image(folder, X, "2", [b"b" * 1000])
    put_image(folder, Y, "1", [b"a" * 100])
    found = listed(folder)
    config = len(b'{"os": "linux", "architecture": "amd64", "name": "docker.io/library/x"}')
    assert found["docker.io/library/x:1"].shared == 1100 + config
    assert found["docker.io/library/x:2"].shared == 1000 + config
    assert found["quay.io/org/y:1"].shared == 100


def test_inventory_of_images_without_a_tag(folder: CacheDirectory) -> None:
    """Images pulled by digest, or left by their tag; no parts of other images."""
    (old, *_) = put_image(folder, X, "1", [b"old"])
    put_image(folder, X, "1", [b"new"])
    (child, *_) = put_image(folder, X, None, [b"0"])
    put_manifest(
        folder, X, b'{"manifests": [{"mediaType": "", "size": 1, "digest": "%s"}]}' % str(child).encode()
    )
    folder.index.add_links(X, {Digest.of(b"never pulled"): Link("type", 5)})
    found = listed(folder)
    assert f"docker.io/library/x@{old}" in found
    assert f"docker.io/library/x@{child}" not in found
    assert len(found) == 3
    assert list(listed(folder, f"x@{old}")) == [f"docker.io/library/x@{old}"]
    assert list(listed(folder, "x:1")) == ["docker.io/library/x:1"]


def test_inventory_counts_signatures_for_their_image(folder: CacheDirectory) -> None:
    """A signature of an image that is not here is an image of its own."""
    (root, *_) = put_image(folder, X, "1", [b"a"])
    signature = put_signature(folder, X, root)
    (found,) = listed(folder).values()
    assert found.size == folder.blobs.table.size()
    folder.blobs.remove(signature[2])
    assert listed(folder)["docker.io/library/x:1"].missing == ()
    put_signature(folder, Y, root)
    assert f"quay.io/org/y:sha256-{root.encoded}.sig" in listed(folder)


def test_inventory_of_a_pattern(folder: CacheDirectory) -> None:
    """Repository and tag must match; the order is theirs, and pinned images are marked."""
    for name in ("b", "a"):
        for tag in ("2", "1"):
            put_image(folder, Repository("docker.io", f"org/{name}"), tag, [tag.encode()])
    folder.pinning.pin(Pin.parse("org/a:1"))
    assert list(listed(folder, "org/*:1")) == ["docker.io/org/a:1", "docker.io/org/b:1"]
    assert list(listed(folder, "org/b")) == ["docker.io/org/b:1", "docker.io/org/b:2"]
    assert [each.reference for each in listed(folder).values() if each.pinned] == ["docker.io/org/a:1"]
    assert listed(folder, "quay.io/*") == {}
