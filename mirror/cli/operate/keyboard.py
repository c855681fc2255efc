"""Keys on the terminal of a command that runs until the operator ends it."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

# What a terminal sends for Ctrl-C where it is no signal, and at its end.
INTERRUPT, END = b"\x03", b""


class Keyboard:
    """The keys of standard input; of one that is no terminal, none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float, keys: bytes) -> bool:
        """Wait for one of `keys`; return whether it came. The end of the terminal counts as one."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            if self._descriptor is None:
                time.sleep(rest)
            elif select.select([self._descriptor], [], [], rest)[0]:
                read = os.read(self._descriptor, 64)
                if read == END or INTERRUPT in read or any(each in keys for each in read):
                    return True
        return False


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Take single keys without showing them; the terminal is afterwards as it was."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)  # single keys; Ctrl-C is still a signal
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
