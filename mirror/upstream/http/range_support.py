"""Range support of a source, as its answers have shown.

A source that mis-answers a range is asked for whole blobs for a while. Not for good: the proxy or the store
that refused may be replaced, and ranges are worth having.
"""

import math
import time
from collections.abc import Callable

# How long ranges are not asked for, in seconds: after a refusal, and after a failure that may have had
# another cause, such as a restart of the source. Chosen, not measured.
REFUSED_FOR = 600.0
DOUBTED_FOR = 60.0


class RangeSupport:
    """Range support of one source: assumed until an answer shows otherwise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused_until = -math.inf

    @property
    def available(self) -> bool:
        """True if ranges may be asked for."""
        return self._clock() >= self._refused_until

    def confirm(self) -> None:
        """Record a range that was answered as asked."""
        self._refused_until = -math.inf

    def refuse(self, seconds: float = REFUSED_FOR) -> None:
        """Ask for no range for `seconds`."""
        self._refused_until = self._clock() + seconds
