"""Tags, links, referrers and repositories in memory."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.metadata.index import Link, ReferrersEntry, TagEntry
from mirror.store.metadata.visibility import PublicMark


class MemoryLinks:
    """The links of one process: `Links`."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._seen: dict[tuple[Repository, Digest], float] = {}

    async def add(self, repository: Repository, digest: Digest, link: Link) -> None:
        self._blobs.add_link(repository, digest, link)

    async def read_again(self, repository: Repository, digest: Digest) -> Link | None:
        return self._blobs.links.get((repository, digest))

    async def first_seen(self, repository: Repository, digest: Digest, now: float) -> float:
        link = self._blobs.links.get((repository, digest))
        first = now if link is None or not link.confirmed else min(now, link.confirmed)
        return self._seen.setdefault((repository, digest), first)

    async def withdraw(self, repository: Repository, digest: Digest) -> None:
        self._blobs.links.pop((repository, digest), None)


class MemoryMarks:
    """The marks of public repositories of one process: `VisibilityMarks`."""

    def __init__(self) -> None:
        self._marks: dict[str, PublicMark] = {}
        self._removals = 0

    def removals(self) -> int:
        return self._removals

    async def mark(self, repository: Repository) -> PublicMark | None:
        return self._marks.get(str(repository))

    async def put(self, repository: Repository, mark: PublicMark) -> None:
        self._marks[str(repository)] = mark

    async def withdraw(self, repository: Repository) -> None:
        self._marks.pop(str(repository), None)
        self._removals += 1

    async def between(self, first: str, last: str) -> dict[str, PublicMark]:
        return {name: mark for name, mark in self._marks.items() if first <= name <= last}


class MemoryMetadata:
    """The index of one process: a `Metadata`."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self.links = MemoryLinks(blobs)
        self.visibility = MemoryMarks()
        self._blobs = blobs
        self._referrers: dict[tuple[Repository, Digest], ReferrersEntry] = {}

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        return self._blobs.tags.get((repository, tag))

    async def read_tag_again(self, repository: Repository, tag: Tag) -> TagEntry | None:
        return self._blobs.tags.get((repository, tag))

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        self._blobs.tags[repository, tag] = entry

    async def drop_tag(self, repository: Repository, tag: Tag) -> None:
        self._blobs.tags.pop((repository, tag), None)

    async def known_tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        return [name for name, _ in self._tags_of(repository) if name > after][:limit]

    async def gone_tags(self, repository: Repository) -> list[tuple[str, TagEntry]]:
        return [
            (name, entry)
            for name, entry in self._tags_of(repository)
            if entry.gone is not None and Digest.parse(entry.digest) in self._blobs.blobs
        ]

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        return self._referrers.get((repository, digest))

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        self._referrers[repository, digest] = entry

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        names = (each for each in self._blobs.repositories if each.startswith(prefix) and each > after)
        return sorted(names)[:limit]

    def _tags_of(self, repository: Repository) -> list[tuple[str, TagEntry]]:
        """Return the plain tags of a repository, in order."""
        tags = self._blobs.tags.items()
        return sorted(
            (tag.name, entry) for (where, tag), entry in tags if where == repository and not tag.also
        )
