"""Operations about the cache as a whole: what takes its room, and the removal of garbage."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from mirror.oci.image_pattern import ImagePattern
from mirror.util.log import get_logger
from mirror.web.admin.api.operation import ApiChange, ApiError, Audience, Operation, change
from mirror.web.admin.desk import Desk
from mirror.web.admin.visitors import PageVisitor

log = get_logger(__name__)

# Rows of an answer about usage, at most: the largest ones.
MOST_ROWS = 5000


class UsageParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`pattern`: of repositories, `<upstream>/<repository>` with stars; empty for all, and upstreams too."""

    pattern: Annotated[str, Meta(max_length=400)] = ""


class UsageRow(Struct, frozen=True, kw_only=True):
    """The blobs of a repository, or of a whole upstream, in bytes. `own`: those that no other has.

    `max_share`: what a rule allows it, None without a rule; `counted`: what counts against that.
    """

    name: str
    is_upstream: bool
    size: int
    own: int
    blobs: int
    counted: int
    max_share: int | None


class GarbageWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """A collection of garbage. `dry_run`: only say what would be removed."""

    dry_run: bool = False


class GarbageRow(Struct, frozen=True):
    """Garbage of one kind: how many pieces, and their bytes."""

    kind: str
    count: int
    size: int


class GarbageResult(Struct, frozen=True):
    """The garbage that was removed, or would be. `excess`: bytes beyond the quota afterwards, 0 for none."""

    dry_run: bool
    removed: list[GarbageRow]
    freed: int
    excess: int


class Upkeep:
    """The operations about the cache as a whole."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._collecting = asyncio.Lock()

    def operations(self) -> Sequence[Operation]:
        """Return the operations."""
        return (
            Operation(
                method="GET",
                path="/api/v1/usage",
                summary="How much room each repository and each upstream takes",
                audience=Audience.OPERATORS,
                call=self.usage,
                parameters=UsageParameters,
                answer=list[UsageRow],
            ),
            change(
                "POST",
                "garbage",
                "Remove garbage, and whatever exceeds the quota",
                self.collect,
                ApiChange(GarbageWanted, GarbageResult, (409,)),
            ),
        )

    async def usage(self, visitor: PageVisitor, wanted: UsageParameters) -> list[UsageRow]:
        """Return the usage of what the visitor may know of, the largest first."""
        pattern = ImagePattern(wanted.pattern) if wanted.pattern else None
        rows = [
            UsageRow(
                name=each.name,
                is_upstream=each.is_upstream,
                size=each.size,
                own=each.own,
                blobs=each.blobs,
                counted=each.counted,
                max_share=each.max_share,
            )
            async for each in self._desk.management.disk.usage(pattern)
        ]
        known = await visitor.visible([each.name for each in rows if not each.is_upstream])
        shown = [each for each in rows if each.is_upstream or each.name in known]
        return sorted(shown, key=lambda each: -each.size)[:MOST_ROWS]

    async def collect(self, visitor: PageVisitor, wanted: GarbageWanted) -> GarbageResult:
        """Collect garbage, one collection at a time."""
        if self._collecting.locked():
            raise ApiError(409, "garbage is being collected already", "try again when that has ended")
        counts, sizes = Counter[str](), Counter[str]()
        async with self._collecting:
            async for item in self._desk.management.upkeep.collect_garbage(dry_run=wanted.dry_run):
                counts[item.kind] += 1
                sizes[item.kind] += item.size
        excess = 0 if wanted.dry_run else max(0, await self._desk.management.disk.excess())
        if not wanted.dry_run:
            who = ", ".join(visitor.names) or visitor.address
            log.info("garbage collected from the pages", by=who, freed=sizes.total(), client=visitor.address)
        rows = [GarbageRow(kind, counts[kind], sizes[kind]) for kind in counts]
        return GarbageResult(wanted.dry_run, rows, sizes.total(), excess)
