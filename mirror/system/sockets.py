"""Listening sockets: bound by the mirror or passed by a service manager (sd_listen_fds(3))."""

import errno
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from mirror.config.loader import environment
from mirror.system.admission import Admission, ClientSocket
from mirror.system.descriptors import EXHAUSTED
from mirror.system.port_owner import port_owner

# Number of connections that may wait to be accepted; the kernel lowers the number to net.core.somaxconn.
BACKLOG = 1024

# Maximum number of processes on one address: twice the maximum of workers, because retiring ones still count.
MAX_PROCESSES = 128
COUNTS = struct.Struct(f"={MAX_PROCESSES}I")
ABSENT = 2**32 - 1

# Seconds for which the busier process defers accepting: enough for another process to wake up.
DEFER_SECONDS = 0.001

# The part of the fewest connections of any process by which a process may have more and goes on accepting.
SLACK = 8

# Seconds after which an accepted connection is among the connections of its process, or will never be.
ACCEPTED_SECONDS = 0.25

# Connections of clients that have left that are closed in one accept, at most: some milliseconds.
DEPARTED = 256

# Errors of the network that accept(2) passes on from the connection, which is gone then.
CONNECTION_ERRNOS = frozenset(
    {
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)

# The first descriptor that a service manager passes (SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3

# Names of the sockets that a service manager passes: FileDescriptorName=operations is for operators, any
# other name for clients. An address, by which the others are known, always has a colon.
CLIENTS, OPERATIONS = "", "operations"


ELSEWHERE = "choose another address with --listen HOST:PORT, or with server.listen in the configuration"


class ConnectionCounts:
    """Connection counts of several processes, in memory that they share. Create before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, COUNTS.size)
        for number in range(MAX_PROCESSES):
            self.leave(number)

    def set(self, number: int, connections: int) -> None:
        """Set the count of process `number`, which accepts. Numbers from MAX_PROCESSES on are ignored."""
        if number < MAX_PROCESSES:
            struct.pack_into("=I", self._memory, number * 4, connections)

    def leave(self, number: int) -> None:
        """Remove process `number`, which no longer accepts."""
        self.set(number, ABSENT)

    def fewest(self) -> int:
        """Return the smallest count among the processes that accept."""
        counts: tuple[int, ...] = COUNTS.unpack_from(self._memory)
        return min(counts)


class AcceptBalancer:
    """Accept balancing for one process: a process with more connections than another defers accepting.

    With balancing, two processes take 14 to 18 connections each of a burst of 32; without, one of them
    sometimes took all 32. A process defers for DEFER_SECONDS only, because the other processes may be busy.
    With many connections a SLACK-th more is no reason to defer: a crowd is accepted in few turns of the loop.
    """

    def __init__(
        self, counts: ConnectionCounts, number: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts = counts
        self._number = number
        self._clock = clock
        self._connections = 0
        self._accepted = 0  # just now, and not yet among the connections
        self._accepted_at = 0.0
        self._deferring_since: float | None = None

    def set_connections(self, connections: int) -> None:
        """Publish the connection count of this process."""
        self._accepted = max(0, self._accepted - max(0, connections - self._connections))
        self._connections = connections
        self._publish()

    def note_accepted(self) -> None:
        """Count a connection that is accepted; it is one of the connections a few turns of the loop later."""
        self._accepted_at = self._clock()
        self._accepted += 1
        self._publish()

    def _publish(self) -> None:
        self._counts.set(self._number, self._connections + self._accepted)

    def leave(self) -> None:
        """Stop counting this process, which no longer accepts."""
        self._counts.leave(self._number)

    def should_defer(self) -> bool:
        """Return whether to leave the waiting connection to another process."""
        now = self._clock()
        if self._accepted and now - self._accepted_at >= ACCEPTED_SECONDS:
            self._accepted = 0  # some of these have ended before they were a connection
            self._publish()
        fewest = self._counts.fewest()
        if self._connections + self._accepted <= fewest + fewest // SLACK:
            self._deferring_since = None
            return False
        if self._deferring_since is None:
            self._deferring_since = now
        if now - self._deferring_since < DEFER_SECONDS:
            return True
        self._deferring_since = None
        return False


class ListeningSocket(socket.socket):
    """A listening socket that may be shared with other processes.

    asyncio uses its `backlog` argument for two things: the number of connections to accept at each wake-up,
    and the kernel's queue. Processes that share a burst need a small one for the former; `listen` therefore
    ignores the argument for the latter.
    """

    balancer: AcceptBalancer | None = None
    admission: Admission | None = None
    is_departed: Callable[[socket.socket], bool] | None = None
    _exhausted = False

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises BlockingIOError, as for an empty queue, while deferring.

        Without a free descriptor raises OSError once, at which asyncio stops accepting for a second; asyncio
        goes on with its burst nevertheless, and would log each of its attempts with a traceback.
        """
        if self._exhausted or (self.balancer is not None and self.balancer.should_defer()):
            self._exhausted = False
            raise BlockingIOError
        try:
            plain, address = self._accept_present()
        except OSError as error:
            if error.errno in CONNECTION_ERRNOS:
                raise ConnectionAbortedError(error.errno, error.strerror) from error
            if error.errno in EXHAUSTED and self.admission is not None:
                self._exhausted = True
                self.admission.report_exhausted()
            raise
        if self.balancer is not None:
            self.balancer.note_accepted()
        if self.admission is None:
            return plain, address
        connection = ClientSocket(self.family, self.type, self.proto, fileno=plain.detach())
        if not self.admission.admit(connection):
            connection.close()
            raise ConnectionAbortedError("no room for another client")
        return connection, address

    def _accept_present(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and close those before it whose clients have left, as many as DEPARTED."""
        plain, address = super().accept()
        for _ in range(DEPARTED):
            if self.is_departed is None or not self.is_departed(plain):
                break
            plain.close()
            plain, address = super().accept()
        return plain, address


def inherited_sockets() -> dict[str, list[ListeningSocket]]:
    """Return the sockets that a service manager passed to this process, for CLIENTS and for OPERATIONS.

    Raises OSError if one is not TCP.
    """
    env = environment()
    if env.get("LISTEN_PID") != str(os.getpid()):
        return {}
    found: dict[str, list[ListeningSocket]] = {}
    names = env.get("LISTEN_FDNAMES", "").split(":")
    for number in range(int(env.get("LISTEN_FDS", "0"))):
        each = ListeningSocket(fileno=FIRST_DESCRIPTOR + number)
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.type != socket.SOCK_STREAM:
            raise OSError(f"the service manager passed a socket that is not TCP: {each.getsockname()}")
        os.set_inheritable(each.fileno(), False)
        each.setblocking(False)
        name = OPERATIONS if names[number : number + 1] == [OPERATIONS] else CLIENTS
        found.setdefault(name, []).append(each)
    return found


def bind_all(addresses: Sequence[str], *, shared: bool = False) -> list[ListeningSocket]:
    """Bind each HOST:PORT: a socket for each address of the host. Raises OSError that names the address.

    `shared`: further processes of this user may bind it, too.
    """
    sockets: list[ListeningSocket] = []
    try:
        for address in addresses:
            sockets += _bind(address, shared)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def format_address(each: socket.socket) -> str:
    """Return HOST:PORT of a socket, with brackets around an IPv6 address."""
    host, port = each.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(address: str, shared: bool) -> list[ListeningSocket]:
    host, _, port = address.rpartition(":")
    sockets: list[ListeningSocket] = []
    try:
        # A port alone is every address: without a host, AI_PASSIVE gives 0.0.0.0 and [::].
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            try:
                sockets.append(_listen(family, where, shared))
            except OSError as error:
                # A name may have an IPv6 address on a machine without IPv6.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or (
                    where == found[-1][4] and not sockets
                ):
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        raise OSError(f"cannot listen on {address}: {_reason(error, host, int(port))}") from error
    return sockets


def _reason(error: OSError, host: str, port: int) -> str:
    """Explain why an address cannot be bound, and say what to do."""
    if isinstance(error, socket.gaierror):
        return f"the name {host} has no address on this machine ({error.strerror}); {ELSEWHERE}"
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(port)
        user = f"in use by {owner}" if owner else "in use by another program"
        return f"the address is {user}; end that program, or {ELSEWHERE}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine does not have that address; use 0.0.0.0 or [::] for all it has, or {ELSEWHERE}"
    if error.errno == errno.EACCES:
        return f"a port below 1024 needs root or the capability CAP_NET_BIND_SERVICE; {ELSEWHERE}"
    return f"{error.strerror or error}; {ELSEWHERE}"


def _listen(family: int, where: tuple[Any, ...], shared: bool) -> ListeningSocket:
    each = ListeningSocket(family, socket.SOCK_STREAM)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind(where)
        each.listen()
        each.setblocking(False)
    except BaseException:
        each.close()
        raise
    return each
