"""The clients of a transfer, and their time limits."""

from mirror.util.time_limit import TimeLimit


class WaitingClients:
    """The clients that wait for a blob, or have not read all of it; false without any.

    `queued`: the fill waits in the mirror's own queue, and the clients' limits stand still. `served`: there
    is content to read, so that no limit stands still any more.
    """

    def __init__(self) -> None:
        self._limits: list[TimeLimit] = []
        self.queued = False
        self.served = False

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._limits)

    def add(self, limit: TimeLimit) -> None:
        """Record that a client waits from now on."""
        self._limits.append(limit)
        if self.queued:
            limit.suspend()

    def remove(self, limit: TimeLimit) -> None:
        """Record that a client waits no longer."""
        self._limits.remove(limit)
        if self.queued:
            limit.resume()

    def set_queued(self, queued: bool) -> None:
        """Stop the clients' time limits while the fill waits in the mirror's own queue."""
        if queued is not self.queued and not self.served:
            self.queued = queued
            for limit in self._limits:
                limit.suspend() if queued else limit.resume()
