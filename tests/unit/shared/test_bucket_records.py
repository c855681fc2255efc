"""Records in the bucket; tests/contract/test_shared_engines.py has all engines."""

from mirror.shared.bucket_records import BucketRecords
from mirror.shared.memory import MemoryObjects


async def test_bucket_records_are_below_a_prefix_of_their_own() -> None:
    """Blobs and leases have other ones."""
    objects = MemoryObjects()
    records = BucketRecords(objects)
    await records.put("tag/aa/bb", b"text", 1)
    assert await records.get("tag/aa/bb") == b"text"
    assert list(objects._objects) == ["records/tag/aa/bb"]
