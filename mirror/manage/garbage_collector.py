"""Collecting garbage: what is in the cache folder and will never be used.

Nothing of it does any harm but take room, and nothing has to be collected for the mirror to work.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from mirror.manage.inventory import Inventory
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import ROWS
from mirror.store.metadata.query import repositories, tags
from mirror.store.metadata.refcount import ReferenceCounts
from mirror.store.orphans import entries_without_file, files_without_entry, old_partials

# What is younger may be about to become useful: a file without its entry yet, a link before its manifest.
YOUNG = 3600.0

# An interrupted download is resumed by the next client that asks; after a day nobody does, in seconds.
RESUMABLE = 24 * 3600.0

FILE = "file without entry"
ENTRY = "entry without file"
PARTIAL = "interrupted download"
TAG = "tag entry whose manifest is gone"
LINK = "link to what is gone"
BLOB = "blob of no repository"
QUOTA = "over the quota"


@dataclass(frozen=True, slots=True)
class GarbageItem:
    """One thing that goes: its kind, name, and the bytes that are freed."""

    kind: str
    name: str
    size: int = 0


class GarbageCollector:
    """Of one cache folder; with `dry_run` nothing is removed."""

    def __init__(self, folder: CacheDirectory, *, dry_run: bool, now: float | None = None) -> None:
        self._folder = folder
        self._remove = not dry_run
        self._now = time.time() if now is None else now

    def items(self) -> Iterator[GarbageItem]:
        """What goes, in an order in which one thing makes the next one garbage."""
        yield from self._partials()
        yield from self._files()
        yield from self._books()
        yield from self._blobs()
        if self._remove:
            for gone in self._folder.evict():
                yield GarbageItem(QUOTA, str(gone.digest), gone.size)
        elif (excess := self._folder.excess()) > 0:
            yield GarbageItem(QUOTA, "least recently used", excess)

    def _partials(self) -> Iterator[GarbageItem]:
        before = self._now - RESUMABLE
        for stray in old_partials(self._folder.partials, before, remove=self._remove):
            yield GarbageItem(PARTIAL, stray.path.name, stray.size)

    def _files(self) -> Iterator[GarbageItem]:
        for digest in entries_without_file(self._folder.blobs):
            if self._remove:
                self._folder.blobs.remove(digest)
            yield GarbageItem(ENTRY, str(digest))
        for stray in files_without_entry(self._folder.blobs, self._now - YOUNG):
            if self._remove:
                stray.path.unlink(missing_ok=True)
            yield GarbageItem(FILE, stray.path.name, stray.size)

    def _books(self) -> Iterator[GarbageItem]:
        inventory = Inventory(self._folder)
        dropped = False
        for repository in repositories(self._folder.index, ImagePattern("*")):
            found = [each for each in inventory.of(repository) if self._folder.blobs.has(each.root)]
            named = {part.digest for each in found for part in each.parts}
            old_tags = list(self._tags(repository))
            old_links = list(self._links(repository, named))
            if self._remove and (old_tags or old_links):
                dropped = True
                self._folder.index.drop(repository, old_tags, old_links)
            yield from (GarbageItem(TAG, f"{repository}:{tag}") for tag in old_tags)
            yield from (GarbageItem(LINK, f"{repository}@{digest}") for digest in old_links)
        if dropped:
            self._folder.epoch.note_removal()
            self._folder.epoch.note_pin_change()

    def _tags(self, repository: Repository) -> Iterator[str]:
        for tag, entry in tags(self._folder.index, repository, ImagePattern("*")):
            gone = not self._folder.blobs.sizes_and_last_use([entry.digest])
            pinned = self._folder.pins.matching(repository, tag, entry.digest)
            if gone and not pinned and entry.confirmed < self._now - YOUNG:
                yield tag

    def _links(self, repository: Repository, named: set[Digest]) -> Iterator[Digest]:
        after = ""
        while links := self._folder.index.links(repository, after, ROWS):
            after = str(links[-1][0])
            old = [digest for digest, _, noted in links if noted < self._now - YOUNG and digest not in named]
            here = self._folder.blobs.sizes_and_last_use(map(str, old))
            yield from (digest for digest in old if str(digest) not in here)

    def _blobs(self) -> Iterator[GarbageItem]:
        usage, pinned = ReferenceCounts(self._folder.index), self._folder.pins.pinned_sizes()
        entries = self._folder.blobs.entries(self._now - YOUNG)
        while some := list(islice(entries, ROWS)):
            linked = usage.links(text for text, _, _ in some)
            for text, size, _ in some:
                if text in pinned or text in linked:
                    continue
                if self._remove:
                    self._folder.blobs.remove(Digest.parse(text))
                yield GarbageItem(BLOB, text, size)
