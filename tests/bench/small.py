"""Many small cold blobs, which show the speed of the mirror's own machinery."""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.client import ACCEPT, Trouble, fetch
from tests.bench.content import Blob
from tests.bench.contestants import DISTRIBUTION, MIRROR, PROXY, STATIC, Running

CONNECTIONS = 32

# distribution fills some 200 per second, whatever their number.
MOST_FOR_DISTRIBUTION = 2000


def small_fills(bench: Bench) -> None:
    """Measure each blob once, over 32 connections, every digest checked; static shows the limit of the load.

    Manifests are requested before their blobs, as by clients.
    """
    blobs = bench.site.small_pulls(1000 if bench.options.quick else bench.options.small)
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, DISTRIBUTION, PROXY, STATIC):
            with bench.attempt("small-fills", name), bench.cold(name, origin) as server:
                wanted = blobs[:MOST_FOR_DISTRIBUTION] if name == DISTRIBUTION else blobs
                fetch(server, wanted[0].path)
                bench.add("small-fills", name, asyncio.run(rate_of(server, wanted[1:])))


async def rate_of(server: Running, blobs: Sequence[Blob]) -> float:
    """Fetch all blobs and return blobs per second. Trouble when one is wrong."""
    left = deque(blobs)
    host, _, port = server.address.rpartition(":")
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Client(server.address, left), host, int(port))
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(client.done for _, client in made))
    return len(blobs) / (time.perf_counter() - started)


class _Client(asyncio.Protocol):
    """One connection, which requests the next blob as soon as one has arrived."""

    def __init__(self, host: str, left: deque[Blob]) -> None:
        self._headers = f"Host: {host}\r\nAccept: {ACCEPT}"
        self._left = left
        self._data = b""
        self._wanted = left[0]
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or (head.startswith(b"HTTP/1.1 200") and len(body) < self._wanted.size):
            return
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != self._wanted.digest:
            self._end(Trouble(f"{self._wanted.path}: {self._data[:300]!r}"))
            return
        self._data = b""
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(Trouble(f"connection lost: {error}"))

    def _ask(self) -> None:
        if not self._left:
            self._end(None)
            return
        self._wanted = self._left.popleft()
        self._transport.write(f"GET {self._wanted.path} HTTP/1.1\r\n{self._headers}\r\n\r\n".encode())

    def _end(self, trouble: Trouble | None) -> None:
        if self.done.done():
            return
        if trouble is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(trouble)
        self._transport.close()
