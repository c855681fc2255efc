"""Memory of this process kept from others: passwords and tokens are in it."""

from contextlib import suppress

# prctl(2).
PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Make the kernel write no core file of this process and its forks, and let only root look into it.

    A crash handler that the kernel pipes cores to gets none either, whatever LimitCORE= says. Debuggers,
    /proc/PID/environ and /proc/PID/mem are closed to other processes of the same user. Does nothing where
    the C library is another one.
    """
    import ctypes  # only a server needs this: 1 ms of its start

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
