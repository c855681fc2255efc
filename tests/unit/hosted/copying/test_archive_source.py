"""Files and folders as the source of a copy."""

import asyncio
import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from mirror.bundle.plan import make_plan
from mirror.hosted.copying.archive_source import ArchiveSource, archive_source, open_plain
from mirror.hosted.copying.places import CopyFailed
from mirror.oci.digest import Digest
from tests.fakes.bundles import Shelf, two_platforms


def bundle() -> tuple[Shelf, bytes]:
    shelf = Shelf()
    return shelf, shelf.written(make_plan(two_platforms(shelf)))


async def check(source: ArchiveSource, shelf: Shelf) -> None:
    for digest, blob in shelf.blobs.items():
        assert b"".join([piece async for piece in source.blob(digest, len(blob))]) == blob
    for digest, manifest in shelf.manifests.items():
        found = await source.manifest(digest)
        assert found is not None
        assert found.data == manifest.data
    root = next(each.root.digest for each in source.images if each.name.startswith("quay.io"))
    assert len(await source.referrers(root)) == 1
    with pytest.raises(CopyFailed, match="is not in the archive"):
        await anext(aiter(source.blob(Digest.of(b"none"), 4)))


def test_stream_is_unpacked_proven_and_removed() -> None:
    shelf, data = bundle()
    with archive_source(io.BytesIO(data)) as source:
        assert len(source.images) == 2
        folder = source._blobs
        asyncio.run(check(source, shelf))
    assert not folder.exists()


def test_damage_is_an_error_before_anything_is_sent() -> None:
    shelf, data = bundle()
    largest = max(shelf.blobs.values(), key=len)
    broken = data.replace(largest[1000:1100], b"\0" * 100)
    with pytest.raises(CopyFailed, match="another digest"), archive_source(io.BytesIO(broken)):
        pass


def test_folder_is_read_in_place_and_no_link_is_followed(tmp_path: Path) -> None:
    _, data = bundle()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    with archive_source(tmp_path / "layout") as source:
        assert source._blobs == tmp_path / "layout" / "blobs"
    os.symlink("/etc/passwd", tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        open_plain(tmp_path / "link")


def test_folder_without_room_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, data = bundle()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "mkdir", _no_room)
    with pytest.raises(CopyFailed, match=f"{tmp_path}, which TMPDIR names: No space"):
        archive_source(io.BytesIO(data)).__enter__()


def _no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
