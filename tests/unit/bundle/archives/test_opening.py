"""Opening of archives of all kinds."""

import gzip
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from mirror.bundle.archives.archive import Kind
from mirror.bundle.archives.opening import open_archive, open_regular
from mirror.bundle.errors import BundleError, Damaged, Unsupported
from mirror.bundle.plan import make_plan
from tests.fakes.bundles import Shelf, Taken, two_platforms

SHELF = Shelf()
DATA = SHELF.written(make_plan(two_platforms(SHELF)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_file_is_opened_by_its_content(tmp_path: Path, pack: type[bytes]) -> None:
    """The ending of its name does not matter."""
    path = tmp_path / "bundle"
    path.write_bytes(pack(DATA))
    with open_archive(path) as archive:
        assert Taken().take(archive).contents.items() >= SHELF.blobs.items()
        assert archive.exact


def test_pipe_is_opened() -> None:
    """A stream is read to its end, so that its sender does not fail."""
    reading, writing = os.pipe()

    def send() -> None:
        with open(writing, "wb") as file:
            file.write(DATA + bytes(300_000))

    sender = threading.Thread(target=send)
    sender.start()
    with open(reading, "rb", buffering=0) as file, open_archive(file) as archive:
        assert Taken().take(archive).contents.items() >= SHELF.blobs.items()
    sender.join()


def test_layout_as_a_folder_is_opened(tmp_path: Path) -> None:
    """Each content has its file, for a reflink, and none may be linked."""
    with tarfile.open(fileobj=io.BytesIO(DATA)) as tar:
        tar.extractall(tmp_path, filter="data")
    with open_archive(tmp_path) as archive:
        taken = Taken()
        for found in archive.contents():
            assert found.file is not None
            assert found.file[1] is None
            assert os.fstat(found.file[0].fileno()).st_size == found.size
            found.stream_to(taken.sink(found.slice))
        assert archive.kind is Kind.BUNDLE
    assert taken.contents.items() >= SHELF.blobs.items()


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The errno is not what comes first."""
    with (
        pytest.raises(BundleError, match="gone: cannot be opened: No such file"),
        open_archive(tmp_path / "gone"),
    ):
        pass


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", Damaged), (b"no tar" * 1000, Damaged), (b"BZh9", Unsupported)]
)
def test_file_of_something_else_is_refused(tmp_path: Path, data: bytes, kind: type[BundleError]) -> None:
    """An empty file is cut short."""
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(kind), open_archive(path) as archive:
        Taken().take(archive)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(Unsupported, match=r"index\.json"), open_archive(tmp_path) as archive:
        Taken().take(archive)


def test_regular_file_is_opened_at_its_beginning(tmp_path: Path) -> None:
    """A pipe in the file system is one too."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open_regular(path) as file:
        assert file.read() == b"x"
