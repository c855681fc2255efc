"""Which source sent wrong bytes, when several brought parts of a blob that is not what its digest says.

The whole only shows that something in it is wrong. So a hash of each part is kept until the right blob is
here: the parts that are other there are those that were wrong. And it is fetched again from one source at a
time, which was not wrong about it before: that one is right, or caught.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.partial.growing import GrowingFile
from mirror.upstream.source import Source

Parts: TypeAlias = Mapping[Source, Sequence[Span]]

# The most blobs that are in doubt at a time; each costs some hundred bytes for each part.
MOST = 64


@dataclass(slots=True)
class _SuspectBlob:
    """A blob that was wrong: what it consisted of, who alone was wrong about it, and how often it was."""

    parts: dict[tuple[Source, Span], bytes] = field(default_factory=dict)
    caught: set[Source] = field(default_factory=set)
    times: int = 0


class CorruptionTracker:
    """The parts of blobs that were wrong, until they have been fetched again."""

    def __init__(self) -> None:
        self._open: dict[Digest, _SuspectBlob] = {}

    def caught(self, digest: Digest, culprit: Source) -> list[Source]:
        """All that was wrong came from one source. Returns who was suspected because of the same blob."""
        doubt = self._doubt(digest)
        doubt.caught.add(culprit)
        doubt.times += 1
        return list({source for source, _ in doubt.parts} - doubt.caught)

    async def keep(self, growing: GrowingFile, parts: Parts) -> None:
        """Remember what the wrong blob consisted of. StoreError."""
        keys = [(source, span) for source, spans in parts.items() for span in spans]
        hashes = await growing.span_hashes([span for _, span in keys])
        doubt = self._doubt(growing.digest)
        doubt.parts.update(zip(keys, hashes, strict=True))
        doubt.times += 1

    def order(self, digest: Digest, sources: Sequence[Source]) -> list[Source]:
        """Whom to ask for a blob that was wrong, one after another; nobody if it was not, or all were.

        Those who were not wrong about it, and of these those first who are not left alone now.
        """
        doubt = self._open.get(digest)
        if doubt is None or doubt.times > len(sources):
            return []
        now = time.monotonic()
        left = [source for source in sources if source not in doubt.caught]
        return sorted(left, key=lambda source: not source.health.allows_request(now))

    async def settle(self, growing: GrowingFile) -> dict[Source, bool]:
        """The right blob is here: of each source that was suspected, whether it lied."""
        doubt = self._open.pop(growing.digest, _SuspectBlob())
        kept = {key: wrong for key, wrong in doubt.parts.items() if key[0] not in doubt.caught}
        hashes = await growing.span_hashes([span for _, span in kept])
        report_corruption: dict[Source, bool] = {}
        for ((source, _), wrong), right in zip(kept.items(), hashes, strict=True):
            report_corruption[source] = report_corruption.get(source, False) or wrong != right
        return report_corruption

    def _doubt(self, digest: Digest) -> _SuspectBlob:
        while len(self._open) >= MOST and digest not in self._open:
            del self._open[next(iter(self._open))]
        return self._open.setdefault(digest, _SuspectBlob())


def sole_supplier(parts: Parts, size: int) -> Source | None:
    """The source that brought all of a blob; None where others, or an earlier process, had a part."""
    if len(parts) != 1:
        return None
    ((source, spans),) = parts.items()
    return source if sum(span.length for span in spans) >= size else None
