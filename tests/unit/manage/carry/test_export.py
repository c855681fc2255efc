"""Files of a bundle: resumed, complete, made again alone."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from msgspec.structs import replace

from mirror.bundle.errors import Damaged
from mirror.manage.carry.export import (
    ExportError,
    OutputFolder,
    document_in,
    images_of,
    is_complete,
    part_name,
    targets,
    with_known_times,
    write_target,
)
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, open_folder, put_image
from tests.unit.manage.carry.bundles import complete, exported

LAYERS = [random_bytes(300_000, number) for number in range(4)]


class Killed(BaseException):
    """The end of a process at some point of an export."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    put_image(opened, X, "1", LAYERS)
    yield opened
    opened.close()


def opener(folder: CacheDirectory) -> Callable[[Digest], BinaryIO]:
    def open_blob(digest: Digest) -> BinaryIO:
        blob = folder.blobs.open(digest)
        assert blob is not None
        return blob.file

    return open_blob


def killed_after(count: int) -> Callable[[int], None]:
    """Return a progress that ends the export after `count` bytes."""
    left = count

    def progress(written: int) -> None:
        nonlocal left
        left -= written
        if left <= 0:
            raise Killed

    return progress


def test_export_is_an_archive_with_all_blobs(folder: CacheDirectory, tmp_path: Path) -> None:
    """Each blob of the image is in the tar; nothing else is beside it."""
    (path,) = exported(folder, tmp_path / "out.tar", "x:1")
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert {f"blobs/sha256/{Digest.of(each).encoded}" for each in LAYERS} <= set(names)
    assert not path.with_name("out.tar.part").exists()


def test_export_goes_on_where_it_was_killed(folder: CacheDirectory, tmp_path: Path) -> None:
    """The file is that of an export that was not interrupted, whatever the point."""
    whole = exported(folder, tmp_path / "whole.tar", "x:1")[0].read_bytes()
    (target,) = targets("out.tar", complete(folder, "x:1"))
    for share in range(1, 10):
        with pytest.raises(Killed):
            write_target(
                OutputFolder(tmp_path), target, opener(folder), killed_after(len(whole) * share // 10)
            )
        assert not is_complete(OutputFolder(tmp_path), target)
        begun = (tmp_path / target.unfinished).stat().st_size
        with pytest.raises(Killed):
            write_target(OutputFolder(tmp_path), target, opener(folder), killed_after(1))
        assert begun - 400_000 < (tmp_path / target.unfinished).stat().st_size <= begun
    write_target(OutputFolder(tmp_path), target, opener(folder))
    assert (tmp_path / target.name).read_bytes() == whole
    assert is_complete(OutputFolder(tmp_path), target)


def test_export_begins_again_over_another_bundle(folder: CacheDirectory, tmp_path: Path) -> None:
    """A file that was begun for other content is written over, and so is a complete one."""
    path = tmp_path / "out.tar"
    path.with_name("out.tar.part").write_bytes(b"x" * 5000)
    path.write_bytes(b"older")
    exported(folder, path, "x:1")
    assert images_of(OutputFolder(tmp_path), "out.tar")[0].name == "docker.io/library/x:1"


def test_export_is_written_by_one_process(folder: CacheDirectory, tmp_path: Path) -> None:
    """A second export to the same file is refused."""
    (target,) = targets("out.tar", complete(folder, "x:1"))

    def meanwhile(_: int) -> None:
        write_target(OutputFolder(tmp_path), target, opener(folder))

    with pytest.raises(ExportError, match="another export"):
        write_target(OutputFolder(tmp_path), target, opener(folder), meanwhile)


def test_export_ends_at_a_blob_that_is_wrong_on_the_disk(folder: CacheDirectory, tmp_path: Path) -> None:
    """Nothing is left to go on with: the blob's bytes would stay wrong."""
    (target,) = targets("out.tar", complete(folder, "x:1"))
    row = folder.blobs.table.row(str(Digest.of(LAYERS[2])))
    assert row is not None
    path = folder.blobs.folder / row.name
    os.chmod(path, 0o600)
    path.write_bytes(b"?" + LAYERS[2][1:])
    with pytest.raises(Damaged, match="another digest"):
        write_target(OutputFolder(tmp_path), target, opener(folder))
    assert (tmp_path / target.unfinished).stat().st_size == 0
    assert not (tmp_path / "out.tar").exists()


def test_parts_are_made_again_alone(folder: CacheDirectory, tmp_path: Path) -> None:
    """A part that was lost has the same bytes again, although the tag was confirmed again meanwhile."""
    path = tmp_path / "out.tar"
    files = exported(folder, path, "x:1", split=500_000)
    assert [each.name for each in files] == [f"out.{n}-of-{len(files)}.tar" for n in range(1, len(files) + 1)]
    assert all(each.stat().st_size < 500_000 for each in files)
    lost = files[1].read_bytes()
    files[1].unlink()
    entry = folder.index.tag(X, Tag("1"))
    assert entry is not None
    folder.writer.put_tag(X, Tag("1"), replace(entry, confirmed=entry.confirmed + 1000))
    output = OutputFolder(tmp_path)
    contents = with_known_times(complete(folder, "x:1"), output, path.name)
    found = targets(path.name, contents, 500_000)
    assert [is_complete(output, each) for each in found] == [each.name != files[1].name for each in found]
    write_target(output, found[1], opener(folder))
    assert files[1].read_bytes() == lost


def test_times_of_other_images_are_not_taken(folder: CacheDirectory, tmp_path: Path) -> None:
    """A tag that points elsewhere now has its own time."""
    path = tmp_path / "out.tar"
    exported(folder, path, "x:1")
    put_image(folder, X, "1", [b"other"])
    contents = complete(folder, "x:1")
    assert with_known_times(contents, OutputFolder(tmp_path), "out.tar") == contents


def test_names_of_parts() -> None:
    """The number comes before the suffix, if there is one."""
    assert part_name("lab.tar", 2, 9) == "lab.2-of-9.tar"
    assert part_name("lab", 2, 9) == "lab.2-of-9"


def test_document_of_other_files(tmp_path: Path) -> None:
    """Other tars, other files and none have no document."""
    path = tmp_path / "file"
    for write in (lambda: path.write_bytes(b"text"), lambda: write_tar(path), lambda: path.write_bytes(b"")):
        write()
        with path.open("rb") as file:
            assert document_in(file) is None
    assert images_of(OutputFolder(tmp_path), "none") == images_of(OutputFolder(tmp_path), "file") == []


def write_tar(path: Path) -> None:
    """Write a tar of other files."""
    with tarfile.open(path, "w") as tar:
        for number in range(9):
            tar.addfile(tarfile.TarInfo(f"file{number}"), io.BytesIO())
