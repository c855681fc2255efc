"""Leases and partials of a cache folder."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom
from mirror.store.metadata.index import Link
from tests.fakes.cached import open_folder

X = Repository("docker.io", "library/x")
DIGEST = Digest.of(b"large")


def test_partial_of_a_blob_beyond_the_quota_is_not_locked(tmp_path: Path) -> None:
    """The link says how many bytes it has; the lock is free again after the refusal."""
    folder = open_folder(tmp_path / "cache", max_size=10_000)
    folder.index.add_links(X, {DIGEST: Link(size=20_000)})
    with pytest.raises(NoRoom, match="takes 20000 bytes of 10000"):
        folder.fills.lock_partial(X, DIGEST)
    folder.index.add_links(X, {DIGEST: Link(size=5_000, confirmed=1.0)})
    partial, local = folder.fills.lock_partial(X, DIGEST)
    assert partial is not None
    assert not local.present
    with pytest.raises(NoRoom):
        folder.fills.allocate(partial, 20_000, 4096)
    assert folder.fills.allocate(partial, 5_000, 4096).size == 5_000
    assert folder.fills.acquire_leases([DIGEST]) == [None]
    partial.release()
    folder.close()
