"""Metadata in memory; tests/contract/test_store_parts.py has what both implementations do."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.memory.metadata import MemoryMetadata
from mirror.store.metadata.index import Link
from mirror.store.parts.interfaces import Metadata

X = Repository("docker.io", "library/x")


async def test_metadata_in_memory_take_the_time_of_a_confirmation() -> None:
    """A manifest that was confirmed earlier was seen then."""
    metadata: Metadata = MemoryMetadata(MemoryBlobs())
    digest = Digest.of(b"manifest")
    await metadata.links.add(X, digest, Link("type", 8, 50.0))
    assert await metadata.links.first_seen(X, digest, 100.0) == 50.0
