"""The storage folder of distribution."""

from pathlib import Path

import pytest

from mirror.bundle.archives.archive import Kind
from mirror.bundle.archives.distribution import storage_root
from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import Damaged
from mirror.bundle.model import BundleContents
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, Taken, two_platforms


class Storage:
    """A storage folder made by hand."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "docker" / "registry" / "v2"
        (self.root / "blobs").mkdir(parents=True)
        (self.root / "repositories").mkdir()

    def blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        path = self.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.encoded[:2] / digest.encoded / "data"

    def link(self, repository: str, place: str, digest: Digest) -> Path:
        path = self.root / "repositories" / repository / place / "link"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(digest))
        return path

    def layer(self, repository: str, data: bytes) -> Digest:
        digest = self.blob(data)
        self.link(repository, f"_layers/sha256/{digest.encoded}", digest)
        return digest

    def manifest(self, repository: str, data: bytes, tag: str = "") -> Digest:
        digest = self.blob(data)
        self.link(repository, f"_manifests/revisions/sha256/{digest.encoded}", digest)
        if tag:
            self.link(repository, f"_manifests/tags/{tag}/current", digest)
        return digest


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def contents(shelf: Shelf) -> BundleContents:
    return two_platforms(shelf)


@pytest.fixture
def storage(tmp_path: Path, shelf: Shelf, contents: BundleContents) -> Storage:
    """Both images of `contents`, in two repositories, one inside the other."""
    made = Storage(tmp_path)
    for data in shelf.blobs.values():
        made.layer("library/app", data)
    for each in contents.manifests.values():
        made.manifest("library/app/inner", each.data)
    for image in contents.images:
        data = contents.manifests[image.root.digest].data
        made.manifest("library/app", data, tag=f"v{image.tag}")
    return made


@pytest.mark.parametrize("below", ["", "docker", "docker/registry", "docker/registry/v2"])
def test_storage_is_found(tmp_path: Path, storage: Storage, below: str) -> None:
    """The folder that is mounted, and those below it."""
    assert storage_root(tmp_path / below) == storage.root


def test_other_folders_are_no_storage(tmp_path: Path) -> None:
    """An OCI layout has blobs too."""
    (tmp_path / "blobs").mkdir()
    assert storage_root(tmp_path) is None


def test_storage_gives_tags_revisions_and_contents(
    tmp_path: Path, storage: Storage, shelf: Shelf, contents: BundleContents
) -> None:
    """Names have no host; each content has its path."""
    with open_archive(tmp_path) as archive:
        taken = Taken().take(archive)
        assert archive.kind is Kind.DISTRIBUTION
        assert taken.contents.keys() == shelf.blobs.keys() | shelf.manifests.keys()
        assert archive.manifests == contents.manifests
        assert [each.name for each in archive.images] == ["library/app:v1", "library/app:v2"]
        assert {each.root for each in archive.images} == {each.root for each in contents.images}
        assert {name: len(each) for name, each in archive.links.items()} == {
            "library/app": 2,
            "library/app/inner": len(contents.manifests),
        }
        assert archive.notes == ()


def test_content_without_a_link_is_not_read(tmp_path: Path, storage: Storage) -> None:
    """A blob without a link was deleted."""
    digest = storage.blob(b"garbage")
    with open_archive(tmp_path) as archive:
        assert digest not in Taken().take(archive).contents


def test_damaged_blob_is_named_and_the_others_are_read(
    tmp_path: Path, storage: Storage, shelf: Shelf
) -> None:
    """A crash leaves short files."""
    digest = max(shelf.blobs, key=lambda each: len(shelf.blobs[each]))
    storage.path(digest).write_bytes(b"short")
    taken, damaged = Taken(), []
    with open_archive(tmp_path) as archive:
        for found in archive.contents():
            try:
                found.stream_to(taken.sink(found.slice))
            except Damaged as error:
                damaged.append(error.entry)
    assert damaged == [str(storage.path(digest))]
    assert shelf.blobs.keys() - taken.contents.keys() == {digest}


def test_damaged_links_are_noted(tmp_path: Path, storage: Storage) -> None:
    """Empty ones, wrong ones, links to somewhere else, and tags of manifests that are gone."""
    other = Digest.of(b"other")
    storage.link("library/app", "_manifests/tags/empty/current", other).write_text("")
    storage.link("library/app", "_manifests/tags/gone/current", other)
    storage.link("library/app", f"_layers/sha256/{'a' * 64}", other)
    storage.link("library/app", f"_layers/sha256/{other.encoded}", other)
    secret = tmp_path / "secret"
    secret.write_text(str(other))
    path = storage.link("library/app", f"_layers/sha256/{'b' * 64}", other)
    path.unlink()
    path.symlink_to(secret)
    (storage.root / "repositories" / "Bad Name").mkdir()
    with open_archive(tmp_path) as archive:
        Taken().take(archive)
        notes = "\n".join(archive.notes)
    for expected in (
        "tags/empty/",
        "library/app:gone",
        f"{'a' * 64}: the link names",
        "Bad Name",
        f"{other}: the blob",
    ):
        assert expected in notes
    assert f"{'b' * 64}/link: the link is empty or damaged" in notes


def test_blob_behind_a_link_is_not_read(tmp_path: Path, storage: Storage, shelf: Shelf) -> None:
    """A symbolic link in the place of a file leads nowhere."""
    digest = next(iter(shelf.blobs))
    path = storage.path(digest)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with open_archive(tmp_path) as archive:
        assert digest not in Taken().take(archive).contents
        assert str(digest) in archive.notes[0]
