"""CPU load of this process: where the processor is saturated, the network is not the bottleneck."""

import os
import time

# The shortest time over which saturation is measured, in seconds.
MEASURE_SECONDS = 0.2


class CpuLoad:
    """Processor time of the event loop's thread, or of all threads on all processors, whichever is nearer to
    its limit. Made and used in the event loop's thread.
    """

    def __init__(self, busy_share: float) -> None:
        """`busy_share`: the share of the time above which the process is saturated."""
        self._busy_share = busy_share
        self._processors = len(os.sched_getaffinity(0))
        self._thread, self._process = time.thread_time(), time.process_time()
        self._seconds = 0.0
        self._measured = (time.monotonic(), 0.0)
        self._saturated = False

    def seconds(self) -> float:
        """Return the seconds of work since construction; they grow as fast as time under full load."""
        thread, process = time.thread_time(), time.process_time()
        self._seconds += max(thread - self._thread, (process - self._process) / self._processors)
        self._thread, self._process = thread, process
        return self._seconds

    def saturated(self) -> bool:
        """Return whether this process could hardly have done more lately: late bytes may have waited here."""
        now, (since, before) = time.monotonic(), self._measured
        if now - since >= MEASURE_SECONDS:  # the kernel adds up the times of all threads
            worked = self.seconds()
            self._saturated = worked - before > self._busy_share * (now - since)
            self._measured = now, worked
        return self._saturated
