"""Blocks and files that are shared with the storage of distribution, on the file systems that can do that."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from mirror.bundle.archives.opening import open_archive
from mirror.manage.carry.imports import Import
from mirror.manage.carry.sharing import link
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.disks import formatted, tmpfs
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import open_folder
from tests.fakes.content import image_manifest
from tests.unit.manage.carry.carrying import imported, options, states

MIB = 1024 * 1024
LAYER = random_bytes(3 * MIB, 1)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")


def storage(root: Path) -> Path:
    """Make the storage folder of a registry with one image; return the file of its layer."""
    config = b'{"os":"linux","architecture":"amd64"}'
    manifest = image_manifest(config, [LAYER])
    place = root / "docker" / "registry" / "v2"
    for data in (config, LAYER, manifest):
        file(place, data)
    repository = place / "repositories" / "app"
    for data in (config, LAYER):
        names(repository / "_layers" / "sha256" / Digest.of(data).encoded / "link", data)
    names(repository / "_manifests" / "revisions" / "sha256" / Digest.of(manifest).encoded / "link", manifest)
    names(repository / "_manifests" / "tags" / "1" / "current" / "link", manifest)
    return file(place, LAYER)


def file(place: Path, data: bytes) -> Path:
    digest = Digest.of(data).encoded
    path = place / "blobs" / "sha256" / digest[:2] / digest / "data"
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        path.chmod(0o644)
    return path


def names(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(str(Digest.of(data)))


def kept(folder: CacheDirectory) -> os.stat_result:
    """Return the status of the layer's file in the cache, whose bytes are right."""
    opened = folder.blobs.open(Digest.of(LAYER))
    assert opened is not None
    with opened.file:
        assert opened.file.read() == LAYER
        return os.fstat(opened.file.fileno())


def taken(place: Path) -> tuple[Path, CacheDirectory]:
    """Import a storage folder into a cache on the same file system."""
    layer, folder = storage(place / "registry"), open_folder(place / "cache")
    assert set(states(imported(folder, place / "registry")).values()) == {"imported"}
    assert list(folder.partials.iterdir()) == []
    return layer, folder


@needs_root
def test_import_links_the_files_of_its_own_user(tmp_path: Path) -> None:
    """One file with two names, read-only, which removals on either side leave to the other."""
    with tmpfs(tmp_path / "disk", 32 * MIB) as disk:
        layer, folder = taken(disk)
        with closing(folder):
            assert os.path.samestat(layer.stat(), kept(folder))
            assert layer.stat().st_mode & 0o777 == 0o400
            layer.unlink()
            assert kept(folder).st_nlink == 1


@pytest.mark.needs("mkfs.btrfs", root=True)
def test_import_shares_blocks_where_the_file_system_can(tmp_path: Path) -> None:
    """A file of its own, which keeps its bytes whatever happens to the other, and takes no room."""
    with formatted(tmp_path / "disk", "btrfs", 160 * MIB) as disk:
        layer = storage(disk / "registry")
        layer.chmod(0o666)
        os.sync()
        with closing(open_folder(disk / "cache")) as folder:
            before = os.statvfs(disk).f_bfree * os.statvfs(disk).f_frsize
            assert set(states(imported(folder, disk / "registry")).values()) == {"imported"}
            os.sync()
            assert before - os.statvfs(disk).f_bfree * os.statvfs(disk).f_frsize < 2 * MIB
            assert not os.path.samestat(layer.stat(), kept(folder))
            layer.write_bytes(b"other")
            assert kept(folder).st_size == len(LAYER)


def test_import_copies_what_others_could_change(tmp_path: Path) -> None:
    """A file that its group may write to stays as it is, and the cache has one of its own."""
    layer = storage(tmp_path / "registry")
    layer.chmod(0o664)
    with closing(open_folder(tmp_path / "cache")) as folder:
        imported(folder, tmp_path / "registry")
        assert not os.path.samestat(layer.stat(), kept(folder))
        assert layer.stat().st_mode & 0o777 == 0o664


def test_import_keeps_no_linked_file_that_is_wrong(tmp_path: Path) -> None:
    """The bytes are proven as any other's; the file of the registry stays as it is."""
    layer = storage(tmp_path / "registry")
    layer.write_bytes(LAYER[:-1] + b"?")
    with closing(open_folder(tmp_path / "cache")) as folder:
        run = Import(folder, options())
        with open_archive(tmp_path / "registry") as archive:
            run.read(archive, "registry")
        assert [each.entry for each in run.damages] == [str(layer)]
        assert not folder.reader.has(Digest.of(LAYER))
        assert list(folder.partials.iterdir()) == []
        assert (layer.stat().st_nlink, layer.stat().st_mode & 0o777) == (1, 0o644)


def test_link_is_that_of_the_file_that_was_opened(tmp_path: Path) -> None:
    """A path that leads to another file by now gives no link, nor does another size."""
    path, other, name = tmp_path / "path", tmp_path / "other", tmp_path / "name"
    path.write_bytes(b"mine")
    other.write_bytes(b"else")
    with path.open("rb") as opened:
        assert not link(opened.fileno(), path, name, 5)
        assert not link(opened.fileno(), other, name, 4)
        assert not name.exists()
        assert link(opened.fileno(), path, name, 4)
    assert os.path.samestat(path.stat(), name.stat())
