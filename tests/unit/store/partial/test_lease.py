"""Leases: one holder at a time, and never forever."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.lock import lock_path, name_key
from mirror.store.partial.lease import Lease, acquire, acquire_blobs
from mirror.store.partial.partial import Partial

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


def test_lease_excludes_others_until_released(tmp_path: Path) -> None:
    """Two leases are held until they are released; then no file is left."""
    (first,) = acquire_blobs([ONE], tmp_path, lambda digest: digest == TWO)
    again, other = acquire_blobs([ONE, TWO], tmp_path, lambda digest: digest == TWO)
    assert again is None
    assert first is not None
    assert other is not None
    assert (first.present, other.present) == (False, True)
    for lease in (first, other):
        lease.release()
    assert list(tmp_path.iterdir()) == []


def test_lease_is_released_on_a_disk_that_refuses_to_unlink(tmp_path: Path) -> None:
    """The lock is freed nevertheless, or no process could ever fill the blob again."""
    (lease,) = acquire_blobs([ONE], tmp_path, lambda _: False)
    assert lease is not None
    assert isinstance(lease.lease, Lease)
    lease.lease.path.with_suffix(".data").mkdir()  # which no unlink removes
    lease.release()
    (lease,) = acquire_blobs([ONE], tmp_path, lambda _: False)
    assert lease is not None
    lease.release()


def test_lease_of_several_is_all_or_none(tmp_path: Path) -> None:
    """A lease that fails, as on a disk that becomes read-only, releases the others."""
    lock_path(TWO, tmp_path).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        acquire_blobs([ONE, TWO], tmp_path, lambda _: False)
    (lease,) = acquire_blobs([ONE], tmp_path, lambda _: False)
    assert lease is not None
    lease.release()


def test_lease_of_a_blob_that_cannot_be_looked_up_is_released(tmp_path: Path) -> None:
    """An error of the look-up leaves no lock behind."""

    def has(digest: Digest) -> bool:
        raise OSError(f"no look-up of {digest}")

    with pytest.raises(OSError, match="no look-up"):
        acquire_blobs([ONE], tmp_path, has)
    assert list(tmp_path.iterdir()) == []


def test_lease_under_a_name_locks_the_file_of_the_names_digest(tmp_path: Path) -> None:
    """Earlier versions lock a tag under the digest of its name: old and new processes exclude each other."""
    (lease,) = acquire([name_key("docker.io/library/a:latest")], tmp_path)
    assert lease is not None
    assert Partial.lock(Digest.of(b"docker.io/library/a:latest"), tmp_path) is None
    lease.release()
    assert list(tmp_path.iterdir()) == []
