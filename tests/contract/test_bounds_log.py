"""Logs that nobody reads: pulls go on, signals end the mirror, and the loss is counted and told."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Requests whose access lines overflow a pipe and the buffer of the mirror.
FLOOD = 6000
BURST = 50
REQUEST = f"GET /v2/{'n' * 200} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

MISSING = "lines of the log are missing here"


class Mirror:
    """A running `serve`, ready at `port`."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def log_state(self) -> dict[str, int]:
        """Return what /readyz, whose status is 200, says about the log."""
        state: dict[str, int] = json.loads(self.get("/readyz"))["log"]
        return state

    def dropped(self) -> float:
        """Return the value of the metric."""
        found = re.search(r"^registry_mirror_log_lines_dropped_total (\S+)", self.get("/metrics"), re.M)
        assert found is not None
        return float(found[1])

    def request(self, count: int) -> None:
        """Send requests, each of which is logged, and expect an answer of the mirror to each of them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            for _ in range(0, count, BURST):
                client.sendall(REQUEST * BURST)
                answered = b""
                while answered.count(b"HTTP/1.1 404") < BURST:
                    part = client.recv(1 << 16)
                    assert part
                    assert b"HTTP/1.1 500" not in part
                    answered += part

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def serving(folder: Path, error: int, workers: int = 1, **options: object) -> Iterator[Mirror]:
    """Run `serve` with `error` as its standard error; enter when it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(30)
        command = [sys.executable, "-m", "mirror", "serve", "--listen", f"127.0.0.1:{port}"]
        more = ["--cache-dir", str(folder / "cache"), "--upstream", "docker.io=http://127.0.0.1:9"]
        env = {
            **os.environ,
            "NOTIFY_SOCKET": str(folder / "notify"),
            "REGISTRY_MIRROR_SERVER_WORKERS": str(workers),
        }
        defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with subprocess.Popen(
            [*command, *more],
            stderr=error,
            env=env,
            **{**defaults, **options},  # type: ignore[call-overload]
        ) as process:
            try:
                assert manager.recv(100) == b"READY=1"
                yield Mirror(process, port)
            finally:
                process.kill()


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """A pipe: the end to read, unless a test has taken it out, and the end to write."""
    ends = [*os.pipe()]
    yield ends
    for each in ends:
        os.close(each)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_log_that_is_not_read_stops_nothing(
    tmp_path: Path, pipe: list[int], workers: int, number: int
) -> None:
    """A pipe that stays full: every request is answered, the loss is told, a signal ends the mirror."""
    with serving(tmp_path, pipe[1], workers) as mirror:
        mirror.request(FLOOD)
        if workers == 1:
            assert mirror.log_state()["losing_lines"] is True
            assert mirror.log_state()["lines_dropped"] > 0
        assert mirror.dropped() > 0
        assert mirror.end(number) == 0


def test_log_that_is_read_again_says_how_much_is_missing(tmp_path: Path, pipe: list[int]) -> None:
    """The number in the line is that of the metric, and with the lines there it makes all requests."""
    with serving(tmp_path, pipe[1]) as mirror:
        mirror.request(FLOOD)
        dropped = mirror.dropped()
        os.close(pipe.pop())
        with os.fdopen(os.dup(pipe[0])) as reading:
            lines = []
            for line in reading:
                lines.append(line)
                if MISSING in line:
                    break
        told = json.loads(lines[-1])["lines"]
        written = sum('"event": "request"' in each for each in lines)
        assert told == dropped
        assert written + told == FLOOD
        ids = [json.loads(each)["timestamp"] for each in lines if '"event": "request"' in each]
        assert ids == sorted(ids)
        mirror.get("/readyz")
        assert mirror.log_state() == {"losing_lines": False, "lines_dropped": told}


@pytest.mark.parametrize("workers", [1, 2])
def test_log_without_a_reader_stops_nothing(tmp_path: Path, pipe: list[int], workers: int) -> None:
    """`serve 2>&1 | head -1`: the reader is gone."""
    with serving(tmp_path, pipe[1], workers) as mirror:
        os.close(pipe.pop(0))
        mirror.request(BURST)
        assert mirror.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_log_to_a_full_device_stops_nothing(tmp_path: Path, workers: int) -> None:
    """Standard error cannot be written from the start: the mirror starts, serves, tells and ends."""
    with Path("/dev/full").open("wb") as full, serving(tmp_path, full.fileno(), workers) as mirror:
        mirror.request(BURST)
        while not mirror.dropped():  # the thread that writes may be behind the answers, or a worker be slow
            time.sleep(0.01)
        if workers == 1:  # else perhaps the worker answers that has logged nothing
            assert mirror.log_state()["losing_lines"] is True
        assert mirror.end(signal.SIGTERM) == 0


@pytest.mark.needs(root=True)
def test_log_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Lines are lost while the disk is full; then a whole line of its own says how many."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        (disk / "other").write_bytes(b"x" * 40_000)
        with (disk / "log").open("ab") as log, serving(tmp_path, log.fileno()) as mirror:
            mirror.request(200)
            assert mirror.log_state()["losing_lines"] is True
            (disk / "other").unlink()
            while MISSING not in (disk / "log").read_text():
                assert mirror.process.poll() is None
            (told,) = [each for each in (disk / "log").read_text().splitlines() if MISSING in each]
            assert json.loads(told)["lines"] == mirror.dropped()
            assert mirror.end(signal.SIGTERM) == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def _take_terminal() -> None:
    """Make standard error the controlling terminal of a new session, as a login does.

    A run of these tests under nohup(1) hands on that it ignores SIGHUP.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    ioctl(2, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_lost_terminal_stops_the_mirror(tmp_path: Path, workers: int) -> None:
    """A terminal that closes sends SIGHUP, which then means the end: exit status 0, within the drain."""
    controller, terminal = pty.openpty()
    with serving(tmp_path, terminal, workers, stdin=terminal, preexec_fn=_take_terminal) as mirror:
        os.close(terminal)
        os.close(controller)
        assert mirror.process.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_hangup_signal_with_a_terminal_reloads(tmp_path: Path, workers: int) -> None:
    """SIGHUP from `kill` or `systemctl reload` stays a reload as long as the terminal is there."""
    controller, terminal = pty.openpty()
    with serving(tmp_path, terminal, workers, stdin=terminal, preexec_fn=_take_terminal) as mirror:
        os.close(terminal)
        mirror.process.send_signal(signal.SIGHUP)
        seen = b""
        while not re.search(rb"reload: nothing to do|reloaded, the old workers", seen):
            seen += os.read(controller, 4096)
        assert mirror.process.poll() is None
        assert mirror.end(signal.SIGTERM) == 0
    os.close(controller)


def test_terminal_lost_without_a_signal_stops_nothing(tmp_path: Path) -> None:
    """A process in the background of a session that has ended: its terminal is dead, and it serves on."""
    controller, terminal = pty.openpty()
    with serving(tmp_path, terminal, start_new_session=True) as mirror:
        os.close(terminal)
        os.close(controller)
        mirror.request(BURST)
        assert mirror.dropped() > 0
        assert mirror.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("command", [["config", "show"], ["--help"], ["config", "show", "--json"]])
def test_command_without_a_reader_ends_by_sigpipe(command: Sequence[str], pipe: list[int]) -> None:
    """`config show | head`: 141 in a shell, and not a word."""
    os.close(pipe.pop(0))
    done = subprocess.run(
        [sys.executable, "-m", "mirror", *command],
        stdout=pipe[0],
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_failing_command_keeps_its_status_without_an_output(tmp_path: Path) -> None:
    """A message that cannot be written changes nothing about the exit status."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "mirror", "serve", "--config", str(tmp_path / "none")]
        assert subprocess.run(command, stderr=full, timeout=30, check=False).returncode == 2
