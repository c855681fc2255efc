"""Folders to write to with the rights of the user who called the command.

A command that root calls becomes the owner of the cache folder for good, who may not write where root may: to
a disk that was just plugged in, for instance. So a process that stays root opens the files. It is started
before, does nothing else, and touches nothing outside the one folder.
"""

import os
import socket
from pathlib import Path

from mirror.manage.carry.export import OutputFolder

# Longest message: a list of names, which an operator's folder of exports has few of.
MOST_BYTES = 1024 * 1024

# Operations, by the first byte of a message.
NAMES, OPEN, RENAME = b"n", b"o", b"r"


class HandedFolder(OutputFolder):
    """A folder whose files another process opens."""

    def __init__(self, path: Path, connection: socket.socket) -> None:
        super().__init__(path)
        self._connection = connection

    def names(self) -> list[str]:
        return [os.fsdecode(each) for each in self._ask(NAMES)[0].split(b"\0") if each]

    def open(self, name: str, flags: int) -> int:
        return self._ask(OPEN, str(flags).encode(), os.fsencode(name))[1]

    def rename(self, name: str, target: str) -> None:
        self._ask(RENAME, os.fsencode(name), os.fsencode(target))

    def _ask(self, *message: bytes) -> tuple[bytes, int]:
        """Ask the other process; return its answer and a descriptor. Raises the OSError of that process."""
        self._connection.sendall(b"\0".join(message))
        data, descriptors, _, _ = socket.recv_fds(self._connection, MOST_BYTES, 1)
        if data[:1] != b"+":
            number, _, name = data[1:].partition(b" ")
            raise OSError(int(number or 5), os.strerror(int(number or 5)), os.fsdecode(name))
        return data[1:], descriptors[0] if descriptors else -1


def output_folder(path: Path, cache: Path, mode: int = 0o666) -> OutputFolder:
    """Return a folder to write to, before this process becomes the owner of the folder `cache`.

    `mode`: that of new files, before the umask.
    """
    if os.geteuid() != 0 or not cache.is_dir() or cache.stat().st_uid == 0:
        return OutputFolder(path, mode)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        status = 1
        try:
            ours.close()
            serve(theirs, OutputFolder(path, mode))
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    return HandedFolder(path, ours)


def serve(connection: socket.socket, folder: OutputFolder) -> None:
    """Answer until the other process ends."""
    os.setsid()  # Ctrl-C ends the command, and this process with it
    while message := connection.recv(MOST_BYTES):
        operation, *fields = message.split(b"\0")
        try:
            descriptor = _carry_out(connection, folder, operation, [os.fsdecode(each) for each in fields])
        except OSError as error:
            name = os.fsencode(str(error.filename or ""))
            connection.sendall(b"-%d %s" % (error.errno or 5, name))
        else:
            if descriptor is not None:
                os.close(descriptor)


def _carry_out(
    connection: socket.socket, folder: OutputFolder, operation: bytes, fields: list[str]
) -> int | None:
    """Do what is asked, and answer; return the descriptor that was sent, if any."""
    if any("/" in each for each in fields):
        raise PermissionError(13, "not a name in the folder", fields[-1])
    if operation == OPEN:
        descriptor = folder.open(fields[1], int(fields[0]))
        socket.send_fds(connection, [b"+"], [descriptor])
        return descriptor
    if operation == RENAME:
        folder.rename(*fields)
    answer = b"\0".join(map(os.fsencode, folder.names())) if operation == NAMES else b""
    connection.sendall(b"+" + answer)
    return None
