"""Disk usage: bytes of each repository and each upstream."""

from collections.abc import Iterator

from msgspec import Struct

from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository
from mirror.store.blobs.fsck import FsckCursor, scrub_progress
from mirror.store.cache_dir import CacheDirectory
from mirror.store.folder.pruning import index_limit
from mirror.store.metadata.index import ROWS
from mirror.store.metadata.query import repositories
from mirror.store.metadata.refcount import ReferenceCounts
from mirror.store.partial.upload import UPLOADS, UploadStore
from mirror.store.shares.repository_share import limits_of


class RepositoryUsage(Struct):
    """The blobs of a repository that are here.

    `size`: their bytes, each blob counted once. `own`: bytes of blobs that no other repository has, which a
    removal of the repository would free. `counted`: the bytes that count against `max_share`, which is
    None without a rule.
    """

    name: str
    size: int = 0
    own: int = 0
    blobs: int = 0
    counted: int = 0
    max_share: int | None = None

    @property
    def is_upstream(self) -> bool:
        """Return whether these are the blobs of a whole upstream."""
        return False

    @property
    def shared(self) -> int:
        """Bytes of blobs that others have too."""
        return self.size - self.own

    def add(self, size: int, *, own: bool) -> None:
        """Count one blob."""
        self.size += size
        self.own += size if own else 0
        self.blobs += 1


class UpstreamUsage(RepositoryUsage):
    """The blobs of a whole upstream; `own` are those that no other upstream has."""

    @property
    def is_upstream(self) -> bool:
        """Return whether these are the blobs of a whole upstream."""
        return True


class DiskTotals(Struct, frozen=True):
    """All that a cache folder holds and may hold, in bytes; `count`: the number of blobs.

    `retained`: of the blobs, those that hosted repositories have, which do not count in `allowed`.
    `uploads`: pushes that are not finished, `upload_bytes` what has come of them.
    `scrub`: the progress of the scrub, None before its first pass.
    """

    blobs: int
    count: int
    retained: int
    downloads: int
    uploads: int
    upload_bytes: int
    pinned: int
    allowed: int
    index: int
    index_allowed: int
    scrub: FsckCursor | None


def disk_totals(folder: CacheDirectory) -> DiskTotals:
    """Return the totals of a cache folder."""
    (held, count), (retained, _) = folder.blobs.stats(), folder.blobs.retention.totals()
    uploads, upload_bytes = UploadStore(folder.path / UPLOADS).totals()
    return DiskTotals(
        blobs=held,
        count=count,
        retained=retained,
        downloads=max(0, folder.evictor.room().used - (held - retained)),
        uploads=uploads,
        upload_bytes=upload_bytes,
        pinned=sum(folder.pins.pinned_sizes().values()),
        allowed=folder.evictor.size_limit(),
        index=folder.index.database.size(),
        index_allowed=index_limit(folder.blobs),
        scrub=scrub_progress(folder.path),
    )


class DiskUsage:
    """The usage of one cache folder. For one thread."""

    def __init__(self, folder: CacheDirectory) -> None:
        self._folder = folder
        self._usage = ReferenceCounts(folder.index, memoise=True)

    def all(self) -> Iterator[RepositoryUsage]:
        """Yield each repository in order, and after the repositories of an upstream the upstream itself."""
        upstream: UpstreamUsage | None = None
        for repository in repositories(self._folder.index, ImagePattern("*")):
            if upstream is not None and upstream.name != repository.upstream:
                yield upstream
                upstream = None
            upstream = upstream or UpstreamUsage(repository.upstream)
            yield self._repository(repository, upstream)
        if upstream is not None:
            yield upstream

    def matching(self, wanted: ImagePattern) -> Iterator[RepositoryUsage]:
        """Yield each repository that has the name of `wanted`; no upstream, since some of it is left out."""
        for repository in repositories(self._folder.index, wanted):
            yield self._repository(repository, UpstreamUsage(repository.upstream))

    def _repository(self, repository: Repository, upstream: UpstreamUsage) -> RepositoryUsage:
        """Return the usage of a repository, and add its blobs to the usage of its upstream."""
        usage, after = RepositoryUsage(str(repository)), ""
        usage.max_share = limits_of(self._folder, repository).share
        while links := self._folder.index.links(repository, after, ROWS):
            after = str(links[-1][0])
            here = self._folder.blobs.table.sizes_and_last_use(str(digest) for digest, _, _ in links)
            for digest, uses in self._usage.uses(here).items():
                size, owners = here[digest][0], sum(use.links for use in uses)
                usage.add(size, own=owners == 1)
                usage.counted += size // owners
                # A blob of several repositories of one upstream counts once there: with the first.
                if any(use.first_repository == str(repository) for use in uses):
                    upstream.add(size, own=len(uses) == 1)
        return usage
