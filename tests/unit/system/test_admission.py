"""Admission: the count of connections, and what makes room at the bound."""

import socket

from structlog.testing import capture_logs

from mirror.system.admission import HANDSHAKE_SECONDS, Admission, ClientSocket, address_of


class Peer(ClientSocket):
    """A connection from an address."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.peer = (address, 1)


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


def test_address_at_its_share_makes_room_among_its_own() -> None:
    """Others keep their places; an IPv6 network counts as one address."""
    admission, now = Admission(8, share=2), [0]
    own = [Peer("2001:db8::1"), Peer("2001:db8::2"), Peer("2001:db8::3")]
    other = Peer("192.0.2.1")
    asked: list[str] = []

    def close_idle_of(address: str) -> bool:
        asked.append(address)
        return bool(now[0])

    admission.close_idle_of = close_idle_of
    with capture_logs() as lines:
        assert [admission.admit(each) for each in own] == [True, True, False]
        assert admission.admit(other)
        now[0] = 1
        assert admission.admit(own[2])
    assert set(asked) == {address_of(("2001:db8::9", 1))}
    assert [each["connections"] for each in lines] == [2]
    for each in (*own, other):
        each.close()
    assert (admission.open, len(admission._by_address)) == (0, 0)


def test_connection_without_an_address_is_nobody() -> None:
    """A socket without a name of its other end, and one whose client has left."""
    assert address_of("") == address_of(None) == ""
    admission, first = Admission(2, share=2), connection()
    assert admission.admit(first)
    first.close()
