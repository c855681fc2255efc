"""The Docker daemon as the source of a copy (its answers: tests/unit/cli/hosted/test_copying.py)."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.hosted.copying.archive_source import archive_source
from mirror.hosted.copying.docker_daemon import saved_image
from mirror.hosted.copying.places import CopyFailed


def test_missing_daemon_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none.sock")
    with (
        pytest.raises(CopyFailed, match="does not answer"),
        saved_image("a", path),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "words"),
    [("unix:///none/docker.sock", "does not answer at /none"), ("tcp://10.0.0.1:2375", "no socket of this")],
)
def test_socket_may_be_written_as_in_docker_host(path: str, words: str) -> None:
    """A daemon of another machine is refused, with what to do instead."""
    with pytest.raises(CopyFailed, match=words), saved_image("a", path):
        pass


@contextmanager
def answering(path: Path, data: bytes) -> Iterator[str]:
    """Listen at `path` and answer one request with these bytes."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        yield str(path)
        thread.join()


def test_answer_that_is_no_http_is_an_error(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "odd.sock", b"SSH-2.0-odd\r\n") as path,
        pytest.raises(CopyFailed, match="BadStatusLine"),
        saved_image("a", path),
    ):
        pass


def test_answer_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200\r\ncut short"
    with (
        answering(tmp_path / "docker.sock", data) as path,
        pytest.raises(CopyFailed, match="broke off"),
        saved_image("a", path) as file,
        archive_source(file),
    ):
        pass
