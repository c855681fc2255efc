"""Claims: one at a time, and never for ever."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.lock import lock_path
from mirror.store.partial.lease import acquire

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


def test_who_has_it_keeps_others_out(tmp_path: Path) -> None:
    """Until it is released; then nothing is left of it."""
    (first,) = acquire([ONE], tmp_path, lambda digest: digest == TWO)
    again, other = acquire([ONE, TWO], tmp_path, lambda digest: digest == TWO)
    assert again is None
    assert first is not None
    assert other is not None
    assert (first.present, other.present) == (False, True)
    for lease in (first, other):
        lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_let_go_of_names(tmp_path: Path) -> None:
    """The lock is given up all the same, or nobody could ever fill it again."""
    (lease,) = acquire([ONE], tmp_path, lambda _: False)
    assert lease is not None
    lease.path.with_suffix(".data").mkdir()  # which no unlink removes
    lease.release()
    (lease,) = acquire([ONE], tmp_path, lambda _: False)
    assert lease is not None
    lease.release()


def test_where_one_of_several_cannot_be_had_none_is_kept(tmp_path: Path) -> None:
    """As on a disk that becomes read-only."""
    lock_path(TWO, tmp_path).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        acquire([ONE, TWO], tmp_path, lambda _: False)
    (lease,) = acquire([ONE], tmp_path, lambda _: False)
    assert lease is not None
    lease.release()
