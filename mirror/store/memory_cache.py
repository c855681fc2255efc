"""The memory cache: copies of small content in use, that is manifests, small blobs and tag
entries; and the open files of large blobs in use.

An entry is made when the disk is read or written. The result of a read that a write has overtaken is not
kept: it may be old when it arrives from its thread.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import OpenBlob, Origin
from mirror.store.blobs.open_files import MOST_FILES, OpenFiles
from mirror.store.metadata.index import Link, TagEntry
from mirror.util.lru import LRUCache

# Memory for links that could not be written to the disk, in bytes: some ten thousand links.
LINKS = 8 * 1024 * 1024

# Memory for blobs that are known to be missing, in bytes: some thousand.
ABSENT = 4 * 1024 * 1024

# Tag entries get one part in this many of the memory.
TAG_SHARE = 8


class Content(Struct, frozen=True):
    """Small content, and the link by which its repository has it (invariant 5)."""

    link: Link
    data: bytes

    @property
    def origin(self) -> Origin:
        """The origin of the content, if it is stored again: not known where the link does not tell it."""
        return Origin.PRIVATE if self.link.account and self.link.confirmed else Origin.UNKNOWN


class OpenContent(Struct, frozen=True):
    """Content that is open: whole in `data` if it is small, else as the `blob`; and the repository's link."""

    link: Link | None
    blob: OpenBlob | None = None
    data: bytes | None = None


class UnwrittenLinks:
    """Links that were confirmed but could not be written to the disk. For the event loop only."""

    def __init__(self) -> None:
        self._links: LRUCache[tuple[Repository, Digest], Link] = LRUCache(LINKS)

    def get(self, repository: Repository, digest: Digest) -> Link | None:
        """Return a link."""
        return self._links.get((repository, digest))

    def put(self, repository: Repository, links: Mapping[Digest, Link], *, written: bool) -> None:
        """Keep links that were not `written` to the index, over known ones (`Link.over`)."""
        for digest, link in links.items():
            if written:
                self.drop(repository, digest)
            else:
                self._links.put((repository, digest), link.over(self.get(repository, digest)), 0)

    def drop(self, repository: Repository, digest: Digest) -> None:
        """Drop a link."""
        self._links.drop((repository, digest))


class MemoryCache:
    """A cache of `size` bytes, 0 for none. For the event loop only.

    `removal_epoch` returns a number that changes when any process removes something from the folder. The
    number is checked at each look-up, and after a change the cache is empty.
    """

    def __init__(self, size: int, removal_epoch: Callable[[], int] = lambda: 0) -> None:
        self._tags: LRUCache[tuple[Repository, Tag], TagEntry] = LRUCache(size // TAG_SHARE)
        self._contents: LRUCache[tuple[Repository, Digest], Content] = LRUCache(size - size // TAG_SHARE)
        self.unwritten = UnwrittenLinks()
        self._files: OpenFiles[tuple[Repository, Digest], Link] = OpenFiles(
            MOST_FILES if size else 0, removal_epoch=removal_epoch
        )
        self._absent: LRUCache[Digest, tuple[Repository, Link]] = LRUCache(ABSENT)
        self._version = 0
        self._removal_epoch = removal_epoch
        self._last_epoch = removal_epoch()

    @property
    def version(self) -> int:
        """Return a number that changes with each write and removal."""
        self._drop_removed()
        return self._version

    def content(self, repository: Repository, digest: Digest) -> Content | None:
        """Return the content of a repository, and its link."""
        self._drop_removed()
        return self._contents.get((repository, digest))

    def open(self, repository: Repository, digest: Digest) -> OpenContent | None:
        """Return content that opens without a look at the disk; the caller closes it."""
        self._drop_removed()
        key = (repository, digest)
        if (content := self._contents.get(key)) is not None:
            return OpenContent(content.link, data=content.data)
        kept = self._files.open(key)
        return None if kept is None else OpenContent(kept[1], kept[0])

    def keep(self, repository: Repository, digest: Digest, opened: OpenContent, version: int) -> None:
        """Keep content, or the file of a large blob, that was opened at `version`, as `put_content`."""
        if opened.link is None:
            return
        if opened.data is not None:
            self.put_content(repository, digest, Content(opened.link, opened.data), version)
        elif opened.blob is not None and version == self.version:
            self._files.keep((repository, digest), opened.blob, opened.link)

    def close_files(self) -> None:
        """Close the files that are kept open: a file that is removed takes space until then."""
        self._files.clear()

    def copies(self, digests: Iterable[Digest]) -> dict[Digest, Content]:
        """Return those digests whose content is here, whatever repository has it; private if one says so."""
        self._drop_removed()
        wanted, found = set(digests), dict[Digest, Content]()
        for (_, digest), content in self._contents.items():
            known = found.get(digest)
            if digest in wanted and (known is None or content.origin is Origin.PRIVATE):
                found[digest] = content
        return found

    def put_content(self, repository: Repository, digest: Digest, content: Content, version: int) -> None:
        """Keep content that was read at `version`, unless there was a write since."""
        if version == self.version:
            self._absent.drop(digest)
            self._contents.put((repository, digest), content, len(content.data))

    def note_absent(self, repository: Repository, links: Mapping[Digest, Link], version: int) -> None:
        """Record blobs with a link that were not here at `version`, as `put_content`."""
        if version == self.version:
            for digest, link in links.items():
                self._absent.put(digest, (repository, link), 0)

    def take_absent(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link of a blob that is known to be missing, once: it will come, or be looked for."""
        self._drop_removed()
        known = self._absent.get(digest)
        if known is None or known[0] != repository:
            return None
        self._absent.drop(digest)
        return known[1]

    def forget(self, repository: Repository, digests: Iterable[Digest]) -> None:
        """Drop content about which something was written."""
        self._version += 1
        for digest in digests:
            self._absent.drop(digest)
            self._contents.drop((repository, digest))
            self._files.forget((repository, digest))

    def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return a tag entry."""
        self._drop_removed()
        return self._tags.get((repository, tag))

    def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry, version: int) -> None:
        """Keep a tag entry that was read at `version`, unless there was a write since."""
        if version == self.version:
            self._tags.put((repository, tag), entry, 0)

    def forget_tag(self, repository: Repository, tag: Tag) -> None:
        """Drop a tag entry that is being written."""
        self._version += 1
        self._tags.drop((repository, tag))

    def _drop_removed(self) -> None:
        """Drop everything if something was removed since the last look-up."""
        removal_epoch = self._removal_epoch()
        if removal_epoch == self._last_epoch:
            return
        self._last_epoch = removal_epoch
        self._version += 1
        self._tags.clear()
        self._contents.clear()
        self._absent.clear()
        self._files.clear()
