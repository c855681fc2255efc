"""Partials: what a fill leaves for the next one, and what it cannot."""

import os
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.errors import StoreError
from mirror.store.partial.partial import Hasher, Partial

CHUNK = 64 * 1024


def test_a_map_without_its_data_is_not_believed(tmp_path: Path) -> None:
    """The data file was taken away, by a crash between adoption and the end: begin anew."""
    partial = Partial.lock(Digest.of(b"x"), tmp_path)
    assert partial is not None
    partial.allocate(10, CHUNK).record(0, 10)
    partial.release()
    partial.data_path.unlink()
    again = Partial.lock(Digest.of(b"x"), tmp_path)
    assert again is not None
    assert again.chunks is None
    again.release()


def test_a_file_that_lost_its_end_is_noticed(tmp_path: Path) -> None:
    """Hashing does not go round for ever on a file that somebody truncated."""
    partial = Partial.lock(Digest.of(b"x"), tmp_path)
    assert partial is not None
    partial.allocate(10, CHUNK)
    os.truncate(partial.data_path, 5)
    with pytest.raises(StoreError, match="shorter"):
        partial.hash_until(Hasher(Digest.of(b"x")), 10)
    partial.release()


def test_a_disk_that_does_not_let_go_of_names(tmp_path: Path) -> None:
    """The lock is given up all the same, or nobody could ever fill it again."""
    digest = Digest.of(b"never")
    partial = Partial.lock(digest, tmp_path)
    assert partial is not None
    partial.data_path.unlink()
    partial.data_path.mkdir()  # which no unlink removes
    partial.release()
    with pytest.raises(OSError, match="Is a directory"):  # nor is it kept by who cannot open the file
        Partial.lock(digest, tmp_path)
    partial.data_path.rmdir()
    again = Partial.lock(digest, tmp_path)
    assert again is not None
    again.release()
