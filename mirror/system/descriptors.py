"""The limit of open files (RLIMIT_NOFILE): raised at the start, and shared between clients and all else."""

import errno
import os
import resource

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
