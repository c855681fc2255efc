"""A queue of several clients: each has its turn, however many items another one has."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """Items by client. `pop` takes the oldest item of each client in turn."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[T, None]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, client: str, item: T) -> None:
        """Add an item behind the client's others."""
        self._queues.setdefault(client, {})[item] = None
        self._length += 1

    def peek(self) -> T:
        """Return the item that `pop` takes."""
        return next(iter(next(iter(self._queues.values()))))

    def pop(self) -> T:
        """Take the oldest item of the client whose turn it is; the next turn is another client's."""
        client = next(iter(self._queues))
        queue = self._queues.pop(client)
        item = next(iter(queue))
        del queue[item]
        self._length -= 1
        if queue:
            self._queues[client] = queue
        return item

    def remove(self, client: str, item: T) -> None:
        """Take out an item, if it is in the queue."""
        queue = self._queues.get(client)
        if queue is None or item not in queue:
            return
        del queue[item]
        self._length -= 1
        if not queue:
            del self._queues[client]

    def take_for(self, client: str, movable: Callable[[T], bool] = lambda _: True) -> T | None:
        """Take out an item of the client with the most, to make room for one of `client`.

        The newest one of those that are `movable`. None if `client` would then have as many as that client,
        or nothing is movable.
        """
        most = max(self._queues, key=lambda each: len(self._queues[each]), default=client)
        if most == client or len(self._queues[most]) <= len(self._queues.get(client, ())) + 1:
            return None
        item = next((each for each in reversed(self._queues[most]) if movable(each)), None)
        if item is not None:
            self.remove(most, item)
        return item
