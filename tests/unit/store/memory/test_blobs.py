"""Blobs in memory: opened as files, evicted by their last use."""

import os

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.memory.blobs import MemoryBlobs


def test_blob_in_memory_is_a_file_that_can_be_sent() -> None:
    """Each reader has a descriptor and a position of its own."""
    blobs, digest = MemoryBlobs(), Digest.of(b"data")
    with pytest.raises(ValueError, match="hash"):
        blobs.add(digest, b"other", Origin.PUBLIC)
    blobs.add(digest, b"data", Origin.PUBLIC)
    first, second = blobs.open(digest), blobs.open(digest)
    assert first is not None
    assert second is not None
    with first.file, second.file:
        assert first.file.read() == b"data"
        assert os.pread(second.file.fileno(), 2, 1) == b"at"
        assert second.file.read() == b"data"


def test_blobs_in_memory_go_by_their_last_use() -> None:
    """The oldest first, until enough is gone; one that is read stays."""
    blobs = MemoryBlobs()
    digests = [Digest.of(bytes([number])) for number in range(4)]
    for number, digest in enumerate(digests):
        blobs.add(digest, bytes([number]), Origin.PUBLIC)
        blobs.blobs[digest].used = 10.0 - number
    blobs.reading[digests[3]] += 1
    assert [each.digest for each in blobs.evict([], 2)] == [digests[2], digests[1]]
    assert [each.digest for each in blobs.evict([digests[0]], 2)] == []
