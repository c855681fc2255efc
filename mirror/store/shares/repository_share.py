"""The share of one repository: what it takes of the cache, and which of its own blobs go beyond that.

A blob counts for a repository with its size divided by the number of repositories that link it, so that what
several repositories share is counted once in all. Only blobs that the repository alone links are evicted for
its share: large ones first, each kind least recently used first. Pinned ones stay, and those that are read.
"""

from collections.abc import Container, Iterator
from fnmatch import fnmatchcase

from msgspec import Struct

from mirror.config.cache_rules import CacheRuleSettings
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import escaped_address
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES, EvictedBlob, EvictionReason
from mirror.store.cache_dir import CacheDirectory
from mirror.store.eviction import EvictionGuard
from mirror.store.metadata.index import ROWS
from mirror.store.metadata.refcount import ReferenceCounts


class RepositoryLimits(Struct, frozen=True):
    """The limits of a repository by the first rule that matches, in bytes; None for no limit.

    `pattern` is that of the rule.
    """

    pattern: str = ""
    blob: int | None = None
    share: int | None = None

    def refusal(self, size: int) -> str | None:
        """Return why a blob of `size` bytes is not kept; None if it is."""
        if self.blob is not None and size > self.blob:
            return f"takes {size} bytes, and max_blob is {self.blob} in [[cache.rules]] for {self.pattern}"
        if self.share is not None and size > self.share:
            return f"takes {size} bytes, and max_share is {self.share} in [[cache.rules]] for {self.pattern}"
        return None


class _Held(Struct, frozen=True):
    """A blob that is here: its size in bytes, its last use, and how many repositories link it."""

    digest: str
    size: int
    last_use: float
    links: int

    @property
    def counted(self) -> int:
        return self.size // max(1, self.links)


def rule_of(folder: CacheDirectory, repository: Repository) -> CacheRuleSettings | None:
    """Return the first rule that matches the repository."""
    name = str(repository)
    return next(
        (each for each in folder.rules if fnmatchcase(name, escaped_address(each.repositories))), None
    )


def limits_of(folder: CacheDirectory, repository: Repository) -> RepositoryLimits:
    """Return the limits of a repository. A percentage is one of what the cache may hold now. Blocks."""
    rule = rule_of(folder, repository)
    if rule is None:
        return RepositoryLimits()
    share = rule.max_share
    return RepositoryLimits(
        rule.repositories,
        rule.max_blob,
        None if share is None else share.of(folder.evictor.size_limit() if share.percent else 0),
    )


def used_share(folder: CacheDirectory, repository: Repository) -> int:
    """Return the bytes that count for the repository. Blocks."""
    return sum(each.counted for each in _held_by(folder, repository))


def evict_excess(
    folder: CacheDirectory, repository: Repository, coming: int = 0, keep: Digest | None = None
) -> list[EvictedBlob]:
    """Evict until the repository is within its share with `coming` more bytes. Blocks.

    `keep` is not evicted; with `coming` it is the blob that these bytes are of, and not counted again.
    """
    limit = limits_of(folder, repository).share
    if limit is None:
        return []
    with folder.evictor.lock():
        guard = EvictionGuard([] if keep is None else [keep], folder.pins)
        held = [each for each in _held_by(folder, repository) if not coming or each.digest != str(keep)]
        return list(_evicted(folder, held, limit - coming, guard, remove=True))


def share_excess(
    folder: CacheDirectory, repository: Repository, gone: Container[str], *, remove: bool
) -> list[EvictedBlob]:
    """Return the blobs that go for the share of the repository, as by `evict_excess`. Blocks.

    With `remove` they are gone. `gone`: blobs, by their digests, that a dry run counts as removed.
    """
    limit = limits_of(folder, repository).share
    if limit is None:
        return []
    with folder.evictor.lock():
        held = [each for each in _held_by(folder, repository) if each.digest not in gone]
        return list(_evicted(folder, held, limit, EvictionGuard([], folder.pins), remove=remove))


def _evicted(
    folder: CacheDirectory, held: list[_Held], limit: int, guard: EvictionGuard, *, remove: bool
) -> Iterator[EvictedBlob]:
    """Evict, and yield, blobs of the repository alone until those that are left are within `limit` bytes."""
    excess = sum(each.counted for each in held) - limit
    own = (each for each in held if each.links == 1)
    for each in sorted(own, key=lambda blob: (blob.size <= SMALL_BYTES, blob.last_use)):
        if excess <= 0:
            return
        if each.digest not in guard and folder.blobs.evictions.evict_one(each.digest, remove=remove):
            excess -= each.size
            yield EvictedBlob(Digest.parse(each.digest), each.size, EvictionReason.SHARE)


def _held_by(folder: CacheDirectory, repository: Repository) -> Iterator[_Held]:
    counts, after = ReferenceCounts(folder.index), ""
    while links := folder.index.links(repository, after, ROWS):
        after = str(links[-1][0])
        here = folder.blobs.table.sizes_and_last_use(str(digest) for digest, _, _ in links)
        linked = counts.links(here)
        for digest, (size, last_use) in here.items():
            yield _Held(digest, size, last_use, linked.get(digest, 1))
