"""Fair queue: clients in turn, and room at the cost of the client with the most."""

from mirror.util.fairness.fair_queue import FairQueue


def filled(**items: int) -> FairQueue[str]:
    """Return a queue with so many items of each client: a0, a1, b0, for instance."""
    queue = FairQueue[str]()
    for client, count in items.items():
        for number in range(count):
            queue.push(client, f"{client}{number}")
    return queue


def popped(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_fair_queue_serves_clients_in_turn() -> None:
    """A client that comes after a thousand items of another one is served second."""
    assert popped(filled(a=4, b=1, c=2)) == ["a0", "b0", "c0", "a1", "c1", "a2", "a3"]


def test_fair_queue_forgets_removed_items() -> None:
    """An item that is taken out has no turn; one that is not there is no error."""
    queue = filled(a=2, b=1)
    queue.remove("a", "a0")
    queue.remove("b", "b0")
    queue.remove("b", "b0")
    queue.remove("c", "c0")
    assert len(queue) == 1
    assert popped(queue) == ["a1"]


def test_fair_queue_makes_room_at_the_cost_of_the_client_with_the_most() -> None:
    """The newest item of that client goes, as long as the other one then has fewer."""
    queue = filled(a=4, b=1)
    assert queue.take_for("c") == "a3"
    assert queue.take_for("b") == "a2"
    assert queue.take_for("b") is None
    assert queue.take_for("a") is None
    assert popped(queue) == ["a0", "b0", "a1"]


def test_fair_queue_moves_only_movable_items() -> None:
    """An item that must stay is left; with nothing to move there is no room."""
    queue = filled(a=3)
    assert queue.take_for("b", lambda item: item != "a2") == "a1"
    assert queue.take_for("b", lambda _: False) is None
    assert FairQueue[str]().take_for("b") is None
