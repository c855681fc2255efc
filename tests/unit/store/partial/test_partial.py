"""Partials: what a fill leaves for the next one, and what it cannot."""

import os
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.errors import StoreError
from mirror.store.partial.partial import Hasher, Partial

CHUNK = 64 * 1024


def test_partial_map_without_data_is_discarded(tmp_path: Path) -> None:
    """A crash between adoption and the end took the data file: the fill starts from nothing."""
    partial = Partial.lock(Digest.of(b"x"), tmp_path)
    assert partial is not None
    partial.allocate(10, CHUNK).record(0, 10)
    partial.release()
    partial.data_path.unlink()
    again = Partial.lock(Digest.of(b"x"), tmp_path)
    assert again is not None
    assert again.chunks is None
    again.release()


def test_partial_that_was_truncated_is_an_error(tmp_path: Path) -> None:
    """Hashing does not loop forever on a file that was truncated."""
    partial = Partial.lock(Digest.of(b"x"), tmp_path)
    assert partial is not None
    partial.allocate(10, CHUNK)
    os.truncate(partial.data_path, 5)
    with pytest.raises(StoreError, match="shorter"):
        partial.hash_until(Hasher(Digest.of(b"x")), 10)
    partial.release()


def test_partial_is_unlocked_on_a_disk_that_refuses_to_unlink(tmp_path: Path) -> None:
    """The lock is freed nevertheless, or no process could ever fill the blob again."""
    digest = Digest.of(b"never")
    partial = Partial.lock(digest, tmp_path)
    assert partial is not None
    partial.data_path.unlink()
    partial.data_path.mkdir()  # which no unlink removes
    partial.release()
    with pytest.raises(
        OSError, match="Is a directory"
    ):  # and a process that cannot open the file keeps no lock
        Partial.lock(digest, tmp_path)
    partial.data_path.rmdir()
    again = Partial.lock(digest, tmp_path)
    assert again is not None
    again.release()
