"""Small blobs from memory: stored whole, or not at all."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import open_folder

CONTENTS = {Digest.of(data): data for data in (b"one", b"two")}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    with closing(open_folder(tmp_path / "cache")) as opened:
        yield opened


def test_small_files_are_stored_with_their_origin(folder: CacheDirectory) -> None:
    """All of them in one go; nothing temporary is left."""
    folder.writer._small_files.add({}, Origin.PUBLIC)
    folder.writer._small_files.add(CONTENTS, Origin.PRIVATE)
    assert [folder.reader.read(digest, 10) for digest in CONTENTS] == [b"one", b"two"]
    assert {folder.blobs.origin(digest) for digest in CONTENTS} == {Origin.PRIVATE}
    paths = (folder.blobs.folder / "sha256").glob("*/*")
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o400, 0o400]
    assert list(folder.partials.iterdir()) == []


def test_small_files_that_are_wrong_leave_nothing(folder: CacheDirectory) -> None:
    """Bytes that do not hash to their name are refused, and the others with them."""
    with pytest.raises(ValueError, match="do not hash"):
        folder.writer._small_files.add({**CONTENTS, Digest.of(b"three"): b"four"}, Origin.PUBLIC)
    assert not any(map(folder.reader.has, CONTENTS))
    assert list(folder.partials.iterdir()) == []
