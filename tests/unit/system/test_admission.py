"""Admission: the count of connections, and what makes room at the bound."""

import socket

from structlog.testing import capture_logs

from mirror.system.admission import HANDSHAKE_SECONDS, Admission, ClientSocket


def connection() -> ClientSocket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ClientSocket(fileno=ours.detach())


def test_admission_counts_each_connection_once() -> None:
    """Closing twice frees one place."""
    admission = Admission(1)
    first, second = connection(), connection()
    assert admission.admit(first)
    assert not admission.admit(second)
    first.close()
    first.close()
    assert admission.open == 0
    assert admission.admit(second)
    second.close()


def test_admission_closes_an_idle_connection_first() -> None:
    """The idle one goes before an unfinished handshake; trouble is one line a minute."""
    now = 0.0
    admission = Admission(1, clock=lambda: now)
    idle = [True]
    admission.close_idle = lambda: bool(idle) and idle.pop()
    handshake, second, third, fourth = (connection() for _ in range(4))
    with capture_logs() as lines:
        assert admission.admit(handshake)
        assert admission.admit(second)
        assert not admission.admit(third)  # no handshake is old enough
        now = HANDSHAKE_SECONDS
        assert admission.admit(fourth)
    assert handshake.recv(1) == b""
    assert len(lines) == 1
    for each in (handshake, second, third, fourth):
        each.close()
    assert admission.open == 0
