"""The plan of an upkeep: which blobs of the object store go; pure.

Never a blob that is pinned by a mirror, that was used within GRACE_SECONDS (so that one that is being read
stays), or that was written within them (by a mirror of an earlier version, for instance, which marks no
uses). Of the rest those go that were not used for the longest time. Their list is read twice: a store of
millions of blobs takes no memory for each of them.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping

from msgspec import Struct

from mirror.shared.interfaces import TierObject
from mirror.shared.upkeep.marks import mark_of

HOUR = 3600.0

# Uses are known by the hour, and written some minutes later.
GRACE_SECONDS = 2 * HOUR

# A store that is beyond its quota is brought this far below it, so that not each blob costs an upkeep.
LOW_WATER = 0.95


class TierLimits(Struct, frozen=True):
    """The limits of a tier: `size` in bytes, 0 for none; `age` in seconds since the last use.

    `grace`: seconds after its last use in which a blob stays in any case.
    """

    size: int = 0
    age: float = math.inf
    grace: float = GRACE_SECONDS

    @property
    def any(self) -> bool:
        """Return whether anything is to be removed ever."""
        return self.size > 0 or self.age < math.inf


class Knowledge(Struct, frozen=True):
    """Last uses of blobs, in seconds since the epoch, and the pinned ones, by their marks."""

    used: Mapping[bytes, float]
    pinned: Collection[bytes]

    def last_use(self, blob: TierObject) -> float:
        """Return when a blob was last used or written."""
        return max(blob.modified, self.used.get(mark_of(blob.digest), 0.0))


class TierCleaning:
    """The choice: `count` each blob, `decide`, then ask of each blob whether it `goes`."""

    def __init__(self, knowledge: Knowledge, limits: TierLimits, now: float) -> None:
        self.blobs = 0
        self.size = 0
        self._knowledge = knowledge
        self._limits = limits
        self._now = now
        self._sizes: Counter[int] = Counter()  # of what may go, by the hour of its last use
        self._last_hour = -1  # the last hour of which something goes for the quota
        self._left = 0  # bytes that still have to go of that hour

    def count(self, blob: TierObject) -> None:
        """Count a blob of the list."""
        self.blobs += 1
        self.size += blob.size
        used = self._knowledge.last_use(blob)
        if self._may_go(blob, used):
            self._sizes[int(used // HOUR)] += blob.size

    def decide(self) -> None:
        """Decide how much of which hour goes."""
        limit = self._limits.size
        excess = self.size - int(limit * LOW_WATER) if 0 < limit < self.size else 0
        for hour in sorted(self._sizes):
            if excess <= 0:
                return
            self._last_hour, self._left = hour, excess
            excess -= self._sizes[hour]

    def goes(self, blob: TierObject) -> bool:
        """Return whether a blob is to be removed, which it is then."""
        used = self._knowledge.last_use(blob)
        if not self._may_go(blob, used):
            return False
        hour = int(used // HOUR)
        if self._now - used > self._limits.age or hour < self._last_hour:
            return True
        if hour == self._last_hour and self._left > 0:
            self._left -= blob.size
            return True
        return False

    def _may_go(self, blob: TierObject, used: float) -> bool:
        return self._now - used >= self._limits.grace and mark_of(blob.digest) not in self._knowledge.pinned
