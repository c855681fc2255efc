"""Clients of the other mirrors, by their addresses, which leases name."""

from collections import OrderedDict
from collections.abc import Callable

from mirror.upstream.peers.peer_client import PeerClient
from mirror.util.tasks import Tasks

# The most mirrors whose connections are kept. A site has some thousand, of which few lead at a time.
MAX_PEERS = 64


class PeerClients:
    """The clients, the least recently used of which are closed."""

    def __init__(self, make: Callable[[str], PeerClient], tasks: Tasks) -> None:
        self._make = make
        self._tasks = tasks
        self._clients: OrderedDict[str, PeerClient] = OrderedDict()

    def get(self, address: str) -> PeerClient:
        """Return the client of a mirror."""
        client = self._clients.pop(address, None) or self._make(address)
        self._clients[address] = client
        while len(self._clients) > MAX_PEERS:
            _, oldest = self._clients.popitem(last=False)
            self._tasks.spawn(oldest.close(), name="close the connections of a peer")
        return client

    async def close(self) -> None:
        """Close all connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()
