"""Failures of one download in a row: how many there have been, and how long to wait after the last; pure."""

import math
from collections.abc import Sequence

from mirror.upstream.http.low_speed import made_progress


class ConsecutiveFailures:
    """A failure after which much had come is the first one again, a break costs nothing then.

    What came in the meantime over all connections counts. Those that broke together, because what they led to
    is gone, have failed once.
    """

    def __init__(self, most: int) -> None:
        """`most`: as many in a row are bearable."""
        self._most = most
        self._in_a_row = 0
        self._received = 0
        self._last = -math.inf

    def happened(self, began: float, received: int, now: float) -> None:
        """An attempt failed that was made at `began`; `received`: bytes by now."""
        if began < self._last:
            return
        seconds = now - max(began, self._last)
        worth = made_progress(received - self._received, seconds)
        self._in_a_row = 0 if worth else self._in_a_row + 1
        self._received, self._last = received, now

    @property
    def too_many(self) -> bool:
        return self._in_a_row > self._most

    def pause(self, pauses: Sequence[float]) -> float:
        """Seconds to wait before the next attempt; the last of `pauses` repeats."""
        return pauses[min(self._in_a_row, len(pauses)) - 1] if self._in_a_row else 0.0
