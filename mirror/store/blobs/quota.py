"""The quota: how many bytes the cache may take. Pure; `store.eviction` applies it."""

import math
from pathlib import Path

from msgspec import Struct

from mirror.config.schema import CacheSettings
from mirror.util.units import size

# A blob that was used within this time, in seconds, is in use: it is evicted last, and never for its age.
# Longer than the interval between writes of last-use times.
IN_USE = 30.0

# Room is made as the bytes of a fill come: looked for after ROOM_STEP bytes, for ROOM_AHEAD more.
ROOM_STEP = 32 * 1024 * 1024
ROOM_AHEAD = 2 * ROOM_STEP

# Bytes to free on a full disk besides those that are needed, so that the disk is not full again at once.
MORE_ROOM = 16 * 1024 * 1024


class DiskRoom(Struct, frozen=True):
    """The room on the disk, in bytes: of the file system, and used by the cache.

    `used`: by blobs, and by what fills have written.
    """

    total: int
    free: int
    used: int


class Shortage(Struct, frozen=True):
    """A folder on whose file system `min_free` leaves no room for the cache. In bytes."""

    folder: Path
    free: int
    min_free: int

    @property
    def reason(self) -> str:
        """Return what is wrong, with the figures."""
        return (
            f"{size(self.free)} are free in {self.folder}, and cache.min_free = {size(self.min_free)}"
            " leaves 0 B for the cache: nothing will be kept"
        )

    @property
    def to_do(self) -> str:
        """Return what the operator can do."""
        return "free some space, or lower cache.min_free"

    def __str__(self) -> str:
        return f"{self.reason}; {self.to_do}"


class Quota(Struct, frozen=True):
    """The limits of one cache: `max_size` and `min_free` in bytes, `max_age` in seconds since the last use.

    0 is no limit of size, `math.inf` none of age.
    """

    max_size: int = 0
    min_free: int = 0
    max_age: float = math.inf

    @classmethod
    def for_disk(cls, settings: CacheSettings, total: int) -> "Quota":
        """Return the quota that the settings mean on a file system of `total` bytes."""
        return cls(settings.max_size.of(total), settings.min_free.of(total), settings.max_age)

    def excess(self, room: DiskRoom, ahead: int = 0) -> int:
        """Return how many bytes must go for `ahead` more bytes to be written."""
        over = room.used + ahead - self.max_size if self.max_size else 0
        return max(over, self.min_free + ahead - room.free, 0)

    def size_limit(self, room: DiskRoom) -> int:
        """Return how many bytes the cache may hold, while other files on the file system stay as they are."""
        free = max(0, room.used + room.free - self.min_free)
        return min(self.max_size, free) if self.max_size else free

    def shortage(self, room: DiskRoom, folder: Path, margin: int = 0) -> Shortage | None:
        """Return the shortage if `min_free` leaves the cache no more than `margin` bytes; None otherwise."""
        if not self.min_free or room.used + room.free - self.min_free > margin:
            return None
        return Shortage(folder, room.free, self.min_free)
