"""Gate in front of a CDN: while it is closed, large responses stop in the middle."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from tests.e2e.cutter import Cutter

# Bytes of each response that pass a closed gate: more than a small blob has, less than a large one.
PASSES = 256 * 1024

# Limit, in seconds, for a gate that nobody opens.
PATIENCE = 120.0


class Gate(Cutter):
    """Proxy that forwards `port` to `target`, all of it while the gate is open."""

    def __init__(self) -> None:
        super().__init__(cuts=0, after=0)
        self._open = Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _forward(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                passed = 0 if self._open.is_set() else passed + len(data)
                if limit is not None and passed > PASSES:
                    self._open.wait(PATIENCE)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def gate() -> Iterator[Gate]:
    proxy = Gate()
    Thread(target=proxy.serve, daemon=True).start()
    yield proxy
    proxy.open()
    proxy.close()
