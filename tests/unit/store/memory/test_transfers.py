"""Fills into memory; tests/contract/test_store_parts.py has what both implementations do."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.memory.store import MemoryStore
from mirror.store.parts.interfaces import Transfers

X = Repository("docker.io", "library/x")


async def test_lease_in_memory_excludes_the_partial_of_its_blob() -> None:
    """Lease and partial exclude each other, as by the lock on one file on a disk."""
    store = await MemoryStore.open()
    transfers: Transfers = store.transfers
    lease = await transfers.leases.acquire_blob(Digest.of(b"x"))
    assert lease is not None
    assert (await transfers.lock_partial(X, Digest.of(b"x")))[0] is None
    await transfers.leases.release(lease)
    partial, _ = await transfers.lock_partial(X, Digest.of(b"x"))
    assert partial is not None
    await transfers.release_partial(partial)
    await store.close()
