"""Server of all fake upstreams: a path `/<upstream>/v2/...` tells which one is meant.

It is small and fast, and writes raw bytes: an odd upstream must be able to send what no HTTP server would.
"""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from mirror.oci.manifest import OCI_INDEX
from mirror.util.tasks import Tasks
from tests.fuzz import odd
from tests.fuzz.content import image_of
from tests.fuzz.odd import Ask, Close, Pause, Plain, Reset, Step

_JSON = "application/json"


class Origin:
    """HTTP server on a free port of loopback. `asked` counts the requests by upstream."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.url = ""
        self.tasks = Tasks()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Origin":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self.tasks.close()

    def answer(self, ask: Ask) -> Sequence[Step]:
        """Return the right answer to a request, or an odd one as the upstream's kind has it."""
        self.asked[ask.upstream] += 1
        right = answer_rightly(ask)
        if not odd.is_odd(ask.upstream):
            return [right.data(ask)]
        kind = odd.kind_of(ask.upstream)
        return kind(random.Random(f"{ask.upstream}{ask.method}{ask.path}"), ask, right)


class _Connection(asyncio.Protocol):
    """One connection: requests in order, each answered before the next one is parsed."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def _next(self) -> None:
        while not self._sending and self._transport is not None:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            self._received = rest
            ask = _parse(head.decode("latin-1"), self._origin.url)
            steps = self._origin.answer(ask)
            if all(isinstance(step, bytes) for step in steps):
                self._transport.write(b"".join(step for step in steps if isinstance(step, bytes)))
            else:
                self._sending = True
                self._origin.tasks.spawn(self._send(steps), name="answer")

    async def _send(self, steps: Sequence[Step]) -> None:
        for step in steps:
            transport = self._transport
            if transport is None:
                return
            match step:
                case Pause():
                    await asyncio.sleep(step.seconds)  # how slow this upstream is
                case Close():
                    transport.close()
                case Reset():
                    linger = struct.pack("ii", 1, 0)
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    transport.abort()
                case _:
                    transport.write(step)
        self._sending = False
        self._next()


def _parse(head: str, url: str) -> Ask:
    line, *fields = head.split("\r\n")
    method, target, _ = line.split(" ", 2)
    path, _, query = target.partition("?")
    pairs = (field.partition(":") for field in fields)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    upstream, _, rest = path.lstrip("/").partition("/")
    return Ask(method, upstream, rest, query, headers, url)


def answer_rightly(ask: Ask) -> Plain:
    """Return the answer of a registry without faults."""
    parts = ask.path.split("/")
    if parts[0] == "token":
        return Plain(200, _JSON, b'{"token": "fuzz", "expires_in": 300}')
    if ask.path in ("v2/", "v2"):
        return Plain(200, _JSON, b"{}")
    if len(parts) < 4 or parts[0] != "v2":
        return _missing("NAME_UNKNOWN")
    repository, kind, last = "/".join(parts[1:-2]), parts[-2], parts[-1]
    if "missing" in repository or not repository:
        return _missing("NAME_UNKNOWN")
    answerer = _ANSWERERS.get(kind)
    return _missing("UNSUPPORTED") if answerer is None else answerer(ask, repository, last)


def _blob(ask: Ask, repository: str, last: str) -> Plain:
    data = image_of(ask.upstream, repository).blobs.get(last)
    if data is None:
        return _missing("BLOB_UNKNOWN")
    named = {"Docker-Content-Digest": last, "Accept-Ranges": "bytes"}
    first, dash, end = ask.headers.get("range", "").removeprefix("bytes=").partition("-")
    if not (dash and first.isdigit()) or int(first) >= len(data):
        return Plain(200, "application/octet-stream", data, named)
    stop = min(len(data), int(end) + 1) if end.isdigit() else len(data)
    named["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
    return Plain(206, "application/octet-stream", data[int(first) : stop], named)


def _manifest(ask: Ask, repository: str, last: str) -> Plain:
    image = image_of(ask.upstream, repository)
    digest = last if last in image.manifests else image.tagged(last)
    if digest is None:
        return _missing("MANIFEST_UNKNOWN")
    data, media_type = image.manifests[digest]
    return Plain(200, media_type, data, {"Docker-Content-Digest": digest})


def _tags(ask: Ask, repository: str, last: str) -> Plain:
    return Plain(200, _JSON, json.dumps({"name": repository, "tags": ["index", "latest"]}).encode())


def _referrers(ask: Ask, repository: str, last: str) -> Plain:
    image = image_of(ask.upstream, repository)
    found = image.referrers() if last == image.manifest else []
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    return Plain(200, OCI_INDEX, json.dumps(body).encode())


def _missing(code: str) -> Plain:
    return Plain(404, _JSON, f'{{"errors":[{{"code":"{code}","message":"not here"}}]}}'.encode())


_ANSWERERS: dict[str, Callable[[Ask, str, str], Plain]] = {
    "blobs": _blob,
    "manifests": _manifest,
    "tags": _tags,
    "referrers": _referrers,
}
