"""Content in memory; tests/contract/test_store_parts.py has what both implementations do."""

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.memory.content import MemoryContent
from mirror.store.memory.room import MemoryRoom
from mirror.store.metadata.index import Link
from mirror.store.parts.interfaces import ContentStore
from mirror.util.callbacks import ignore
from mirror.util.tasks import Tasks


async def test_content_in_memory_needs_no_proof() -> None:
    """No disk can change it; an unknown origin is public where no upstream has an account."""
    blobs = MemoryBlobs()
    memory = MemoryContent(blobs, MemoryRoom(blobs))
    content: ContentStore = memory
    proofs = content.prover(Tasks(), ignore)
    proofs.note_sent(Digest.of(b""), "127.0.0.1")
    assert not proofs.note_use(Digest.of(b""), "127.0.0.1")
    assert not proofs.is_pending(Digest.of(b""))
    assert not await content.is_quarantined(Digest.of(b""))
    assert not content.opens(Link(), Origin.UNKNOWN)
    memory.trusts_unknown = True
    assert content.opens(Link(), Origin.UNKNOWN)
