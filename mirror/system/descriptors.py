"""The limit of open files (RLIMIT_NOFILE): raised at the start, and shared between clients and all else."""

import errno
import fcntl
import os
import resource
from contextlib import suppress

# Descriptors that clients never get: for databases, listeners, upstreams, and the running fills.
RESERVE = 64

# Connections of clients for which there is room, whatever the limit.
FEWEST_CLIENTS = 16

# Errors of a call that found no free descriptor, in this process or in the whole system.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> int:
    """Raise the soft limit to the hard one, as Go's runtime does; return the limit.

    The soft limit is 1024 in most shells, for the sake of programs that use select(2). This one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # an old hard limit above today's fs.nr_open
        return soft
    return hard


def clients_within(limit: int, wanted: int) -> int:
    """Return the number of client connections, at most `wanted`, that `limit` descriptors allow.

    A client that pulls takes a second descriptor, for the file.
    """
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(FEWEST_CLIENTS, min(wanted, limit // 2 - RESERVE))


def grow_table(clients: int) -> None:
    """Have the kernel make its table of descriptors as large as so many clients may need; call it early.

    Otherwise the table grows in accept4 or fcntl, at 64, 128, 256 ... descriptors. In a process with several
    threads the call then waits for an RCU grace period (`expand_fdtable` of Linux), 10 to 60 ms in which the
    event loop does nothing. With one thread there is no wait. A descriptor takes 8 bytes.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = 2 * (clients + RESERVE)
    number = wanted if limit == resource.RLIM_INFINITY else min(wanted, limit)
    with suppress(OSError):
        opened = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, number - 1))
        finally:
            os.close(opened)


def client_limit(wanted: int) -> int:
    """Return the number of client connections, at most `wanted`, that this process's limit allows."""
    return clients_within(resource.getrlimit(resource.RLIMIT_NOFILE)[0], wanted)


def are_exhausted() -> bool:
    """Return whether this process can open nothing now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in EXHAUSTED
    return False
