"""Tests of entries as values."""

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import EvictedBlob, EvictionReason, evicted_blob
from mirror.store.metadata.blob_table import BlobRow


def test_entry_becomes_an_evicted_blob() -> None:
    """The digest is parsed, the size is kept."""
    digest = Digest.of(b"one")
    row = BlobRow(str(digest), "sha256/ab/cd.00000000", 3)
    assert evicted_blob(row, EvictionReason.AGE) == EvictedBlob(digest, 3, EvictionReason.AGE)
