"""Commands on a terminal of some width, in a process of their own."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

from tests.unit.cli.test_app import COMMAND


def on_terminal(columns: int, *arguments: str) -> list[str]:
    """Return the lines that a command prints on a terminal, without colours."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([*COMMAND, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=env):
        os.close(terminal)
        data = read_to_end(main)
    os.close(main)
    return re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", data.decode()).splitlines()


def read_to_end(main: int) -> bytes:
    """Return what comes from a terminal until its other end is closed."""
    shown = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # EIO: the other end is closed
            return shown
        if not data:
            return shown
        shown += data
