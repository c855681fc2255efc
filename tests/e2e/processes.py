"""Programs that run beside a test: started, awaited, ended by their own pid."""

import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.parallel import worker_place

# Limit, in seconds, for the start and the stop of a program; far more than any program needs.
PATIENCE = 60.0

_returned: set[int] = set()


def free_port() -> int:
    """Return a port that is free, and that no other call has returned, also of another worker of this run.

    It lies below the ports that the kernel gives to connections (ip_local_port_range, from 32768 on):
    another program's connection might have such a port before the port is listened on.
    """
    number, count = worker_place()
    while True:
        port = 10_000 + secrets.randbelow(20_000 // count) * count + number
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _returned:
                _returned.add(port)
                return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Poll until `condition` is true: other processes give no event. AssertionError names `what`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def await_end(pid: int) -> None:
    """Wait for the end of a process, child or not. AssertionError when it stays."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} stays"
    finally:
        os.close(descriptor)


def run(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, seconds: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. AssertionError with its output when it fails."""
    done = attempt(command, env, seconds)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


def attempt(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, seconds: float = 180
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _is_group_alive(group: int) -> bool:
    """Return whether a process of the group runs; one that has ended and is not waited for does not."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, number = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state not in "ZX":
                return True
    return False


class Process:
    """A daemon with its output in a file, used as a context manager. `env` is for its next start.

    It leads a process group of its own, so that `kill` ends its children with it.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [str(each) for each in command]
        self.log = log
        self._ready = ready
        self.env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=self.env,
                process_group=0,
            )
        wait_until(lambda: self._ready() or self._ended(), f"start of {self._command[0]}")
        assert not self._ended(), f"{self._command[0]} ended:\n{self.log.read_text(errors='replace')}"

    @property
    def running(self) -> bool:
        return self._process is not None and not self._ended()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the daemon and all its children at once, as a power switch does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        # A child that is still dying holds the address that the next start wants.
        wait_until(lambda: not _is_group_alive(self.pid), "the end of all children")

    def stop(self) -> None:
        if self._process is None or self._ended():
            return
        self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            print(f"--- {self._command[0]} ---\n{self.log.read_text(errors='replace')[-8000:]}")
