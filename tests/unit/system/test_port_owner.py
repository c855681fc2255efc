"""The owner of a port, for the message that the port is taken."""

import os
import socket
from pathlib import Path

import pytest

from mirror.system import port_owner as module
from mirror.system.port_owner import port_owner


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_port_owner_is_named(family: socket.AddressFamily, host: str) -> None:
    """The name of the program and its process id, for IPv4 and IPv6."""
    with socket.create_server((host, 0), family=family) as listening:
        owner = port_owner(listening.getsockname()[1])
    assert owner is not None
    assert owner.endswith(f" (pid {os.getpid()})")


def test_port_owner_of_a_free_port_is_none() -> None:
    """A port on which nothing listens has no owner, nor has a port that only a client uses."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.connect(listening.getsockname())
        assert port_owner(client.getsockname()[1]) is None


def test_port_owner_without_proc_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message goes without the name where /proc shows nothing."""
    monkeypatch.setattr(module, "PROC", tmp_path)
    assert port_owner(80) is None
