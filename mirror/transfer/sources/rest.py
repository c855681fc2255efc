"""The rest of a blob that clients read by ranges: the parts that no client has asked for (`fill.rest`).

A lazy client reads a few per cent of a large layer. Parts that were asked for are always fetched, and first.
The rest follows at once ("always"), while no client of this mirror waits for an upstream ("idle"), or not at
all ("never"). A fill that has nothing to fetch for now is *parked*: it keeps its lock and its readers, so
that the next range costs no new fill, and leaves its turn to others. With "never" it ends LINGER_SECONDS
after its last client; the partial stays, and the next request continues it.
"""

import time
from collections.abc import Callable, Sequence
from enum import Enum

from mirror.oci.ranges import Span
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.transfer import FillWindow

# Time without a client, in seconds, after which a parked fill ends. Lazy clients come back within seconds,
# and a new fill costs a HEAD or a redirect.
LINGER_SECONDS = 10.0

# Time, in seconds, for which no client must have waited for an upstream before the rest is fetched: between
# two ranges of a lazy client the mirror is not idle.
IDLE_SECONDS = 1.0

# Chunks of a blob that is read by ranges are not longer, in bytes: each range is fetched in whole chunks.
LAZY_CHUNK = 256 * 1024

# Bytes of parts that are requested all at once, up to the maximum of connections: more is planned as a whole.
SMALL_PARTS = 8 * 1024 * 1024


class RestWay(Enum):
    """A setting of `fill.rest`."""

    ALWAYS = "always"
    IDLE = "idle"
    NEVER = "never"


class RestPolicy:
    """The decisions of one fill: which gaps to fetch now, and whether anything is left to do.

    `idle_seconds` returns for how long no client has waited for an upstream. `attended`: a client is here.
    """

    def __init__(
        self,
        way: RestWay,
        demand: Demand,
        idle_seconds: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        *,
        window: FillWindow | None = None,
    ) -> None:
        self.demand = demand
        self.attended = True
        self.parked = False  # nothing is to be fetched for now
        self.fetches_rest = False  # what is fetched was not asked for
        self._way = way
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._window = window
        self._used = clock()  # when something that was asked for was missing, or a client was here
        if way is RestWay.ALWAYS:
            demand.set_whole()

    def gaps(self, growing: GrowingFile) -> Sequence[Span]:
        """Return the gaps to fetch now; none while the fill is parked."""
        missing = growing.missing()
        self.parked = self.fetches_rest = False
        if not self.demand.whole:
            self._take_requests(growing)
            growing.release_tail()
        wanted = self.demand.gaps(missing)
        if wanted or self.attended:
            self._used = self._clock()
        if wanted or self.demand.whole:
            return wanted if self._window is None else self._window.cut(growing, wanted)
        if self._way is RestWay.IDLE and self._idle_seconds() >= IDLE_SECONDS:
            self.fetches_rest = True
            return missing
        self.parked = True
        return ()

    def level(self, gaps: Sequence[Span], level: int, most: int) -> int:
        """Return the number of segments to have for `gaps`: a request for each part that is small.

        `level`: the number for all of a blob, `most`: the maximum.
        """
        if self.fetches_rest:
            return 1
        if self.demand.whole or sum(each.length for each in gaps) > SMALL_PARTS:
            return level
        return max(level, min(len(gaps), most))

    def length(self, length: int) -> int:
        """Return the bytes that one request is for: all of a part, unless it is long.

        `length`: the same for a whole blob, which is divided into more requests.
        """
        return length if self.demand.whole else max(length, SMALL_PARTS)

    def is_over(self, growing: GrowingFile) -> bool:
        """Return whether nothing is missing, or nothing more is to be fetched and no client is here."""
        if not growing.missing():
            return True
        if self._way is not RestWay.NEVER or not self.parked or self.attended:
            return False
        return self._clock() - self._used >= LINGER_SECONDS

    def _take_requests(self, growing: GrowingFile) -> None:
        """Add what readers of other processes wait for."""
        offsets, whole = growing.remote_requests()
        for offset in offsets:
            self.demand.ask_chunk(offset)
        if whole or growing.withheld or (self._way is RestWay.IDLE and self.demand.is_eager()):
            self.demand.set_whole()
