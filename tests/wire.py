"""HTTP client that sends exactly the bytes a test wants and shows exactly the bytes of the response."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """One response. `body` is what arrived; `complete` says whether it has the announced length.

    `reset`: the connection ended with a reset.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True
    reset: bool = False
    raw_headers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str:
        return self.headers[name.lower()]


def request_head(method: str, path: str, headers: Iterable[str] = ()) -> bytes:
    """Bytes of a request without a body."""
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if not any(line.lower().startswith("host:") for line in headers):
        lines.append("Host: mirror.test")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Wire:
    """Connection to the mirror, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, address: str, tls: ssl.SSLContext | None = None, client: str | None = None) -> "Wire":
        """Connect to `address`, from the address `client` of this machine if one is given."""
        host, _, port = address.rpartition(":")
        source = None if client is None else (client, 0)
        return cls(*await asyncio.open_connection(host, int(port), ssl=tls, local_addr=source))

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection: a client that only ends its direction may wait for its response."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    def send(self, method: str, path: str, headers: Iterable[str] = ()) -> None:
        """Send a request. `headers` are lines as on the wire, in order, repeated ones included."""
        self.writer.write(request_head(method, path, headers))

    async def head(self) -> Reply:
        """Read the head of the next response, and leave its body."""
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = raw.rstrip("\r\n").split("\r\n")
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Reply(int(status_line.split()[1]), dict(pairs), b"", raw_headers=pairs)

    async def reply(self, method: str = "GET") -> Reply:
        """Read the next response, which answers a request with `method`."""
        head = await self.head()
        if method == "HEAD" or head.status == 304:
            return head
        length = int(head.headers.get("content-length", "0"))
        reset = False
        body = bytearray()
        try:
            while len(body) < length and (data := await self.reader.read(length - len(body))):
                body += data
        except ConnectionResetError:
            reset = True
        return Reply(
            head.status, head.headers, bytes(body), len(body) == length, reset, raw_headers=head.raw_headers
        )


async def ask(address: str, method: str, path: str, headers: Iterable[str] = ()) -> Reply:
    """Send one request on a connection of its own, and read the response."""
    async with await Wire.open(address) as wire:
        wire.send(method, path, list(headers))
        return await wire.reply(method)


async def get(address: str, path: str, *headers: str) -> Reply:
    return await ask(address, "GET", path, headers)


async def head(address: str, path: str, *headers: str) -> Reply:
    return await ask(address, "HEAD", path, headers)
