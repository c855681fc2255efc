"""Tap between clients and the mirror: a proxy that notes each request, and when its response begins."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Condition, Thread

from tests.e2e.processes import PATIENCE


@dataclass(frozen=True)
class Noted:
    """A request: its head, and the first line of the response."""

    head: str
    status: str

    @property
    def line(self) -> str:
        return self.head.partition("\r\n")[0]

    def __str__(self) -> str:
        told = [each for each in self.head.split("\r\n") if each.lower().startswith(("accept:", "range:"))]
        return f"{self.line.removesuffix(' HTTP/1.1')} {told} -> {self.status}"


class Tap:
    """Proxy from `address` to a port of this machine. Requests without a body: clients only pull."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._noted: list[Noted] = []
        self._changed = Condition()

    def mark(self) -> int:
        return len(self._noted)

    def since(self, mark: int) -> list[Noted]:
        return self._noted[mark:]

    def await_response(self, mark: int, path: str, ended: Callable[[], bool]) -> bool:
        """Wait until the response to a GET with `path` in it has begun; False if the client ended first."""

        def answered() -> bool:
            lines = (each.line for each in self._noted[mark:])
            return any(line.startswith("GET ") and path in line for line in lines)

        with self._changed:
            self._changed.wait_for(lambda: answered() or ended(), PATIENCE)
        return answered()

    def wake(self) -> None:
        """Have `await_response` look again."""
        with self._changed:
            self._changed.notify_all()

    def serve(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._connection, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _connection(self, client: socket.socket) -> None:
        heads: list[str] = []
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        Thread(target=self._answers, args=(server, client, heads), daemon=True).start()
        with suppress(OSError):
            rest = b""
            while data := client.recv(65536):
                *whole, rest = (rest + data).split(b"\r\n\r\n")
                heads.extend(head.decode("latin-1") for head in whole)
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket, heads: list[str]) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                while heads:
                    self._note(heads.pop(0), data)
                client.sendall(data)
        for each in (server, client):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _note(self, head: str, data: bytes) -> None:
        with self._changed:
            self._noted.append(Noted(head, data.partition(b"\r\n")[0].decode("latin-1")))
            self._changed.notify_all()


@contextmanager
def tap(target: int) -> Iterator[Tap]:
    proxy = Tap(target)
    Thread(target=proxy.serve, daemon=True).start()
    yield proxy
    proxy.close()
