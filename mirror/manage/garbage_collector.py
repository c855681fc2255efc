"""Garbage collection: everything in the cache folder that will never be used, and whatever exceeds the quota.

Garbage does no harm but take room, and no mirror needs its removal to work.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from msgspec import Struct

from mirror.manage.inventory import Inventory
from mirror.manage.quota_excess import Freed, quota_excess
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.agreement import Agreement
from mirror.store.hosted.unnamed import UnnamedBlobs
from mirror.store.metadata.closure import digest_or_none
from mirror.store.metadata.hosted_names import HostedNames
from mirror.store.metadata.index import ROWS
from mirror.store.metadata.query import repositories, tags
from mirror.store.metadata.refcount import ReferenceCounts
from mirror.store.orphans import (
    Orphan,
    entries_without_file,
    files_without_entry,
    foreign_files,
    old_partials,
)
from mirror.store.shares.repository_share import share_excess

# Younger things may be about to become useful: a file before its entry, a link before its manifest; seconds.
YOUNG = 3600.0

# An interrupted download is resumed by the next client that asks; hardly after a day, in seconds.
RESUMABLE = 24 * 3600.0

FILE = "file without entry"
ENTRY = "entry without file"
PARTIAL = "interrupted download"
TAG = "tag entry whose manifest is gone"
LINK = "link to what is gone"
UNNAMED = "pushed blob that no manifest names"
UNLINKED = "kept blob of no hosted repository"
BLOB = "blob of no repository"
SHARE = "over its repository's share"
QUOTA = "over the quota"


class GarbageItem(Struct, frozen=True):
    """One removal: its kind, the name of the thing, and the bytes that are freed."""

    kind: str
    name: str
    size: int = 0


class GarbageCollector:
    """One run over a cache folder. With `dry_run` nothing is removed, and the same items are yielded.

    A dry run remembers what it would have removed, so that later steps see the cache as it would be then.
    """

    def __init__(self, folder: CacheDirectory, *, dry_run: bool, now: float | None = None) -> None:
        self._folder = folder
        self._remove = not dry_run
        self._now = time.time() if now is None else now
        self._removed: set[str] = set()  # blobs, by their digests
        self._removed_files: set[Path] = set()
        self._freed = Freed()  # of a dry run: what the disk does not show

    def items(self) -> Iterator[GarbageItem]:
        """Yield each removal, in an order in which one removal can make the next thing garbage."""
        yield from self._partials()
        yield from self._entries()
        yield from self._files()
        yield from self._metadata()
        yield from self._hosted()
        yield from self._blobs()
        yield from self._shares()
        yield from self._excess()

    def foreign(self) -> list[Path]:
        """Return what is in the cache folder and not the cache's own; it stays where it is."""
        return list(foreign_files(self._folder.blobs.folder, self._folder.partials))

    def _partials(self) -> Iterator[GarbageItem]:
        before = self._now - RESUMABLE
        for partial in old_partials(self._folder.partials, before, remove=self._remove):
            yield self._partial(partial)

    def _partial(self, partial: Orphan) -> GarbageItem:
        self._removed_files.add(partial.path)
        self._note_freed(partial.size)
        return GarbageItem(PARTIAL, partial.path.name, partial.size)

    def _entries(self) -> Iterator[GarbageItem]:
        for digest in entries_without_file(self._folder.blobs):
            self._removed.add(str(digest))
            if self._remove and (row := self._folder.blobs.table.row(str(digest))) is not None:
                self._folder.blobs.drop_entry(row)
            yield GarbageItem(ENTRY, str(digest))

    def _files(self) -> Iterator[GarbageItem]:
        for orphan in files_without_entry(self._folder.blobs, self._now - YOUNG):
            with suppress(OSError):  # a file that cannot be removed stays, and is not counted
                if self._remove:
                    orphan.path.unlink(missing_ok=True)
                else:
                    self._freed.unaccounted += orphan.size
                yield GarbageItem(FILE, orphan.path.name, orphan.size)

    def _metadata(self) -> Iterator[GarbageItem]:
        inventory, hosted = Inventory(self._folder), HostedNames(self._folder.index).all()
        for repository in repositories(self._folder.index, ImagePattern("*")):
            if repository.upstream in hosted:
                continue
            found = [each for each in inventory.of(repository) if self._known([str(each.root)])]
            named = {part.digest for each in found for part in each.parts}
            old_tags = list(self._tags(repository))
            old_links = list(self._links(repository, named))
            if self._remove and (old_tags or old_links):
                self._folder.writer.remove_images(repository, old_tags, old_links, ())
            yield from (GarbageItem(TAG, f"{repository}:{tag}") for tag in old_tags)
            yield from (GarbageItem(LINK, f"{repository}@{digest}") for digest in old_links)

    def _hosted(self) -> Iterator[GarbageItem]:
        """Yield what is garbage among pushes. What the mirror has too stays, and can be evicted."""
        search = UnnamedBlobs(self._folder, self._now)
        for repository in search.repositories():
            for blob in search.of(repository, remove=self._remove):
                name = f"{repository}@{blob.digest}"
                yield GarbageItem(UNNAMED, name, self._free(blob.digest, links=0 if self._remove else 1))
        for digest in Agreement(self._folder).unlinked(repair=self._remove, now=self._now):
            yield GarbageItem(UNLINKED, str(digest), self._free(digest, links=0))

    def _free(self, digest: Digest, links: int) -> int:
        """Remove a blob that has no more than `links` links; return the bytes that are free then."""
        row, uses = self._folder.blobs.table.row(str(digest)), ReferenceCounts(self._folder.index)
        if row is None or uses.links([str(digest)]).get(str(digest), 0) > links:
            return 0
        self._remove_blob(digest, row.size)
        return row.size

    def _tags(self, repository: Repository) -> Iterator[str]:
        for tag, entry in tags(self._folder.index, repository, ImagePattern("*")):
            gone = not self._known([entry.digest])
            pinned = self._folder.pins.matching(repository, tag, entry.digest)
            if gone and not pinned and entry.written < self._now - YOUNG:
                yield tag

    def _links(self, repository: Repository, named: set[Digest]) -> Iterator[Digest]:
        after = ""
        while links := self._folder.index.links(repository, after, ROWS):
            after = str(links[-1][0])
            old = [digest for digest, _, noted in links if noted < self._now - YOUNG and digest not in named]
            here = self._known(map(str, old))
            yield from (digest for digest in old if str(digest) not in here)

    def _known(self, digests: Iterable[str]) -> set[str]:
        """Return those digests whose blobs are here, and have not been removed by this run."""
        return self._folder.blobs.table.sizes_and_last_use(digests).keys() - self._removed

    def _blobs(self) -> Iterator[GarbageItem]:
        usage, pinned = ReferenceCounts(self._folder.index), self._folder.pins.pinned_sizes()
        entries = self._folder.blobs.table.entries(self._now - YOUNG)
        while some := list(islice(entries, ROWS)):
            texts = [text for text, _, _ in some]
            linked = usage.links(texts).keys() | self._folder.blobs.retention.retained_among(texts)
            for text, size, _ in some:
                digest = digest_or_none(text)  # None for a row that is not ours: `verify` reports it
                if digest is None or text in pinned or text in linked or text in self._removed:
                    continue
                self._remove_blob(digest, size)
                yield GarbageItem(BLOB, text, size)

    def _shares(self) -> Iterator[GarbageItem]:
        """Yield the blobs of repositories beyond their shares: a rule may be newer than what is here."""
        if not any(rule.max_share for rule in self._folder.rules):
            return
        for repository in repositories(self._folder.index, ImagePattern("*")):
            for blob in share_excess(self._folder, repository, self._removed, remove=self._remove):
                self._removed.add(str(blob.digest))
                self._note_freed(blob.size)
                yield GarbageItem(SHARE, str(blob.digest), blob.size)

    def _excess(self) -> Iterator[GarbageItem]:
        partials, blobs = quota_excess(
            self._folder,
            [Digest.parse(text) for text in self._removed],
            self._removed_files,
            self._freed,
            now=self._now,
            remove=self._remove,
        )
        yield from map(self._partial, partials)
        yield from (GarbageItem(QUOTA, str(blob.digest), blob.size) for blob in blobs)

    def _remove_blob(self, digest: Digest, size: int = 0) -> None:
        self._removed.add(str(digest))
        self._note_freed(size)
        if self._remove:
            self._folder.blobs.remove(digest)

    def _note_freed(self, size: int) -> None:
        self._freed.accounted += 0 if self._remove else size


def count_by_kind(items: Iterable[GarbageItem]) -> tuple[Counter[str], Counter[str]]:
    """Return how many items of each kind there are, and their bytes."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for item in items:
        counts[item.kind] += 1
        sizes[item.kind] += item.size
    return counts, sizes
