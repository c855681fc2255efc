"""python -m tests.bench.throttle: an origin and its CDN behind a slow line, as one asyncio process.

Every new connection costs a round trip, every response another one, and the bodies of one connection share a
rate. nginx's `limit_rate` will not do: it starts again with each request, and with one free second, so that
many short ranges would not be throttled at all.

With `--stall-after` the CDN sends that many bytes in all, then no more, and keeps its connections.
With `--fault-every` the CDN breaks a transfer after each that many bytes: by turns it closes the connection
that is sending, or falls silent on it.
"""

import argparse
import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from mirror.oci.manifest import OCI_MANIFEST

# Length of a piece, and credit for a late one, in seconds: timers are no more exact.
PIECE_SECONDS = 0.0125
CREDIT_SECONDS = 0.025


@dataclass(frozen=True)
class Line:
    """Slow line. `rate`: bytes per second and connection. `rtt`: seconds.

    `stall_after`, `fault_every`: bytes of all connections together, 0 for never.
    """

    rate: float
    rtt: float
    stall_after: int = 0
    fault_every: int = 0


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """Response head, with bytes or a part of a file for a body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Path | None = None
    span: range = range(0)

    @property
    def size(self) -> int:
        return len(self.span) if self.file else len(self.body)

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", f"Content-Length: {self.size}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()


class Registry:
    """Responses of the registry: a challenge, a token, manifests, and redirects for blobs."""

    def __init__(self, site: Path, here: str, cdn: str) -> None:
        self._site = site
        self._cdn = cdn
        self._challenge = f'Bearer realm="http://{here}/token",service="origin"'

    def __call__(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path == "/token":
            json = {"Content-Type": "application/json"}
            return Answer(200, json, b'{"token":"bench","expires_in":3600}')
        if request.headers.get("authorization") != "Bearer bench":
            repository = re.sub(r"^/v2/(.*)/(blobs|manifests)/.*$", r"\1", path)
            scope = f',scope="repository:{repository}:pull"' if repository != path else ""
            return Answer(401, {"WWW-Authenticate": self._challenge + scope})
        if "/blobs/" in path:
            return Answer(307, {"Location": f"http://{self._cdn}{path}"})
        return self._manifest(path)

    def _manifest(self, path: str) -> Answer:
        if path == "/v2/":
            return Answer(200, {}, b"{}")
        with suppress(OSError):
            return Answer(200, {"Content-Type": OCI_MANIFEST}, (self._site / path[1:]).read_bytes())
        return Answer(404)


class Cdn:
    """Files, and single ranges of them."""

    def __init__(self, site: Path) -> None:
        self._site = site

    def __call__(self, request: Request) -> Answer:
        file = self._site / request.path[1:]
        try:
            size = file.stat().st_size
        except OSError:
            return Answer(404)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if wanted is None:
            return Answer(200, headers, file=file, span=range(size))
        span = range(int(wanted[1]), min(size, int(wanted[2] or size) + 1))
        if not span:
            return Answer(416, {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        return Answer(206, headers, file=file, span=span)


class Server:
    """One port behind the line. `log` gets a line per request, at the end of its response."""

    def __init__(self, line: Line, answer: Callable[[Request], Answer], log: Path) -> None:
        self._line = line
        self._answer = answer
        self._log = log.open("a", buffering=1)
        self._sent_in_all = 0
        self._faults = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
            listener.setblocking(False)
            while True:
                client, _ = await loop.sock_accept(listener)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                task = asyncio.create_task(self._connection(client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _connection(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            await asyncio.sleep(self._line.rtt)
            free_at = 0.0
            while request := await _request(client):
                await asyncio.sleep(self._line.rtt)
                free_at = await self._respond(client, request, free_at)

    async def _respond(self, client: socket.socket, request: Request, free_at: float) -> float:
        """Respond; return the time at which the connection may send again, by its rate."""
        loop = asyncio.get_running_loop()
        answer = self._answer(request)
        head = answer.head()
        if request.method == "HEAD" or answer.file is None:
            await loop.sock_sendall(client, head + (answer.body if request.method == "GET" else b""))
            self._write(request, answer, 0 if request.method == "HEAD" else answer.size)
            return free_at
        await loop.sock_sendall(client, head)
        body = _Body(client, answer, self._line.rate, free_at)
        try:
            await self._pour(client, body)
        finally:
            self._write(request, answer, body.sent)
        return body.free_at

    async def _pour(self, client: socket.socket, body: "_Body") -> None:
        while not body.done:
            if 0 < self._line.stall_after <= self._sent_in_all:
                await _silence(client)
            self._sent_in_all += await body.piece()
            if 0 < self._line.fault_every <= self._sent_in_all // (self._faults + 1):
                self._faults += 1
                if self._faults % 2 == 0:
                    await _silence(client)
                raise ConnectionResetError

    def _write(self, request: Request, answer: Answer, sent: int) -> None:
        span = request.headers.get("range", "-")
        self._log.write(f"{request.method} {request.path} {answer.status} {sent} {span}\n")


class _Body:
    """Part of a file that is sent at the connection's rate."""

    def __init__(self, client: socket.socket, answer: Answer, rate: float, free_at: float) -> None:
        assert answer.file is not None
        self._client = client
        self._span = answer.span
        self._rate = rate
        self._path = answer.file
        self.sent = 0
        self.free_at = free_at

    @property
    def done(self) -> bool:
        return self.sent == len(self._span)

    async def piece(self) -> int:
        """Wait until the next piece may go, and send it; return its size."""
        loop = asyncio.get_running_loop()
        self.free_at = max(self.free_at, loop.time() - CREDIT_SECONDS)
        await asyncio.sleep(self.free_at - loop.time())
        left = len(self._span) - self.sent
        count = await _send(
            self._client,
            self._path,
            self._span.start + self.sent,
            min(left, int(self._rate * PIECE_SECONDS)),
        )
        self.free_at += count / self._rate
        self.sent += count
        return count


async def _send(client: socket.socket, path: Path, offset: int, count: int) -> int:
    """Send as much of the piece as the socket takes at once, at least one byte."""
    file = os.open(path, os.O_RDONLY)
    try:
        while True:
            try:
                return os.sendfile(client.fileno(), file, offset, count)
            except BlockingIOError:
                await _writable(client)
    finally:
        os.close(file)


async def _silence(client: socket.socket) -> None:
    """Stay silent until the client closes the connection."""
    await asyncio.get_running_loop().sock_recv(client, 1)
    raise ConnectionResetError


async def _writable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(client, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(client)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _request(client: socket.socket) -> Request | None:
    """Read the next request of a connection; None at its end."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = await asyncio.get_running_loop().sock_recv(client, 65536)
        if not more:
            return None
        data += more
    line, *fields = data.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = line.split(" ")
    pairs = (each.partition(":") for each in fields)
    return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})


async def _main(arguments: argparse.Namespace) -> None:
    line = Line(arguments.rate, arguments.rtt, arguments.stall_after, arguments.fault_every)
    here, there = f"127.0.0.1:{arguments.registry}", f"127.0.0.1:{arguments.cdn}"
    registry = Server(Line(line.rate, line.rtt), Registry(arguments.site, here, there), Path(os.devnull))
    cdn = Server(line, Cdn(arguments.site), arguments.log)
    await asyncio.gather(registry.serve(arguments.registry), cdn.serve(arguments.cdn))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.bench.throttle")
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--registry", type=int, required=True)
    parser.add_argument("--cdn", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--rtt", type=float, default=0.0)
    parser.add_argument("--stall-after", type=int, default=0)
    parser.add_argument("--fault-every", type=int, default=0)
    return parser


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(_parser().parse_args()))
