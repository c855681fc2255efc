"""Clients of other mirrors: one for each address, a bounded number."""

import asyncio

from mirror.access.peer_proof import PeerProof
from mirror.metrics.metrics import Metrics
from mirror.transfer.shared.peers import MAX_PEERS, PeerClients
from mirror.upstream.peers.peer_client import PeerClient
from mirror.util.tasks import Tasks


async def test_peers_are_made_once_and_bounded(tasks: Tasks) -> None:
    """Leases name addresses without end: the least recently used client goes."""
    proof, metrics, made = PeerProof("a-secret-of-all-mirrors"), Metrics(), []

    def make(url: str) -> PeerClient:
        made.append(url)
        return PeerClient(url, proof, metrics, connect_timeout=1, silence=1)

    peers = PeerClients(make, tasks)
    first = peers.get("http://127.0.0.1:1")
    assert peers.get("http://127.0.0.1:1") is first
    for port in range(2, MAX_PEERS + 1):
        peers.get(f"http://127.0.0.1:{port}")
    assert peers.get("http://127.0.0.1:1") is first
    peers.get(f"http://127.0.0.1:{MAX_PEERS + 1}")
    assert peers.get("http://127.0.0.1:1") is first
    assert len(made) == MAX_PEERS + 1
    await asyncio.sleep(0)
    await peers.close()
