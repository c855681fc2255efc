"""Corruption tracking: which source sent wrong bytes, when several sent parts of a blob with a wrong digest.

A wrong digest only shows that some part is wrong. A hash of each part is kept until the right blob is here:
the parts that differ from it were wrong. The blob is fetched again from one source at a time, first from
sources that were not wrong about the blob before: such a source is right, or known to be corrupt.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct, field

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.partial.growing_writer import GrowingVerifier
from mirror.transfer.blob_source import BlobSource

Parts: TypeAlias = Mapping[BlobSource, Sequence[Span]]

# The most corrupt blobs that are tracked at a time; each costs some hundred bytes for each part.
MOST = 64


class _CorruptBlob(Struct):
    """A blob with a wrong digest: hashes of its parts, sources proven wrong about it, number of downloads."""

    parts: dict[tuple[BlobSource, Span], bytes] = field(default_factory=dict)
    culprits: set[BlobSource] = field(default_factory=set)
    downloads: int = 0


class CorruptionTracker:
    """Parts of corrupt blobs, until the right blobs have been fetched."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, _CorruptBlob] = {}

    def record_culprit(self, digest: Digest, culprit: BlobSource) -> list[BlobSource]:
        """Record that `culprit` sent all of a corrupt blob.

        Returns the other sources that were suspected because of the same blob.
        """
        blob = self._corrupt_blob(digest)
        blob.culprits.add(culprit)
        blob.downloads += 1
        return list({source for source, _ in blob.parts} - blob.culprits)

    async def record_parts(self, verifier: GrowingVerifier, parts: Parts) -> None:
        """Record the parts that a corrupt blob consists of. StoreError."""
        keys = [(source, span) for source, spans in parts.items() for span in spans]
        hashes = await verifier.span_hashes([span for _, span in keys])
        blob = self._corrupt_blob(verifier.file.digest)
        blob.parts.update(zip(keys, hashes, strict=True))
        blob.downloads += 1

    def sources_to_try(self, digest: Digest, sources: Sequence[BlobSource]) -> list[BlobSource]:
        """Return the sources to ask, one after another, for a blob that was corrupt.

        Sources proven wrong about the blob are left out, and sources that allow a request now come first.
        Empty for a blob that was not corrupt, or that all sources have been asked for.
        """
        blob = self._blobs.get(digest)
        if blob is None or blob.downloads > len(sources):
            return []
        now = time.monotonic()
        left = [source for source in sources if source not in blob.culprits]
        return sorted(left, key=lambda source: not source.health.allows_request(now))

    async def verdicts(self, verifier: GrowingVerifier) -> dict[BlobSource, bool]:
        """Compare with the right blob, and forget: whether each suspected source had sent wrong bytes."""
        blob = self._blobs.pop(verifier.file.digest, None)
        if blob is None:
            return {}
        parts = {key: wrong for key, wrong in blob.parts.items() if key[0] not in blob.culprits}
        hashes = await verifier.span_hashes([span for _, span in parts])
        verdicts: dict[BlobSource, bool] = {}
        for ((source, _), recorded), right in zip(parts.items(), hashes, strict=True):
            verdicts[source] = verdicts.get(source, False) or recorded != right
        return verdicts

    def _corrupt_blob(self, digest: Digest) -> _CorruptBlob:
        while len(self._blobs) >= MOST and digest not in self._blobs:
            del self._blobs[next(iter(self._blobs))]
        return self._blobs.setdefault(digest, _CorruptBlob())


def sole_supplier(parts: Parts, size: int) -> BlobSource | None:
    """Return the source that sent all of a blob; None where others, or an earlier process, sent a part."""
    if len(parts) != 1:
        return None
    ((source, spans),) = parts.items()
    return source if sum(span.length for span in spans) >= size else None
