"""The program that listens on a TCP port, for an error message: looked up in /proc (proc_net_tcp, Linux)."""

import os
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
LISTEN = "0A"  # TCP_LISTEN in the `st` column


def port_owner(port: int) -> str | None:
    """Return NAME (pid PID) of a program that listens on `port`, at whatever address; None if not visible.

    A process without root sees only the descriptors of its own user's processes.
    """
    inodes = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    for process in PROC.iterdir():
        if process.name.isdigit() and _has_socket(process, inodes):
            with suppress(OSError):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _listening(table: str, port: int) -> list[str]:
    """Return the inodes of the listening sockets with this port."""
    try:
        rows = [line.split() for line in (PROC / "net" / table).read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _has_socket(process: Path, inodes: set[str]) -> bool:
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(descriptor) in inodes:
                    return True
    return False
