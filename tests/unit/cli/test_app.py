"""The program as a user runs it: a process, its exit status, its end, and what a start imports."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.forked import COMMANDS
from tests.leftovers import children

COMMAND = [sys.executable, "-m", "mirror"]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own."""
    return COMMANDS.run(list(arguments), {**os.environ, **(env or {})})


class Serving:
    """A running `serve` that is ready."""

    def __init__(self, process: "subprocess.Popen[str]", address: str, manager: socket.socket) -> None:
        self.process = process
        self.address = address
        self.manager = manager

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def rest(self) -> str:
        """Return the output until the process ends."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def serving(folder: Path, upstream: str, extra: Sequence[str] = ()) -> Iterator[Serving]:
    """Run `serve` on a free port; enter when it has told the service manager that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(30)
        arguments = ["--listen", "127.0.0.1:0", "--cache-dir", str(folder / "cache")]
        command = [*COMMAND, "serve", *arguments, "--upstream", f"docker.io={upstream}", *extra]
        env = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
            assert process.stderr is not None
            try:
                assert manager.recv(100) == b"READY=1"
                address = re.search(r"serves on (\S+),", process.stderr.readline())
                assert address is not None
                yield Serving(process, address[1], manager)
            finally:
                process.kill()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """An upstream that accepts connections and never sends a byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_serve_ends_on_sigterm(tmp_path: Path, silent: socket.socket) -> None:
    """A ready mirror answers; SIGTERM is reported to the service manager, and the exit status is 0."""
    with serving(tmp_path, url(silent)) as mirror:
        with urllib.request.urlopen(f"http://{mirror.address}/v2/", timeout=30) as answer:
            assert answer.status == 200
        mirror.process.send_signal(signal.SIGTERM)
        assert mirror.process.wait(30) == 0
        assert mirror.manager.recv(100) == b"STOPPING=1"
        assert "stopping" in mirror.rest()


def test_serve_has_room_for_descriptors_before_it_is_ready(tmp_path: Path, silent: socket.socket) -> None:
    """Each worker's table of descriptors is as large as its clients may need: it grows in no accept."""
    (tmp_path / "mirror.toml").write_text("[server]\nconnections = 500\n")
    with serving(tmp_path, url(silent), ["--config", str(tmp_path / "mirror.toml")]) as mirror:
        (worker,) = children(mirror.process.pid)
        status = Path(f"/proc/{worker}/status").read_text()
    assert int(re.findall(r"^FDSize:\s*(\d+)", status, re.MULTILINE)[0]) >= 2 * 500


def test_serve_ends_at_once_on_a_second_signal(tmp_path: Path, silent: socket.socket) -> None:
    """A response that never ends delays the first signal, and not the second."""
    with serving(tmp_path, url(silent)) as mirror, mirror.connect() as client:
        client.sendall(b"GET /v2/library/x/manifests/t HTTP/1.1\r\nHost: x\r\n\r\n")
        asked, _ = silent.accept()
        with asked:
            mirror.process.send_signal(signal.SIGTERM)
            assert mirror.manager.recv(100) == b"STOPPING=1"
            mirror.process.send_signal(signal.SIGTERM)
            assert mirror.process.wait(30) == 128 + signal.SIGTERM


def test_serve_on_an_address_in_use(tmp_path: Path, silent: socket.socket) -> None:
    """Exit 1, and the message names the address."""
    taken = f"127.0.0.1:{silent.getsockname()[1]}"
    done = run("serve", "--listen", taken, "--cache-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"cannot listen on {taken}" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_with_an_unusable_cache_folder(tmp_path: Path) -> None:
    """Exit 1, and the message names the folder."""
    (tmp_path / "file").touch()
    done = run("serve", "--listen", "127.0.0.1:0", "--cache-dir", str(tmp_path / "file"))
    assert done.returncode == 1
    assert f"cannot use the cache folder {tmp_path / 'file'}" in done.stderr
