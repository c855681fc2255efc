"""The watch over free space: says once when nothing can be kept, and once when that is over."""

import time
from collections.abc import Callable

from mirror.store.blobs.quota import Shortage
from mirror.util.log import get_logger

log = get_logger(__name__)

# A shortage is over when this many bytes are left for the cache: at 0 it would come and go with each file.
MARGIN_BYTES = 16 * 1024 * 1024


class RoomWatch:
    """The shortage of room, if any, as one process sees it; `since` in seconds since the epoch."""

    def __init__(
        self, shortage: Callable[[int], Shortage | None], clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare; `shortage` is `Evictor.shortage`, called with a margin in bytes; it blocks."""
        self._shortage = shortage
        self._clock = clock
        self.current: Shortage | None = None
        self.since = 0.0

    def look(self, *, report: bool) -> None:
        """Look at the file system, and log a change if `report` (one of several workers does). Blocks."""
        before, self.current = self.current, self._shortage(MARGIN_BYTES if self.current else 0)
        if before is None and self.current is not None:
            self.since = self._clock()
            if report:
                log.warning(str(self.current))
        elif before is not None and self.current is None and report:
            seconds = round(self._clock() - self.since, 1)
            log.info("there is room for the cache again", seconds=seconds)
