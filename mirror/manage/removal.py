"""Removal of images: their tag entries, the links that only they need, the blobs that nothing else needs."""

from collections import Counter
from collections.abc import Iterator, Mapping

from msgspec import Struct

from mirror.manage.inventory import Inventory, StoredImage
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.metadata.closure import Closures
from mirror.store.metadata.hosted_names import HostedNames
from mirror.store.metadata.query import repositories
from mirror.store.metadata.refcount import ReferenceCounts


class RemovalStep(Struct, frozen=True):
    """The removals from one repository. `pinned` images match too, and stay. `freed`: bytes.

    `hosted`: the images were pushed here, and no upstream has them. `manifests`: those among the links.
    """

    repository: Repository
    images: tuple[str, ...]
    pinned: tuple[str, ...]
    tags: tuple[str, ...]
    links: tuple[Digest, ...]
    blobs: tuple[Digest, ...]
    freed: int
    manifests: tuple[Digest, ...] = ()
    hosted: bool = False

    @property
    def references(self) -> list[Tag | Digest]:
        """The references that were removed: tags, and digests of manifests."""
        return [*map(Tag.parse, self.tags), *self.manifests]


class ImageRemoval:
    """Removal of the images that match; of pinned ones only if `forced`."""

    def __init__(self, folder: CacheDirectory, wanted: ImagePattern, *, forced: bool = False) -> None:
        self._folder = folder
        self._wanted = wanted
        self._forced = forced
        self._inventory = Inventory(folder)
        self._usage = ReferenceCounts(folder.index)
        self._closures = Closures(folder.index, folder.reader.read)
        self._dropped_links: Counter[str] = Counter()
        self._hosted = HostedNames(folder.index).all()

    def steps(self) -> Iterator[RemovalStep]:
        """Yield a step for each repository with an image that matches. Nothing is changed."""
        for repository in repositories(self._folder.index, self._wanted):
            found = self._inventory.of(repository)
            chosen = [each for each in found if self._matches(repository, each)]
            if chosen:
                pinned = (
                    [] if self._forced else [each for each in chosen if self._is_pinned(repository, each)]
                )
                removed = [each for each in chosen if each not in pinned]
                yield self._step(repository, removed, pinned, [each for each in found if each not in removed])

    def carry_out(self) -> Iterator[RemovalStep]:
        """Remove, and yield each step once it is done."""
        steps = self.steps()
        while True:
            # One repository at a time: a running mirror must not wait long for its next eviction.
            with self._folder.evictor.lock():
                step = next(steps, None)
                if step is None:
                    return
                self._remove(step)
                self._dropped_links.clear()  # the index does not count them any more
            yield step

    def _remove(self, step: RemovalStep) -> None:
        if not step.hosted:
            self._folder.writer.remove_images(step.repository, step.tags, step.links, step.blobs)
            return
        HostedIndex(self._folder).remove(step.repository, step.tags, step.links)
        for digest in step.blobs:
            self._folder.blobs.remove(digest)

    def _step(
        self,
        repository: Repository,
        removed: list[StoredImage],
        pinned: list[StoredImage],
        others: list[StoredImage],
    ) -> RemovalStep:
        needed = {part.digest for each in others for part in each.parts}
        parts = {part.digest: part for each in removed for part in each.parts if part.digest not in needed}
        signatures = [
            tag
            for part in parts.values()
            if part.is_manifest
            for tag in self._closures.referring_tags(repository, part.digest)
        ]
        blobs, freed = self._unneeded_blobs(repository, list(parts))
        return RemovalStep(
            repository,
            images=tuple(_reference(repository, each) for each in removed),
            pinned=tuple(_reference(repository, each) for each in pinned),
            tags=tuple(dict.fromkeys([*(each.tag for each in removed if each.tag), *signatures])),
            links=tuple(parts),
            blobs=blobs,
            freed=freed,
            manifests=tuple(digest for digest, part in parts.items() if part.is_manifest),
            hosted=repository.upstream in self._hosted,
        )

    def _unneeded_blobs(
        self, repository: Repository, digests: list[Digest]
    ) -> tuple[tuple[Digest, ...], int]:
        """Return the blobs that no other repository links, and their bytes.

        Links of repositories that were removed earlier in this run do not count. Pinned blobs stay even
        without a link: the link may be missing only because the disk was full.
        """
        index = self._folder.index
        here = self._folder.blobs.table.sizes_and_last_use(map(str, digests))
        links = self._usage.links(here)
        self._dropped_links.update(text for text in here if index.link(repository, Digest.parse(text)))
        pinned: Mapping[str, int] = {} if self._forced else self._folder.pins.pinned_sizes()
        freed = [
            text for text in here if links.get(text, 0) <= self._dropped_links[text] and text not in pinned
        ]
        for text in freed:
            del self._dropped_links[text]
        return tuple(map(Digest.parse, freed)), sum(here[text][0] for text in freed)

    def _matches(self, repository: Repository, found: StoredImage) -> bool:
        return self._wanted.match(repository, found.tag, str(found.root))

    def _is_pinned(self, repository: Repository, found: StoredImage) -> bool:
        return bool(self._folder.pins.matching(repository, found.tag, str(found.root)))


def _reference(repository: Repository, found: StoredImage) -> str:
    return f"{repository}:{found.tag}" if found.tag else f"{repository}@{found.root}"
