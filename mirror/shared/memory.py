"""The in-memory twins: an object store, leases and conditional objects within one process."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.errors import ObjectMissing, TierFault
from mirror.shared.interfaces import Holder, NamedObject, StoredText, TierObject, TierRange, VerifiedContent


class MemoryTier:
    """Blobs in a dictionary: an `ObjectTier`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._blobs: dict[Digest, tuple[bytes, float]] = {}

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        if digest not in self._blobs:
            raise ObjectMissing(TierFault.WRONG, f"{digest} is not in the object store")
        data, _ = self._blobs[digest]
        part = data[span.start : span.stop]

        async def chunks() -> AsyncIterator[bytes]:
            yield part

        yield TierRange(Span(span.start, span.start + len(part)), len(data), chunks())

    async def put(self, content: VerifiedContent) -> None:
        data = b"".join([bytes(chunk) async for chunk in content.chunks()])
        self._blobs[content.digest] = (data, self._clock())

    async def stat(self, digest: Digest) -> TierObject | None:
        found = self._blobs.get(digest)
        return None if found is None else TierObject(digest, len(found[0]), found[1])

    async def list(self) -> AsyncIterator[TierObject]:
        for digest, (data, modified) in list(self._blobs.items()):
            yield TierObject(digest, len(data), modified)

    async def presigned(self, digest: Digest, seconds: float) -> str | None:
        return f"http://store.invalid/{digest.encoded}?for={seconds:g}"

    async def remove(self, digest: Digest) -> None:
        self._blobs.pop(digest, None)

    async def close(self) -> None:
        """Keep the content: other mirrors of a test may have it still."""


class MemoryLeases:
    """Leases in a dictionary: `Leases` of the mirrors of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[Holder, float]] = {}

    async def acquire(self, key: str, holder: Holder, seconds: float) -> Holder:
        await asyncio.sleep(0)  # as an engine would, so that others have their turn
        found = self._find(key)
        if found is None:
            self._held[key] = (holder, self._clock() + seconds)
        return found or holder

    async def renew(self, key: str, holder: Holder, seconds: float) -> bool:
        if self._find(key) != holder:
            return False
        self._held[key] = (holder, self._clock() + seconds)
        return True

    async def release(self, key: str, holder: Holder) -> None:
        if self._find(key) == holder:
            del self._held[key]

    async def holder(self, key: str) -> Holder | None:
        return self._find(key)

    async def close(self) -> None:
        """Keep the leases of other mirrors."""

    def _find(self, key: str) -> Holder | None:
        holder, until = self._held.get(key, (None, 0.0))
        return holder if self._clock() < until else None


class MemoryObjects:
    """Small objects with conditional writes: `ConditionalObjects` of one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._objects: dict[str, StoredText] = {}
        self._versions = count(1)

    async def read(self, key: str) -> StoredText | None:
        return self._objects.get(key)

    async def create(self, key: str, data: bytes) -> bool:
        if key in self._objects:
            return False
        self._write(key, data)
        return True

    async def replace(self, key: str, data: bytes, version: str) -> bool:
        found = self._objects.get(key)
        if found is None or found.version != version:
            return False
        self._write(key, data)
        return True

    async def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    async def write(self, key: str, data: bytes) -> None:
        self._write(key, data)

    async def names(self, prefix: str) -> AsyncIterator[NamedObject]:
        for key, found in list(self._objects.items()):
            if key.startswith(f"{prefix}/"):
                yield NamedObject(key, found.modified)

    def _write(self, key: str, data: bytes) -> None:
        self._objects[key] = StoredText(data, str(next(self._versions)), self._clock())


class MemoryRecords:
    """Texts in a dictionary: `Records` of the mirrors of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._texts: dict[str, tuple[bytes, float]] = {}

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)  # as an engine would
        data, until = self._texts.get(key, (None, 0.0))
        return data if self._clock() < until else None

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        self._texts[key] = (data, self._clock() + seconds)
