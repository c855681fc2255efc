"""The order of idle connections: the one idle longest ends first, whatever happened meanwhile."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mirror.web.idle_order import LOOKS, IdleOrder


@dataclass(eq=False)
class Client:
    """A connection whose activity the test decides; `since` is None while busy."""

    since: float | None
    connected: bool = True

    def idle_since(self) -> float | None:
        return self.since

    def drop(self) -> None:
        self.connected = False


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(10, 99)), st.booleans()), max_size=40))
def test_longest_idle_connections_end_in_order(states: list[tuple[int | None, bool]]) -> None:
    """Busy and closed connections are passed over."""
    order = IdleOrder(lambda: 100.0)
    clients = []
    for since, connected in states:
        clients.append(Client(None if since is None else float(since), connected))
    for number, client in enumerate(clients):
        order._clock = lambda number=number: float(number % 10)  # type: ignore[misc]
        order.add(client)
    order._clock = lambda: 100.0
    idle = [each for each in clients if each.connected and each.since is not None]
    ended = []
    while order.close_longest():
        ended += [each for each in idle if not each.connected and each not in ended]
    assert [each.since for each in ended] == sorted(each.since or 0.0 for each in idle)


def test_work_at_the_bound_is_bounded() -> None:
    """Among any number of busy connections the search gives up after LOOKS of them."""
    looks = 0

    class Busy(Client):
        def idle_since(self) -> float | None:
            nonlocal looks
            looks += 1
            return None

    order = IdleOrder(lambda: 1.0)
    for _ in range(10 * LOOKS):
        order.add(Busy(None))
    assert not order.close_longest()
    assert looks == LOOKS


def test_closed_connections_are_not_kept() -> None:
    """The heap stays in proportion to the open connections, however many came and went."""
    order = IdleOrder(lambda: 1.0)
    for _ in range(100 * LOOKS):
        order.add(Client(1.0, connected=False))
    assert len(order._heap) <= 2 * LOOKS
