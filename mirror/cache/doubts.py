"""Which source sent wrong bytes, when several brought parts of a blob that is not what its digest says.

The whole only shows that something in it is wrong. So a hash of each part is kept until the right blob is
here: the parts that are other there are those that were wrong.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.growing import GrowingFile
from mirror.upstream.source import Source

Parts: TypeAlias = Mapping[Source, Sequence[Span]]

# The most blobs that are in doubt at a time; each costs some hundred bytes for each part.
MOST = 64


class Doubts:
    """The parts of blobs that were wrong, until they have been fetched again."""

    def __init__(self) -> None:
        self._open: dict[Digest, dict[tuple[Source, Span], bytes]] = {}

    async def keep(self, growing: GrowingFile, parts: Parts) -> None:
        """Remember what the wrong blob consisted of. StoreError."""
        while len(self._open) >= MOST:
            del self._open[next(iter(self._open))]
        keys = [(source, span) for source, spans in parts.items() for span in spans]
        hashes = await growing.hashes([span for _, span in keys])
        self._open[growing.digest] = dict(zip(keys, hashes, strict=True))

    async def settle(self, growing: GrowingFile) -> dict[Source, bool]:
        """The right blob is here: of each source that had a part in the wrong one, whether it lied."""
        kept = self._open.pop(growing.digest, {})
        hashes = await growing.hashes([span for _, span in kept])
        lied: dict[Source, bool] = {}
        for ((source, _), wrong), right in zip(kept.items(), hashes, strict=True):
            lied[source] = lied.get(source, False) or wrong != right
        return lied


def proven(parts: Parts, size: int) -> Source | None:
    """The source that brought all of a blob; None where others, or an earlier process, had a part."""
    if len(parts) != 1:
        return None
    ((source, spans),) = parts.items()
    return source if sum(span.length for span in spans) >= size else None
