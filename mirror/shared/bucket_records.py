"""Records as small objects in the bucket: what outlives a coordinator, and what there is without one.

Objects have no time of their own: a record says when it was made, and upkeep removes old ones.
"""

from mirror.shared.interfaces import ConditionalObjects
from mirror.shared.keys import RECORDS


class BucketRecords:
    """`Records` in a bucket."""

    def __init__(self, objects: ConditionalObjects) -> None:
        self._objects = objects

    async def get(self, key: str) -> bytes | None:
        found = await self._objects.read(f"{RECORDS}/{key}")
        return None if found is None else found.data

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        await self._objects.write(f"{RECORDS}/{key}", data)
