"""Clients that ask for referrers."""

import pytest

from mirror.cache.referring.clients import AGENT, ReferrersClients, Requester, asks_by_version

REST = "go/go1.26 git-commit/1 kernel/6.1 os/linux arch/amd64"
STORE = "containerd-client/2.2.1+unknown storage-driver/overlayfs"


@pytest.mark.parametrize(
    ("agent", "asks"),
    [
        (f"docker/29.1.0 {REST} {STORE} UpstreamClient(Docker-Client/29.1.0)", True),
        (f"docker/30.0.1 {REST} {STORE}", True),
        (f"docker/29.0.4 {REST} {STORE}", False),
        (f"docker/28.5.2 {REST} {STORE}", False),
        (f"docker/29.1.0 {REST} UpstreamClient(Docker-Client/29.1.0)", False),
        ("containerd/v2.4.2", False),
        ("podman/29.1 containerd-client/2", False),
        ("docker/x.y containerd-client/2", False),
        ("", False),
    ],
)
def test_referrers_clients_by_version(agent: str, asks: bool) -> None:
    """Docker from 29.1 on, where it has the containerd image store, and no client else."""
    assert asks_by_version(agent) is asks


def test_referrers_clients_by_what_they_asked() -> None:
    """A client is its address and the beginning of its User-Agent."""
    clients, long = ReferrersClients(), "x" * AGENT
    clients.note(Requester("10.0.0.1", f"{long}a"))
    assert clients.will_ask(Requester("10.0.0.1", f"{long}b"))
    assert not clients.will_ask(Requester("10.0.0.2", f"{long}a"))
    assert not clients.will_ask(Requester("10.0.0.1", "podman/5"))
