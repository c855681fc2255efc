"""The probe of a bucket: what it can do is tried at the start, not found out by the first herd.

Stores that speak S3 leave things out: some answer a range with status 200, some ignore every condition of a
write. Each finding says what will not work, and what to do.
"""

import secrets
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.content import verified
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import ConditionalObjects, ObjectTier
from mirror.shared.keys import PROBES

_TEXT = b"registry-mirror probes ranges"


class ProbedObjects(ObjectTier, ConditionalObjects, Protocol):
    """An object store with all that is probed."""

    def unquote_versions(self) -> None: ...


class Fitness(Struct, frozen=True):
    """Verdict on a bucket, for blobs and for leases: None for yes, or why not."""

    reads: str | None = None
    leases: str | None = None


async def probe(objects: ProbedObjects, *, leases: bool) -> Fitness:
    """Try ranges, and with `leases` conditional writes. Raises TierError if the store cannot be reached."""
    return Fitness(await _probe_ranges(objects), await _probe_conditions(objects) if leases else None)


async def _probe_ranges(objects: ProbedObjects) -> str | None:
    """Write a small blob, and read a part of it."""
    data = _TEXT + secrets.token_bytes(8)
    digest = Digest.of(data)
    await objects.put(verified(digest, len(data), lambda: _once(data)))
    try:
        async with objects.open_range(digest, Span(2, 7)) as part:
            found = b"".join([chunk async for chunk in part.chunks])
    except TierError as error:
        if error.fault is TierFault.REFUSED or "range" not in str(error):
            raise
        found = b""
    finally:
        await objects.remove(digest)
    if found == data[2:7]:
        return None
    return (
        "the object store does not answer a range with status 206 and its bytes, so blobs cannot be read "
        "from it: use another one (rclone's `serve s3` is known for this)"
    )


async def _probe_conditions(objects: ProbedObjects) -> str | None:
    """Write an object twice as new, and replace it with a right and a wrong version."""
    key = f"{PROBES}/{secrets.token_hex(16)}"
    try:
        if not await objects.create(key, b"1"):
            return "the object store refuses a new object as if it existed: set coordinator to a Redis"
        if await objects.create(key, b"2"):
            return _ignores("If-None-Match")
        return await _probe_replace(objects, key)
    finally:
        await objects.delete(key)


async def _probe_replace(objects: ProbedObjects, key: str) -> str | None:
    found = await objects.read(key)
    version = "" if found is None else found.version
    if not await objects.replace(key, b"3", version):
        objects.unquote_versions()
        if not await objects.replace(key, b"3", version):
            return "the object store refuses If-Match with the right ETag: set coordinator to a Redis"
    if await objects.replace(key, b"4", version):
        return _ignores("If-Match")
    return None


def _ignores(header: str) -> str:
    return (
        f"the object store ignores {header}, so that mirrors cannot agree in the bucket who downloads a "
        "blob: set coordinator to the URL of a Redis or Valkey"
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
