"""What of the cache folder is small and in use, kept in memory too: manifests, small blobs, tag entries.

A copy of what is on the disk, made when it is read or written. A read that was overtaken by a write is not
kept: what a thread has read may be old when it arrives.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import Link, TagEntry
from mirror.util.lru import LRUCache

# What may be remembered of links that could not be written down, in bytes: some ten thousand.
LINKS = 8 * 1024 * 1024

# The part of the memory that is for tag entries.
TAG_SHARE = 8


@dataclass(frozen=True, slots=True)
class Content:
    """Something small, and the link by which its repository has it (invariant 5)."""

    link: Link
    data: bytes


class MemoryCache:
    """`size` in bytes, 0 for none. Used in the event loop only.

    `removed`: what changes when something was removed from the folder, by whatever process (`epoch`);
    it is looked at each time, and then nothing is known any more.
    """

    def __init__(self, size: int, removed: Callable[[], int] = int) -> None:
        self._tags: LRUCache[tuple[Repository, Tag], TagEntry] = LRUCache(size // TAG_SHARE)
        self._contents: LRUCache[tuple[Repository, Digest], Content] = LRUCache(size - size // TAG_SHARE)
        self._links: LRUCache[tuple[Repository, Digest], Link] = LRUCache(LINKS)
        self._writes = 0
        self._removed = removed
        self._seen = removed()

    @property
    def version(self) -> int:
        """Changes when something is written."""
        self._heed_removals()
        return self._writes

    def content(self, repository: Repository, digest: Digest) -> Content | None:
        self._heed_removals()
        return self._contents.get((repository, digest))

    def put_content(self, repository: Repository, digest: Digest, content: Content, writes: int) -> None:
        """`writes`: what it was when the content was asked for."""
        if writes == self.version:
            self._contents.put((repository, digest), content, len(content.data))

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """A link that was confirmed but could not be written down."""
        return self._links.get((repository, digest))

    def put_links(self, repository: Repository, links: Mapping[Digest, Link], *, written: bool) -> None:
        """`written`: they are in the books, and need not be kept; a manifest's is not lost for a blob's."""
        for digest, link in links.items():
            known = self._links.get((repository, digest))
            if written:
                self._links.drop((repository, digest))
            elif known is None or known.media_type is None or link.media_type is not None:
                self._links.put((repository, digest), link, 0)

    def forget(self, repository: Repository, digests: Iterable[Digest]) -> None:
        """Something was written about them."""
        self._writes += 1
        for digest in digests:
            self._contents.drop((repository, digest))

    def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        self._heed_removals()
        return self._tags.get((repository, tag))

    def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry, writes: int) -> None:
        """`writes`: what it was when the entry was asked for."""
        if writes == self.version:
            self._tags.put((repository, tag), entry, 0)

    def forget_tag(self, repository: Repository, tag: Tag) -> None:
        """Something is being written about it."""
        self._writes += 1
        self._tags.drop((repository, tag))

    def _heed_removals(self) -> None:
        """Forget everything if something was removed since the last look."""
        removed = self._removed()
        if removed == self._seen:
            return
        self._seen = removed
        self._writes += 1
        self._tags.clear()
        self._contents.clear()
