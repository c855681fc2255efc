"""Removing images: their tag entries, the links to what only they need, the blobs that nothing else needs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mirror.manage.inventory import Inventory, StoredImage
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import Closures
from mirror.store.metadata.query import repositories
from mirror.store.metadata.refcount import ReferenceCounts


@dataclass(frozen=True, slots=True)
class RemovalStep:
    """What goes of one repository. `images` and `pinned` (which stay) as references, `freed` in bytes."""

    repository: Repository
    images: tuple[str, ...]
    pinned: tuple[str, ...]
    tags: tuple[str, ...]
    links: tuple[Digest, ...]
    blobs: tuple[Digest, ...]
    freed: int


class ImageRemoval:
    """Of the images that match; pinned ones only when `forced`."""

    def __init__(self, folder: CacheDirectory, wanted: ImagePattern, *, forced: bool = False) -> None:
        self._folder = folder
        self._wanted = wanted
        self._forced = forced
        self._inventory = Inventory(folder)
        self._usage = ReferenceCounts(folder.index)
        self._closures = Closures(folder.index, folder.read)
        self._given_up: Counter[str] = Counter()

    def steps(self) -> Iterator[RemovalStep]:
        """One for each repository with an image that matches; nothing is changed."""
        for repository in repositories(self._folder.index, self._wanted):
            found = self._inventory.of(repository)
            chosen = [each for each in found if self._matches(repository, each)]
            if chosen:
                pinned = [] if self._forced else [each for each in chosen if self._pinned(repository, each)]
                goes = [each for each in chosen if each not in pinned]
                yield self._step(repository, goes, pinned, [each for each in found if each not in goes])

    def carry_out(self) -> Iterator[RemovalStep]:
        """The same, done. Links before blobs, so that no repository has what is not here any more."""
        steps = self.steps()
        while True:
            # A repository at a time, so that a running mirror does not wait long for its next eviction.
            with self._folder.eviction_lock():
                step = next(steps, None)
                if step is None:
                    return
                self._remove(step)
                self._given_up.clear()  # what is gone is not counted any more
            yield step

    def _remove(self, step: RemovalStep) -> None:
        try:
            self._folder.index.drop(step.repository, step.tags, step.links)
        finally:
            # However far it came, what is in memory of it ends.
            self._folder.epoch.note_removal()
            self._folder.epoch.note_pin_change()
        for digest in step.blobs:
            self._folder.blobs.remove(digest)

    def _step(
        self,
        repository: Repository,
        goes: list[StoredImage],
        pinned: list[StoredImage],
        stays: list[StoredImage],
    ) -> RemovalStep:
        needed = {part.digest for each in stays for part in each.parts}
        parts = {part.digest: part for each in goes for part in each.parts if part.digest not in needed}
        about = [
            tag
            for part in parts.values()
            if part.is_manifest
            for tag in self._closures.referring_tags(repository, part.digest)
        ]
        blobs, freed = self._freed(repository, list(parts))
        return RemovalStep(
            repository,
            images=tuple(_reference(repository, each) for each in goes),
            pinned=tuple(_reference(repository, each) for each in pinned),
            tags=tuple(dict.fromkeys([*(each.tag for each in goes if each.tag), *about])),
            links=tuple(parts),
            blobs=blobs,
            freed=freed,
        )

    def _freed(self, repository: Repository, digests: list[Digest]) -> tuple[tuple[Digest, ...], int]:
        """Which of them are here, and linked by none but this repository and those that went before.

        Nor pinned: a link that could not be written, when the disk was full, must not cost what was promised.
        """
        index = self._folder.index
        here = self._folder.blobs.sizes_and_last_use(map(str, digests))
        links = self._usage.links(here)
        self._given_up.update(text for text in here if index.link(repository, Digest.parse(text)))
        kept: Mapping[str, int] = {} if self._forced else self._folder.pins.pinned_sizes()
        gone = [text for text in here if links.get(text, 0) <= self._given_up[text] and text not in kept]
        for text in gone:
            del self._given_up[text]
        return tuple(map(Digest.parse, gone)), sum(here[text][0] for text in gone)

    def _matches(self, repository: Repository, found: StoredImage) -> bool:
        return self._wanted.match(repository, found.tag, str(found.root))

    def _pinned(self, repository: Repository, found: StoredImage) -> bool:
        return bool(self._folder.pins.matching(repository, found.tag, str(found.root)))


def _reference(repository: Repository, found: StoredImage) -> str:
    return f"{repository}:{found.tag}" if found.tag else f"{repository}@{found.root}"
