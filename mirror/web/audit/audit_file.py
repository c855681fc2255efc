"""The file of the audit log: appended to by a thread, and opened again when logrotate has moved it.

A line never delays or fails a request: as in the log, a line that cannot be written is dropped and counted,
and a line says how many are missing (mirror/util/log_writer.py). Several workers append to one file.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from mirror.util.log_writer import ThreadedLog

# Time between two looks whether the path still names the open file, in seconds.
LOOK_SECONDS = 1.0

FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
MODE = 0o640


class AuditFile(ThreadedLog):
    """A stream to the file at `path`."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the file, or create it. Raises OSError that names it."""
        self._path = path
        self._clock = clock
        self._looked = clock()
        super().__init__(os.open(path, FLAGS, MODE))
        self.describe = describe_loss

    def close_file(self, seconds: float) -> None:
        """Write what is buffered, for at most `seconds`, and close the file if that is done."""
        if self.end(seconds):
            os.close(self._descriptor)

    def _write_some(self, data: memoryview) -> int:
        self._reopen_if_moved()
        return super()._write_some(data)

    def _reopen_if_moved(self) -> None:
        """Open the file of that name, if it is another one now.

        Where that fails, lines go on into the file that was moved; OSError if that was removed.
        """
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        opened = os.fstat(self._descriptor)
        if _is_at(self._path, opened):
            return
        try:
            before, self._descriptor = self._descriptor, os.open(self._path, FLAGS, MODE)
        except OSError:
            if not opened.st_nlink:
                raise
        else:
            os.close(before)


def _is_at(path: Path, opened: os.stat_result) -> bool:
    """Return whether the path names the file that is open."""
    try:
        return os.path.samestat(opened, os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def describe_loss(lines: int) -> str:
    """Return the line about lines that are missing."""
    return f'{{"component":"audit","event":"lines are missing here","lines":{lines}}}\n'
