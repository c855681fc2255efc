"""Pins: the content that they keep, computed from index and manifests, and cached until it changes.

A pin is stored as its pattern (`store.pins.pin_file`), never as a list of blobs. So a tag that is new or has
moved, a platform that is pulled for the first time, and a signature that appears later are pinned without
further action, and a tag that has moved leaves nothing pinned behind.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Repository
from mirror.store.invalidation import Epoch
from mirror.store.metadata.closure import Children, Closures, Part, digest_or_none
from mirror.store.metadata.index import Index
from mirror.store.metadata.query import repositories, tags
from mirror.store.pins.manifest_journal import BOOKS_LOST, read_journal, sizes_of, write_journal
from mirror.store.pins.pin_file import PinEntry, PinFile

# A number that no epoch has: nothing is cached yet.
NEVER = -1


class Pins:
    """The pins of one cache folder. Any thread may call; changes need `Evictor.lock`."""

    def __init__(
        self,
        folder: Path,
        index: Index,
        read: Callable[[Digest, int], bytes | None],
        epoch: Epoch,
    ) -> None:
        """Open; `read` as in Closures."""
        self._file = PinFile(folder / "pins")
        self._journal_path = folder / "kept"
        self._lost_mark = folder / BOOKS_LOST
        self._index = index
        self._read = read
        self._epoch = epoch
        self._all: tuple[int, list[PinEntry]] = (NEVER, [])
        self._sizes: tuple[int, Mapping[str, int]] = (NEVER, {})
        self._journal: Children | None = None
        self._written_journal: Children | None = None

    def all(self) -> list[PinEntry]:
        """Return every pin, sorted by pattern, those of the configuration first."""
        now = self._epoch.pin_changes()
        seen, pins = self._all
        if seen != now:
            pins = self._file.read()
            self._all = (now, pins)
        return pins

    def pinned_sizes(self) -> Mapping[str, int]:
        """Return sizes in bytes by digest, as text, of all pinned content, whether it is here or not."""
        now = self._epoch.pin_changes()
        seen, sizes = self._sizes
        if seen != now:
            sizes = self._compute_sizes()
            self._sizes = (now, sizes)
        return sizes

    def _compute_sizes(self) -> dict[str, int]:
        pins, before = self.all(), self._known()
        closures = Closures(self._index, self._read, before)
        sizes = self._closure(closures, (each.pin for each in pins))
        self._journal = closures.visited
        if self._lost_mark.exists():
            if not pins or before.keys() <= closures.visited.keys():
                self._lost_mark.unlink(missing_ok=True)
            else:  # index lost: tags are unknown, so the old closure stays until every image was pulled again
                self._journal = {**before, **closures.visited}
                sizes = {**sizes_of(before), **sizes}
        return sizes

    def write_journal(self) -> None:
        """Write the children of pinned manifests, for later, when the manifests may be missing."""
        self.pinned_sizes()
        if self._journal != self._written_journal:
            write_journal(self._journal_path, self._journal or {})
            self._written_journal = self._journal

    def _known(self) -> Children:
        """Return the children of pinned manifests that any process has read, while those were here."""
        self._written_journal = read_journal(self._journal_path)
        self._journal = {**self._written_journal, **(self._journal or {})}
        return self._journal

    def closure(self, pins: Iterable[Pin]) -> dict[str, int]:
        """Return sizes of the content that these pins would keep, as `pinned_sizes`."""
        return self._closure(Closures(self._index, self._read, self._known()), pins)

    def _closure(self, closures: Closures, pins: Iterable[Pin]) -> dict[str, int]:
        found: dict[str, int] = {}
        for pin in pins:
            for repository, root in self._roots(pin.images):
                parts = closures.parts(repository, root, pin.platforms)
                found.update((str(part.digest), part.size) for part in parts)
        return found

    def matching(self, repository: Repository, tag: str, digest: str) -> list[PinEntry]:
        """Return the pins that keep an image; `tag` is "" for none."""
        return [each for each in self.all() if each.pin.images.match(repository, tag, digest)]

    def note_change(self, repository: Repository) -> None:
        """Note a write about a repository: if a pin matches it, pinned content is computed again."""
        if any(each.pin.images.of(repository) for each in self.all()):
            self._epoch.note_pin_change()

    def add(self, pin: Pin) -> None:
        """Add a pin, or replace the one with the same pattern, with all its platforms."""
        others = [each for each in self._file.read() if each.configured or each.pin.images != pin.images]
        self._write([*others, PinEntry(pin, time.time(), configured=False)])
        # Evicted content may still be in the memory cache, and a pull served from there stores nothing.
        self._epoch.note_removal()

    def remove(self, images: ImagePattern) -> bool:
        """Remove the pin of a pattern; return whether there was one. Pins of the configuration stay."""
        known = self._file.read()
        left = [each for each in known if each.configured or each.pin.images != images]
        self._write(left)
        return len(left) < len(known)

    def configure(self, pins: Iterable[Pin]) -> None:
        """Replace the pins of the configuration, for all processes on the folder."""
        known = self._file.read()
        since = {each.pin: each.since for each in known if each.configured}
        wanted = [PinEntry(pin, since.get(pin, time.time()), configured=True) for pin in pins]
        self._write([*wanted, *(each for each in known if not each.configured)])

    def has_configured(self, pins: Iterable[Pin]) -> bool:
        """Return whether `pins` are the pins of the configuration already."""
        return {each.pin for each in self._file.read() if each.configured} == set(pins)

    def _write(self, pins: Iterable[PinEntry]) -> None:
        self._file.write(pins)
        self._epoch.note_pin_change()

    def _roots(self, images: ImagePattern) -> Iterator[tuple[Repository, Part]]:
        for repository in repositories(self._index, images):
            if images.digest is not None:
                link = self._index.link(repository, images.digest)
                if link is not None:
                    yield repository, Part(images.digest, link.size or 0, link.media_type is not None)
                continue
            for _, entry in tags(self._index, repository, images):
                if (digest := digest_or_none(entry.digest)) is not None:
                    yield repository, Part(digest, entry.size, True)
