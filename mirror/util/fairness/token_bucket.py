"""Token buckets: an average rate with a burst, as one number that several processes can share.

The number is the time at which the bucket is full again. A bucket is full where that time is over; each
token moves the time by `1 / rate` seconds. A bucket whose tokens are taken ahead is in debt, and who takes
next waits for longer.
"""

import time
from collections.abc import Callable, MutableSequence
from typing import Union

Cells = Union[MutableSequence[float], "memoryview[float]"]  # memoryview is subscriptable from Python 3.14 on


class TokenBucket:
    """One bucket. `rate`: tokens per second. `burst`: most tokens at once, and what a full bucket has.

    `cells[index]` is its state. Processes that share it, and take at the same moment, may lose one of two
    takes: the bucket then gives that many tokens too many.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        cells: Cells | None = None,
        index: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self.burst = burst
        self._cells: Cells = [0.0] if cells is None else cells
        self._index = index
        self._clock = clock

    def wait(self, amount: float) -> float:
        """Return the seconds until `amount` tokens, but at most a burst, can be taken without debt."""
        now = self._clock()
        spent = max(self._cells[self._index] - now, 0.0)
        return max(0.0, spent + min(amount, self.burst) / self.rate - self.burst / self.rate)

    def take(self, amount: float) -> None:
        """Take tokens, ahead of time if the bucket has less."""
        self._cells[self._index] = max(self._cells[self._index], self._clock()) + amount / self.rate

    @property
    def tokens(self) -> float:
        """Number of tokens that the bucket has; less than 0 for a debt."""
        return self.burst - max(self._cells[self._index] - self._clock(), 0.0) * self.rate
