"""Wrong credentials: counted, so that guessing goes to no upstream.

A registry locks an account after some wrong passwords, and counts requests by address: by this mirror's. So
of one network, and for one user at one upstream, a few wrong passwords are passed on in some minutes. Beyond
that an attempt is refused unasked. The same wrong credentials are passed on once in that time by a worker.

Workers share the counts: the upstream sees one mirror.
"""

import time
from collections.abc import Callable, Hashable

from mirror.util.fairness.window_counts import Cells, WindowCounts

# Wrong credentials that are passed on in WINDOW seconds: of one network, and for one user at one upstream.
# Docker Hub locks an account for ten minutes after some ten.
OF_NETWORK = 20
FOR_USER = 5
WINDOW = 300.0


class FailedAttempts:
    """Wrong credentials by network, and by upstream and user, in windows of WINDOW seconds."""

    def __init__(self, cells: Cells | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`cells`, `clock`: as for WindowCounts."""
        self._counts = WindowCounts(WINDOW, cells, clock)

    def begin(self, network: str, upstream: str, user: str) -> bool:
        """Return whether one more attempt is passed on. It counts as wrong until `forgive`.

        So a crowd of attempts at a time is bounded too. `user`: empty for a token.
        """
        keys = _keys(network, upstream, user)
        if any(self._counts.count(key) >= limit for key, limit in keys.items()):
            return False
        for key in keys:
            self._counts.add(key)
        return True

    def forgive(self, network: str, upstream: str, user: str) -> None:
        """Take back the count of an attempt that was not wrong."""
        for key in _keys(network, upstream, user):
            self._counts.add(key, -1)


def _keys(network: str, upstream: str, user: str) -> dict[Hashable, int]:
    return {network: OF_NETWORK, **({(upstream, user): FOR_USER} if user else {})}
