"""Images of the Docker daemon, as the tar of `docker save`, through its socket (`GET /images/<name>/get`)."""

import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from mirror.hosted.copying.places import CopyFailed
from mirror.oci import json_text

SOCKET = "/var/run/docker.sock"

# Time, in seconds, for one piece of the answer: the daemon packs before it sends.
PATIENCE = 300.0

# Bytes of an error answer that are read.
MOST_WORDS = 4096


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class _Image(io.RawIOBase):
    """The bytes of an answer. Raises CopyFailed where it breaks off."""

    def __init__(self, answer: http.client.HTTPResponse, name: str) -> None:
        super().__init__()
        self._answer = answer
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            return self._answer.readinto(buffer)
        except (OSError, http.client.HTTPException):
            raise CopyFailed(f"docker-daemon:{self._name}: the daemon broke off; its log says why") from None


@contextmanager
def saved_image(name: str, path: str = SOCKET) -> Iterator[BinaryIO]:
    """Yield the tar of an image of the daemon. `path`: a socket, or DOCKER_HOST. Raises CopyFailed."""
    path = path.removeprefix("unix://")
    if "://" in path:
        raise CopyFailed(f"{path} is no socket of this machine: pipe docker save into copy -, in place of it")
    connection = _UnixConnection(path)
    try:
        with _explained(path):
            connection.request("GET", f"/images/{quote(name, safe='/:@')}/get")
            answer = connection.getresponse()
            if answer.status != 200:
                raise CopyFailed(f"docker-daemon:{name}: {_words(answer)}")
        yield cast("BinaryIO", _Image(answer, name))
    finally:
        connection.close()


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise CopyFailed(
            f"{path} may not be used by this user: run this with sudo, or in the group docker"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise CopyFailed(f"the Docker daemon does not answer at {path}: {reason}") from None


def _words(answer: http.client.HTTPResponse) -> str:
    with suppress(ValueError, OSError):
        found = json_text.parse(answer.read(MOST_WORDS))
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            return str(found["message"])[:300]
    return f"the daemon answered {answer.status}"
