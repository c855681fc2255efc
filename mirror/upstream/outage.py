"""Announcements of outages: the moments at which a log line is due; pure, with the clock passed in.

An outage is announced when it begins and when it ends. Something that flaps would fill the log: for `QUIET`
seconds after an announcement no other outage is announced. An outage that lasts longer than that is announced
then, with the number of outages since the last announcement.
"""

import math

# Least time between two announcements, in seconds: a breaker opens again after a second, an operator reads
# the log after minutes. Chosen, not measured.
QUIET = 300.0


class Outage:
    """State of one thing that works or does not."""

    def __init__(self) -> None:
        self.active = False
        self._began = 0.0
        self._announced = False
        self._quiet_until = -math.inf
        self._count = 0

    def failed(self, now: float) -> int | None:
        """Record a failure; return the number of outages to announce, or None if there is nothing to say."""
        if not self.active:
            self.active, self._began = True, now
            self._count += 1
        if self._announced or now < self._quiet_until:
            return None
        self._announced, self._quiet_until = True, now + QUIET
        count, self._count = self._count, 0
        return count

    def ended(self, now: float) -> float | None:
        """Record that it works; return the length of an announced outage in seconds, or None."""
        announced, self._announced = self._announced, False
        self.active = False
        return now - self._began if announced else None
