"""Consecutive failures of one download: their number, and the pause after the last one; pure."""

import math
from collections.abc import Sequence

from mirror.upstream.http.low_speed import made_progress


class ConsecutiveFailures:
    """Count of consecutive failures. A failure after real progress counts as the first one again.

    Progress is what all connections together received in the meantime. Requests that were started before the
    last failure fail for the same reason, and count as one failure with it.
    """

    def __init__(self, most: int) -> None:
        """`most`: the number of consecutive failures that a download survives."""
        self._most = most
        self._count = 0
        self._received = 0
        self._last = -math.inf

    def record(self, began: float, received: int, now: float) -> None:
        """Count a failed attempt that was started at `began`; `received`: bytes of the download by now."""
        if began < self._last:
            return
        seconds = now - max(began, self._last)
        progress = made_progress(received - self._received, seconds)
        self._count = 0 if progress else self._count + 1
        self._received, self._last = received, now

    @property
    def too_many(self) -> bool:
        return self._count > self._most

    @property
    def next_is_last(self) -> bool:
        """Return whether the download survives no further failure."""
        return self._count >= self._most

    def pause(self, pauses: Sequence[float]) -> float:
        """Return the seconds to wait before the next attempt; the last of `pauses` repeats."""
        return pauses[min(self._count, len(pauses)) - 1] if self._count else 0.0
