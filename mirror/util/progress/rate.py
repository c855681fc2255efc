"""The rate of an operation over the last seconds; pure: the clock is passed in."""

from collections import deque

# The rate is that of this many seconds, so that it follows a connection that becomes slow or fast.
WINDOW_SECONDS = 10.0

# Samples of the window are at least this many seconds apart, which bounds their number.
SAMPLE_SECONDS = 0.25


class RateWindow:
    """The rate over the last WINDOW_SECONDS, from samples of a growing number."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Note that `done` is reached at `now`."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < SAMPLE_SECONDS:
            samples.pop()
        samples.append((now, done))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_SECONDS:
            samples.popleft()

    def rate(self, now: float) -> float:
        """Return the rate until `now`, in units per second; 0.0 before there are two samples."""
        if not self._samples:
            return 0.0
        (began, first), (_, last) = self._samples[0], self._samples[-1]
        return max(0, last - first) / (now - began) if now > began else 0.0
