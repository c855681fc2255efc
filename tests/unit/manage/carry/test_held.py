"""Blobs that are held for an export."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.carry.held import RESERVED, BlobGone, HeldBlobs
from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import age, open_folder, put_blob

LAYERS = (b"a" * 1000, b"b" * 1000, b"c" * 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache", max_size=1)
    yield opened
    opened.close()


def test_held_blobs_are_not_evicted(folder: CacheDirectory) -> None:
    """An eviction takes the others; afterwards it may have all."""
    digests = [put_blob(folder, each) for each in LAYERS]
    age(folder, *digests)
    with HeldBlobs(folder, RESERVED + 2) as held:
        assert held.hold(digests[:2]) == []
        folder.evictor.evict()
        assert [folder.reader.has(each) for each in digests] == [True, True, False]
        for _ in range(2):
            with held.open(digests[0]) as file:
                assert file.read() == LAYERS[0]
    folder.evictor.evict()
    assert not any(map(folder.reader.has, digests))


def test_blobs_beyond_the_limit_of_open_files_are_marked_as_used(folder: CacheDirectory) -> None:
    """An eviction takes them last."""
    digests = [put_blob(folder, each) for each in LAYERS]
    age(folder, *digests)
    with HeldBlobs(folder, RESERVED) as held:
        assert held.hold(digests[:1]) == []
        assert [each.digest for each in folder.evictor.evict()][:2] == digests[1:]
        with pytest.raises(BlobGone, match="repeat"):
            held.open(digests[1])


@pytest.mark.parametrize("limit", [RESERVED, RESERVED + 10])
def test_blobs_that_are_gone_are_named(folder: CacheDirectory, limit: int) -> None:
    """The caller learns at once what it cannot export."""
    present, missing = put_blob(folder, b"a"), Digest.of(b"b")
    with HeldBlobs(folder, limit) as held:
        assert held.hold([present, missing]) == [missing]
