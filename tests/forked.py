"""Commands of the program, each forked from a process that has imported what they use. A pytest plugin.

A start of Python with typer and the store takes 0.3 to 0.6 s of processor time, a fork some milliseconds, and
tests run hundreds of commands. A real start (`COMMAND` in tests/unit/cli/test_app.py) is for tests of what a
start imports and of how a process ends, and for a command whose environment changes the interpreter.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

# Longest time of a command, in seconds.
TIMEOUT = 30.0

# Largest request, in bytes: arguments, environment and folder.
LARGEST = 1 << 17

# Beginnings of the names of variables that Python and its measurements read when a process starts.
OF_A_START = ("PYTHON", "LANG", "LC_", "COVERAGE")

ROOT = Path(__file__).parents[1]

Done = subprocess.CompletedProcess[str]


class Commands:
    """The server that forks, started for the first command; its standard input is the socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._variables: dict[str, str] = {}

    def run(self, arguments: list[str], env: dict[str, str]) -> Done:
        """Run a command to its end."""
        control = self._started()
        if _of_a_start(env) != self._variables:
            command = [sys.executable, "-m", "mirror", *arguments]
            return subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        request = json.dumps([arguments, env, os.getcwd()]).encode(errors="surrogateescape")
        with ExitStack() as stack:
            pipes = [
                [stack.enter_context(open(end, mode, buffering=0)) for end, mode in _pipe()] for _ in "123"
            ]
            socket.send_fds(control, [request], [0, *(writer.fileno() for _, writer in pipes)])
            for _, writer in pipes:
                writer.close()
            out, err, status = _read_all([reader for reader, _ in pipes], arguments)
        return subprocess.CompletedProcess(arguments, int(status.split()[1]), _text(out), _text(err))

    def _started(self) -> socket.socket:
        with self._lock:
            if self._control is None:
                env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
                self._variables = _of_a_start(env)
                self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with other:
                    self._server = subprocess.Popen(
                        [sys.executable, "-m", "tests.forked"], stdin=other.fileno(), env=env, cwd=ROOT
                    )
            return self._control

    def close(self) -> None:
        """End the server: at the end of its socket."""
        if self._control is not None and self._server is not None:
            self._control.close()
            self._server.wait()
            self._control = None


COMMANDS = Commands()


def pytest_sessionfinish() -> None:
    COMMANDS.close()


def _of_a_start(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(OF_A_START)}


def _pipe() -> list[tuple[int, str]]:
    return list(zip(os.pipe(), ("rb", "wb"), strict=True))


def _text(data: bytes) -> str:
    """Decode as `subprocess` does."""
    return io.TextIOWrapper(io.BytesIO(data)).read()


def _read_all(readers: list[Any], arguments: list[str]) -> list[bytes]:
    """Read all pipes to their end; kill a command that takes too long."""
    data, end = {each: bytearray() for each in readers}, time.monotonic() + TIMEOUT
    with selectors.DefaultSelector() as selector:
        for each in readers:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(end - time.monotonic())
            if not ready:
                with suppress(ProcessLookupError):
                    os.kill(int(data[readers[2]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, TIMEOUT)
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                data[key.fileobj] += piece
                if not piece:
                    selector.unregister(key.fileobj)
    return [bytes(each) for each in data.values()]


# The server.


def serve(control: socket.socket) -> tuple[bytes, list[int]] | None:
    """Fork for each request; return the request in the forked process, and None at the end of the socket."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    pid, status = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    os.write(status, f"{code}".encode())
                    os.close(status)
                    continue
                request, descriptors, _, _ = socket.recv_fds(control, LARGEST, 4)
                if not request:
                    return None
                pid = os.fork()
                if pid == 0:
                    for other in list(selector.get_map().values()):
                        os.close(other.fd)
                        if other.data is not None:
                            os.close(other.data[1])
                    control.detach()
                    return request, descriptors
                os.write(descriptors[3], f"{pid} ".encode())
                for each in descriptors[:3]:
                    os.close(each)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, descriptors[3]))


def become(request: bytes, descriptors: list[int]) -> None:
    """Turn this process into one that was started for the command."""
    for number, each in enumerate(descriptors):
        if number < 3:
            os.dup2(each, number)
        os.close(each)
    arguments, env, folder = json.loads(request)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(folder)
    sys.argv = ["registry-mirror", *arguments]


def end(program: Callable[[], None]) -> None:
    """Run the program and end as the interpreter does, but leave its modules.

    Taking modules apart copies all pages.
    """
    code = 0
    try:
        program()
    except SystemExit as ending:
        if not isinstance(ending.code, int | None):
            raise
        code = ending.code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


def main() -> None:
    """Import all modules, and serve: what a command imports in a function is here then too."""
    control = socket.socket(fileno=os.dup(0))
    from pydantic import TypeAdapter

    import mirror
    from mirror.cli import app

    for each in pkgutil.walk_packages(mirror.__path__, "mirror."):
        importlib.import_module(each.name)
    TypeAdapter(str)  # typer imports what it needs of pydantic with the first argument of a command
    gc.collect()
    gc.freeze()
    found = serve(control)
    if found is not None:
        become(*found)
        end(app.main)


if __name__ == "__main__":
    main()
