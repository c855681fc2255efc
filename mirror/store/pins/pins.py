"""Pins: what they keep, worked out from books and manifests, and remembered until something of it changes.

A pin is written down as its pattern (`store.pinfile`), and never which blobs that means. So a tag that is
new or has moved, a platform that is pulled for the first time, and a signature that turns up later are
pinned without anybody doing anything, and a tag that has moved on leaves nothing behind.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Repository
from mirror.store.invalidation import Epoch
from mirror.store.metadata.closure import Closures, Named, Part, digest_or_none
from mirror.store.metadata.index import Index
from mirror.store.metadata.query import repositories, tags
from mirror.store.pins.manifest_journal import BOOKS_LOST, read_journal, sizes_of, write_journal
from mirror.store.pins.pin_file import PinFile, Pinned

# A number that no generation has: nothing was looked at yet.
NEVER = -1


class Pins:
    """Of one cache folder. Any thread may call; who changes something holds `Folder.changing`.

    `read` as in Closures.
    """

    def __init__(
        self,
        folder: Path,
        index: Index,
        read: Callable[[Digest, int], bytes | None],
        epoch: Epoch,
    ) -> None:
        self._file = PinFile(folder / "pins")
        self._path = folder / "kept"
        self._lost = folder / BOOKS_LOST
        self._index = index
        self._read = read
        self._epoch = epoch
        self._all: tuple[int, list[Pinned]] = (NEVER, [])
        self._kept: tuple[int, Mapping[str, int]] = (NEVER, {})
        self._known: Named | None = None
        self._written: Named | None = None

    def all(self) -> list[Pinned]:
        """Every pin, in the order of the patterns, those of the configuration first."""
        now = self._epoch.pin_changes()
        seen, pins = self._all
        if seen != now:
            pins = self._file.read()
            self._all = (now, pins)
        return pins

    def pinned_sizes(self) -> Mapping[str, int]:
        """The digests, as text, of all that is pinned, and their sizes in bytes, be they here or not."""
        now = self._epoch.pin_changes()
        seen, kept = self._kept
        if seen != now:
            kept = self._kept_now()
            self._kept = (now, kept)
        return kept

    def _kept_now(self) -> dict[str, int]:
        walk, pins = self._walk(), self.all()
        before = self._known or {}
        kept = self._closure(walk, (each.pin for each in pins))
        self._known = walk.visited
        if self._lost.exists():
            if not pins or before.keys() <= walk.visited.keys():
                self._lost.unlink(missing_ok=True)
            else:  # nobody knows what tags pointed to: until all is asked for again, what was kept stays
                self._known = {**before, **walk.visited}
                kept = {**sizes_of(before), **kept}
        return kept

    def write_journal(self) -> None:
        """Have what is pinned known to those who come later, when manifests may not be here any more."""
        self.pinned_sizes()
        if self._known != self._written:
            write_journal(self._path, self._known or {})
            self._written = self._known

    def _walk(self) -> Closures:
        if self._known is None:
            self._known = self._written = read_journal(self._path)
        return Closures(self._index, self._read, self._known)

    def closure(self, pins: Iterable[Pin]) -> dict[str, int]:
        """What these pins keep, as `kept`."""
        return self._closure(self._walk(), pins)

    def _closure(self, walk: Closures, pins: Iterable[Pin]) -> dict[str, int]:
        found: dict[str, int] = {}
        for pin in pins:
            for repository, root in self._roots(pin.images):
                parts = walk.parts(repository, root, pin.platforms)
                found.update((str(part.digest), part.size) for part in parts)
        return found

    def matching(self, repository: Repository, tag: str, digest: str) -> list[Pinned]:
        """The pins by which an image stays; `tag` is "" for none."""
        return [each for each in self.all() if each.pin.images.match(repository, tag, digest)]

    def note_change(self, repository: Repository) -> None:
        """Something was written about the repository: if a pin is for it, what is pinned may be more now."""
        if any(each.pin.images.of(repository) for each in self.all()):
            self._epoch.note_pin_change()

    def add(self, pin: Pin) -> None:
        """Or replace the one with this pattern, with all its platforms."""
        others = [each for each in self._file.read() if each.configured or each.pin.images != pin.images]
        self._write([*others, Pinned(pin, time.time(), configured=False)])
        # Of what was evicted memory may have a copy, and a pull that is served from that keeps nothing.
        self._epoch.note_removal()

    def remove(self, images: ImagePattern) -> bool:
        """Whether there was such a pin; those of the configuration stay."""
        known = self._file.read()
        left = [each for each in known if each.configured or each.pin.images != images]
        self._write(left)
        return len(left) < len(known)

    def configure(self, pins: Iterable[Pin]) -> None:
        """Make those of the configuration these, for all processes on the folder to know."""
        known = self._file.read()
        since = {each.pin: each.since for each in known if each.configured}
        wanted = [Pinned(pin, since.get(pin, time.time()), configured=True) for pin in pins]
        self._write([*wanted, *(each for each in known if not each.configured)])

    def has_configured(self, pins: Iterable[Pin]) -> bool:
        """Whether those of the configuration are these."""
        return {each.pin for each in self._file.read() if each.configured} == set(pins)

    def _write(self, pins: Iterable[Pinned]) -> None:
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
