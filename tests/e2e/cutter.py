"""TCP proxy that cuts a given number of connections in the middle."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread

from tests.e2e.processes import free_port


class Cutter:
    """Forwards `port` to `target`. The next `cuts` connections end after `after` bytes of the response."""

    def __init__(self, cuts: int, after: int) -> None:
        self._left = cuts
        self._after = after
        self._lock = Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target = free_port()

    @property
    def used(self) -> bool:
        """Tell whether every cut was made."""
        return self._left == 0

    def serve(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:  # nothing listens there yet, or any more
                    client.close()
                    continue
                Thread(target=self._forward, args=(client, server, None), daemon=True).start()
                Thread(target=self._forward, args=(server, client, self._after), daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _forward(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                passed += len(data)
                if limit is not None and passed >= limit and self._cut():
                    break
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _cut(self) -> bool:
        with self._lock:
            if self._left == 0:
                return False
            self._left -= 1
            return True


@contextmanager
def cutter(cuts: int, after: int) -> Iterator[Cutter]:
    proxy = Cutter(cuts, after)
    Thread(target=proxy.serve, daemon=True).start()
    yield proxy
    proxy.close()
