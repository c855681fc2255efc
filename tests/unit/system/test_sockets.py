"""Listening sockets: bound by the mirror or passed by a service manager."""

import errno
import os
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from mirror.system.sockets import (
    ACCEPTED_SECONDS,
    DEFER_SECONDS,
    SLACK,
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
for name, sockets in inherited_sockets().items():
    print(name, *map(format_address, sockets))
"""


def inheriting(listening: socket.socket) -> subprocess.CompletedProcess[str]:
    """Run a process that inherits the socket and prints the address of each inherited socket."""
    number = listening.fileno()
    command = [sys.executable, "-c", INHERIT, str(number)]
    return subprocess.run(command, pass_fds=[number], capture_output=True, text=True, timeout=60, check=False)


def test_bind_every_address() -> None:
    """Each address is bound and printed as in a URL."""
    sockets = bind_all(["127.0.0.1:0", "[::1]:0"])
    for each, host in zip(sockets, ("127.0.0.1", "[::1]"), strict=True):
        assert format_address(each) == f"{host}:{each.getsockname()[1]}"
        with socket.create_connection(each.getsockname()[:2], timeout=30):
            each.close()


def test_bind_of_a_port_alone_is_every_address() -> None:
    """IPv4 and IPv6 have a socket each."""
    sockets = bind_all([":0"])
    for each in sockets:
        each.close()
    assert [each.family for each in sockets] == [socket.AF_INET, socket.AF_INET6]


def test_bind_error_names_the_address() -> None:
    """A failure names the address and closes the sockets that were bound before."""
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


def test_bind_error_says_what_to_do() -> None:
    """Each message begins with the address, not with an errno, and names the option and who is in the way."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reasons = {
            f"127.0.0.1:{port}": rf"in use by .* \(pid {os.getpid()}\); end that program, or choose another",
            "192.0.2.1:0": "this machine does not have that address; use 0.0.0.0",
        }
        for address, reason in reasons.items():
            with pytest.raises(
                OSError, match=rf"^cannot listen on {address}: .*{reason}.*--listen HOST:PORT"
            ):
                bind_all([address])


def test_bind_error_of_a_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the capability that a port below 1024 needs."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ListeningSocket, "bind", refuse)
    with pytest.raises(OSError, match=r"^cannot listen on 127.0.0.1:80: a port below 1024 needs root"):
        bind_all(["127.0.0.1:80"])


def test_inherited_sockets_are_used() -> None:
    """A passed socket is used as it is, and only by the process of LISTEN_PID."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert inheriting(listening).stdout == f" 127.0.0.1:{port}\n"
    assert inherited_sockets() == {}


@pytest.mark.parametrize("name", ["operations", "registry-mirror.socket", ""])
def test_inherited_socket_for_operators_has_that_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FileDescriptorName=operations of a socket unit; any other name is for clients."""
    monkeypatch.setenv("LISTEN_FDNAMES", name)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        shown = "operations" if name == "operations" else ""
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert inheriting(listening).stdout == f"{shown} {address}\n"


def test_inherited_socket_that_is_not_tcp_is_refused() -> None:
    """The error describes the socket."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0registry-mirror-{os.getpid()}")
        assert "a socket that is not TCP" in inheriting(other).stderr


def test_listen_ignores_asyncios_backlog() -> None:
    """A second client could not connect with asyncio's backlog of 1."""
    with ListeningSocket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        clients = [socket.create_connection(listening.getsockname(), timeout=30) for _ in range(10)]
        for each in clients:
            each.close()


def test_accept_balancer_defers_to_the_less_busy_process() -> None:
    """The busier process defers accepting for DEFER_SECONDS, and then accepts."""
    now = [0.0]
    counts = ConnectionCounts()
    one, two = AcceptBalancer(counts, 0, lambda: now[0]), AcceptBalancer(counts, 1, lambda: now[0])
    one.set_connections(3)
    assert not one.should_defer()  # there is no other process
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


def test_accept_balancer_counts_what_it_has_accepted_just_now() -> None:
    """A burst is shared before its connections are made; what ended before is no longer counted."""
    now = [0.0]
    counts = ConnectionCounts()
    one, two = AcceptBalancer(counts, 0, lambda: now[0]), AcceptBalancer(counts, 1, lambda: now[0])
    one.set_connections(0)
    two.set_connections(0)
    assert not one.should_defer()
    one.note_accepted()
    assert one.should_defer()
    assert not two.should_defer()
    two.note_accepted()
    one.set_connections(1)  # the accepted one
    assert (counts.fewest(), one.should_defer()) == (1, False)
    one.note_accepted()
    assert one.should_defer()
    now[0] += ACCEPTED_SECONDS
    assert not one.should_defer()


def test_accept_balancer_accepts_a_crowd_in_few_turns() -> None:
    """A process with many connections accepts a few more than another one before it defers."""
    counts = ConnectionCounts()
    balancer = AcceptBalancer(counts, 0, lambda: 0.0)
    balancer.set_connections(10 * SLACK)
    counts.set(1, 10 * SLACK)
    accepted = 0
    while not balancer.should_defer():
        balancer.note_accepted()
        accepted += 1
    assert accepted == 11


def test_accept_balancer_defers_as_an_empty_queue() -> None:
    """asyncio takes BlockingIOError for an empty queue and accepts again at the next wake-up."""
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


def test_accept_passes_connections_over_that_have_departed() -> None:
    """Close them, and accept the next one; the queue may be empty behind them."""
    (listening,) = bind_all(["127.0.0.1:0"])
    seen = list[int]()

    def is_departed(connection: socket.socket) -> bool:
        seen.append(connection.fileno())
        return len(seen) < 3

    listening.is_departed = is_departed
    address = listening.getsockname()
    with listening, ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        listening.setblocking(True)
        connection, peer = listening.accept()
        with connection:
            assert peer == clients[2].getsockname()
            assert [each.recv(1) for each in clients[:2]] == [b"", b""]
        seen.clear()
        listening.setblocking(False)
        clients.append(stack.enter_context(socket.create_connection(address, timeout=30)))
        with pytest.raises(BlockingIOError):
            listening.accept()
        assert clients[3].recv(1) == b""


def test_bind_error_of_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an address is said to be one, in words."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        OSError, match=r"^cannot listen on nowhere.test:80: the name nowhere.test has no address"
    ):
        bind_all(["nowhere.test:80"])
