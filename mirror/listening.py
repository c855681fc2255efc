"""The sockets that clients connect to: bound here, or passed by a service manager (sd_listen_fds(3))."""

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any

from mirror.config import environment

# How many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
BACKLOG = 1024

# The first descriptor that a service manager passes.
FIRST = 3


class Listening(socket.socket):
    """A listening socket that may be shared with other processes.

    asyncio accepts, at each wake-up, as many connections as the backlog it was told: with 1, a burst spreads
    over all processes that wait for it, instead of going to the first one that wakes up. But it tells the
    kernel the same number, for which this is in the way.
    """

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(BACKLOG)


def inherited() -> list[Listening]:
    """What a service manager has bound for us; empty when none has. OSError when that is of no use."""
    env = environment()
    if env.get("LISTEN_PID") != str(os.getpid()):
        return []
    sockets = [Listening(fileno=FIRST + number) for number in range(int(env.get("LISTEN_FDS", "0")))]
    for each in sockets:
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.type != socket.SOCK_STREAM:
            raise OSError(f"the service manager passed a socket that is not TCP: {each.getsockname()}")
        os.set_inheritable(each.fileno(), False)
        each.setblocking(False)
    return sockets


def bound(addresses: Sequence[str]) -> list[Listening]:
    """A socket, or several where a name has several addresses, for each HOST:PORT. OSError names it."""
    sockets: list[Listening] = []
    try:
        for address in addresses:
            sockets += _bound(address)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def printed(each: socket.socket) -> str:
    """HOST:PORT of a socket."""
    host, port = each.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bound(address: str) -> list[Listening]:
    host, _, port = address.rpartition(":")
    sockets: list[Listening] = []
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            try:
                sockets.append(_listening(family, where))
            except OSError as error:
                # A name may have an IPv6 address on a machine that has no IPv6.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or (
                    where == found[-1][4] and not sockets
                ):
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
    return sockets


def _listening(family: int, where: tuple[Any, ...]) -> Listening:
    each = Listening(family, socket.SOCK_STREAM)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind(where)
        each.listen()
        each.setblocking(False)
    except BaseException:
        each.close()
        raise
    return each
