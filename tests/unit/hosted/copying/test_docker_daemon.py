"""The Docker daemon as the source of a copy (its answers: tests/unit/cli/hosted/test_copying.py)."""

import socket
import threading
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


def test_answer_that_is_no_http_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "odd.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-odd\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(CopyFailed, match="BadStatusLine"), saved_image("a", path):
            pass
        thread.join()


def test_answer_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200\r\ncut short")

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            pytest.raises(CopyFailed, match="broke off"),
            saved_image("a", path) as file,
            archive_source(file),
        ):
            pass
        thread.join()
