"""Pins of a cache folder."""

from mirror.manage.steps import Call, StepThread
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.pins.pin_file import PinEntry


class PinManagement:
    """The pins of a folder, by commands and by the configuration."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def add(self, pin: Pin) -> Call[int]:
        """Keep what matches; return how many bytes match, as far as they are known. Raises PinTooLarge."""
        return Call(self._worker, lambda: self._folder.pinning.pin(pin))

    def remove(self, images: ImagePattern) -> Call[bool]:
        """Remove a pin; return whether there was such a pin. Pins of the configuration stay."""
        return Call(self._worker, lambda: self._folder.pinning.unpin(images))

    def all(self) -> Call[list[PinEntry]]:
        """Return all pins."""
        return Call(self._worker, self._folder.pins.all)

    def sizes(self, pin: Pin) -> Call[tuple[int, int]]:
        """Return the known bytes of all that a pin keeps, and of its part that is here."""

        def count() -> tuple[int, int]:
            kept = self._folder.pins.closure([pin])
            here = self._folder.blobs.table.sizes_and_last_use(kept)
            return sum(kept.values()), sum(size for size, _ in here.values())

        return Call(self._worker, count)
