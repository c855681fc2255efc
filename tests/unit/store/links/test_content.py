"""Origins of blobs: written with the size, readable by earlier versions, safe where they are not known."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.links.content import LocalContent
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link

X = Repository("docker.io", "library/x")
DATA = b"a layer"
LAYER = Digest.of(DATA)
NAMED, CONFIRMED = Link(size=7), Link(size=7, confirmed=1.0, account=True)


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("size", [0, 7, 10, 1 << 40])
def test_origin_comes_back_and_leaves_the_size_readable(origin: Origin, size: int) -> None:
    """An earlier version takes the tag for the size, and both are in it."""
    tag = origin.tag(size)
    assert (Origin.of(tag), int(tag)) == (origin, size)


def opened(folder: CacheDirectory, link: Link) -> LocalContent:
    local = folder.reader.open_blob(X, LAYER, link)
    assert folder.reader.look_up(X, LAYER, link).unconfirmed is local.unconfirmed
    return local


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("trusting", [False, True])
def test_name_opens_public_content_only(tmp_path: Path, origin: Origin, trusting: bool) -> None:
    """A name is enough for public content, and for content of unknown origin where there are no accounts."""
    folder = CacheDirectory(tmp_path / "cache")
    folder.reader.trusts_unknown = trusting
    folder.writer.put_small_blob(LAYER, DATA, origin)
    public = origin is Origin.PUBLIC or (origin is Origin.UNKNOWN and trusting)
    assert opened(folder, NAMED).data == (DATA if public else None)
    assert opened(folder, NAMED).unconfirmed is not public
    assert opened(folder, CONFIRMED).data == DATA
    folder.close()


def test_content_that_is_restored_from_memory_stays_private(tmp_path: Path) -> None:
    """Content that came with an account does not become public by an eviction."""
    folder = CacheDirectory(tmp_path / "cache")
    folder.reader.trusts_unknown = True
    folder.writer.restore({LAYER: Content(CONFIRMED, DATA)}, [LAYER])
    assert folder.blobs.origin(LAYER) is Origin.PRIVATE
    assert opened(folder, NAMED).unconfirmed
    folder.close()


def test_entry_of_a_file_that_was_found_is_of_unknown_origin(tmp_path: Path) -> None:
    """After the loss of the entries nothing tells how a blob came."""
    folder = CacheDirectory(tmp_path / "cache")
    folder.writer.put_small_blob(LAYER, DATA, Origin.PUBLIC)
    row = folder.blobs.table.row(str(LAYER))
    assert row is not None
    folder.blobs.drop_entry(row)
    folder.blobs.add_entry(row)
    assert folder.blobs.origin(LAYER) is Origin.UNKNOWN
    assert folder.blobs.origin(Digest.of(b"absent")) is None
    folder.close()
