"""How much of what it can do this process does: where that is all, the line is not what is slow."""

import os
import time

from mirror.transfer.plan import BUSY

# Over how long, at least, it is looked at how busy this process is, in seconds.
WHILE = 0.2


class CpuLoad:
    """Seconds of work, of the event loop's thread or of all threads on all processors, whichever is nearer
    to its limit. Made and asked in the event loop's thread.
    """

    def __init__(self) -> None:
        self._processors = len(os.sched_getaffinity(0))
        self._thread, self._process = time.thread_time(), time.process_time()
        self._seconds = 0.0
        self._looked = (time.monotonic(), 0.0)
        self._strained = False

    def seconds(self) -> float:
        """In all since it was made; grows as fast as time where nothing more can be done."""
        thread, process = time.thread_time(), time.process_time()
        self._seconds += max(thread - self._thread, (process - self._process) / self._processors)
        self._thread, self._process = thread, process
        return self._seconds

    def saturated(self) -> bool:
        """Whether it could hardly have done more of late: what comes late may have waited here."""
        now, worked = time.monotonic(), self.seconds()
        since, before = self._looked
        if now - since >= WHILE:
            self._strained = worked - before > BUSY * (now - since)
            self._looked = now, worked
        return self._strained
