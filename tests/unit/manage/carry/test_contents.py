"""Contents of a bundle, as collected from a cache folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.bundle.plan import make_plan
from mirror.manage.carry.contents import Missing
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import Link, Provenance, ReferrersEntry, TagEntry
from tests.fakes.cached import (
    X,
    Y,
    listed,
    open_folder,
    put_blob,
    put_image,
    put_index,
    put_manifest,
    put_signature,
)
from tests.fakes.content import descriptor, image_manifest
from tests.unit.manage.carry.bundles import collected, complete

PLATFORM = "linux/arch0"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def put_platform(folder: CacheDirectory, number: int, layers: list[bytes]) -> Digest:
    """Put the image of a platform of `put_index`."""
    config = f"config{number}".encode()
    for data in (config, *layers):
        put_blob(folder, data)
    return put_manifest(folder, X, image_manifest(config, layers))


def test_contents_have_all_of_an_image(folder: CacheDirectory) -> None:
    """Manifest, config and layers, and the names with the time at which the upstream confirmed the tag."""
    image = put_image(folder, X, "1", [b"a", b"b"])
    put_image(folder, Y, "1", [b"other"])
    contents = complete(folder, "x:1")
    (found,) = contents.images
    entry = folder.index.tag(X, Tag("1"))
    assert entry is not None
    assert (found.name, found.root.digest) == ("docker.io/library/x:1", image[0])
    assert found.confirmed == int(entry.confirmed)
    assert (list(contents.manifests), set(contents.blobs)) == ([image[0]], set(image[1:]))
    assert make_plan(contents).size > 0


def test_contents_of_a_pattern_and_a_digest(folder: CacheDirectory) -> None:
    """Each tag that matches is an image; a digest is one without a tag, and without a time."""
    put_image(folder, X, "1", [b"a"])
    put_image(folder, X, "2", [b"b"])
    untagged = put_image(folder, Y, None, [b"c"])[0]
    contents = complete(folder, "x:*", f"quay.io/org/y@{untagged}", "x:1")
    names = [each.name for each in contents.images]
    assert names == ["docker.io/library/x:1", "docker.io/library/x:2", f"quay.io/org/y@{untagged}"]
    assert contents.images[2].confirmed == 0


def test_contents_name_an_image_of_which_nothing_is_here(folder: CacheDirectory) -> None:
    """A pattern without a match is missing."""
    put_image(folder, X, "1", [b"a"])
    found = collected(folder, "x:1", "x:2")
    assert found.missing == (Missing("docker.io/library/x:2", "image"),)
    assert len(found.contents.images) == 1


def test_contents_name_a_layer_that_is_not_here(folder: CacheDirectory) -> None:
    """The blob is named, with its size; the bundle would say that it lacks it."""
    image = put_image(folder, X, "1", [b"a", b"bb"])
    folder.blobs.remove(image[3])
    found = collected(folder, "x:1")
    assert found.missing == (Missing("docker.io/library/x:1", "blob", str(image[3]), 2),)
    assert found.contents.lacking == {image[3]}
    assert make_plan(found.contents).document.lacking == (str(image[3]),)


def test_contents_have_the_platforms_that_are_here(folder: CacheDirectory) -> None:
    """The index is whole; a platform that was never pulled is left out."""
    index = put_index(folder, X, "1", [[b"a"], [b"b"]])
    first = put_platform(folder, 0, [b"a"])
    contents = complete(folder, "x:1")
    assert set(contents.manifests) == {index, first}
    assert contents.manifests[index].data == folder.reader.read(index, 10_000)
    assert make_plan(contents).document.images[0].absent


def test_contents_have_the_platforms_that_are_asked_for(folder: CacheDirectory) -> None:
    """One that is asked for must be here, and one that is not is left out; "all" asks for each."""
    index = put_index(folder, X, "1", [[b"a"], [b"b"]])
    first, second = put_platform(folder, 0, [b"a"]), put_platform(folder, 1, [b"b"])
    assert set(complete(folder, "x:1", platforms=(PLATFORM,)).manifests) == {index, first}
    folder.blobs.remove(second)
    missing = collected(folder, "x:1", platforms=("all",)).missing
    assert [(each.kind, each.digest, each.platform) for each in missing] == [
        ("platform", str(second), "linux/arch1")
    ]
    assert collected(folder, "x:1", platforms=("linux/arch1",)).missing == missing
    (unknown,) = collected(folder, "x:1", platforms=("linux/none",)).missing
    assert (unknown.kind, unknown.platform) == ("platform", "linux/none")


def test_contents_name_an_index_without_a_platform_here(folder: CacheDirectory) -> None:
    """An index alone is no image."""
    index = put_index(folder, X, "1", [[b"a"]])
    assert collected(folder, "x:1").missing == (Missing("docker.io/library/x:1", "platform", str(index)),)


def test_contents_have_referrers(folder: CacheDirectory) -> None:
    """Listed referrers come along, and signatures under their tags; without referrers neither does."""
    image = put_image(folder, X, "1", [b"a"])
    signature = put_signature(folder, X, image[0])
    sbom = json.loads(image_manifest(b"{}", [b"sbom"]))
    sbom["subject"] = descriptor(OCI_MANIFEST, folder.reader.read(image[0], 10_000) or b"")
    data = json.dumps(sbom).encode()
    put_blob(folder, b"{}")
    put_blob(folder, b"sbom")
    referrer = put_manifest(folder, X, data)
    folder.writer.put_referrers(X, image[0], ReferrersEntry(json.dumps([listed(data)]), 1.0))
    contents = complete(folder, "x:*")
    assert set(contents.manifests) == {image[0], signature[0], referrer}
    assert [each.name.rpartition(":")[2] for each in contents.images] == [
        "1",
        f"sha256-{image[0].encoded}.sig",
    ]
    document = make_plan(contents).document
    assert document.referrers == {str(image[0]): (str(referrer),)}
    assert set(complete(folder, "x:1", referrers=False).manifests) == {image[0]}
    folder.blobs.remove(referrer)
    (missing,) = collected(folder, "x:1").missing
    assert (missing.kind, missing.digest) == ("referrer", str(referrer))


def test_contents_leave_out_what_the_receiver_has(folder: CacheDirectory) -> None:
    """A blob of the receiver's list is not carried; its manifest always is."""
    image = put_image(folder, X, "1", [b"a", b"b"])
    contents = complete(folder, "x:1", assumed={image[2], Digest.of(b"unrelated")})
    assert set(contents.blobs) == {image[1], image[3]}
    assert contents.assumed == {image[2]}


def test_contents_vouch_for_no_name_that_a_manifest_claims(folder: CacheDirectory) -> None:
    """The receiver's list alone opens nothing: only its manifest says that the repository has the blob."""
    image = put_image(folder, X, "1", [b"a"])
    folder.blobs.remove(image[2])
    found = collected(folder, "x:1", assumed={image[2]})
    assert [each.digest for each in found.missing] == [str(image[2])]
    folder.index.add_links(X, {image[2]: Link(size=1, confirmed=1.0)})
    assert complete(folder, "x:1", assumed={image[2]}).assumed == {image[2]}


def test_contents_have_nothing_private_of_another_repository(folder: CacheDirectory) -> None:
    """An image that names a private blob of another repository is left out, whatever else is exported."""
    secret = Digest.of(b"secret")
    path = folder.partials / "small-secret"
    path.write_bytes(b"secret")
    folder.blobs.add(VerifiedFile(secret, path, 6, durable=False, origin=Origin.PRIVATE))
    config = put_blob(folder, b"{}")
    put_manifest(folder, X, image_manifest(b"{}", [b"secret"]), "claims")
    owner = put_manifest(folder, Y, image_manifest(b"{}", [b"secret"]), "owns")
    folder.index.add_links(Y, {secret: Link(size=6, confirmed=1.0, account=True)})
    found = collected(folder, "x:claims", "quay.io/org/y:owns")
    assert [each.name for each in found.contents.images] == ["quay.io/org/y:owns"]
    assert (set(found.contents.manifests), set(found.contents.blobs)) == ({owner}, {config, secret})
    (missing,) = found.missing
    assert (missing.image, missing.digest) == ("docker.io/library/x:claims", str(secret))
    assert missing.unconfirmed


def test_contents_have_the_time_of_an_imported_tag(folder: CacheDirectory) -> None:
    """An imported tag has the time at which the first sender's upstream confirmed it."""
    image = put_image(folder, X, "1", [b"a"])
    imported = Provenance("imported", "lab.tar", 2000.0, confirmed=1000.0)
    folder.writer.put_tag(X, Tag("1"), TagEntry(str(image[0]), OCI_MANIFEST, 1, 0.0, imported))
    assert complete(folder, "x:1").images[0].confirmed == 1000
