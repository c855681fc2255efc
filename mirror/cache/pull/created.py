"""Creation dates of images, as their authors write them.

    annotation `org.opencontainers.image.created` of the manifest or index
    the newest such annotation of the manifests that an index names
    `created` in the config of the image; of an index: of the first image that it names

The first of these that there is counts. It is the author's word, and proves nothing.
"""

import asyncio
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

from mirror.cache.blobs import BlobCache
from mirror.cache.manifests import ManifestCache
from mirror.cache.readers import SmallBlob, StoredReader
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES
from mirror.store.errors import StoreError
from mirror.transfer.passthrough import PassThroughBlob
from mirror.upstream.errors import UpstreamError
from mirror.util.lru import LRUCache
from mirror.util.tasks import off_loop

CREATED = "org.opencontainers.image.created"

# Room for known dates, in bytes: those of some thousand images.
KNOWN_BYTES = 1024 * 1024

# The first date that may be one: that of the first images. Reproducible builds say 1970, 1980 or the year 1.
FIRST = datetime(2013, 1, 1, tzinfo=UTC).timestamp()

# Length of a date, in characters, with nanoseconds and an offset: 2026-01-31T23:59:59.123456789+01:00.
LONGEST = 40


class CreationDates:
    """Reader of the dates; what it needs is fetched as for a client."""

    def __init__(self, manifests: ManifestCache, blobs: BlobCache) -> None:
        self._manifests = manifests
        self._blobs = blobs
        self._known: LRUCache[Digest, float] = LRUCache(KNOWN_BYTES)

    async def of(self, repository: Repository, digest: Digest) -> float | None:
        """Return when an image was created, in seconds since the epoch; None where nothing tells."""
        found = self._known.get(digest)
        if found is None:
            with suppress(UpstreamError, StoreError, RegistryError, ValueError):
                found = await self._read(repository, digest)
            if found is not None:
                self._known.put(digest, found, 0)
        return found

    async def _read(self, repository: Repository, digest: Digest) -> float | None:
        fields = await self._manifest(repository, digest)
        own = date_of(fields)
        if own is None and (listed := _objects(fields.get("manifests"))):
            own = max(filter(None, map(date_of, listed)), default=None)
            if own is not None:
                return own
            child = next((each for each in listed if _is_image(each)), None)
            fields = {} if child is None else await self._manifest(repository, _digest(child))
            own = date_of(fields)
        return own if own is not None else await self._of_config(repository, fields)

    async def _manifest(self, repository: Repository, digest: Digest) -> Mapping[str, Any]:
        data = (await self._manifests.get(repository, digest)).data
        fields = await off_loop(len(data), json_text.parse, data)
        return fields if isinstance(fields, dict) else {}

    async def _of_config(self, repository: Repository, fields: Mapping[str, Any]) -> float | None:
        config = fields.get("config")
        if not isinstance(config, dict) or not _is_small(config.get("size")):
            return None
        data = await self._small(repository, _digest(config))
        image = None if data is None else await off_loop(len(data), json_text.parse, data)
        return parse_date(image.get("created")) if isinstance(image, dict) else None

    async def _small(self, repository: Repository, digest: Digest) -> bytes | None:
        """Return a small blob; None for one that is not whole yet."""
        content = (await self._blobs.get(repository, digest)).content
        if isinstance(content, SmallBlob):
            return content.data
        if isinstance(content, PassThroughBlob):
            return None
        with closing(content):
            if isinstance(content, StoredReader):
                return await asyncio.to_thread(content.file.read, SMALL_BYTES)
        return None


def date_of(described: Mapping[str, Any]) -> float | None:
    """Return the date in the annotations of a manifest or descriptor; None without a usable one."""
    annotations = described.get("annotations")
    return parse_date(annotations.get(CREATED)) if isinstance(annotations, dict) else None


def parse_date(value: object) -> float | None:
    """Return a date of RFC 3339 in seconds since the epoch; None for one that cannot be meant."""
    if not isinstance(value, str) or not 20 <= len(value) <= LONGEST:
        return None
    try:
        date = datetime.fromisoformat(value)
        moment = date.timestamp() if date.tzinfo is not None else 0.0
    except (ValueError, OverflowError):
        return None
    return moment if moment >= FIRST else None


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is_image(descriptor: Mapping[str, Any]) -> bool:
    """Return whether a manifest of an index is for a platform, and no attestation."""
    platform = descriptor.get("platform")
    return not isinstance(platform, dict) or platform.get("os") != "unknown"


def _is_small(size: object) -> bool:
    return isinstance(size, int) and size <= SMALL_BYTES


def _digest(descriptor: Mapping[str, Any]) -> Digest:
    return Digest.parse(str(descriptor.get("digest")))
