"""Exports from their first byte to their report; test_export.py has the files."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.carry.export import OutputFile, OutputFolder
from mirror.manage.carry.export_run import BlobDamaged, Export, ExportOptions, NoSuchPart
from mirror.manage.carry.held import BlobGone
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import X, open_folder, put_image
from tests.unit.manage.carry.bundles import LIMIT, complete

LAYERS = [bytes([number]) * 300_000 for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    put_image(opened, X, "1", LAYERS)
    yield opened
    opened.close()


class Bytes:
    """The bytes that an export has told of, by file."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, file: OutputFile, count: int) -> None:
        self.counts[file.name] = self.counts.get(file.name, 0) + count


def wishes(limit: int = 0, part: int = 0, told: Bytes | None = None) -> ExportOptions:
    return ExportOptions("lab.tar", limit, part, LIMIT, (told or Bytes()).note)


def test_export_writes_each_file_once(folder: CacheDirectory, tmp_path: Path) -> None:
    """The progress has all bytes of each; a second run finds the files, and one part can be made again."""
    contents, output, told = complete(folder, "x:1"), OutputFolder(tmp_path), Bytes()
    run = Export(folder, contents, output, wishes(500_000, told=told))
    assert [each.state for each in run.steps()] == ["done"] * 3
    names = [f"lab.{number}-of-3.tar" for number in (1, 2, 3)]
    assert told.counts == {name: (tmp_path / name).stat().st_size for name in names}
    again = Export(folder, contents, output, wishes(500_000))
    assert [each.state for each in again.steps()] == ["present"] * 3
    data = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).unlink()
    (one,) = Export(folder, contents, output, wishes(500_000, 2)).steps()
    assert (one.file.name, one.state) == (names[1], "done")
    assert (tmp_path / names[1]).read_bytes() == data
    with pytest.raises(NoSuchPart, match="the bundle has 3 parts"):
        Export(folder, contents, output, wishes(500_000, 4))


def test_export_to_a_stream_is_the_file(folder: CacheDirectory, tmp_path: Path) -> None:
    contents, stream = complete(folder, "x:1"), io.BytesIO()
    list(Export(folder, contents, OutputFolder(tmp_path), wishes()).steps())
    list(Export(folder, contents, stream, wishes()).steps())
    assert stream.getvalue() == (tmp_path / "lab.tar").read_bytes()


def test_export_quarantines_a_damaged_blob(folder: CacheDirectory, tmp_path: Path) -> None:
    """Nothing of the file is left to go on with; the blob is a miss from then on, and named."""
    contents, digest = complete(folder, "x:1"), Digest.of(LAYERS[1])
    (path,) = folder.blobs.folder.rglob(f"{digest.encoded[2:]}.*")
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"other")
    with pytest.raises(BlobDamaged, match=f"{digest}.*quarantine"):
        list(Export(folder, contents, OutputFolder(tmp_path), wishes()).steps())
    assert not folder.reader.has(digest)
    assert (tmp_path / "lab.tar.part").stat().st_size == 0
    with pytest.raises(BlobGone, match=str(digest)):
        list(Export(folder, contents, OutputFolder(tmp_path), wishes()).steps())
