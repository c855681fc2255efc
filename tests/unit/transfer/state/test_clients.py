"""Clients of a transfer: their time limits stand still in the mirror's own queue."""

from mirror.transfer.state.clients import WaitingClients
from mirror.util.time_limit import TimeLimit


class CountedLimit(TimeLimit):
    """A limit that counts how often it was stopped, less how often it went on."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    def suspend(self) -> None:
        self.stopped += 1

    def resume(self) -> None:
        self.stopped -= 1


def test_limits_stand_still_in_the_queue() -> None:
    """A client that comes meanwhile has its limit stopped, too; one that leaves takes it along running."""
    clients, first, second = WaitingClients(), CountedLimit(), CountedLimit()
    assert not clients
    clients.add(first)
    clients.set_queued(True)
    clients.set_queued(True)
    clients.add(second)
    assert (len(clients), first.stopped, second.stopped) == (2, 1, 1)
    clients.remove(first)
    assert (len(clients), first.stopped) == (1, 0)
    clients.set_queued(False)
    assert (clients.queued, second.stopped) == (False, 0)


def test_limits_run_once_there_is_content() -> None:
    clients, limit = WaitingClients(), CountedLimit()
    clients.add(limit)
    clients.served = True
    clients.set_queued(True)
    assert (clients.queued, limit.stopped) == (False, 0)
