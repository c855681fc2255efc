"""Listening sockets: bound by us, or passed by a service manager."""

import os
import socket
import subprocess
import sys

import pytest

from mirror.system.sockets import (
    DEFER_SECONDS,
    AcceptBalancer,
    ConnectionCounts,
    ListeningSocket,
    bind_all,
    format_address,
    inherited_sockets,
)

INHERIT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
from mirror.system.sockets import format_address, inherited_sockets
print(*map(format_address, inherited_sockets()))
"""


def inheriting(listening: socket.socket) -> subprocess.CompletedProcess[str]:
    """A process that is passed the socket, and prints what it has."""
    number = listening.fileno()
    command = [sys.executable, "-c", INHERIT, str(number)]
    return subprocess.run(command, pass_fds=[number], capture_output=True, text=True, timeout=60, check=False)


def test_each_address_is_bound() -> None:
    """And printed as it is written in a URL."""
    sockets = bind_all(["127.0.0.1:0", "[::1]:0"])
    for each, host in zip(sockets, ("127.0.0.1", "[::1]"), strict=True):
        assert format_address(each) == f"{host}:{each.getsockname()[1]}"
        with socket.create_connection(each.getsockname()[:2], timeout=30):
            each.close()


def test_what_cannot_be_bound_is_named() -> None:
    """And what was bound before it is given back."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        wrong = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {wrong}: .*in use"):
            bind_all([address, wrong])
        for each in bind_all([address]):
            each.close()
    with pytest.raises(OSError, match=r"cannot listen on 192.0.2.1:0: "):
        bind_all(["192.0.2.1:0"])


def test_what_a_service_manager_passes() -> None:
    """Is used as it is; and only by the process that it is meant for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert inheriting(listening).stdout == f"127.0.0.1:{port}\n"
    assert inherited_sockets() == []


def test_what_is_no_tcp_socket_is_refused() -> None:
    """With what it is."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0registry-mirror-{os.getpid()}")
        assert "a socket that is not TCP" in inheriting(other).stderr


def test_the_backlog_is_ours() -> None:
    """Whatever asyncio says it is: with one, a second client would not get through."""
    with ListeningSocket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        clients = [socket.create_connection(listening.getsockname(), timeout=30) for _ in range(10)]
        for each in clients:
            each.close()


def test_who_has_fewer_connections_goes_first() -> None:
    """Who has more leaves what comes to others for a moment, and then takes it all the same."""
    now = [0.0]
    counts = ConnectionCounts()
    one, two = AcceptBalancer(counts, 0, lambda: now[0]), AcceptBalancer(counts, 1, lambda: now[0])
    one.set_connections(3)
    assert not one.should_defer()  # there is nobody else
    two.set_connections(3)
    assert not one.should_defer()
    two.set_connections(2)
    assert not two.should_defer()
    assert one.should_defer()
    now[0] = DEFER_SECONDS
    assert not one.should_defer()
    assert one.should_defer()
    two.leave()
    assert not one.should_defer()
    AcceptBalancer(counts, 1000).set_connections(1)  # after many reloads with long answers
    assert not one.should_defer()


def test_what_is_left_to_others_looks_like_nothing() -> None:
    """asyncio asks again when it is woken again, which is at once."""
    counts = ConnectionCounts()
    (listening,) = bind_all(["127.0.0.1:0"])
    listening.balancer = AcceptBalancer(counts, 0)
    listening.balancer.set_connections(1)
    counts.set(1, 0)
    with listening, socket.create_connection(listening.getsockname(), timeout=30):
        with pytest.raises(BlockingIOError):
            listening.accept()
        counts.set(1, 1)
        listening.setblocking(True)
        listening.accept()[0].close()
