"""The headroom: a part of the quota that is kept free for prefetches, which evict nothing themselves.

Without it a cache at its quota would prefetch nothing. It is made of blobs that no client has used for
UNUSED_SECONDS, and by an allowance: what a manifest names is prefetched before a client asks for it, so a
hostile manifest must not be able to replace the content of the cache by way of the headroom. The allowance is

    the bytes of fetched blobs that clients have asked for
    and one headroom in each PERIOD
"""

import time
from collections.abc import Callable

from mirror.oci.digest import Digest

# The headroom is one part in this many of what the cache may hold, up to MOST_BYTES: the layers
# that are prefetched at a time.
SHARE = 25
MOST_BYTES = 2 * 1024**3

# How long, in seconds, a blob was not used before it makes way for the headroom.
UNUSED_SECONDS = 3600.0

# The time, in seconds, in which one headroom may be made although no client has asked for anything.
PERIOD = 600.0

# The most prefetched blobs that are remembered until a client asks for them.
REMEMBERED = 1024


def headroom(limit: int) -> int:
    """Return the bytes to keep free in a cache that may hold `limit` bytes."""
    return min(limit // SHARE, MOST_BYTES)


class Allowance:
    """The bytes that this process may evict for the headroom now.

    The event loop earns, and the holder of the eviction lock spends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(MOST_BYTES)
        self._at = clock()
        self._earned = 0
        self._prefetched: dict[Digest, int] = {}

    @property
    def earned(self) -> bool:
        """Return whether clients have asked for something since the last call of `left`."""
        return self._earned > 0

    def note_stored(self, digest: Digest, size: int, *, asked_for: bool) -> None:
        """Record a blob that was fetched, for a client or not (yet)."""
        if asked_for:
            self._earned += size
            return
        while len(self._prefetched) >= REMEMBERED:
            del self._prefetched[next(iter(self._prefetched))]
        self._prefetched[digest] = size

    def note_request(self, digest: Digest) -> None:
        """Record that a client asks for a blob, which may have been prefetched."""
        if self._prefetched:
            self._earned += self._prefetched.pop(digest, 0)

    def left(self, share: int) -> int:
        """Return the bytes that may go now; `share`: the headroom, which the allowance never exceeds."""
        now, earned, self._earned = self._clock(), self._earned, 0
        more = earned + share * (now - self._at) / PERIOD
        self._left, self._at = min(float(share), self._left + more), now
        return max(0, int(self._left))

    def spend(self, size: int) -> None:
        """Count `size` bytes as gone: perhaps more than was left, because a blob goes as a whole."""
        self._left -= size
