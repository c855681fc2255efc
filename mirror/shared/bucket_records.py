"""Records as small objects in the bucket: what outlives a coordinator, and what there is without one.

Objects have no time of their own: a record says when it was made, and upkeep removes old ones.
"""

from mirror.shared.interfaces import ConditionalObjects
from mirror.shared.keys import RECORDS

# How long a word that there is no such tag is kept, in seconds: clients may ask for any number of names.
MISSING_SECONDS = 3600.0


class BucketRecords:
    """`Records` in a bucket, below a prefix of their own."""

    def __init__(self, objects: ConditionalObjects, prefix: str = RECORDS) -> None:
        self._objects = objects
        self._prefix = prefix

    async def get(self, key: str) -> bytes | None:
        found = await self._objects.read(f"{self._prefix}/{key}")
        return None if found is None else found.data

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        await self._objects.write(f"{self._prefix}/{key}", data)

    async def remove(self, key: str) -> None:
        """Remove a record; do nothing if there is none."""
        await self._objects.delete(f"{self._prefix}/{key}")
