"""How much of what it can do this process does: where that is all, the line is not what is slow."""

import os
import time


class Effort:
    """Seconds of work, of the event loop's thread or of all threads on all processors, whichever is nearer
    to its limit. Made and asked in the event loop's thread.
    """

    def __init__(self) -> None:
        self._processors = len(os.sched_getaffinity(0))
        self._thread, self._process = time.thread_time(), time.process_time()
        self._seconds = 0.0

    def seconds(self) -> float:
        """In all since it was made; grows as fast as time where nothing more can be done."""
        thread, process = time.thread_time(), time.process_time()
        self._seconds += max(thread - self._thread, (process - self._process) / self._processors)
        self._thread, self._process = thread, process
        return self._seconds
